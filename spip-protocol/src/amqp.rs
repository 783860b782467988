//! AMQP 0-9-1 and 1.0: the protocol header, and the login that RabbitMQ's clients send after the server's start.
//!
//! Decides at the header of eight bytes. <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>

use super::reader::{End, Reader};
use super::{Protocol, Understanding, sasl};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "amqp",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[include_bytes!("../fixtures/protocol/pika.amqp"), b"AMQP\x03\x01\x00\x00", b"AMQP\x01\x01\x00\x0a"],
};

/// The classes and methods of a login: connection.start-ok.
const START_OK: &[u8] = &[0, 10, 0, 11];

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !reader.literal(b"AMQP")? {
        return Ok(false);
    }
    // Identifier of the protocol (0 plain, 1 AMQP 0-8, 2 TLS, 3 SASL), then its version.
    let [identifier, major, minor, revision] = reader.array()?;
    Ok(identifier <= 3 && major <= 9 && minor <= 10 && revision <= 10)
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    reader.take(4)?;
    let [identifier, major, minor, revision] = reader.array()?;
    let version = match (identifier, major, minor, revision) {
        (0, 0, 9, 1) => "0-9-1".to_owned(),
        (1, 1, minor, revision) => format!("{minor}-{revision}"),
        _ => format!("{major}.{minor}.{revision}"),
    };
    out.details.text("version", version.as_bytes());
    out.details.number("protocol_id", identifier);
    if identifier == 3 {
        return sasl_init(&mut reader, out);
    }
    if identifier != 0 || major != 0 {
        return Ok(());
    }
    // A frame: type, channel, length, payload, end.
    while !reader.rest().is_empty() {
        let [kind, _, _] = reader.array()?;
        let length = usize::try_from(reader.be32()?).map_err(|_| End)?;
        let payload = reader.take(length)?;
        reader.take(1)?;
        if kind == 1
            && let Some(arguments) = payload.strip_prefix(START_OK)
        {
            // Fields beyond the end of their own frame are the client's fault, not that of what was kept.
            let _whole = start_ok(&mut Reader::new(arguments), out);
        }
    }
    Ok(())
}

/// The frame of SASL of version 1.0 that chooses a mechanism (AMQP 1.0, part 5.3.3.2): a list of mechanism and response.
fn sasl_init(reader: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    if reader.rest().is_empty() {
        return Ok(());
    }
    let length = usize::try_from(reader.be32()?).map_err(|_| End)?;
    let (mut frame, whole) = reader.up_to(length.saturating_sub(4));
    let mut read = || -> Result<(), End> {
        // Data offset, type, channel, and the descriptor of sasl-init.
        frame.take(4)?;
        if !frame.literal(&[0, 0x53, 0x41])? {
            return Ok(());
        }
        // A list with small or large size and count.
        match frame.u8()? {
            0xc0 => frame.take(2)?,
            0xd0 => frame.take(8)?,
            _ => return Ok(()),
        };
        let mechanism = variable(&mut frame)?;
        out.details.text("mechanism", mechanism);
        let response = variable(&mut frame)?;
        if mechanism == b"PLAIN" {
            sasl::message(response, &mut out.credentials);
        }
        Ok(())
    };
    // Fields beyond the end of their own frame are the client's fault, not that of what was kept.
    let _read = read();
    if whole { Ok(()) } else { Err(End) }
}

/// A symbol or binary of the type system of version 1.0; empty where there is none.
fn variable<'a>(frame: &mut Reader<'a>) -> Result<&'a [u8], End> {
    let length = match frame.u8()? {
        0xa0 | 0xa3 => usize::from(frame.u8()?),
        0xb0 | 0xb3 => usize::try_from(frame.be32()?).map_err(|_| End)?,
        _ => 0,
    };
    frame.take(length)
}

/// Properties of the client, mechanism, response.
fn start_ok(arguments: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    let length = usize::try_from(arguments.be32()?).map_err(|_| End)?;
    let mut properties = Reader::new(arguments.take(length)?);
    while let Ok(length) = properties.u8() {
        let name = properties.take(usize::from(length))?;
        let kind = properties.u8()?;
        let value = match kind {
            b'S' | b'F' | b'A' | b'x' => {
                let length = usize::try_from(properties.be32()?).map_err(|_| End)?;
                properties.take(length)?
            }
            b't' | b'b' | b'B' => properties.take(1)?,
            b's' | b'u' => properties.take(2)?,
            b'I' | b'i' | b'f' => properties.take(4)?,
            b'l' | b'd' | b'T' => properties.take(8)?,
            b'V' => b"",
            // Where the size of a value is unknown, the rest of the table is.
            _ => break,
        };
        match (name, kind) {
            (b"product", b'S') => out.details.text("product", value),
            (b"version", b'S') => out.details.text("product_version", value),
            (b"platform", b'S') => out.details.text("platform", value),
            _ => {}
        }
    }
    let length = arguments.u8()?;
    let mechanism = arguments.take(usize::from(length))?;
    out.details.text("mechanism", mechanism);
    let length = usize::try_from(arguments.be32()?).map_err(|_| End)?;
    let response = arguments.take(length)?;
    if mechanism == b"PLAIN" {
        sasl::message(response, &mut out.credentials);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_client_of_rabbitmq_shows_itself_and_its_login() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = concat!(
            r#"{"version":"0-9-1","protocol_id":0,"product":"Pika Python Client Library","platform":"Python 3.11.7","#,
            r#""product_version":"1.4.4","mechanism":"PLAIN"}"#
        );
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("guest"), Some("guest")));
    }

    #[test]
    fn version_1_0_shows_its_login() {
        let body = b"\x02\x01\0\0\0\x53\x41\xc0\x12\x02\xa3\x05PLAIN\xa0\x0a\0root\0toor";
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        let bytes = [PROTOCOL.samples[1], &length, body].concat();
        let understanding = understand(&bytes, false);
        assert_eq!(understanding.details.get("mechanism").and_then(|value| value.as_text()), Some("PLAIN"));
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("root"), Some("toor")));
        for end in PROTOCOL.samples[1].len()..bytes.len() {
            assert_eq!(understand(&bytes[..end], false).protocol, Some("amqp"));
        }
    }

    #[test]
    fn version_1_0_with_sasl_is_told_apart() {
        let details = understand(PROTOCOL.samples[1], false).details;
        assert_eq!(serde_json::to_string(&details).expect("json"), r#"{"version":"1.0.0","protocol_id":3}"#);
    }
}
