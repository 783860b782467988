//! Measures the body of a request (RFC 9112, section 6) without decoding it: its bytes are in the payload.

use super::super::reader::Reader;
use super::super::text_commands::next_line;
use super::Head;

/// Announced length of a body, and the part of it that is here.
#[derive(Default)]
pub(super) struct Body {
    pub(super) length: Option<u64>,
    pub(super) kept: u64,
    /// Bytes of it that are here, with its framing.
    pub(super) consumed: usize,
    pub(super) error: Option<&'static str>,
}

impl Body {
    /// Measures the body that follows a head, by its chunks or by Content-Length.
    pub(super) fn measure(head: &Head<'_>, after: &[u8]) -> Self {
        let chunked = head
            .values(b"transfer-encoding")
            .any(|value| value.trim_ascii_end().to_ascii_lowercase().ends_with(b"chunked"));
        let mut lengths = head.values(b"content-length");
        let length = lengths.next();
        if chunked {
            let mut body = Self::chunked(after);
            if length.is_some() {
                body.error = Some("content-length stands beside a chunked body");
            }
            return body;
        }
        let Some(length) = length else {
            return Self { length: Some(0), ..Self::default() };
        };
        // Decimal digits only, and below 2^53 so that every reader of JSON keeps the number.
        let number = std::str::from_utf8(length)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|number| *number < 1 << 53);
        let Some(number) = number else {
            return Self { error: Some("content-length is no number"), ..Self::default() };
        };
        let consumed = usize::try_from(number).unwrap_or(usize::MAX).min(after.len());
        let differs = lengths.any(|other| other != length);
        Self {
            length: Some(number),
            kept: u64::try_from(consumed).unwrap_or(u64::MAX),
            consumed,
            error: differs.then_some("content-length is given twice and differs"),
        }
    }

    /// Adds up chunks (RFC 9112, section 7.1).
    fn chunked(after: &[u8]) -> Self {
        let mut body = Self::default();
        loop {
            let rest = after.get(body.consumed..).unwrap_or_default();
            match httparse::parse_chunk_size(rest) {
                Ok(httparse::Status::Complete((header, size))) => {
                    let data = rest.get(header..).unwrap_or_default();
                    if size == 0 {
                        body.length = Some(body.kept);
                        body.consumed += header + trailer_bytes(data);
                        return body;
                    }
                    let kept = usize::try_from(size).unwrap_or(usize::MAX).min(data.len());
                    body.kept += u64::try_from(kept).unwrap_or(u64::MAX);
                    // Each chunk ends with a line end of its own.
                    let end = data.get(kept..).unwrap_or_default();
                    let end = if end.starts_with(b"\r\n") { 2 } else { usize::from(end.starts_with(b"\n")) };
                    body.consumed += header + kept + end;
                }
                Ok(httparse::Status::Partial) => {
                    body.consumed = after.len();
                    return body;
                }
                Err(_) => {
                    body.error = Some("a chunk size is malformed");
                    return body;
                }
            }
        }
    }
}

/// Returns the length of the trailer of a chunked body: lines up to an empty one.
fn trailer_bytes(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes);
    while let Some(line) = next_line(&mut reader) {
        if line.is_empty() {
            break;
        }
    }
    bytes.len() - reader.rest().len()
}
