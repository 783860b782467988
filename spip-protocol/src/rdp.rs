//! RDP ([MS-RDPBCGR] 2.2.1.1): the connection request, with the user name that many clients put into its cookie.
//!
//! Decides at the end of a TPKT connection request that carries `Cookie:` or a negotiation request. A request with
//! neither is as much ISO transport as RDP, and is left to `iso_tsap`.

use super::reader::{End, Reader};
use super::value::Value;
use super::{Protocol, Understanding, tpkt};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "rdp",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x03\x00\x00*%\xe0\x00\x00\x00\x00\x00Cookie: mstshash=nmap\r\n\x01\x00\x08\x00\x03\x00\x00\x00",
        b"\x03\x00\x00\x2f\x2a\xe0\x00\x00\x00\x00\x00Cookie: mstshash=Administr\r\n\x01\x00\x08\x00\x0b\x00\x00\x00",
        b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
    ],
};

/// RDP_NEG_REQ.requestedProtocols, lowest bit first ([MS-RDPBCGR] 2.2.1.1.1).
const PROTOCOLS: [&str; 5] = ["ssl", "hybrid", "rdstls", "hybrid_ex", "rdsaad"];

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let request = tpkt::connection_request(reader)?;
    Ok(request.is_some_and(|rest| rest.starts_with(b"Cookie:") || negotiation(rest).is_some()))
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let Some(mut rest) = tpkt::connection_request(&mut Reader::new(bytes))? else {
        return Ok(());
    };
    if rest.starts_with(b"Cookie:") {
        let mut reader = Reader::new(rest);
        let line = reader.line(rest.len())?.unwrap_or(rest);
        rest = reader.rest();
        let cookie = line.strip_prefix(b"Cookie:").unwrap_or(line).trim_ascii();
        out.details.text("cookie", cookie);
        if let Some(user) = cookie.strip_prefix(b"mstshash=") {
            out.credentials.add(Some(user), None);
        }
    }
    if let Some(requested) = negotiation(rest) {
        let names = PROTOCOLS.iter().enumerate().filter(|(bit, _)| requested >> bit & 1 == 1);
        let mut names: Vec<_> = names.map(|(_, name)| Value::from(*name)).collect();
        if requested == 0 {
            names.push(Value::from("rdp"));
        }
        out.details.list("requested_protocols", names);
    }
    Ok(())
}

/// The protocols that a negotiation request asks for.
fn negotiation(bytes: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(bytes);
    let (kind, _flags, length) = (reader.u8().ok()?, reader.u8().ok()?, reader.le16().ok()?);
    let requested = reader.le32().ok()?;
    (kind == 1 && length == 8).then_some(requested)
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn the_cookie_names_the_user_and_the_request_its_protocols() {
        let understanding = understand(PROTOCOL.samples[1], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        assert_eq!(details, r#"{"cookie":"mstshash=Administr","requested_protocols":["ssl","hybrid","hybrid_ex"]}"#);
        let credential = understanding.credentials.list.first().expect("a name");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("Administr"), None));
    }

    #[test]
    fn a_request_without_cookie_still_shows_its_protocols() {
        let details = understand(PROTOCOL.samples[2], false).details;
        assert_eq!(serde_json::to_string(&details).expect("json"), r#"{"requested_protocols":["ssl","hybrid"]}"#);
    }
}
