//! SMB 1 ([MS-SMB]) and SMB 2 and 3 ([MS-SMB2]) over TCP, and the NetBIOS session request (RFC 1002) of port 139.
//!
//! Decides at the protocol identifier `FF 'SMB'` or `FE 'SMB'` behind a session message's length, or at the encoded
//! called name of a session request.

use super::reader::{End, Reader};
use super::value::{LIST_ITEMS, Value};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "smb",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/curl.smb"),
        include_bytes!("../fixtures/protocol/smbprotocol.smb"),
        b"\x81\x00\x00\x44\x20CKFDENECFDEFFCFGEFFCCACACACACACA\x00\x20EOENEBFACACACACACACACACACACACACA\x00",
    ],
};

/// Frames that are read; clients send few before they wait.
const FRAMES: usize = 64;
/// Names of a session request: 16 bytes, each as two letters from A to P.
const ENCODED_NAME_BYTES: usize = 32;

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    match reader.u8()? {
        0x00 => {
            reader.be24()?;
            Ok(matches!(reader.u8()?, 0xfe | 0xff) && reader.literal(b"SMB")?)
        }
        0x81 => {
            if !reader.literal(&[0, 0, 0x44, 0x20])? {
                return Ok(false);
            }
            for _ in 0..ENCODED_NAME_BYTES {
                if !matches!(reader.u8()?, b'A'..=b'P') {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut commands = Vec::new();
    let end = frames(&mut reader, out, &mut commands);
    out.details.list("commands", commands);
    end
}

fn frames(reader: &mut Reader<'_>, out: &mut Understanding, commands: &mut Vec<Value>) -> Result<(), End> {
    for _ in 0..FRAMES {
        if reader.rest().is_empty() {
            break;
        }
        let kind = reader.u8()?;
        let length = usize::try_from(reader.be24()?).map_err(|_| End)?;
        // A message that is cut off still shows its first fields.
        let (mut message, whole) = reader.up_to(length);
        let read = match kind {
            0x81 => session_request(&mut message, out),
            _ => message_facts(&mut message, out, commands),
        };
        if !whole {
            return Err(End);
        }
        // Fields beyond the end of their own message are the client's fault, not that of what was kept.
        if read.is_err() {
            break;
        }
    }
    Ok(())
}

/// Called and calling name (RFC 1002, section 4.3.2), without the padding and the service type.
fn session_request(message: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    for key in ["called_name", "calling_name"] {
        if !message.literal(&[0x20])? {
            break;
        }
        let encoded = message.take(ENCODED_NAME_BYTES)?;
        let name: Vec<u8> = encoded
            .chunks_exact(2)
            .take(15)
            .map(|pair| pair.iter().fold(0_u8, |byte, letter| byte << 4 | letter.wrapping_sub(b'A') & 0x0f))
            .collect();
        out.details.text(key, name.trim_ascii_end());
        message.take(1)?;
    }
    Ok(())
}

fn message_facts(message: &mut Reader<'_>, out: &mut Understanding, commands: &mut Vec<Value>) -> Result<(), End> {
    let identifier = message.u8()?;
    if !message.literal(b"SMB")? {
        return Ok(());
    }
    let command = match identifier {
        0xff => {
            out.details.number("version", 1_u8);
            let command = message.u8()?;
            message.take(27)?;
            if command == 0x72 {
                dialects_of_version_1(message, out)?;
            }
            u32::from(command)
        }
        0xfe => {
            out.details.number("version", 2_u8);
            message.take(8)?;
            let command = message.le16()?;
            message.take(50)?;
            if command == 0 {
                dialects_of_version_2(message, out)?;
            }
            u32::from(command)
        }
        _ => return Ok(()),
    };
    if commands.len() <= LIST_ITEMS {
        commands.push(Value::from(command));
    }
    Ok(())
}

/// SMB_COM_NEGOTIATE: dialects as text, each behind a byte of 2 ([MS-CIFS] 2.2.4.52.1).
fn dialects_of_version_1(message: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    let words = usize::from(message.u8()?);
    message.take(words * 2)?;
    let length = usize::from(message.le16()?);
    let dialects = message.take(length.min(message.rest().len()))?;
    let names = dialects.split(|byte| *byte == 0).filter_map(|dialect| dialect.strip_prefix(&[2]));
    out.details.texts("dialects", names);
    Ok(())
}

/// SMB2 NEGOTIATE: dialects as numbers ([MS-SMB2] 2.2.3), written in hexadecimal as the specification names them.
fn dialects_of_version_2(message: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    message.take(2)?;
    let count = usize::from(message.le16()?);
    message.take(8)?;
    let client = message.take(16)?;
    message.take(8)?;
    let mut dialects = Vec::new();
    for _ in 0..count.min(LIST_ITEMS + 1) {
        dialects.push(Value::Text(format!("{:04x}", message.le16()?)));
    }
    out.details.list("dialects", dialects);
    out.details.hex("client_guid", client);
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
    fn dialects_of_version_1_are_texts() {
        assert_eq!(details(PROTOCOL.samples[0]), r#"{"version":1,"dialects":["NT LM 0.12"],"commands":[114]}"#);
    }

    #[test]
    fn dialects_of_version_2_are_numbers() {
        let facts = details(PROTOCOL.samples[1]);
        assert!(
            facts.starts_with(r#"{"version":2,"dialects":["0202","0210","0300","0302","0311"],"client_guid":""#),
            "{facts}"
        );
        assert!(facts.ends_with(r#""commands":[0]}"#), "{facts}");
    }

    #[test]
    fn a_session_request_shows_both_names() {
        assert_eq!(details(PROTOCOL.samples[2]), r#"{"called_name":"*SMBSERVER","calling_name":"NMAP"}"#);
    }

    #[test]
    fn a_message_that_is_cut_off_is_marked() {
        assert!(details(&PROTOCOL.samples[1][..80]).contains(r#""incomplete":true"#));
    }
}
