//! SIP over TCP (RFC 3261): who calls whom, with which program.
//!
//! Decides at ` SIP/` behind method and URI in the first line.

use super::reader::{End, Reader};
use super::request_line::{self, Family, request_line};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "sip",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/TCP nm;branch=foo\r\nFrom: <sip:nm@nm>;tag=root\r\nTo: <sip:nm2@nm2>\r\nCall-ID: 50000\r\nCSeq: 42 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\nContact: <sip:nm@nm>\r\nAccept: application/sdp\r\n\r\n",
        b"REGISTER sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/TCP 198.51.100.7:5060;branch=z9hG4bK-1\r\nf: \"100\"<sip:100@192.0.2.1>;tag=313030\r\nt: \"100\"<sip:100@192.0.2.1>\r\nUser-Agent: friendly-scanner\r\nAuthorization: Digest username=\"100\", realm=\"asterisk\", nonce=\"1\"\r\n\r\n",
    ],
};

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    Ok(request_line(reader)?.is_some_and(|line| line.family == Family::Sip))
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    if let Some(line) = request_line(&mut Reader::new(bytes))? {
        out.details.text("method", line.method);
        out.details.text("uri", line.target);
    }
    for (name, value) in request_line::headers(bytes) {
        // Names have a compact form of one letter (RFC 3261, section 7.3.3).
        match name.to_ascii_lowercase().as_slice() {
            b"from" | b"f" => {
                out.details.text("from", value);
                let (user, secret) = userinfo(value);
                out.credentials.add(user, secret);
            }
            b"to" | b"t" => out.details.text("to", value),
            b"user-agent" => out.details.text("user_agent", value),
            b"call-id" | b"i" => out.details.text("call_id", value),
            b"authorization" | b"proxy-authorization" => {
                out.credentials.add(request_line::digest_user(value), None);
            }
            _ => {}
        }
    }
    Ok(())
}

/// User and password of the first SIP URI (RFC 3261, section 19.1.1).
fn userinfo(value: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let scheme = value.windows(4).position(|window| window.eq_ignore_ascii_case(b"sip:"));
    let scheme = scheme
        .map(|at| at + 4)
        .or_else(|| value.windows(5).position(|window| window.eq_ignore_ascii_case(b"sips:")).map(|at| at + 5));
    let Some(rest) = scheme.and_then(|at| value.get(at..)) else {
        return (None, None);
    };
    let end = rest.iter().position(|byte| matches!(byte, b'>' | b' ')).unwrap_or(rest.len());
    let uri = rest.get(..end).unwrap_or_default();
    let Some(at) = uri.iter().position(|byte| *byte == b'@') else {
        return (None, None);
    };
    let mut parts = uri.get(..at).unwrap_or_default().splitn(2, |byte| *byte == b':');
    (parts.next(), parts.next())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_registration_shows_who_and_with_what() {
        let understanding = understand(PROTOCOL.samples[1], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = concat!(
            r#"{"method":"REGISTER","uri":"sip:192.0.2.1","from":"\"100\"<sip:100@192.0.2.1>;tag=313030","#,
            r#""to":"\"100\"<sip:100@192.0.2.1>","user_agent":"friendly-scanner"}"#
        );
        assert_eq!(details, expected);
        // From and the digest name the same user, kept once.
        assert_eq!(understanding.credentials.list.len(), 1);
        assert_eq!(understanding.credentials.list.first().and_then(|c| c.user.as_deref()), Some("100"));
    }

    #[test]
    fn a_password_in_the_uri_is_kept() {
        assert_eq!(userinfo(b"<sips:a:b@c>"), (Some(b"a".as_slice()), Some(b"b".as_slice())));
        assert_eq!(userinfo(b"<sip:c>"), (None, None));
    }
}
