//! MQTT 3.1, 3.1.1 and 5 (OASIS): CONNECT, with user name and password, and the topics that are subscribed next.
//!
//! Decides at the protocol's name and level in a CONNECT packet.

use super::reader::{End, Reader};
use super::value::LIST_ITEMS;
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "mqtt",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/paho.mqtt"),
        include_bytes!("../fixtures/protocol/paho5.mqtt"),
        b"\x10\x10\x00\x04MQTT\x04\x02\x00\x1e\x00\x04nmap",
        b"\x10\x1a\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x0cmosq_pub_123",
    ],
};

/// The longest encoding of a remaining length.
const LENGTH_BYTES: u32 = 4;

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !reader.literal(&[0x10])? || reader.varint(LENGTH_BYTES)?.is_none() {
        return Ok(false);
    }
    Ok(level(reader)?.is_some())
}

/// The protocol level behind its name; `None` when the name or the level is unknown. The highest bit marks a bridge.
fn level(reader: &mut Reader<'_>) -> Result<Option<&'static str>, End> {
    let named = match reader.be16()? {
        4 => reader.literal(b"MQTT")?,
        6 => reader.literal(b"MQIsdp")?,
        _ => false,
    };
    if !named {
        return Ok(None);
    }
    Ok(match reader.u8()? & 0x7f {
        3 => Some("3.1"),
        4 => Some("3.1.1"),
        5 => Some("5"),
        _ => None,
    })
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    reader.take(1)?;
    reader.varint(LENGTH_BYTES)?;
    let Some(version) = level(&mut reader)? else {
        return Ok(());
    };
    out.details.word("version", version);
    let flags = reader.u8()?;
    out.details.flag("clean_session", flags & 0x02 != 0);
    out.details.number("keep_alive", reader.be16()?);
    let version_5 = version == "5";
    properties(&mut reader, version_5)?;
    out.details.text("client_id", field(&mut reader)?);
    if flags & 0x04 != 0 {
        properties(&mut reader, version_5)?;
        out.details.text("will_topic", field(&mut reader)?);
        field(&mut reader)?;
    }
    let user = if flags & 0x80 != 0 { Some(field(&mut reader)?) } else { None };
    let secret = if flags & 0x40 != 0 { Some(field(&mut reader)?) } else { None };
    out.credentials.add(user, secret);
    let mut topics = Vec::new();
    let end = subscriptions(&mut reader, version_5, &mut topics);
    out.details.texts("topics", topics);
    end
}

/// The topics of SUBSCRIBE packets, wherever they stand among the packets that follow.
fn subscriptions<'a>(reader: &mut Reader<'a>, version_5: bool, topics: &mut Vec<&'a [u8]>) -> Result<(), End> {
    while !reader.rest().is_empty() {
        let kind = reader.u8()?;
        let Some(length) = reader.varint(LENGTH_BYTES)? else {
            break;
        };
        let mut packet = Reader::new(reader.take(usize::try_from(length).map_err(|_| End)?)?);
        if kind != 0x82 || packet.be16().is_err() || properties(&mut packet, version_5).is_err() {
            continue;
        }
        while topics.len() <= LIST_ITEMS {
            let (Ok(topic), Ok(_options)) = (field(&mut packet), packet.u8()) else {
                break;
            };
            topics.push(topic);
        }
    }
    Ok(())
}

/// Bytes behind a length of two bytes.
fn field<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], End> {
    let length = reader.be16()?;
    reader.take(usize::from(length))
}

/// Passes over properties, which only version 5 has.
fn properties(reader: &mut Reader<'_>, version_5: bool) -> Result<(), End> {
    if version_5 {
        let length = reader.varint(LENGTH_BYTES)?.ok_or(End)?;
        reader.take(usize::try_from(length).map_err(|_| End)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_login_and_its_subscriptions_are_shown() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected =
            r##"{"version":"3.1.1","clean_session":true,"keep_alive":60,"client_id":"probe-1","topics":["#"]}"##;
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("iot"), Some("iotpw")));
    }

    #[test]
    fn version_5_with_a_will_is_read_past_its_properties() {
        let understanding = understand(PROTOCOL.samples[1], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected =
            r#"{"version":"5","clean_session":true,"keep_alive":60,"client_id":"probe-5","will_topic":"bye"}"#;
        assert_eq!(details, expected);
        assert_eq!(understanding.credentials.list.len(), 1);
    }

    #[test]
    fn version_3_1_has_another_name() {
        let details = understand(PROTOCOL.samples[3], false).details;
        assert_eq!(details.get("version").and_then(|version| version.as_text()), Some("3.1"));
    }

    #[test]
    fn each_flag_of_a_connection_stands_for_itself() {
        let facts = |flags: u8, rest: &[u8]| {
            let bytes = [&b"\x10\x30\x00\x04MQTT\x04"[..], &[flags], b"\x00\x3c\x00\x01c", rest].concat();
            let understanding = understand(&bytes, false);
            let login = understanding.credentials.list.first().map(|one| (one.user.clone(), one.secret.clone()));
            (serde_json::to_string(&understanding.details).expect("json"), login)
        };
        let details = |clean: bool, more: &str| {
            format!(r#"{{"version":"3.1.1","clean_session":{clean},"keep_alive":60,"client_id":"c"{more}}}"#)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(facts(0x00, b""), (details(false, ""), None));
        assert_eq!(facts(0x02, b""), (details(true, ""), None));
        assert_eq!(facts(0x04, b"\0\x01w\0\x01m"), (details(false, r#","will_topic":"w""#), None));
        assert_eq!(facts(0x80, b"\0\x01u"), (details(false, ""), Some((text("u"), None))));
        assert_eq!(facts(0x40, b"\0\x01p"), (details(false, ""), Some((None, text("p")))));
        assert_eq!(facts(0xc0, b"\0\x01u\0\x01p"), (details(false, ""), Some((text("u"), text("p")))));
    }
}
