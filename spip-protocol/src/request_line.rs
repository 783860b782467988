//! The first line that HTTP, RTSP and SIP share: `METHOD target NAME/version`.
//!
//! The name of the version decides which of the three it is, so no verdict falls before it is seen. Targets with
//! spaces and raw bytes in them are common in attacks and are accepted; the first version in the line counts.

use super::http::HEADERS;
use super::reader::{End, Reader};
use super::text_commands;

/// The longest method: longer than every registered one.
const METHOD_BYTES: usize = 32;
/// The longest line that is searched for a version.
pub(super) const LINE_BYTES: usize = 4096;
/// Empty lines before the request that are skipped (RFC 9112, section 2.2).
const EMPTY_LINES_BYTES: usize = 8;

/// Protocols whose version a request line can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// ` HTTP/`, or `GET /path` without a version (HTTP/0.9), or a request of HTTP whose line is too long to see its end.
    Http,
    /// ` RTSP/`
    Rtsp,
    /// ` SIP/`
    Sip,
    /// ` ICAP/`
    Icap,
}

/// A request line as far as it decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLine<'a> {
    /// The version's name.
    pub(super) family: Family,
    /// A token.
    pub(super) method: &'a [u8],
    /// Text between method and version, without the spaces around it.
    pub(super) target: &'a [u8],
}

/// Reads a request line; `None` when the bytes are none.
pub(super) fn request_line<'a>(reader: &mut Reader<'a>) -> Result<Option<RequestLine<'a>>, End> {
    skip_empty_lines(reader);
    let mut ahead = *reader;
    for _ in 0..=METHOD_BYTES {
        let byte = ahead.u8()?;
        if byte == b' ' {
            break;
        }
        if !is_token(byte) {
            return Ok(None);
        }
    }
    let Some(method) = reader.until(b' ', METHOD_BYTES + 1)?.filter(|method| !method.is_empty()) else {
        return Ok(None);
    };
    let rest = reader.rest();
    let window = rest.get(..LINE_BYTES).unwrap_or(rest);
    let found = |family, end: usize| {
        let target = window.get(..end).unwrap_or_default().trim_ascii();
        Ok(Some(RequestLine { family, method, target }))
    };
    for at in memchr::memchr2_iter(b'/', b'\n', window) {
        let seen = window.get(..=at).unwrap_or_default();
        if seen.ends_with(b"\n") {
            let is_http = method == b"GET" && seen.starts_with(b"/");
            return if is_http { found(Family::Http, at) } else { Ok(None) };
        }
        for (family, version) in [
            (Family::Http, &b" HTTP/"[..]),
            (Family::Rtsp, b" RTSP/"),
            (Family::Sip, b" SIP/"),
            (Family::Icap, b" ICAP/"),
        ] {
            if seen.ends_with(version) {
                return found(family, seen.len() - version.len());
            }
        }
    }
    if window.len() < LINE_BYTES {
        return Err(End);
    }
    if is_http_method(method) && (window.starts_with(b"/") || window.starts_with(b"http")) {
        return found(Family::Http, LINE_BYTES);
    }
    Ok(None)
}

/// The headers behind the first line, up to an empty line, at most [`HEADERS`].
pub(super) fn headers(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut reader = Reader::new(bytes);
    skip_empty_lines(&mut reader);
    let _request_line = text_commands::next_line(&mut reader);
    let lines = std::iter::from_fn(move || text_commands::next_line(&mut reader).filter(|line| !line.is_empty()));
    lines.take(HEADERS).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((line.get(..colon)?.trim_ascii(), line.get(colon + 1..)?.trim_ascii()))
    })
}

/// The user of an `Authorization` header of the scheme Digest (RFC 7616).
pub(super) fn digest_user(value: &[u8]) -> Option<&[u8]> {
    const USER: &[u8] = b"username=\"";
    if !value.get(..7)?.eq_ignore_ascii_case(b"digest ") {
        return None;
    }
    let at = value.windows(USER.len()).position(|window| window.eq_ignore_ascii_case(USER))?;
    value.get(at + USER.len()..)?.split(|byte| *byte == b'"').next()
}

/// Leaves out the line ends that careless clients put before a request.
pub(super) fn skip_empty_lines(reader: &mut Reader<'_>) {
    for _ in 0..EMPTY_LINES_BYTES {
        if !matches!(reader.rest().first(), Some(b'\r' | b'\n')) {
            break;
        }
        let _skipped = reader.u8();
    }
}

/// A byte of a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A method that only HTTP has, so that a line without end is still a request.
fn is_http_method(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"POST" | b"HEAD" | b"PUT" | b"DELETE" | b"PATCH" | b"TRACE" | b"PROPFIND" | b"CONNECT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(bytes: &[u8]) -> Result<Option<Family>, End> {
        request_line(&mut Reader::new(bytes)).map(|line| line.map(|line| line.family))
    }

    #[test]
    fn the_version_decides_and_nothing_before_it() {
        assert_eq!(family(b"OPTIONS * "), Err(End));
        assert_eq!(family(b"OPTIONS * HTTP/"), Ok(Some(Family::Http)));
        assert_eq!(family(b"OPTIONS * RTSP/"), Ok(Some(Family::Rtsp)));
        assert_eq!(family(b"OPTIONS sip:a SIP/"), Ok(Some(Family::Sip)));
    }

    #[test]
    fn a_line_without_version_is_http_only_for_get_and_a_path() {
        assert_eq!(family(b"GET /\r\n"), Ok(Some(Family::Http)));
        assert_eq!(family(b"GET key\r\n"), Ok(None));
        assert_eq!(family(b"USER root\r\n"), Ok(None));
    }

    #[test]
    fn a_target_keeps_its_spaces_and_loses_those_around_it() {
        let line = request_line(&mut Reader::new(b"\r\nGET  /a b  HTTP/1.1")).expect("complete").expect("a request");
        assert_eq!((line.method, line.target), (b"GET".as_slice(), b"/a b".as_slice()));
    }

    #[test]
    fn a_line_without_end_is_http_by_its_method_and_path() {
        let mut long = b"GET /".to_vec();
        long.resize(LINE_BYTES + 4, b'a');
        assert_eq!(family(&long), Ok(Some(Family::Http)));
        assert_eq!(family(&long[..LINE_BYTES]), Err(End));
        long[0] = b'g';
        assert_eq!(family(&long), Ok(None));
    }
}
