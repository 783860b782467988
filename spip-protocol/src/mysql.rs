//! MySQL and MariaDB: the answer of a client to the server's greeting, with user, database and what the driver says.
//!
//! Decides at the filler of zeros in a handshake response of protocol 4.1 (or in the shorter request for TLS that may
//! stand in its place), behind a packet header with sequence number 1.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_response.html>

use super::reader::{End, Reader};
use super::value::Value;
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "mysql",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/pymysql.mysql"),
        b"\x20\x00\x00\x01\x85\xae\xff\x19\x00\x00\x00\x01\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ],
};

/// The fixed part: capabilities, packet size, character set, filler.
const FIXED_BYTES: u32 = 32;
/// The longest response that is believed; connection attributes may have some kilobytes.
const RESPONSE_BYTES: u32 = 16 * 1024;
/// MariaDB puts further capabilities into the last four of the 23 bytes of filler.
const FILLER_BYTES: usize = 19;

/// Capability flags of the client.
mod capability {
    pub(super) const CONNECT_WITH_DB: u32 = 1 << 3;
    pub(super) const PROTOCOL_41: u32 = 1 << 9;
    pub(super) const TLS: u32 = 1 << 11;
    pub(super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(super) const PLUGIN_AUTH: u32 = 1 << 19;
    pub(super) const CONNECT_ATTRS: u32 = 1 << 20;
    pub(super) const LENENC_AUTH: u32 = 1 << 21;
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let length = reader.le24()?;
    if !(FIXED_BYTES..=RESPONSE_BYTES).contains(&length) || reader.u8()? != 1 {
        return Ok(false);
    }
    let capabilities = reader.le32()?;
    if capabilities & capability::PROTOCOL_41 == 0 || length == FIXED_BYTES && capabilities & capability::TLS == 0 {
        return Ok(false);
    }
    reader.take(5)?;
    for _ in 0..FILLER_BYTES {
        if reader.u8()? != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let length = reader.le24()?;
    reader.take(1)?;
    let length = usize::try_from(length).map_err(|_| End)?;
    let (mut packet, mut whole) = reader.up_to(length);
    let mut capabilities = packet.le32()?;
    out.details.text("capabilities", format!("{capabilities:08x}").as_bytes());
    out.details.flag("tls_requested", capabilities & capability::TLS != 0);
    packet.take(4)?;
    out.details.number("character_set", packet.u8()?);
    packet.take(23)?;
    if packet.rest().is_empty() {
        // A request for TLS. Where that was granted, the response stands inside, with the next number.
        let mut ahead = reader;
        let (Ok(length), Ok(2)) = (ahead.le24(), ahead.u8()) else { return Ok(()) };
        if !(FIXED_BYTES..=RESPONSE_BYTES).contains(&length) {
            return Ok(());
        }
        (packet, whole) = ahead.up_to(usize::try_from(length).map_err(|_| End)?);
        capabilities = packet.le32()?;
        packet.take(28)?;
    }
    let user = text(&mut packet)?;
    out.details.text("user", user);
    let response = auth_response(&mut packet, capabilities);
    // The name counts also where the rest is cut off or malformed.
    let (response, read) = match response {
        Ok(response) => (Some(response), rest_of_response(&mut packet, capabilities, out)),
        Err(End) => (None, Err(End)),
    };
    let clear = out.details.get("auth_plugin").and_then(Value::as_text) == Some("mysql_clear_password");
    let secret = response.filter(|_| clear).map(|secret| secret.strip_suffix(&[0]).unwrap_or(secret));
    out.credentials.add(Some(user), secret);
    if whole { Ok(()) } else { read.and(Err(End)) }
}

/// The answer to the server's challenge, or with `mysql_clear_password` the password.
fn auth_response<'a>(packet: &mut Reader<'a>, capabilities: u32) -> Result<&'a [u8], End> {
    if capabilities & capability::LENENC_AUTH != 0 {
        lenenc(packet)
    } else if capabilities & capability::SECURE_CONNECTION != 0 {
        let length = packet.u8()?;
        packet.take(usize::from(length))
    } else {
        text(packet)
    }
}

