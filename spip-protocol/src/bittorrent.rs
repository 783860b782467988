//! BitTorrent's peer handshake (BEP 3): which torrent a client asks for, and which client it is.
//!
//! Decides at the length and name of 20 bytes that begin it. <https://www.bittorrent.org/beps/bep_0003.html>

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The length of the name, and the name.
const HANDSHAKE: &[u8] = b"\x13BitTorrent protocol";

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "bittorrent",
    recognise: |reader| reader.literal(HANDSHAKE),
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x05\x2b\xd8\xc1\x8d\x60\x8d\x5c\x06\xa2\x49\x21\xa9\x12\x3a\xb6\x35\x07\x16\x4c\x1e-qB4520-k8hj2vTz0Ns1",
    ],
};

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    reader.take(HANDSHAKE.len())?;
    out.details.hex("extensions", reader.take(8)?);
    out.details.hex("info_hash", reader.take(20)?);
    out.details.text("peer_id", reader.take(20)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn the_torrent_and_the_client_are_shown() {
        let details = understand(PROTOCOL.samples[0], false).details;
        let expected = concat!(
            r#"{"extensions":"0000000000100005","info_hash":"2bd8c18d608d5c06a24921a9123ab63507164c1e","#,
            r#""peer_id":"-qB4520-k8hj2vTz0Ns1"}"#
        );
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn a_handshake_without_its_torrent_is_marked() {
        let details = understand(&PROTOCOL.samples[0][..30], false).details;
        assert_eq!(details.get("incomplete"), Some(&super::super::value::Value::Flag(true)));
    }
}
