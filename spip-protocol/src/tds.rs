//! SQL Server ([MS-TDS]): the pre-login, the login with user and password, and the first statement.
//!
//! Decides at a pre-login with its table of options, or at a login of version 7. The password of a login is only scrambled
//! ([MS-TDS] 2.2.6.4), so that it is as good as clear.

use super::ntlm::{self, utf16};
use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "tds",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x12\x01\x00\x2f\x00\x00\x01\x00\x00\x00\x1a\x00\x06\x01\x00\x20\x00\x01\x02\x00\x21\x00\x01\x03\x00\x22\x00\x04\x00\x22\x00\x01\xff",
        b"\x10\x01\x00\x9b\x00\x00\x01\x00\x93\x00\x00\x00\x04\x00\x00\x74\x00\x10\x00\x00",
        include_bytes!("../fixtures/protocol/login.tds"),
    ],
};

/// Types of packets ([MS-TDS] 2.2.3.1.1).
mod kind {
    pub(super) const BATCH: u8 = 0x01;
    pub(super) const LOGIN: u8 = 0x10;
    pub(super) const PRELOGIN: u8 = 0x12;
}

/// Bytes of a packet's header.
const HEADER: u16 = 8;
/// Status of the last packet of a message.
const LAST: u8 = 1;
/// Packets that are read, and bytes of one message: of a long statement the beginning is enough.
const PACKETS: usize = 64;
const MESSAGE_BYTES: usize = 64 * 1024;
/// Where a login has its pairs of offset and length.
const NAMES: usize = 36;
/// In front of a batch since version 7.2: headers, with their length.
const HEADERS_BYTES: usize = 22;

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let kind = reader.u8()?;
    if !matches!(kind, kind::LOGIN | kind::PRELOGIN) || reader.u8()? > 1 {
        return Ok(false);
    }
    let length = reader.be16()?;
    // Channel, packet, window.
    reader.take(2)?;
    reader.u8()?;
    if length <= HEADER || reader.u8()? != 0 {
        return Ok(false);
    }
    if kind == kind::LOGIN {
        let login = reader.le32()?;
        reader.take(3)?;
        return Ok(login == u32::from(length - HEADER) && matches!(reader.u8()?, 0x70..=0x74));
    }
    // The first option is the version, of six bytes; options stand before their values.
    if reader.u8()? != 0 {
        return Ok(false);
    }
    let offset = reader.be16()?;
    Ok((6..length).contains(&offset) && reader.be16()? == 6)
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut message = Vec::new();
    for _ in 0..PACKETS {
        if reader.rest().is_empty() {
            break;
        }
        let [kind, status] = reader.array()?;
        let length = reader.be16()?.checked_sub(HEADER).ok_or(End)?;
        reader.take(4)?;
        let (mut packet, whole) = reader.up_to(usize::from(length));
        let room = MESSAGE_BYTES.saturating_sub(message.len());
        let part = packet.rest();
        message.extend_from_slice(packet.take(part.len().min(room))?);
        if whole && status & LAST == 0 {
            continue;
        }
        let message = std::mem::take(&mut message);
        // Fields beyond the end of their own message are the client's fault, not that of what was kept.
        let _read = match kind {
            kind::PRELOGIN => prelogin(&message, out),
            kind::LOGIN => login(&message, out),
            kind::BATCH => batch(&message, out),
            _ => Some(()),
        };
        if !whole {
            return Err(End);
        }
    }
    Ok(())
}

/// Options: token, offset, length, up to an end.
fn prelogin(message: &[u8], out: &mut Understanding) -> Option<()> {
    for option in message.chunks_exact(5).take_while(|option| option[0] != 0xff) {
        let at = usize::from(u16::from_be_bytes([option[1], option[2]]));
        let length = usize::from(u16::from_be_bytes([option[3], option[4]]));
        let value = message.get(at..)?.get(..length)?;
        match (option[0], value) {
            (0, [major, minor, high, low, ..]) => {
                let version = format!("{major}.{minor}.{}", u16::from_be_bytes([*high, *low]));
                out.details.text("client_version", version.as_bytes());
            }
            (1, [encryption, ..]) => {
                let name: &[u8] = match encryption & 0x0f {
                    0 => b"off",
                    1 => b"on",
                    2 => b"not_supported",
                    3 => b"required",
                    _ => b"other",
                };
                out.details.text("encryption", name);
            }
            (2, instance) if instance.len() > 1 => {
                out.details.text("instance", instance.split(|byte| *byte == 0).next().unwrap_or_default());
            }
            _ => {}
        }
    }
    Some(())
}

