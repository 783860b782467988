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
/// The method of RFC 1961.
const GSSAPI: u8 = 1;
/// The method of RFC 1929.
const USER_AND_PASSWORD: u8 = 2;
/// The most methods that are believed; nine are assigned.
const METHODS: u8 = 16;

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    match reader.u8()? {
        5 => {
            let Some(methods) = methods(reader)? else { return Ok(false) };
            let offers = |method: u8| methods.contains(&method);
            match reader.u8()? {
                // A command: connect, bind, associate, and the two look-ups of Tor; then the kind of address.
                5 => {
                    let fits = matches!(reader.u8()?, 1..=3 | 0xf0 | 0xf1) && reader.u8()? == 0;
                    Ok(fits && matches!(reader.u8()?, 1 | 3 | 4))
                }
                // The login of RFC 1929.
                1 if offers(USER_AND_PASSWORD) => {
                    let user = field(reader)?;
                    Ok(!user.is_empty() && user.iter().all(|byte| !byte.is_ascii_control()))
                }
                // A token of GSSAPI (RFC 1961).
                1 if offers(GSSAPI) => Ok(reader.u8()? == 1),
                0x80..=0xfe => Ok(methods.iter().any(|method| *method >= 0x80)),
                _ => Ok(false),
            }
        }
        4 => version_4_request(reader),
        _ => Ok(false),
    }
}

/// The methods of a version 5 greeting behind its first byte: 0x00 to 0x09 are assigned by IANA, 0x80 to 0xfe are
/// private. `None` when they are none.
fn methods<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, End> {
    let count = reader.u8()?;
    if !(1..=METHODS).contains(&count) {
        return Ok(None);
    }
    let mut ahead = *reader;
    for _ in 0..count {
        if !matches!(ahead.u8()?, 0x00..=0x09 | 0x80..=0xfe) {
            return Ok(None);
        }
    }
    reader.take(usize::from(count)).map(Some)
}

/// A request of version 4 behind its first byte. A Hello or an Error of OpenFlow begins alike: a user and a host are
/// text, and no address is in 0.0.0.0/8 unless a host name follows (4a).
fn version_4_request(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !matches!(reader.u8()?, 1 | 2) || reader.be16()? == 0 {
        return Ok(false);
    }
    let address = reader.array::<4>()?;
    let names_host = matches!(address, [0, 0, 0, last] if last != 0);
    if address[0] == 0 && !names_host || address[0] >= 224 {
        return Ok(false);
    }
    // Read byte by byte: what is no text is refused at once.
    for _ in 0..TEXT_BYTES {
        match reader.u8()? {
            0 if names_host => return host_name(reader),
            0 => return Ok(true),
            byte if byte.is_ascii_control() => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

/// A host name and its final zero.
fn host_name(reader: &mut Reader<'_>) -> Result<bool, End> {
    for position in 0..TEXT_BYTES {
        match reader.u8()? {
            0 => return Ok(position > 0),
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']') => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// Reports whether a greeting of version 5 is whole: its sender waits for the choice of a method.
pub(super) fn greets(reader: &mut Reader<'_>) -> Result<bool, End> {
    Ok(reader.literal(&[5])? && methods(reader)?.is_some())
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
