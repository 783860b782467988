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
    fn version_1_0_with_sasl_is_told_apart() {
        let details = understand(PROTOCOL.samples[1], false).details;
        assert_eq!(serde_json::to_string(&details).expect("json"), r#"{"version":"1.0.0","protocol_id":3}"#);
    }
}
