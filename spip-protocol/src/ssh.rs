//! SSH (RFC 4253): the identification of the client, and the HASSH of its first key exchange.
//!
//! Decides at `SSH-<version>-`. The key exchange follows the identification in a binary packet, often in the same
//! segment; messages that may stand before it (SSH_MSG_IGNORE, SSH_MSG_DEBUG) are passed over.
//!
//! HASSH is the MD5 of the client's key exchange, encryption, MAC and compression algorithms, as the client lists
//! them: a fingerprint of the library, not a cryptographic use of MD5. <https://github.com/salesforce/hassh>

use md5::{Digest, Md5};
use serde::Serialize;

use super::reader::{End, Reader};
use super::value::clip;
use super::{Protocol, Understanding};

/// The longest identification, with its line end (RFC 4253, section 4.2).
const IDENTIFICATION_BYTES: usize = 255;
/// The longest list of algorithms that a record keeps. HASSH is computed from all of it.
pub const ALGORITHMS_BYTES: usize = 8 * 1024;
/// The longest packet that every implementation must take (RFC 4253, section 6.1).
const PACKET_BYTES: u32 = 35_000;
/// Packets that are passed over in search of the key exchange.
const PACKETS: usize = 8;
/// SSH_MSG_KEXINIT (RFC 4253, section 12).
const KEXINIT: u8 = 20;

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "ssh",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/openssh.ssh"),
        b"SSH-2.0-Go\r\n",
        b"SSH-2.0-libssh2_1.4.3\n",
        b"SSH-1.99-PuTTY_Release_0.52\r\n",
        b"SSH-1.5-NmapNSE_1.0\n",
    ],
};

/// Facts that an SSH client sends before encryption: the record's `ssh_client`, `ssh_hassh`, `ssh_hassh_algorithms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ssh {
    /// The identification without its line end.
    pub client: String,
    /// 32 lower-case hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hassh: Option<String>,
    /// Key exchange, encryption, MAC and compression, each a comma-separated list, joined by semicolons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hassh_algorithms: Option<String>,
    /// Set when identification or algorithms were too long to keep.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Reason why there is no HASSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !reader.literal(b"SSH-")? {
        return Ok(false);
    }
    // `2.0`, `1.99`, `1.5`: nothing longer was ever assigned.
    for position in 0..8 {
        match reader.u8()? {
            b'0'..=b'9' | b'.' => {}
            b'-' => return Ok(position > 0),
            _ => return Ok(false),
        }
    }
    Ok(false)
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of every protocol's function")]
fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut facts = Ssh::default();
    let identification = match reader.line(IDENTIFICATION_BYTES) {
        Ok(Some(line)) => line,
        Ok(None) => {
            facts.error = Some("the identification is longer than 255 bytes");
            bytes.get(..IDENTIFICATION_BYTES).unwrap_or(bytes)
        }
        Err(End) => {
            facts.error = Some("the identification has no line end");
            bytes
        }
    };
    let (client, truncated) = clip(identification, IDENTIFICATION_BYTES);
    facts.client = client.into_owned();
    facts.truncated = truncated;
    if facts.error.is_none() && !reader.rest().is_empty() {
        match algorithms(&mut reader) {
            Ok(Some(lists)) => {
                let joined = lists.join(&b';');
                let (text, truncated) = clip(&joined, ALGORITHMS_BYTES);
                facts.hassh = Some(hex::encode(Md5::digest(&joined)));
                facts.hassh_algorithms = Some(text.into_owned());
                facts.truncated |= truncated;
            }
            Ok(None) => facts.error = Some("no key exchange follows the identification"),
            Err(End) => facts.error = Some("the key exchange is not whole"),
        }
    }
    out.ssh = Some(facts);
    Ok(())
}

/// The four lists of HASSH from the client's KEXINIT; `None` when the packets are none.
fn algorithms<'a>(reader: &mut Reader<'a>) -> Result<Option<[&'a [u8]; 4]>, End> {
    for _ in 0..PACKETS {
        let length = reader.be32()?;
        let padding = usize::from(reader.u8()?);
        let message = reader.u8()?;
        // The length counts the padding's length, the payload and the padding.
        let body = usize::try_from(length).ok().and_then(|length| length.checked_sub(2));
        let Some(body) = body.filter(|_| length <= PACKET_BYTES) else {
            return Ok(None);
        };
        if message != KEXINIT {
            // SSH_MSG_DISCONNECT to SSH_MSG_DEBUG may come before the key exchange.
            if !(1..=4).contains(&message) {
                return Ok(None);
            }
            reader.take(body)?;
            continue;
        }
        let packet = reader.take(body.saturating_sub(padding))?;
        let mut lists = Reader::new(packet);
        return Ok(kexinit(&mut lists).ok());
    }
    Ok(None)
}

/// The lists from the client to the server (RFC 4253, section 7.1).
fn kexinit<'a>(packet: &mut Reader<'a>) -> Result<[&'a [u8]; 4], End> {
    // The cookie.
    packet.take(16)?;
    let key_exchange = name_list(packet)?;
    let _host_key = name_list(packet)?;
    let encryption = name_list(packet)?;
    let _encryption_to_client = name_list(packet)?;
    let mac = name_list(packet)?;
    let _mac_to_client = name_list(packet)?;
    let compression = name_list(packet)?;
    Ok([key_exchange, encryption, mac, compression])
}

