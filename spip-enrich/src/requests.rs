//! Splits a payload into the HTTP/1 requests that it holds, as exploits send them.
//!
//! Lenient on purpose: a request that no server should accept is still an attempt. So a target may hold spaces and any
//! byte, lines may end with a line feed alone, and a body ends where its length says, where the chunks end, or where
//! the payload does. Linear in the payload, at most [`REQUESTS`] requests of [`HEADERS`] headers.

use std::borrow::Cow;

use memchr::memchr;

/// Upper bound of requests of one connection that are examined.
pub const REQUESTS: usize = 16;

/// Upper bound of headers of a request that are examined.
pub const HEADERS: usize = 128;

/// The longest method.
const METHOD_BYTES: usize = 32;

/// Name and value of a header.
pub type Header<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The target as sent.
    pub target: Cow<'a, [u8]>,
    /// The version with its name (`HTTP/1.1`); empty where there is none.
    pub version: &'a [u8],
    /// The first line without its end.
    pub line: Cow<'a, [u8]>,
    /// First line and headers as sent, with the empty line.
    pub head: Cow<'a, [u8]>,
    /// Start of the headers in `head`.
    pub headers_at: usize,
    /// Names and values without the white space around them.
    pub headers: Vec<Header<'a>>,
    /// The body without the framing of chunks.
    pub body: Cow<'a, [u8]>,
}

impl<'a> Request<'a> {
    /// Returns the value of the first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.as_ref())
    }

    /// Returns the request that a record has in place of bytes: HTTP/2.
    #[must_use]
    pub fn recorded(http: &crate::facts::Http<'a>, body: &'a [u8]) -> Self {
        let text = |text: Option<&'a str>| text.unwrap_or_default().as_bytes();
        let (method, target) = (text(http.method), text(http.target));
        let mut line = Vec::with_capacity(method.len() + target.len() + 8);
        line.extend_from_slice(method);
        line.push(b' ');
        line.extend_from_slice(target);
        line.extend_from_slice(b" HTTP/2");
        let mut head = line.clone();
        head.extend_from_slice(b"\r\n");
        let headers_at = head.len();
        let mut headers: Vec<_> = Vec::with_capacity(http.headers.len() + 1);
        if let Some(host) =
            http.host.filter(|_| !http.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")))
        {
            headers.push((Cow::Borrowed(&b"host"[..]), Cow::Borrowed(host.as_bytes())));
        }
        headers.extend(
            http.headers
                .iter()
                .take(HEADERS)
                .map(|(name, value)| (Cow::Borrowed(name.as_bytes()), Cow::Borrowed(value.as_bytes()))),
        );
        for (name, value) in &headers {
            head.extend_from_slice(name);
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        Self {
            method,
            target: Cow::Borrowed(target),
            version: b"HTTP/2",
            line: Cow::Owned(line),
            head: Cow::Owned(head),
            headers_at,
            headers,
            body: Cow::Borrowed(body),
        }
    }
}

/// Splits a payload. Returns nothing where it does not begin with a request.
#[must_use]
pub fn split(payload: &[u8]) -> Vec<Request<'_>> {
    let mut requests = Vec::new();
    let mut rest = payload;
    while requests.len() < REQUESTS {
        // Empty lines may stand before a request (RFC 9112, 2.2).
        while let Some(after) = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")) {
            rest = after;
        }
        let Some((request, after)) = next(rest) else { break };
        requests.push(request);
        rest = after;
    }
    requests
}

/// Cuts a line off, without its end.
fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b'\n', bytes) {
        Some(end) => {
            let line = &bytes[..end];
            (line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..])
        }
        None => (bytes, &[]),
    }
}

fn next(bytes: &[u8]) -> Option<(Request<'_>, &[u8])> {
    let (first, mut rest) = line(bytes);
    let (method, target, version) = first_line(first)?;
    let headers_at = bytes.len() - rest.len();
    let mut headers = Vec::new();
    loop {
        if rest.is_empty() {
            break;
        }
        let (header, after) = line(rest);
        rest = after;
        if header.is_empty() {
            break;
        }
        if headers.len() < HEADERS {
            let colon = memchr(b':', header).unwrap_or(header.len());
            let (name, value) = (&header[..colon], header.get(colon + 1..).unwrap_or_default());
            headers.push((Cow::Borrowed(name.trim_ascii()), Cow::Borrowed(value.trim_ascii())));
        }
    }
    let head = &bytes[..bytes.len() - rest.len()];
    let mut request = Request {
        method,
        target: Cow::Borrowed(target),
        version,
        line: Cow::Borrowed(first),
        head: Cow::Borrowed(head),
        headers_at,
        headers,
        body: Cow::Borrowed(&[]),
    };
    let (body, rest) = body(&request, rest);
    request.body = body;
    Some((request, rest))
}

