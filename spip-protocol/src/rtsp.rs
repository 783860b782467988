//! RTSP (RFC 2326, 7826): cameras and what is tried on them.
//!
//! Decides at ` RTSP/` behind method and URI in the first line.

use super::reader::{End, Reader};
use super::request_line::{self, Family, request_line};
use super::{Protocol, Understanding, http};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "rtsp",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/curl.rtsp"),
        b"OPTIONS / RTSP/1.0\r\n\r\n",
        b"DESCRIBE rtsp://admin:888888@192.0.2.1:554/Streaming/Channels/101 RTSP/1.0\r\nCSeq: 2\r\nUser-Agent: Lavf58.29.100\r\nAccept: application/sdp\r\n\r\n",
    ],
};

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    Ok(request_line(reader)?.is_some_and(|line| line.family == Family::Rtsp))
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    if let Some(line) = request_line(&mut Reader::new(bytes))? {
        out.details.text("method", line.method);
        out.details.text("uri", line.target);
        if let Some(userinfo) = userinfo(line.target) {
            let mut parts = userinfo.splitn(2, |byte| *byte == b':');
            out.credentials.add(parts.next(), parts.next());
        }
    }
    for (name, value) in request_line::headers(bytes) {
        match name.to_ascii_lowercase().as_slice() {
            b"user-agent" => out.details.text("user_agent", value),
            b"cseq" => out.details.text("cseq", value),
            b"authorization" => {
                http::header_credentials(name, value, &mut out.credentials);
                out.credentials.add(request_line::digest_user(value), None);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the part before the `@` of the authority.
fn userinfo(uri: &[u8]) -> Option<&[u8]> {
    let at = uri.windows(3).position(|window| window == b"://")?;
    let authority = uri.get(at + 3..)?.split(|byte| *byte == b'/').next()?;
    let end = authority.iter().rposition(|byte| *byte == b'@')?;
    authority.get(..end)
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_login_is_found_in_the_header_and_in_the_uri() {
        for (sample, expected) in [(0, ("admin", "12345")), (2, ("admin", "888888"))] {
            let credentials = understand(PROTOCOL.samples[sample], false).credentials.list;
            let found = credentials.first().map(|c| (c.user.as_deref(), c.secret.as_deref()));
            assert_eq!(found, Some((Some(expected.0), Some(expected.1))));
        }
    }

    #[test]
    fn method_uri_and_program_are_shown() {
        let details = understand(PROTOCOL.samples[0], false).details;
        let expected = r#"{"method":"OPTIONS","uri":"*","cseq":"1","user_agent":"curl/7.88.1"}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }
}
