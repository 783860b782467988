//! MongoDB's wire protocol: the command, and what the driver says of itself when it connects.
//!
//! Decides at the header of 16 bytes: a credible length, an operation code that clients use, and no message that it
//! answers. <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>

use super::reader::{End, Reader};
use super::{Protocol, Understanding, bson, sasl};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "mongodb",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/pymongo.mongodb"),
        b"\x41\x00\x00\x00\x3a\x30\x00\x00\xff\xff\xff\xff\xd4\x07\x00\x00\x00\x00\x00\x00test.$cmd\x00\x00\x00\x00\x00\xff\xff\xff\xff\x1b\x00\x00\x00\x01serverStatus\x00\x00\x00\x00\x00\x00\x00\xf0\x3f\x00",
    ],
};

/// maxMessageSizeBytes, the largest message that servers take.
const MESSAGE_BYTES: u32 = 48_000_000;
/// The header's length.
const HEADER_BYTES: u32 = 16;

fn operation(code: u32) -> Option<&'static str> {
    Some(match code {
        2001 => "OP_UPDATE",
        2002 => "OP_INSERT",
        2004 => "OP_QUERY",
        2005 => "OP_GET_MORE",
        2006 => "OP_DELETE",
        2007 => "OP_KILL_CURSORS",
        2010 => "OP_COMMAND",
        2012 => "OP_COMPRESSED",
        2013 => "OP_MSG",
        _ => return None,
    })
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let length = reader.le32()?;
    if !(HEADER_BYTES + 4..=MESSAGE_BYTES).contains(&length) {
        return Ok(false);
    }
    reader.take(4)?;
    // A request answers nothing; some clients write -1.
    if !matches!(reader.le32()?, 0 | u32::MAX) {
        return Ok(false);
    }
    Ok(operation(reader.le32()?).is_some())
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    // Not more than the first messages: they carry the greeting and the login.
    for _ in 0..8 {
        if reader.rest().is_empty() {
            break;
        }
        let length = reader.le32()?;
        reader.take(8)?;
        let code = reader.le32()?;
        let Some(operation) = operation(code).filter(|_| length >= HEADER_BYTES) else {
            break;
        };
        out.details.word("operation", operation);
        let body = usize::try_from(length - HEADER_BYTES).map_err(|_| End)?;
        let mut message = Reader::new(reader.take(body)?);
        if describe(&mut message, code, out).is_err() {
            break;
        }
    }
    Ok(())
}

fn describe(message: &mut Reader<'_>, code: u32, out: &mut Understanding) -> Result<(), End> {
    message.take(4)?;
    match code {
        2004 => {
            let collection = message.until(0, usize::MAX)?.unwrap_or_default();
            out.details.text("collection", collection);
            message.take(8)?;
        }
        // The first section is the command's document.
        2013 if message.literal(&[0])? => {}
        _ => return Ok(()),
    }
    let document = message.rest();
    if let Some(command) = bson::first_name(document) {
        out.details.text("command", command);
    }
    let facts: [(&'static str, &[&str]); 6] = [
        ("database", &["$db"]),
        ("driver", &["client", "driver", "name"]),
        ("driver_version", &["client", "driver", "version"]),
        ("os", &["client", "os", "name"]),
        ("platform", &["client", "platform"]),
        ("application", &["client", "application", "name"]),
    ];
    for (key, path) in facts {
        if let Some(value) = bson::find(document, path) {
            out.details.text(key, value);
        }
    }
    // A login is its own command, or rides on the first one.
    for path in [["payload"].as_slice(), &["speculativeAuthenticate", "payload"]] {
        if let Some(payload) = bson::find(document, path) {
            sasl::message(payload, &mut out.credentials);
        }
    }
    // `database.user`
    if let Some(account) = bson::find(document, &["saslSupportedMechs"]) {
        let user = account.splitn(2, |byte| *byte == b'.').nth(1).unwrap_or(account);
        out.credentials.add(Some(user), None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_driver_says_what_it_is() {
        let details = understand(PROTOCOL.samples[0], false).details;
        let json = serde_json::to_string(&details).expect("json");
        let expected = concat!(
            r#"{"operation":"OP_MSG","command":"ismaster","database":"admin","driver":"PyMongo|c","#,
            r#""driver_version":"4.20.0|","os":"Linux","platform":"CPython 3.11.7.final.0"}"#
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn an_old_query_shows_collection_and_command() {
        let details = understand(PROTOCOL.samples[1], false).details;
        let json = serde_json::to_string(&details).expect("json");
        assert_eq!(json, r#"{"operation":"OP_QUERY","collection":"test.$cmd","command":"serverStatus"}"#);
    }

    #[test]
    fn the_user_of_a_login_is_found_in_its_first_message() {
        // { saslStart: 1, mechanism: "SCRAM-SHA-1", payload: BinData(0, "n,,n=admin,r=abc"), $db: "admin" }
        let mut document =
            b"\x10saslStart\x00\x01\x00\x00\x00\x02mechanism\x00\x0c\x00\x00\x00SCRAM-SHA-1\x00".to_vec();
        document.extend_from_slice(
            b"\x05payload\x00\x10\x00\x00\x00\x00n,,n=admin,r=abc\x02$db\x00\x06\x00\x00\x00admin\x00\x00",
        );
        let mut bytes = u32::try_from(16 + 5 + 4 + document.len()).expect("short").to_le_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&u32::try_from(4 + document.len()).expect("short").to_le_bytes());
        bytes.extend_from_slice(&document);
        let understanding = understand(&bytes, false);
        let credential = understanding.credentials.list.first().expect("a name");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("admin"), None));
    }
}
