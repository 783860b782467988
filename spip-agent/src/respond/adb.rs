//! The Android Debug Bridge, as an open phone speaks it: the connection is accepted, and each service is opened and closed
//! at once, so that the client sends its commands. Nothing is run.

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service = Service { protocols: &["adb"], speaks_first: false, begin: || Box::new(Adb) };

/// Bytes in front of a message's data.
const HEAD_BYTES: usize = 24;
/// The longest data that is waited for: what old clients offer.
const DATA_BYTES: usize = 64 * 1024;
/// Banner of a phone.
const IDENTITY: &[u8] =
    b"device::ro.product.name=sdk_phone_arm64;ro.product.model=Phone;ro.product.device=generic_arm64;\0";
/// Version 1.0.0, and the most data that is taken.
const VERSION: u32 = 0x0100_0000;
const MAX_DATA: u32 = 4096;

struct Adb;

impl Dialogue for Adb {
    fn hear(&mut self, heard: &[u8], _: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some(head) = heard.get(..HEAD_BYTES) else { return 0 };
        let number = |at: usize| {
            let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
            u32::from_le_bytes(bytes)
        };
        let length = usize::try_from(number(12)).unwrap_or(usize::MAX);
        if length > DATA_BYTES {
            reply.close();
            return heard.len();
        }
        if heard.len() < HEAD_BYTES + length {
            return 0;
        }
        let theirs = number(4);
        match head.get(..4) {
            Some(b"CNXN") => {
                reply.understood();
                reply.say("adb_connected", &message(*b"CNXN", VERSION, MAX_DATA, IDENTITY));
            }
            Some(b"OPEN") => {
                // The service is there, and has nothing to say.
                reply.say("adb_opened", &message(*b"OKAY", 1, theirs, b""));
                reply.say("adb_closed", &message(*b"CLSE", 1, theirs, b""));
                reply.count_refusal();
            }
            Some(b"WRTE") => reply.say("adb_opened", &message(*b"OKAY", 1, theirs, b"")),
            Some(b"OKAY" | b"CLSE") => {}
            _ => reply.close(),
        }
        HEAD_BYTES + length
    }
}

/// A message with its check sum and the complement of its command.
fn message(command: [u8; 4], first: u32, second: u32, data: &[u8]) -> Vec<u8> {
    let sum = data.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    let length = u32::try_from(data.len()).unwrap_or_default();
    let command = u32::from_le_bytes(command);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + data.len());
    for number in [command, first, second, length, sum, !command] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(data);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::tests::Talk;

    #[test]
    fn a_miner_gets_to_its_command() {
        let connect = b"CNXN\x00\x00\x00\x01\x00\x10\x00\x00\x07\x00\x00\x00\x32\x02\x00\x00\xbc\xb1\xa7\xb1host::\x00";
        let open = b"OPEN\x05\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x25\x03\x00\x00\xb0\xaf\xba\xb1shell:id\x00";
        let mut talk = Talk::to(5555);
        talk.says(connect);
        assert!(talk.server.starts_with(b"CNXN\x00\x00\x00\x01") && talk.server[24..].starts_with(b"device::"));
        let before = talk.server.len();
        talk.says(open);
        let said = &talk.server[before..];
        // Local 1, and the client's own number.
        assert_eq!((&said[..12], &said[24..28]), (&b"OKAY\x01\x00\x00\x00\x05\x00\x00\x00"[..], &b"CLSE"[..]));
    }
}
