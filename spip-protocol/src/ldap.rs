//! LDAP 2 and 3 (RFC 4511): bind with name and password, search with its base, extended requests such as StartTLS.
//!
//! Decides at a BER sequence with a message identifier and one of the operations that clients begin with.

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "ldap",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/ldap3.ldap"),
        include_bytes!("../fixtures/protocol/curl.ldap"),
        b"\x30\x84\x00\x00\x00\x2d\x02\x01\x07\x63\x84\x00\x00\x00\x24\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x64\x01\x01\x00\x87\x0bobjectClass\x30\x84\x00\x00\x00\x00",
        b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037",
    ],
};

/// Tags of BER and LDAP.
mod tag {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OCTETS: u8 = 0x04;
    pub(super) const ENUMERATED: u8 = 0x0a;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const BIND: u8 = 0x60;
    pub(super) const SEARCH: u8 = 0x63;
    pub(super) const EXTENDED: u8 = 0x77;
    pub(super) const UNBIND: u8 = 0x42;
    pub(super) const MODIFY: u8 = 0x66;
    pub(super) const ADD: u8 = 0x68;
    pub(super) const DELETE: u8 = 0x4a;
    pub(super) const MODIFY_DN: u8 = 0x6c;
    pub(super) const COMPARE: u8 = 0x6e;
    /// `simple` in a bind, the name in an extended request.
    pub(super) const CONTEXT_0: u8 = 0x80;
    /// `sasl` in a bind.
    pub(super) const CONTEXT_3: u8 = 0xa3;
}

fn operation(tag: u8) -> Option<&'static str> {
    Some(match tag {
        tag::BIND => "bind",
        tag::SEARCH => "search",
        tag::EXTENDED => "extended",
        tag::UNBIND => "unbind",
        tag::MODIFY => "modify",
        tag::ADD => "add",
        tag::DELETE => "delete",
        tag::MODIFY_DN => "modify_dn",
        tag::COMPARE => "compare",
        _ => return None,
    })
}

/// A length of BER, short or of up to four bytes; `None` when it is longer or has no definite form.
fn length(reader: &mut Reader<'_>) -> Result<Option<usize>, End> {
    let first = reader.u8()?;
    if first < 0x80 {
        return Ok(Some(usize::from(first)));
    }
    let bytes = first & 0x7f;
    if !(1..=4).contains(&bytes) {
        return Ok(None);
    }
    let mut length = 0_usize;
    for _ in 0..bytes {
        length = length << 8 | usize::from(reader.u8()?);
    }
    Ok(Some(length))
}

/// The operation of a message: its tag, behind sequence and identifier; `None` when the bytes are no message.
fn message(reader: &mut Reader<'_>) -> Result<Option<u8>, End> {
    if !reader.literal(&[tag::SEQUENCE])? {
        return Ok(None);
    }
    if length(reader)?.is_none_or(|length| length < 5) || !reader.literal(&[tag::INTEGER])? {
        return Ok(None);
    }
    let Some(identifier @ 1..=4) = length(reader)? else {
        return Ok(None);
    };
    reader.take(identifier)?;
    let operation_tag = reader.u8()?;
    Ok(operation(operation_tag).map(|_| operation_tag))
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    Ok(message(reader)?.is_some())
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    // The first few messages: bind, then search.
    for _ in 0..8 {
        if reader.rest().is_empty() {
            break;
        }
        let Some(tag) = message(&mut reader)? else {
            break;
        };
        let Some(length) = length(&mut reader)? else {
            break;
        };
        let mut body = Reader::new(reader.take(length)?);
        // The first operation gives the name; what only others have is added.
        if let Some(operation) = operation(tag) {
            out.details.word("operation", operation);
        }
        let _whole = match tag {
            tag::BIND => bind(&mut body, out),
            tag::SEARCH => search(&mut body, out),
            tag::EXTENDED => extended(&mut body, out),
            _ => Ok(()),
        };
    }
    Ok(())
}

/// The content of the next element, if it has that tag.
fn element<'a>(body: &mut Reader<'a>, tag: u8) -> Result<&'a [u8], End> {
    if body.u8()? != tag {
        return Err(End);
    }
    let length = length(body)?.ok_or(End)?;
    body.take(length)
}

fn bind(body: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    if let [version] = element(body, tag::INTEGER)? {
        out.details.number("version", *version);
    }
    let name = element(body, tag::OCTETS)?;
    out.details.text("bind_dn", name);
    match body.rest().first() {
        Some(&tag::CONTEXT_0) => {
            out.details.word("authentication", "simple");
            let secret = element(body, tag::CONTEXT_0)?;
            // Two empty fields are an anonymous bind (RFC 4513, section 5.1.1).
            if !name.is_empty() || !secret.is_empty() {
                out.credentials.add(Some(name), Some(secret));
            }
        }
        Some(&tag::CONTEXT_3) => {
            out.details.word("authentication", "sasl");
            let mut sasl = Reader::new(element(body, tag::CONTEXT_3)?);
            out.details.text("mechanism", element(&mut sasl, tag::OCTETS)?);
            if !name.is_empty() {
                out.credentials.add(Some(name), None);
            }
        }
        _ => {}
    }
    Ok(())
}

fn search(body: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    out.details.text("search_base", element(body, tag::OCTETS)?);
    match element(body, tag::ENUMERATED)? {
        [0] => out.details.word("search_scope", "base"),
        [1] => out.details.word("search_scope", "one"),
        [2] => out.details.word("search_scope", "sub"),
        _ => {}
    }
    Ok(())
}

fn extended(body: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    out.details.text("extended_oid", element(body, tag::CONTEXT_0)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    fn details(bytes: &[u8]) -> String {
        serde_json::to_string(&understand(bytes, false).details).expect("json")
    }

    #[test]
    fn a_simple_bind_shows_name_and_password() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let expected = "{\"operation\":\"bind\",\"version\":3,\"bind_dn\":\"cn=admin,dc=example,dc=org\",\"authentication\":\"simple\"}";
        assert_eq!(details(PROTOCOL.samples[0]), expected);
        let credential = understanding.credentials.list.first().expect("a login");
        let expected = (Some("cn=admin,dc=example,dc=org"), Some("secret"));
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), expected);
    }

    #[test]
    fn an_anonymous_bind_is_no_login() {
        assert_eq!(understand(PROTOCOL.samples[1], false).credentials.list, []);
    }

    #[test]
    fn searches_and_extended_requests_are_told_apart() {
        assert_eq!(details(PROTOCOL.samples[2]), r#"{"operation":"search","search_base":"","search_scope":"base"}"#);
        let expected = r#"{"operation":"extended","extended_oid":"1.3.6.1.4.1.1466.20037"}"#;
        assert_eq!(details(PROTOCOL.samples[3]), expected);
    }

    #[test]
    fn snmp_has_the_same_beginning_and_stays_unknown() {
        let bytes = b"\x30\x26\x02\x01\x01\x04\x06public\xa0\x19\x02\x04";
        assert_eq!(understand(bytes, false).protocol, None);
    }

    #[test]
    fn each_scope_of_a_search_has_its_name() {
        for (number, name) in [
            (0, r#","search_scope":"base""#),
            (1, r#","search_scope":"one""#),
            (2, r#","search_scope":"sub""#),
            (3, ""),
        ] {
            let mut bytes = PROTOCOL.samples[2].to_vec();
            let at = bytes.windows(3).position(|window| window == [tag::ENUMERATED, 1, 0]).expect("a scope");
            bytes[at + 2] = number;
            assert_eq!(details(&bytes), format!(r#"{{"operation":"search","search_base":""{name}}}"#));
        }
    }
}
