//! SMB 1 as Windows 7 speaks it ([MS-CIFS], [MS-SMB]).

use memchr::memmem;

use super::{Answer, Login, Scene, filetime, le16, length16, machine, ntlm, status, utf16, version2};

/// Bytes of the header.
const HEADER: usize = 32;
/// Offset of the flags.
const FLAGS: usize = 9;
/// Says that a message is the server's.
const REPLY: u8 = 0x80;
/// Of the second flags: long names, extended security, status as a number, Unicode.
const EXTENDED_SECURITY: u16 = 0x0800;
const STATUS32: u16 = 0x4000;
const UNICODE: u16 = 0x8000;
/// Raw reads, NT functions, large files, DFS and so on; extended security is added where the client has it.
const CAPABILITIES: u32 = 0x0001_e3fc;
const CAPABILITY_EXTENDED: u32 = 0x8000_0000;

/// System that the server claims to be.
const SYSTEM: &str = "Windows 7 Professional 7601 Service Pack 1";
const MANAGER: &str = "Windows 7 Professional 6.1";

/// Commands.
mod command {
    pub(super) const ECHO: u8 = 0x2b;
    pub(super) const TRANSACTION: u8 = 0x25;
    pub(super) const TRANSACTION2: u8 = 0x32;
    pub(super) const TREE_DISCONNECT: u8 = 0x71;
    pub(super) const NEGOTIATE: u8 = 0x72;
    pub(super) const SESSION_SETUP: u8 = 0x73;
    pub(super) const LOGOFF: u8 = 0x74;
    pub(super) const TREE_CONNECT: u8 = 0x75;
}

pub(super) fn answer(message: &[u8], scene: &Scene<'_>) -> Option<Answer> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    let flags2 = le16(header, FLAGS + 1)?;
    let is_extended = flags2 & EXTENDED_SECURITY != 0;
    let say =
        |name, status: u32, body: &[u8]| Some(Answer { name, message: framed(header, status, body), refuses: false });
    let refuse =
        |status: u32| Some(Answer { name: "smb_refusal", message: framed(header, status, &[0, 0, 0]), refuses: true });
    match header[4] {
        command::NEGOTIATE => {
            let body = message.get(HEADER..)?;
            for (dialect, number) in [(&b"\x02SMB 2.???\0"[..], 0x02ff), (b"\x02SMB 2.002\0", 0x0202)] {
                if memmem::find(body, dialect).is_some() {
                    let message = version2::negotiated(None, number, scene);
                    return Some(Answer { name: "smb_negotiated", message, refuses: false });
                }
            }
            let number = dialect(body)?;
            say("smb_negotiated", status::SUCCESS, &negotiated(number, is_extended, scene))
        }
        command::SESSION_SETUP => {
            let body = message.get(HEADER..)?;
            if body.first() != Some(&12) {
                return say("smb_login", status::SUCCESS, &logged_in(flags2));
            }
            let length = usize::from(le16(body, 15)?);
            let blob = body.get(27..)?;
            let blob = blob.get(..length).unwrap_or(blob);
            match Login::of(blob) {
                Login::Begins => {
                    let token = ntlm::answer(blob, scene);
                    say("smb_challenge", status::MORE_PROCESSING_REQUIRED, &with_token(0, &token, flags2))
                }
                Login::Ends => say("smb_login", status::SUCCESS, &with_token(1, &ntlm::accepted(blob), flags2)),
            }
        }
        command::TREE_CONNECT => {
            // Support of exclusive search bits; the service and no file system.
            let body = [&[3, 0xff, 0, 0, 0, 1, 0][..], &[5, 0], b"IPC\0\0"].concat();
            say("smb_tree", status::SUCCESS, &body)
        }
        command::ECHO => {
            // Sequence number 1 and the client's data, as far as the protocol demands it: none.
            say("smb_answer", status::SUCCESS, &[1, 1, 0, 0, 0])
        }
        command::TREE_DISCONNECT => say("smb_answer", status::SUCCESS, &[0, 0, 0]),
        command::LOGOFF => say("smb_answer", status::SUCCESS, &[2, 0xff, 0, 0, 0, 0, 0]),
        command::TRANSACTION => refuse(status::INSUFF_SERVER_RESOURCES),
        command::TRANSACTION2 => refuse(status::NOT_IMPLEMENTED),
        _ => refuse(status::ACCESS_DENIED),
    }
}

