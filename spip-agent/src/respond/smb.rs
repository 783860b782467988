//! SMB 1 and 2 up to the login, and a little beyond: the negotiation, the challenge of NTLM, the tree. Any login is let in as a guest's;
//! the pipes' tree opens, and everything that would be done in it is refused, so that the client's next step is seen.
//! [MS-SMB], [MS-CIFS], [MS-SMB2], [MS-NLMP]; the session layer is that of RFC 1002.

mod ntlm;
mod version1;
mod version2;

use super::{Dialogue, Reply, Scene, Service};
use ntlm::Login;

pub(super) static SERVICE: Service = Service { protocols: &["smb"], speaks_first: false, begin: || Box::new(Smb) };

/// The longest message that is waited for.
const MESSAGE_BYTES: usize = 128 * 1024;

/// Answers of the server ([MS-ERREF] 2.3.1).
mod status {
    pub(super) const SUCCESS: u32 = 0;
    pub(super) const MORE_PROCESSING_REQUIRED: u32 = 0xc000_0016;
    pub(super) const NOT_IMPLEMENTED: u32 = 0xc000_0002;
    pub(super) const ACCESS_DENIED: u32 = 0xc000_0022;
    pub(super) const BAD_NETWORK_NAME: u32 = 0xc000_00cc;
    /// Answer of Windows without the update of MS17-010 to a transaction on a pipe's zero handle: exploits go on then.
    pub(super) const INSUFF_SERVER_RESOURCES: u32 = 0xc000_0205;
}

/// Kinds of messages of the session layer.
mod session {
    pub(super) const MESSAGE: u8 = 0;
    pub(super) const REQUEST: u8 = 0x81;
    pub(super) const POSITIVE_RESPONSE: u8 = 0x82;
    pub(super) const KEEP_ALIVE: u8 = 0x85;
}

struct Smb;

/// Answer to a message.
struct Answer {
    name: &'static str,
    message: Vec<u8>,
    /// Set when it refuses something.
    refuses: bool,
}

impl Dialogue for Smb {
    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some((head, rest)) = heard.split_first_chunk::<4>() else { return 0 };
        let [kind, length @ ..] = *head;
        let [a, b, c] = length;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES {
            reply.close();
            return heard.len();
        }
        let Some(message) = rest.get(..length) else { return 0 };
        match kind {
            session::MESSAGE => answer(message, scene, reply),
            session::REQUEST => reply.say("smb_session", &[session::POSITIVE_RESPONSE, 0, 0, 0]),
            session::KEEP_ALIVE => {}
            _ => reply.close(),
        }
        head.len() + length
    }
}

fn answer(message: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) {
    let answer = match message {
        [0xff, b'S', b'M', b'B', ..] => version1::answer(message, scene),
        [0xfe, b'S', b'M', b'B', ..] => version2::answer(message, scene),
        _ => None,
    };
    let Some(Answer { name, message, refuses }) = answer else { return reply.close() };
    reply.understood();
    let [_, length @ ..] = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    let is_challenge = ntlm::challenge_in(&message);
    reply.say(name, &[&[session::MESSAGE][..], &length, &message].concat());
    if is_challenge {
        reply.challenge(&ntlm::challenge(scene));
    }
    if refuses {
        reply.count_refusal();
    }
}

/// The name of the machine in NetBIOS: capital letters, at most 15.
fn machine(scene: &Scene<'_>) -> String {
    let label = scene.face.host.split('.').next().unwrap_or_default();
    label.chars().filter(char::is_ascii_alphanumeric).take(15).collect::<String>().to_uppercase()
}

/// Intervals of 100 ns since 1601, as Windows counts time.
fn filetime(scene: &Scene<'_>) -> u64 {
    const BEFORE_1970_SECONDS: u64 = 11_644_473_600;
    let since = scene.now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() + BEFORE_1970_SECONDS).saturating_mul(10_000_000) + u64::from(since.subsec_nanos() / 100)
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A length as the protocols write it: what the sensor says is short.
fn length16(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or_default().to_le_bytes()
}

#[cfg(test)]
mod tests;
