//! SOCKS 4 and 4a, and SOCKS 5 (RFC 1928) with name and password (RFC 1929): who looks for an open proxy, and whereto.
//!
//! Version 5 decides at the end of a list of one to sixteen assigned or private methods, version 4 at the end of the
//! user name behind a command. A client of version 5 says three bytes and waits, so three bytes must decide: a length
//! of exactly 261 bytes of MongoDB or MySQL, and the transaction 0x0501 of Modbus, look the same and are lost to that.
//! Version 4 leaves the ports 0 and 1 to the length fields of MongoDB and MySQL, which look the same there.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::reader::{End, Reader};
use super::value::Value;
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "socks",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/curl.socks5"),
        include_bytes!("../fixtures/protocol/curl.socks4a"),
        b"\x05\x04\x00\x01\x02\x80\x05\x01\x00\x03\x0agoogle.com\x00\x50GET / HTTP/1.0\r\n\r\n",
        b"\x04\x01\x00\x16\x7f\x00\x00\x01root\x00",
        b"\x05\x01\x00",
    ],
};

/// The longest user name or host name of version 4.
const TEXT_BYTES: usize = 255;
/// The most methods that are believed; nine are assigned.
const METHODS: u8 = 16;

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    match reader.u8()? {
        5 => {
            let count = reader.u8()?;
            if !(1..=METHODS).contains(&count) {
                return Ok(false);
            }
            for _ in 0..count {
                // 0x00 to 0x09 are assigned by IANA, 0x80 to 0xfe are private.
                if !matches!(reader.u8()?, 0x00..=0x09 | 0x80..=0xfe) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        4 => {
            if !matches!(reader.u8()?, 1 | 2) {
                return Ok(false);
            }
            if matches!(reader.be16()?, 0 | 1) {
                return Ok(false);
            }
            reader.take(4)?;
            let user = reader.until(0, TEXT_BYTES)?;
            Ok(user.is_some_and(|user| user.iter().all(|byte| !byte.is_ascii_control())))
        }
        _ => Ok(false),
    }
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    out.details.number("version", version);
    if version == 5 { version_5(&mut reader, out) } else { version_4(&mut reader, out) }
}

fn version_4(reader: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    command(reader.u8()?, out);
    let port = reader.be16()?;
    let address = reader.array::<4>()?;
    let user = reader.until(0, TEXT_BYTES)?.unwrap_or_default();
    if !user.is_empty() {
        out.credentials.add(Some(user), None);
    }
    // 4a: an address of 0.0.0.x says that a name follows.
    match address {
        [0, 0, 0, last] if last != 0 => out.details.text("host", reader.until(0, TEXT_BYTES)?.unwrap_or_default()),
        _ => out.details.text("host", Ipv4Addr::from(address).to_string().as_bytes()),
    }
    out.details.number("port", port);
    Ok(())
}

fn version_5(reader: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    let count = reader.u8()?;
    let methods = reader.take(usize::from(count))?;
    out.details.list("methods", methods.iter().map(|method| Value::from(u32::from(*method))).collect());
    if reader.rest().first() == Some(&1) {
        reader.take(1)?;
        let user = field(reader)?;
        let secret = field(reader)?;
        out.credentials.add(Some(user), Some(secret));
    }
    if reader.rest().is_empty() || !reader.literal(&[5])? {
        return Ok(());
    }
    command(reader.u8()?, out);
    reader.take(1)?;
    match reader.u8()? {
        1 => out.details.text("host", Ipv4Addr::from(reader.array::<4>()?).to_string().as_bytes()),
        3 => out.details.text("host", field(reader)?),
        4 => out.details.text("host", Ipv6Addr::from(reader.array::<16>()?).to_string().as_bytes()),
        _ => return Ok(()),
    }
    out.details.number("port", reader.be16()?);
    Ok(())
}

/// Bytes behind a length of one byte.
fn field<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], End> {
    let length = reader.u8()?;
    reader.take(usize::from(length))
}

fn command(command: u8, out: &mut Understanding) {
    match command {
        1 => out.details.word("command", "connect"),
        2 => out.details.word("command", "bind"),
        3 => out.details.word("command", "udp_associate"),
        _ => out.details.number("command", command),
    }
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn version_5_shows_login_and_destination() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = r#"{"version":5,"methods":[0,1,2],"command":"connect","host":"www.example.com","port":80}"#;
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("user"), Some("pass")));
    }

    #[test]
    fn version_4a_shows_user_and_host_name() {
        let understanding = understand(PROTOCOL.samples[1], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        assert_eq!(details, r#"{"version":4,"command":"connect","host":"www.example.com","port":80}"#);
        assert_eq!(understanding.credentials.list.first().and_then(|c| c.user.as_deref()), Some("bot"));
    }

    #[test]
    fn version_4_shows_an_address() {
        let details = understand(PROTOCOL.samples[3], false).details;
        assert_eq!(details.get("host").and_then(Value::as_text), Some("127.0.0.1"));
    }
}