/// Takes a first line apart: a method of letters, a target, and at its end a version.
fn first_line(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = memchr(b' ', line.get(..METHOD_BYTES + 1).unwrap_or(line))?;
    let (method, rest) = (&line[..space], line[space + 1..].trim_ascii());
    if method.is_empty() || !method.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_')) {
        return None;
    }
    let version_at = memchr::memmem::rfind(rest, b" HTTP/");
    let (target, version) = match version_at {
        Some(at) => (rest[..at].trim_ascii_end(), &rest[at + 1..]),
        None => (rest, &[][..]),
    };
    // Without a version only what looks like a target makes it a request, and not a command of another protocol.
    let looks_right = version_at.is_some() || (method == b"GET" && target.starts_with(b"/"));
    looks_right.then_some((method, target, version))
}

/// Cuts the body off what follows the headers.
fn body<'a>(request: &Request<'a>, rest: &'a [u8]) -> (Cow<'a, [u8]>, &'a [u8]) {
    if request.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().ends_with(b"chunked")) {
        return chunks(rest);
    }
    let announced = request
        .header("content-length")
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|value| value.trim().parse::<usize>().ok());
    let length = match announced {
        Some(length) => length.min(rest.len()),
        // No length: what follows is another request, or a body that its sender forgot to announce.
        None if first_line(line(rest).0).is_some() => 0,
        None => rest.len(),
    };
    let (body, rest) = rest.split_at(length);
    (Cow::Borrowed(body), rest)
}

/// Joins chunks. Where the framing breaks, what is left belongs to the body.
fn chunks(bytes: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let (mut body, mut rest) = (Vec::new(), bytes);
    loop {
        let (size, after) = line(rest);
        let digits = size.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        match size {
            Some(0) => {
                let mut rest = after;
                // Trailers, up to an empty line.
                while !rest.is_empty() {
                    let (trailer, after) = line(rest);
                    rest = after;
                    if trailer.is_empty() {
                        break;
                    }
                }
                return (Cow::Owned(body), rest);
            }
            Some(size) => {
                let kept = size.min(after.len());
                body.extend_from_slice(&after[..kept]);
                rest = &after[kept..];
                rest = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")).unwrap_or(rest);
                if rest.is_empty() {
                    return (Cow::Owned(body), rest);
                }
            }
            None => {
                body.extend_from_slice(rest);
                return (Cow::Owned(body), &[]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_its_parts() {
        let requests =
            split(b"POST /a b?c HTTP/1.1\r\nHost: x:80\r\nContent-Length: 3\r\n\r\nabcGET /n HTTP/1.0\r\n\r\n");
        assert_eq!(requests.len(), 2);
        let first = &requests[0];
        assert_eq!(
            (first.method, first.target.as_ref(), first.version),
            (&b"POST"[..], &b"/a b?c"[..], &b"HTTP/1.1"[..])
        );
        assert_eq!(first.header("host"), Some(&b"x:80"[..]));
        assert_eq!(first.body.as_ref(), b"abc");
        assert_eq!(requests[1].target.as_ref(), b"/n");
    }

    #[test]
    fn chunks_are_joined() {
        let requests = split(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        assert_eq!(requests[0].body.as_ref(), b"abcde");
        assert_eq!(requests.len(), 2);
    }

    #[test]
    fn a_body_without_a_length_is_the_rest() {
        assert_eq!(split(b"POST / HTTP/1.1\n\ncmd=id")[0].body.as_ref(), b"cmd=id");
    }

    #[test]
    fn other_protocols_are_no_requests() {
        for payload in [&b"USER root\r\nPASS x\r\n"[..], b"\x03\x00\x00\x13", b"", b"SSH-2.0-Go\r\n", b"EHLO x\r\n"] {
            assert!(split(payload).is_empty());
        }
    }

    #[test]
    fn many_requests_are_cut_off() {
        assert_eq!(split(&b"GET / HTTP/1.1\r\n\r\n".repeat(100)).len(), REQUESTS);
    }

    #[test]
    fn the_first_128_headers_are_examined_and_the_body_stands_behind_all_of_them() {
        let headers: Vec<String> = (0..200).map(|number| format!("H{number}")).collect();
        let payload = format!("POST / HTTP/1.1\r\n{}: v\r\n\r\nbody", headers.join(": v\r\n"));
        let requests = split(payload.as_bytes());
        assert_eq!(requests[0].headers.len(), 128);
        assert!(requests[0].header("H127").is_some() && requests[0].header("H128").is_none());
        assert_eq!(requests[0].body.as_ref(), b"body");

        let headers: Vec<_> = headers.iter().map(|name| (name.as_str(), "v")).collect();
        let recorded =
            |host| Request::recorded(&crate::facts::Http { host, headers: headers.clone(), ..Default::default() }, b"");
        assert_eq!(recorded(None).headers.len(), 128);
        assert_eq!(recorded(Some("h")).headers.len(), 129, "and the host, which HTTP/2 has beside them");
        assert!(recorded(Some("h")).header("H127").is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_without_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut payload = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            payload.extend_from_slice(&tail);
            let _ = split(&payload);
            let _ = split(&tail);
        }
    }
}