/// The number of `NT LM 0.12` among the client's dialects; none of it: 0xffff.
fn dialect(body: &[u8]) -> Option<u16> {
    let texts = body.get(3..)?;
    let mut names = texts.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let number = names.position(|name| name == b"\x02NT LM 0.12");
    Some(number.and_then(|number| u16::try_from(number).ok()).unwrap_or(u16::MAX))
}

fn negotiated(dialect: u16, is_extended: bool, scene: &Scene<'_>) -> Vec<u8> {
    if dialect == u16::MAX {
        return [&[1][..], &dialect.to_le_bytes(), &[0, 0]].concat();
    }
    let mut body = vec![17];
    body.extend_from_slice(&dialect.to_le_bytes());
    // Logins of users, with challenges.
    body.push(3);
    body.extend_from_slice(&50_u16.to_le_bytes());
    body.extend_from_slice(&1_u16.to_le_bytes());
    for number in [16_644, 65_536, 0, CAPABILITIES | if is_extended { CAPABILITY_EXTENDED } else { 0 }] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&filetime(scene).to_le_bytes());
    // Time zone, and the length of the challenge.
    body.extend_from_slice(&[0, 0, if is_extended { 0 } else { 8 }]);
    let rest = if is_extended {
        [&scene.random::<16>("smb server")[..], &ntlm::offer()].concat()
    } else {
        [&ntlm::challenge(scene)[..], &utf16("WORKGROUP\0"), &utf16(&machine(scene)), &[0, 0]].concat()
    };
    body.extend_from_slice(&length16(&rest));
    body.extend_from_slice(&rest);
    body
}

/// A session as a guest, for clients without extended security.
fn logged_in(flags2: u16) -> Vec<u8> {
    let names = names(flags2, HEADER + 9, &[SYSTEM, MANAGER, "WORKGROUP"]);
    [&[3, 0xff, 0, 0, 0, 1, 0][..], &length16(&names), &names].concat()
}

/// A step of the login with extended security. `action` is 1 for a guest.
fn with_token(action: u8, token: &[u8], flags2: u16) -> Vec<u8> {
    let names = names(flags2, HEADER + 11 + token.len(), &[SYSTEM, MANAGER]);
    let rest = [token, &names].concat();
    [&[4, 0xff, 0, 0, 0, action, 0][..], &length16(token), &length16(&rest), &rest].concat()
}

/// Texts with an end each, from byte `at` of the message on: those in Unicode begin at an even one.
fn names(flags2: u16, at: usize, texts: &[&str]) -> Vec<u8> {
    if flags2 & UNICODE == 0 {
        return texts.iter().flat_map(|text| text.bytes().chain([0])).collect();
    }
    let padding = vec![0; at % 2];
    texts.iter().fold(padding, |names, text| [names, utf16(text), vec![0, 0]].concat())
}

fn framed(request: &[u8; HEADER], status: u32, body: &[u8]) -> Vec<u8> {
    let mut header = *request;
    header[5..9].copy_from_slice(&status.to_le_bytes());
    header[FLAGS] |= REPLY;
    let flags2 = u16::from_le_bytes([header[FLAGS + 1], header[FLAGS + 2]]) | STATUS32;
    header[FLAGS + 1..FLAGS + 3].copy_from_slice(&flags2.to_le_bytes());
    // Signature, and the numbers of tree and user.
    header[14..22].fill(0);
    match header[4] {
        command::TREE_CONNECT => header[24..26].copy_from_slice(&[0, 8]),
        command::SESSION_SETUP => header[28..30].copy_from_slice(&[0, 8]),
        _ => {}
    }
    [&header[..], body].concat()
}
