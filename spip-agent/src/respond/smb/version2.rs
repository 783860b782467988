//! SMB 2.0.2 and 2.1 as Windows 7 speaks them ([MS-SMB2]): later dialects are negotiated down.

use super::{Answer, Login, Scene, filetime, le16, length16, ntlm, status};

/// Bytes of the header.
const HEADER: usize = 64;
/// Says that a message is the server's.
const REPLY: u8 = 1;
/// Credits that a client gets at most.
const CREDITS: u16 = 64;
/// Transactions, reads and writes of a megabyte.
const MOST_BYTES: u32 = 0x0010_0000;
/// Marks a session as a guest's, which is never signed.
const GUEST: u16 = 1;

/// Commands.
mod command {
    pub(super) const NEGOTIATE: u16 = 0;
    pub(super) const SESSION_SETUP: u16 = 1;
    pub(super) const LOGOFF: u16 = 2;
    pub(super) const TREE_CONNECT: u16 = 3;
    pub(super) const TREE_DISCONNECT: u16 = 4;
    pub(super) const ECHO: u16 = 13;
}

pub(super) fn answer(message: &[u8], scene: &Scene<'_>) -> Option<Answer> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    let body = message.get(HEADER..)?;
    let say =
        |name, status: u32, body: &[u8]| Some(Answer { name, message: framed(header, status, body), refuses: false });
    // An error without data.
    let refuse = |status: u32| {
        Some(Answer {
            name: "smb_refusal",
            message: framed(header, status, &[9, 0, 0, 0, 0, 0, 0, 0, 0]),
            refuses: true,
        })
    };
    match le16(header, 12)? {
        command::NEGOTIATE => {
            let count = usize::from(le16(body, 2)?).min(64);
            let mut offered = (0..count).filter_map(|number| le16(body, 36 + 2 * number));
            let dialect = if offered.any(|dialect| dialect >= 0x0210) { 0x0210 } else { 0x0202 };
            Some(Answer { name: "smb_negotiated", message: negotiated(Some(header), dialect, scene), refuses: false })
        }
        command::SESSION_SETUP => {
            let blob = field(message, body, 12)?;
            match Login::of(blob) {
                Login::Begins => {
                    let token = ntlm::answer(blob, scene);
                    say("smb_challenge", status::MORE_PROCESSING_REQUIRED, &with_token(0, &token))
                }
                Login::Ends => say("smb_login", status::SUCCESS, &with_token(GUEST, &ntlm::accepted(blob))),
            }
        }
        command::TREE_CONNECT => {
            let path = field(message, body, 4)?;
            let is_pipe = path.ends_with(b"I\0P\0C\0$\0") || path.ends_with(b"i\0p\0c\0$\0");
            if !is_pipe {
                return refuse(status::BAD_NETWORK_NAME);
            }
            // A pipe, no flags and capabilities, all rights that a guest has.
            say("smb_tree", status::SUCCESS, &[16, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa9, 0, 0x12, 0])
        }
        command::LOGOFF | command::TREE_DISCONNECT | command::ECHO => say("smb_answer", status::SUCCESS, &[4, 0, 0, 0]),
        _ => refuse(status::ACCESS_DENIED),
    }
}

/// Returns the bytes that an offset and a length at `at` of the body name, counted from the beginning of the message.
fn field<'a>(message: &'a [u8], body: &[u8], at: usize) -> Option<&'a [u8]> {
    let (offset, length) = (usize::from(le16(body, at)?), usize::from(le16(body, at + 2)?));
    let rest = message.get(offset..)?;
    Some(rest.get(..length).unwrap_or(rest))
}

/// The server's choice; without a request of version 2 it answers one of version 1.
pub(super) fn negotiated(request: Option<&[u8; HEADER]>, dialect: u16, scene: &Scene<'_>) -> Vec<u8> {
    let offer = ntlm::offer();
    let mut body = vec![65, 0, 1, 0];
    body.extend_from_slice(&dialect.to_le_bytes());
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(&scene.random::<16>("smb server"));
    body.extend_from_slice(&1_u32.to_le_bytes());
    for _ in 0..3 {
        body.extend_from_slice(&MOST_BYTES.to_le_bytes());
    }
    body.extend_from_slice(&filetime(scene).to_le_bytes());
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(&0x80_u16.to_le_bytes());
    body.extend_from_slice(&length16(&offer));
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&offer);
    let mut first = [0; HEADER];
    first[..6].copy_from_slice(b"\xfeSMB\x40\0");
    framed(request.unwrap_or(&first), status::SUCCESS, &body)
}

fn with_token(flags: u16, token: &[u8]) -> Vec<u8> {
    [&[9, 0][..], &flags.to_le_bytes(), &0x48_u16.to_le_bytes(), &length16(token), token].concat()
}

fn framed(request: &[u8; HEADER], status: u32, body: &[u8]) -> Vec<u8> {
    let mut header = *request;
    header[8..12].copy_from_slice(&status.to_le_bytes());
    let asked = u16::from_le_bytes([header[14], header[15]]);
    header[14..16].copy_from_slice(&asked.clamp(1, CREDITS).to_le_bytes());
    header[16..24].copy_from_slice(&[REPLY, 0, 0, 0, 0, 0, 0, 0]);
    match u16::from_le_bytes([header[12], header[13]]) {
        command::SESSION_SETUP => header[40..48].copy_from_slice(&[0x41, 0, 0, 0, 0, 4, 0, 0]),
        command::TREE_CONNECT => header[36..40].copy_from_slice(&[1, 0, 0, 0]),
        _ => {}
    }
    header[48..].fill(0);
    [&header[..], body].concat()
}
