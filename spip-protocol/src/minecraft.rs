//! Minecraft, Java edition: the handshake before a status request or a login, and the ping of old versions.
//!
//! Decides at the end of a handshake whose fields fill its length exactly, or at `FE 01`, the whole ping of releases
//! 1.4 and 1.5. Lengths are taken in their shortest form only, and version 0 is refused: that keeps the length fields
//! of MySQL and MongoDB apart, except for those of exactly 510 bytes. <https://minecraft.wiki/w/Java_Edition_protocol>

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "minecraft",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x11\x00\xfd\x05\x0a192.0.2.99\x63\xdd\x01\x01\x00",
        b"\x0f\x00\x2f\x09localhost\x63\xdd\x02\x09\x00\x07Notch_1",
        b"\xfe\x01",
        b"\xfe\x01\xfa\x00\x0b\x00M\x00C\x00|\x00P\x00i\x00n\x00g\x00H\x00o\x00s\x00t\x00\x13\x4a\x00\x06\x00l\x00o\x00c\x00a\x00l\x00h\x00\x00\x63\xdd",
    ],
};

/// The longest encoding of a number.
const NUMBER_BYTES: u32 = 5;
/// The longest host name, with what proxies append to it.
const HOST_BYTES: usize = 1024;

/// Contents of a handshake.
struct Handshake<'a> {
    version: u32,
    host: &'a [u8],
    port: u16,
    next: u32,
}

/// Reads a handshake; `None` when the bytes are none.
fn handshake<'a>(reader: &mut Reader<'a>) -> Result<Option<Handshake<'a>>, End> {
    let Some((length, length_bytes)) = number(reader)? else {
        return Ok(None);
    };
    // The fields without the host name: identifier, version, length of the name, port, next state.
    if length < 7 || length_bytes > 2 || (length_bytes == 2 && length < 0x80) || reader.u8()? != 0 {
        return Ok(None);
    }
    let (Some((version, version_bytes)), Some((name, name_bytes))) = (number(reader)?, number(reader)?) else {
        return Ok(None);
    };
    let Some(name) = usize::try_from(name).ok().filter(|name| (1..=HOST_BYTES).contains(name)) else {
        return Ok(None);
    };
    if version == 0 {
        return Ok(None);
    }
    let expected = 1 + version_bytes + name_bytes + name + 2 + 1;
    if usize::try_from(length) != Ok(expected) {
        return Ok(None);
    }
    let host = reader.take(name)?;
    let port = reader.be16()?;
    // 1 status, 2 login, 3 transfer.
    let next = u32::from(reader.u8()?);
    Ok((1..=3).contains(&next).then_some(Handshake { version, host, port, next }))
}

/// A number and how many bytes it took.
fn number(reader: &mut Reader<'_>) -> Result<Option<(u32, usize)>, End> {
    let before = reader.rest().len();
    let number = reader.varint(NUMBER_BYTES)?;
    Ok(number.map(|number| (number, before - reader.rest().len())))
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut ping = *reader;
    if pings(&mut ping)? {
        // Version 1.6 goes on with a plugin message.
        return ping.literal(b"\xfa\x00\x0b\x00M\x00C\x00|");
    }
    Ok(handshake(reader)?.is_some())
}

/// Reports whether the ping of versions 1.4 to 1.6 comes next: its sender may wait for the answer.
pub(super) fn pings(reader: &mut Reader<'_>) -> Result<bool, End> {
    reader.literal(&[0xfe, 0x01])
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    if bytes.first() == Some(&0xfe) {
        out.details.word("next_state", "legacy_ping");
        return Ok(());
    }
    let Some(handshake) = handshake(&mut reader)? else {
        return Ok(());
    };
    out.details.number("protocol_version", handshake.version);
    // Clients of modified servers put markers behind a zero.
    out.details.text("host", handshake.host.split(|byte| *byte == 0).next().unwrap_or_default());
    out.details.number("port", handshake.port);
    out.details.word(
        "next_state",
        match handshake.next {
            1 => "status",
            2 => "login",
            _ => "transfer",
        },
    );
    if handshake.next != 1 && !reader.rest().is_empty() {
        let (_length, identifier) = (reader.varint(NUMBER_BYTES)?, reader.u8()?);
        let name = reader.varint(NUMBER_BYTES)?.and_then(|name| usize::try_from(name).ok());
        if let Some(name) = name.filter(|name| identifier == 0 && *name <= 16) {
            out.details.text("player", reader.take(name)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_status_request_shows_the_host_that_was_asked_for() {
        let details = understand(PROTOCOL.samples[0], false).details;
        let expected = r#"{"protocol_version":765,"host":"192.0.2.99","port":25565,"next_state":"status"}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn a_login_shows_the_player() {
        let details = understand(PROTOCOL.samples[1], false).details;
        assert_eq!(details.get("player").and_then(|player| player.as_text()), Some("Notch_1"));
    }
}
