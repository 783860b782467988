//! NTLM's challenge ([MS-NLMP] 2.2.1.2), in SPNEGO (RFC 4178) where the client speaks that.

use memchr::memmem;

use super::{Scene, filetime, length16, machine, utf16};

/// Start of NTLM's messages.
const SIGNATURE: &[u8] = b"NTLMSSP\0";
/// 1.3.6.1.4.1.311.2.2.10, as an object.
const MECHANISM: &[u8] = &[0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x02, 0x0a];
/// SPNEGO, 1.3.6.1.5.5.2, as an object.
const SPNEGO: &[u8] = &[0x06, 0x06, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x02];
/// Unicode, target, NTLM, the extended session security, target information, version, 128 and 56 bits, as Windows says it.
const FLAGS: u32 = 0xe28a_8215;
/// Windows 7, revision 15.
const VERSION: [u8; 8] = [6, 1, 0xb1, 0x1d, 0, 0, 0, 15];
/// Bytes before the variable part.
const FIXED_BYTES: u32 = 56;

/// Step of a client's login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// It wants a challenge.
    Begins,
    /// It has answered one, or says something else that is let in.
    Ends,
}

impl Login {
    /// Of a security blob.
    pub(super) fn of(blob: &[u8]) -> Self {
        let at = memmem::find(blob, SIGNATURE).map(|at| at + SIGNATURE.len());
        let kind = at.and_then(|at| blob.get(at..)?.first_chunk()).map(|kind| u32::from_le_bytes(*kind));
        if kind == Some(1) || kind.is_none() && memmem::find(blob, MECHANISM).is_some() {
            Self::Begins
        } else {
            Self::Ends
        }
    }
}

/// Returns the challenge that the client's answer is computed from.
pub(super) fn challenge(scene: &Scene<'_>) -> [u8; 8] {
    scene.random("smb")
}

/// Reports whether a message of the sensor has a challenge.
pub(super) fn challenge_in(message: &[u8]) -> bool {
    memmem::find(message, &[SIGNATURE, &[2]].concat()).is_some()
}

/// The mechanisms of the server: NTLM alone.
pub(super) fn offer() -> Vec<u8> {
    let mechanisms = der(0x30, &der(0xa0, &der(0x30, MECHANISM)));
    der(0x60, &[SPNEGO, &der(0xa0, &mechanisms)].concat())
}

/// The challenge, in the form of the client's message.
pub(super) fn answer(blob: &[u8], scene: &Scene<'_>) -> Vec<u8> {
    let message = message(scene);
    if blob.starts_with(SIGNATURE) {
        return message;
    }
    // Accept incomplete, the mechanism, the token.
    let parts = [der(0xa0, &[0x0a, 1, 1]), der(0xa1, MECHANISM), der(0xa2, &der(0x04, &message))].concat();
    der(0xa1, &der(0x30, &parts))
}

/// The end of a login in SPNEGO: accepted.
pub(super) fn accepted(blob: &[u8]) -> Vec<u8> {
    if blob.starts_with(SIGNATURE) { Vec::new() } else { der(0xa1, &der(0x30, &der(0xa0, &[0x0a, 1, 0]))) }
}

fn message(scene: &Scene<'_>) -> Vec<u8> {
    let name = machine(scene);
    let target = utf16(&name);
    let mut information = Vec::new();
    let mut pair = |kind: u16, value: &[u8]| {
        information.extend_from_slice(&kind.to_le_bytes());
        information.extend_from_slice(&length16(value));
        information.extend_from_slice(value);
    };
    // Domain, machine, both in DNS, time, end.
    pair(2, &target);
    pair(1, &target);
    pair(4, &utf16(&scene.face.host));
    pair(3, &utf16(&scene.face.host));
    pair(7, &filetime(scene).to_le_bytes());
    pair(0, &[]);
    let behind = FIXED_BYTES + u32::try_from(target.len()).unwrap_or_default();
    let mut message = SIGNATURE.to_vec();
    message.extend_from_slice(&2_u32.to_le_bytes());
    for (field, offset) in [(Some(&target), FIXED_BYTES), (None, 0), (Some(&information), behind)] {
        match field {
            Some(field) => {
                message.extend_from_slice(&length16(field));
                message.extend_from_slice(&length16(field));
                message.extend_from_slice(&offset.to_le_bytes());
            }
            // Between the names: flags, challenge, eight bytes of nothing.
            None => {
                message.extend_from_slice(&FLAGS.to_le_bytes());
                message.extend_from_slice(&challenge(scene));
                message.extend_from_slice(&[0; 8]);
            }
        }
    }
    message.extend_from_slice(&VERSION);
    message.extend_from_slice(&target);
    message.extend_from_slice(&information);
    message
}

/// An element of DER with a length of one to three bytes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or_default();
    let [high, low] = length.to_be_bytes();
    let head = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content.to_vec()].concat()
}