/// Names and the password, each behind an offset and a count of characters ([MS-TDS] 2.2.6.4).
fn login(message: &[u8], out: &mut Understanding) -> Option<()> {
    let version = u32::from_le_bytes(*message.get(4..)?.first_chunk()?);
    out.details.text("tds_version", format!("{version:08x}").as_bytes());
    let (mut user, mut secret) = (None, None);
    let keys =
        ["client_name", "user", "password", "program_name", "server_name", "", "library", "language", "database"];
    for (key, place) in keys.iter().zip(message.get(NAMES..)?.chunks_exact(4)) {
        let (at, length) = (u16::from_le_bytes([place[0], place[1]]), u16::from_le_bytes([place[2], place[3]]));
        let Some(value) = message.get(usize::from(at)..).and_then(|rest| rest.get(..2 * usize::from(length))) else {
            continue;
        };
        match *key {
            "" => {}
            "password" => secret = Some(utf16(&unscrambled(value))),
            "user" if !value.is_empty() => {
                out.details.text(key, utf16(value).as_bytes());
                user = Some(utf16(value));
            }
            key if !value.is_empty() => out.details.text(key, utf16(value).as_bytes()),
            _ => {}
        }
    }
    if user.is_some() {
        out.credentials.add(user.as_deref().map(str::as_bytes), secret.as_deref().map(str::as_bytes));
    } else {
        // A login of Windows has its names in NTLM.
        ntlm::login(message, out);
    }
    Some(())
}

/// Undoes what keeps a password from the eye: halves of each byte are exchanged, then some bits turned.
fn unscrambled(password: &[u8]) -> Vec<u8> {
    password.iter().map(|byte| (byte ^ 0xa5).rotate_left(4)).collect()
}

/// The first statement.
fn batch(message: &[u8], out: &mut Understanding) -> Option<()> {
    let headers = usize::try_from(u32::from_le_bytes(*message.first_chunk()?)).ok()?;
    // Clients of old versions send no headers: then the first four bytes are two letters.
    let text = if (HEADERS_BYTES..=message.len()).contains(&headers) { &message[headers..] } else { message };
    if out.details.get("statement").is_none() {
        out.details.text("statement", utf16(text).as_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_pre_login_shows_version_and_encryption() {
        let mut bytes = PROTOCOL.samples[0].to_vec();
        // The last option of the sample lacks its token; with the first of these bytes the values are where they belong.
        bytes.extend_from_slice(b"\x00\x0a\x00\x0f\xa0\x00\x00\x01\x00\x00\x00\x00\x00\x00");
        let details = serde_json::to_string(&understand(&bytes, false).details).expect("json");
        assert_eq!(details, r#"{"client_version":"10.0.4000","encryption":"on"}"#);
    }

    #[test]
    fn a_login_shows_user_password_and_the_program_and_a_batch_its_statement() {
        let mut bytes = PROTOCOL.samples[2].to_vec();
        let statement: Vec<u8> = "exec xp_cmdshell 'whoami'".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = u16::try_from(8 + statement.len()).expect("short").to_be_bytes();
        bytes.extend_from_slice(&[kind::BATCH, LAST, length[0], length[1], 0, 0, 1, 0]);
        bytes.extend(statement);
        let understanding = understand(&bytes, false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = concat!(
            r#"{"tds_version":"74000004","client_name":"ATTACKER","user":"sa","program_name":"scan","server_name":"198.51.100.1","#,
            r#""library":"ODBC","database":"master","statement":"exec xp_cmdshell 'whoami'"}"#
        );
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("sa"), Some("P@ss\"wörd")));
    }

    #[test]
    fn a_message_in_two_packets_is_read_as_one() {
        let (head, body) = PROTOCOL.samples[2].split_at(8);
        let (one, other) = body.split_at(60);
        let packet = |status: u8, body: &[u8]| {
            let length = u16::try_from(8 + body.len()).expect("short").to_be_bytes();
            [&[head[0], status, length[0], length[1], 0, 0, 1, 0][..], body].concat()
        };
        let mut out = Understanding::default();
        let bytes = [packet(0, one), packet(LAST, other)].concat();
        super::understand(&bytes, &mut out).expect("whole");
        assert_eq!(out.credentials, understand(PROTOCOL.samples[2], false).credentials);
    }

    #[test]
    fn a_login_of_windows_has_its_name_in_ntlm() {
        let mut message = vec![0; 94];
        message.extend(ntlm::sample("Administrator", "CORP"));
        let mut out = Understanding::default();
        login(&message, &mut out);
        assert_eq!(out.credentials.list.first().and_then(|one| one.user.as_deref()), Some("Administrator"));
    }

    #[test]
    fn the_instance_that_is_asked_for_is_shown_unless_it_is_none() {
        let details = |instance: &[u8]| {
            let mut message = vec![2, 0, 6, 0, u8::try_from(instance.len()).expect("short"), 0xff];
            message.extend_from_slice(instance);
            let mut out = Understanding::default();
            prelogin(&message, &mut out);
            serde_json::to_string(&out.details).expect("json")
        };
        assert_eq!(details(b"SQLEXPRESS\0"), r#"{"instance":"SQLEXPRESS"}"#);
        assert_eq!(details(b"\0"), "{}");
        assert_eq!(details(b""), "{}");
    }
}
