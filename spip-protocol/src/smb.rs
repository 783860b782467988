//! SMB 1 ([MS-SMB]) and SMB 2 and 3 ([MS-SMB2]) over TCP, and the NetBIOS session request (RFC 1002) of port 139.
//!
//! Decides at the protocol identifier `FF 'SMB'` or `FE 'SMB'` behind a session message's length, or at the encoded
//! called name of a session request. Further messages show the login (NTLM's, or the older one in clear names) and the trees.

use super::reader::{End, Reader};
use super::value::{LIST_ITEMS, Value};
use super::{Protocol, Understanding, ntlm};

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
/// Says in the second flags of version 1 that texts are UTF-16.
const UNICODE: u16 = 0x8000;
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
            message.take(5)?;
            let is_unicode = message.le16()? & UNICODE != 0;
            message.take(20)?;
            match command {
                0x72 => dialects_of_version_1(message, out)?,
                0x73 => login_of_version_1(message, is_unicode, out),
                0x75 => tree_of_version_1(message, is_unicode, out)?,
                _ => {}
            }
            u32::from(command)
        }
        0xfe => {
            out.details.number("version", 2_u8);
            message.take(8)?;
            let command = message.le16()?;
            message.take(50)?;
            match command {
                0 => dialects_of_version_2(message, out)?,
                1 => ntlm::login(message.rest(), out),
                3 => tree_of_version_2(message, out)?,
                _ => {}
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

/// SMB_COM_SESSION_SETUP_ANDX ([MS-CIFS] 2.2.4.53.1, [MS-SMB] 2.2.4.6.1): 12 words with NTLM behind them, 13 with passwords that
/// are answers to a challenge, and names.
fn login_of_version_1(message: &mut Reader<'_>, is_unicode: bool, out: &mut Understanding) {
    let body = message.rest();
    if body.first() != Some(&13) {
        return ntlm::login(body, out);
    }
    let length =
        |at: usize| body.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |two| u16::from_le_bytes(*two));
    // Words, the count of bytes, both passwords; Unicode begins at an even byte of the message, whose header has 32.
    let at = 29 + usize::from(length(15)) + usize::from(length(17));
    let at = if is_unicode { at.next_multiple_of(2) } else { at };
    let Some(mut rest) = body.get(at..) else { return };
    let mut names =
        ["user", "domain", "native_os", "native_lan_manager"].into_iter().map(|key| (key, text(&mut rest, is_unicode)));
    let user = names.next().map(|(_, user)| user).unwrap_or_default();
    if !user.is_empty() {
        out.details.text("user", user.as_bytes());
        out.credentials.add(Some(user.as_bytes()), None);
    }
    for (key, name) in names.filter(|(_, name)| !name.is_empty()) {
        out.details.text(key, name.as_bytes());
    }
}

/// A text up to its zero, or up to the end.
fn text(rest: &mut &[u8], is_unicode: bool) -> String {
    let (text, behind) = if is_unicode {
        let units = rest.as_chunks::<2>().0;
        let end = units.iter().position(|unit| *unit == [0, 0]).unwrap_or(units.len());
        (ntlm::utf16(&rest[..2 * end]), 2 * end + 2)
    } else {
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        (String::from_utf8_lossy(&rest[..end]).into_owned(), end + 1)
    };
    *rest = rest.get(behind..).unwrap_or_default();
    text
}

/// SMB_COM_TREE_CONNECT_ANDX ([MS-CIFS] 2.2.4.55.1): a password, then the path.
fn tree_of_version_1(message: &mut Reader<'_>, is_unicode: bool, out: &mut Understanding) -> Result<(), End> {
    let words = usize::from(message.u8()?);
    let parameters = message.take(words * 2)?;
    message.take(2)?;
    let password = parameters.get(6..).and_then(|rest| rest.first_chunk()).map_or(0, |two| u16::from_le_bytes(*two));
    message.take(usize::from(password))?;
    // The header's 32 bytes, the count of words, and that of bytes.
    if is_unicode && (32 + 1 + words * 2 + 2 + usize::from(password)) % 2 != 0 {
        message.take(1)?;
    }
    tree(&text(&mut message.rest(), is_unicode), out);
    Ok(())
}

/// SMB2 TREE_CONNECT ([MS-SMB2] 2.2.9): the path by its place in the message, whose header has 64 bytes.
fn tree_of_version_2(message: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    let body = message.rest();
    message.take(4)?;
    let (offset, length) = (usize::from(message.le16()?), usize::from(message.le16()?));
    let path = offset.checked_sub(64).and_then(|at| body.get(at..)?.get(..length));
    tree(&ntlm::utf16(path.unwrap_or_default()), out);
    Ok(())
}

/// The first tree that the client asks for.
fn tree(path: &str, out: &mut Understanding) {
    if !path.is_empty() && out.details.get("tree").is_none() {
        out.details.text("tree", path.as_bytes());
    }
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

    /// A message of version 1 with Unicode, or of version 2.
    fn message(version: u8, command: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = if version == 1 { vec![0; 32] } else { vec![0; 64] };
        bytes[..4].copy_from_slice(if version == 1 { b"\xffSMB" } else { b"\xfeSMB" });
        if version == 1 {
            (bytes[4], bytes[11]) = (command, 0x80);
        } else {
            bytes[12] = command;
        }
        bytes.extend_from_slice(body);
        let [_, length @ ..] = u32::try_from(bytes.len()).expect("short").to_be_bytes();
        [&[0][..], &length, &bytes].concat()
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn a_login_by_ntlm_shows_its_names_in_both_versions() {
        let login = [&[0; 24][..], &ntlm::sample("admin", "CORP")].concat();
        for bytes in [message(2, 1, &login), message(1, 0x73, &[&[12][..], &login].concat())] {
            let understanding = understand(&bytes, false);
            assert_eq!(understanding.details.get("domain").and_then(Value::as_text), Some("CORP"));
            assert_eq!(understanding.credentials.list.first().and_then(|one| one.user.as_deref()), Some("admin"));
        }
    }

    #[test]
    fn a_login_without_extended_security_and_the_tree_behind_it_show_their_names() {
        let mut setup = vec![0; 29];
        (setup[0], setup[15], setup[17]) = (13, 24, 24);
        setup.extend_from_slice(&[1; 48]);
        // 29 + 48 + 32 is odd.
        setup.push(0);
        setup.extend(utf16("guest\0WG\0Unix\0Samba\0"));
        let path = [&[4, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0][..], &utf16("\\\\198.51.100.1\\IPC$\0")].concat();
        let bytes = [message(1, 0x73, &setup), message(1, 0x75, &path)].concat();
        let facts = details(&bytes);
        let expected = concat!(
            r#"{"version":1,"user":"guest","domain":"WG","native_os":"Unix","native_lan_manager":"Samba","#,
            r#""tree":"\\\\198.51.100.1\\IPC$","commands":[115,117]}"#
        );
        assert_eq!(facts, expected);
    }

    #[test]
    fn a_tree_of_version_2_is_its_path() {
        let path = utf16("\\\\h\\ADMIN$");
        let length = u8::try_from(path.len()).expect("short");
        let body = [&[9, 0, 0, 0, 72, 0, length, 0][..], &path].concat();
        let facts = details(&message(2, 3, &body));
        assert_eq!(facts, r#"{"version":2,"tree":"\\\\h\\ADMIN$","commands":[3]}"#);
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
