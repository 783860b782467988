//! HTTP/1 (RFC 9112), as nginx speaks it: one page, `404` for all else, and the whole request is heard before it is
//! answered. Nothing of the request comes back, no address is ever in an answer, and nothing is fetched for a proxy
//! request.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use super::lines::{LINE_BYTES, line, may_end};
use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["http", "docker", "kubernetes"], speaks_first: false, begin: || Box::new(Http::HEAD) };

/// The longest head of a request; nginx takes as much.
const HEAD_BYTES: usize = 32 * 1024;
/// Headers that are read.
const HEADERS: usize = 100;

/// Meaning of the next bytes.
enum Http {
    /// A head, and whether its first line has come.
    Head { has_line: bool },
    /// The rest of a body, then its answer.
    Body(u64, Answer),
    /// The size line of a chunk.
    Chunk(Answer),
    /// The rest of a chunk with its line end, then the next size line.
    ChunkData(u64, Answer),
    /// Lines behind the last chunk.
    Trailer(Answer),
}

/// Answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// Leaves out the body, as for HEAD.
    pub(super) head_only: bool,
    /// Expects further requests.
    pub(super) keep_alive: bool,
    /// HTTP/0.9: the body is all.
    bare: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    NotAllowed,
    TooLarge,
}

impl Status {
    pub(super) fn code(self) -> &'static str {
        self.line().split_once(' ').map_or("", |(code, _)| code)
    }

    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::NotAllowed => "405 Not Allowed",
            Self::TooLarge => "414 Request-URI Too Large",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "http_page",
            Self::BadRequest => "http_bad_request",
            Self::NotFound => "http_not_found",
            Self::NotAllowed => "http_not_allowed",
            Self::TooLarge => "http_too_large",
        }
    }

    /// The body that goes with it.
    pub(super) fn body<'a>(self, scene: &Scene<'a>) -> Cow<'a, str> {
        if self == Self::Ok {
            return Cow::Borrowed(&scene.face.page);
        }
        let (title, server) = (self.line(), &scene.face.http);
        format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
             <hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
        )
        .into()
    }
}

/// Chooses the status for a method and a target, in any version of HTTP.
pub(super) fn decide(method: &[u8], target: &[u8]) -> Status {
    // A proxy request names a server; its path is looked for here, as servers do that are no proxy.
    let path = match target.strip_prefix(b"http://") {
        Some(rest) => rest.iter().position(|byte| *byte == b'/').and_then(|slash| rest.get(slash..)).unwrap_or(b"/"),
        None => target,
    };
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    match method {
        b"GET" | b"HEAD" | b"POST" if matches!(path, b"/" | b"/index.html" | b"/login" | b"") => Status::Ok,
        b"GET" | b"HEAD" | b"POST" => Status::NotFound,
        _ => Status::NotAllowed,
    }
}

/// The time as HTTP writes it (RFC 9110, section 5.6.7).
pub(super) fn date(now: SystemTime) -> String {
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    LAST_DATE.with_borrow_mut(|(at, text)| {
        if *at != second {
            let now = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
            *text = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            *at = second;
        }
        text.clone()
    })
}

thread_local! {
    /// Most answers go out in the second of the one before.
    static LAST_DATE: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

impl Dialogue for Http {
    fn is_worth_hearing(&mut self, heard: &[u8], looked: usize) -> bool {
        match self {
            Self::Head { has_line } => {
                let new = heard.get(looked..).unwrap_or_default();
                if !*has_line {
                    *has_line = new.contains(&b'\n');
                    return *has_line || heard.len() >= LINE_BYTES;
                }
                // An empty line may have begun among the bytes before.
                let unsearched = heard.get(looked.saturating_sub(2)..).unwrap_or_default();
                heard.len() > HEAD_BYTES || head_length(unsearched).is_some()
            }
            Self::Chunk(_) | Self::Trailer(_) => may_end(heard, looked),
            Self::Body(..) | Self::ChunkData(..) => true,
        }
    }

    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        match self {
            Self::Head { .. } => self.head(heard, scene, reply),
            Self::Body(left, answer) => {
                let taken = take(heard, left);
                if *left == 0 {
                    let answer = *answer;
                    *self = Self::HEAD;
                    answer.send(scene, reply);
                }
                taken
            }
            Self::Chunk(answer) => match httparse::parse_chunk_size(heard) {
                Ok(httparse::Status::Complete((used, 0))) => {
                    *self = Self::Trailer(*answer);
                    used
                }
                Ok(httparse::Status::Complete((used, size))) => {
                    *self = Self::ChunkData(size.saturating_add(2), *answer);
                    used
                }
                Ok(httparse::Status::Partial) if heard.len() < LINE_BYTES => 0,
                // No server waits for the end of such a line.
                Ok(httparse::Status::Partial) | Err(_) => {
                    Answer::bad_request().send(scene, reply);
                    0
                }
            },
            Self::ChunkData(left, answer) => {
                let taken = take(heard, left);
                if *left == 0 {
                    *self = Self::Chunk(*answer);
                }
                taken
            }
            Self::Trailer(answer) => {
                let Some((text, used)) = line(heard) else { return 0 };
                if text.is_empty() {
                    let answer = *answer;
                    *self = Self::HEAD;
                    answer.send(scene, reply);
                }
                used
            }
        }
    }
}