fn rest_of_response(packet: &mut Reader<'_>, capabilities: u32, out: &mut Understanding) -> Result<(), End> {
    if capabilities & capability::CONNECT_WITH_DB != 0 {
        out.details.text("database", text(packet)?);
    }
    if capabilities & capability::PLUGIN_AUTH != 0 {
        out.details.text("auth_plugin", text(packet)?);
    }
    if capabilities & capability::CONNECT_ATTRS == 0 {
        return Ok(());
    }
    let mut attributes = Reader::new(lenenc(packet)?);
    while !attributes.rest().is_empty() {
        let (name, value) = (lenenc(&mut attributes)?, lenenc(&mut attributes)?);
        match name {
            b"_client_name" => out.details.text("client_name", value),
            b"_client_version" => out.details.text("client_version", value),
            b"_os" => out.details.text("os", value),
            b"_platform" => out.details.text("platform", value),
            b"program_name" => out.details.text("program_name", value),
            _ => {}
        }
    }
    Ok(())
}

/// Text up to a zero, or up to the packet's end.
fn text<'a>(packet: &mut Reader<'a>) -> Result<&'a [u8], End> {
    Ok(packet.until(0, usize::MAX)?.unwrap_or_default())
}

/// Bytes behind a length of one to four bytes.
fn lenenc<'a>(packet: &mut Reader<'a>) -> Result<&'a [u8], End> {
    let length = match packet.u8()? {
        0xfc => u32::from(packet.le16()?),
        0xfd => packet.le24()?,
        small @ 0..=0xfa => u32::from(small),
        _ => return Err(End),
    };
    packet.take(usize::try_from(length).map_err(|_| End)?)
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn the_response_inside_tls_follows_the_request_for_it() {
        let mut response = PROTOCOL.samples[0].to_vec();
        response[3] = 2;
        let bytes = [PROTOCOL.samples[1], &response].concat();
        let understanding = understand(&bytes, false);
        let alone = understand(PROTOCOL.samples[0], false);
        assert_eq!(understanding.credentials, alone.credentials);
        assert_eq!(understanding.details.get("user"), alone.details.get("user"));
        assert!(understanding.details.get("user").is_some());
        // A ClientHello in clear, where TLS was not granted, is none.
        let hello = [PROTOCOL.samples[1], b"\x16\x03\x01\x02\x00\x01"].concat();
        assert!(understand(&hello, false).details.get("user").is_none());
    }

    #[test]
    fn a_driver_shows_user_database_and_itself() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = concat!(
            r#"{"capabilities":"003aa20d","tls_requested":false,"character_set":45,"user":"root","database":"wp","#,
            r#""auth_plugin":"mysql_native_password","client_name":"pymysql","client_version":"1.2.4"}"#
        );
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a name");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("root"), None));
    }

    #[test]
    fn a_request_for_tls_has_no_user() {
        let understanding = understand(PROTOCOL.samples[1], false);
        assert_eq!(understanding.details.get("tls_requested"), Some(&Value::Flag(true)));
        assert_eq!(understanding.credentials.list, []);
    }

    #[test]
    fn a_password_in_clear_is_kept() {
        let capabilities = capability::PROTOCOL_41 | capability::SECURE_CONNECTION | capability::PLUGIN_AUTH;
        let mut packet = capabilities.to_le_bytes().to_vec();
        packet.extend_from_slice(&[0; 28]);
        packet.extend_from_slice(b"root\0\x05toor\0mysql_clear_password\0");
        let mut bytes = vec![u8::try_from(packet.len()).expect("short"), 0, 0, 1];
        bytes.extend(packet);
        let credentials = understand(&bytes, false).credentials.list;
        let expected = Some((Some("root"), Some("toor")));
        assert_eq!(credentials.first().map(|c| (c.user.as_deref(), c.secret.as_deref())), expected);
    }
}