fn name_list<'a>(packet: &mut Reader<'a>) -> Result<&'a [u8], End> {
    let length = usize::try_from(packet.be32()?).map_err(|_| End)?;
    packet.take(length)
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    fn ssh(bytes: &[u8]) -> Ssh {
        understand(bytes, false).ssh.expect("ssh facts")
    }

    /// A packet with a KEXINIT of these lists, as RFC 4253 lays it out.
    fn packet(key_exchange: &str, encryption: &str, mac: &str, compression: &str) -> Vec<u8> {
        let mut payload = vec![KEXINIT];
        payload.extend_from_slice(&[0x5a; 16]);
        for list in
            [key_exchange, "ssh-ed25519", encryption, "aes128-ctr", mac, "hmac-sha1", compression, "none", "", ""]
        {
            payload.extend_from_slice(&u32::try_from(list.len()).expect("short").to_be_bytes());
            payload.extend_from_slice(list.as_bytes());
        }
        payload.extend_from_slice(&[0; 5]);
        let padding = 4_u8;
        let mut packet = u32::try_from(payload.len() + 1 + 4).expect("short").to_be_bytes().to_vec();
        packet.push(padding);
        packet.extend_from_slice(&payload);
        packet.extend_from_slice(&[0; 4]);
        packet
    }

    #[test]
    fn the_published_hassh_of_every_vector_is_found() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../fixtures/hassh/hassh.json")).expect("vectors");
        let vectors = vectors.as_array().expect("a list");
        assert!(vectors.len() >= 6);
        for vector in vectors {
            let text = |key: &str| vector[key].as_str().expect("text");
            let client = text("clientIdentificationString");
            for line_end in ["\r\n", "\n"] {
                let mut bytes = format!("{client}{line_end}").into_bytes();
                bytes.extend(packet(text("ckex"), text("ceacts"), text("cmacts"), text("ccacts")));
                let facts = ssh(&bytes);
                assert_eq!(facts.client, client);
                assert_eq!(facts.hassh.as_deref(), Some(text("hassh")));
                assert_eq!(facts.hassh_algorithms.as_deref(), Some(text("hasshAlgorithms")));
            }
        }
    }

    #[test]
    fn openssh_is_identified_and_fingerprinted() {
        let facts = ssh(PROTOCOL.samples[0]);
        assert_eq!(facts.client, "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10");
        let algorithms = facts.hassh_algorithms.expect("algorithms");
        assert!(algorithms.starts_with("sntrup761x25519-sha512,"), "{algorithms}");
        assert_eq!(facts.hassh, Some(hex::encode(Md5::digest(&algorithms))));
        assert_eq!(facts.error, None);
    }

    #[test]
    fn a_hassh_appears_only_when_the_key_exchange_is_whole() {
        let whole = PROTOCOL.samples[0];
        let line = whole.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        assert_eq!(ssh(&whole[..line]).error, None);
        for length in line + 1..whole.len() {
            let facts = ssh(&whole[..length]);
            assert!(facts.hassh.is_some() || facts.error == Some("the key exchange is not whole"), "{length}");
        }
    }

    #[test]
    fn messages_before_the_key_exchange_are_passed_over() {
        let mut bytes = b"SSH-2.0-x\r\n".to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 12, 5, 2, 0, 0, 0, 1, b'a', 0, 0, 0, 0, 0]);
        bytes.extend(packet("k", "e", "m", "c"));
        assert_eq!(ssh(&bytes).hassh_algorithms.as_deref(), Some("k;e;m;c"));
    }

    #[test]
    fn what_is_no_packet_is_said_to_be_none() {
        assert_eq!(ssh(b"SSH-2.0-x\r\nGET / HTTP").error, Some("no key exchange follows the identification"));
        assert_eq!(ssh(b"SSH-2.0-x").error, Some("the identification has no line end"));
        assert_eq!(ssh(&[b"SSH-2.0-".as_slice(), &[b'x'; 300]].concat()).client.len(), 255);
    }

    #[test]
    fn four_kinds_of_messages_may_come_before_the_key_exchange_and_eight_of_them() {
        let before = |kind: u8, count: usize| {
            let mut bytes = b"SSH-2.0-x\r\n".to_vec();
            bytes.extend([0, 0, 0, 12, 5, kind, 0, 0, 0, 1, b'a', 0, 0, 0, 0, 0].repeat(count));
            bytes.extend(packet("k", "e", "m", "c"));
            ssh(&bytes).hassh_algorithms
        };
        for kind in 1..=4 {
            assert_eq!(before(kind, 1).as_deref(), Some("k;e;m;c"), "{kind}");
        }
        assert_eq!((before(0, 1), before(5, 1)), (None, None));
        assert!(before(4, PACKETS - 1).is_some() && before(4, PACKETS).is_none());
    }
}