/// Passes over bytes of a body.
fn take(heard: &[u8], left: &mut u64) -> usize {
    let taken = heard.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= taken as u64;
    taken
}

impl Http {
    /// The head of the next request, of which nothing has come.
    const HEAD: Self = Self::Head { has_line: false };

    fn head(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let empty = heard.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if empty > 0 {
            return empty;
        }
        let Some((request_line, used)) = line(heard) else { return 0 };
        if heard.get(used - 1) != Some(&b'\n') {
            Answer::refuse(Status::TooLarge).send(scene, reply);
            return used;
        }
        if !request_line.windows(6).any(|window| window == b" HTTP/") {
            let target = request_line.strip_prefix(b"GET ").map(|target| decide(b"GET", target.trim_ascii()));
            let answer = target.map_or(Answer::bad_request(), |status| Answer { bare: true, ..Answer::refuse(status) });
            answer.send(scene, reply);
            return used;
        }
        let Some(length) = head_length(heard) else {
            if heard.len() > HEAD_BYTES {
                Answer::bad_request().send(scene, reply);
            }
            return 0;
        };
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request.parse(heard.get(..length).unwrap_or(heard));
        if !matches!(parsed, Ok(httparse::Status::Complete(_))) {
            Answer::bad_request().send(scene, reply);
            return length;
        }
        let (Some(method), Some(target)) = (request.method, request.path) else { return length };
        let value = |name: &str| {
            let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.map(|header| header.value.trim_ascii().to_ascii_lowercase())
        };
        let connection = value("connection").unwrap_or_default();
        let keep_alive = match request.version {
            Some(0) => connection == b"keep-alive",
            _ => connection != b"close",
        };
        let status = decide(method.as_bytes(), target.as_bytes());
        let answer = Answer { status, head_only: method == "HEAD", keep_alive, bare: false };
        if method == "CONNECT" {
            Answer::refuse(status).send(scene, reply);
            return length;
        }
        let chunked = value("transfer-encoding").is_some_and(|coding| coding.ends_with(b"chunked"));
        let body = match value("content-length") {
            _ if chunked => Some(0),
            None => Some(0),
            Some(digits) => std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse::<u64>().ok()),
        };
        let Some(body) = body else {
            Answer::bad_request().send(scene, reply);
            return length;
        };
        if (chunked || body > 0) && value("expect").is_some_and(|expected| expected == b"100-continue") {
            reply.say("http_continue", b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if chunked {
            *self = Self::Chunk(answer);
        } else if body > 0 {
            *self = Self::Body(body, answer);
        } else {
            answer.send(scene, reply);
        }
        length
    }
}

/// Returns the length of the head in bytes, with its empty line.
fn head_length(heard: &[u8]) -> Option<usize> {
    let ends = heard.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    for (at, _) in ends {
        match heard.get(at + 1..) {
            Some([b'\n', ..]) => return Some(at + 2),
            Some([b'\r', b'\n', ..]) => return Some(at + 3),
            _ => {}
        }
    }
    None
}

impl Answer {
    fn bad_request() -> Self {
        Self::refuse(Status::BadRequest)
    }

    /// The last answer of a connection.
    fn refuse(status: Status) -> Self {
        Self { status, head_only: false, keep_alive: false, bare: false }
    }

    fn send(self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        let body = self.status.body(scene);
        if self.bare {
            reply.say(self.status.name(), body.as_bytes());
            reply.close();
            return;
        }
        // The answer after this one would not fit any more: say so instead of falling silent.
        let keep_alive = self.keep_alive && reply.room() > 2 * (body.len() + 256);
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let (line, server, date) = (self.status.line(), &scene.face.http, date(scene.now));
        let mut text = format!(
            "HTTP/1.1 {line}\r\nServer: {server}\r\nDate: {date}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
             Connection: {connection}\r\n\r\n",
            body.len()
        );
        if !self.head_only {
            text.push_str(&body);
        }
        reply.say(self.status.name(), text.as_bytes());
        if !keep_alive {
            reply.close();
        }
    }
}
