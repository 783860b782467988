//! The look for a ClientHello, its reader and its fingerprints.

use spip_agent::tls::{HelloFacts, Replay};
use spip_protocol::client_hello::{
    ClientHello, Detection, Detector, MAX_MESSAGE_BYTES, MAX_RAW_BYTES, detect, extension_offsets, handshake_message,
};
use spip_protocol::ja3::Ja3;
use spip_protocol::ja4::Ja4;

/// A verdict is the same however the bytes come, holds for whatever follows, and a hello has fingerprints of the
/// shape that they should have.
pub(super) fn client_hello(bytes: &[u8]) {
    let verdict = detect(bytes);
    let mut detector = Detector::default();
    // Cuts that depend on the input: every byte at the start, where headers are, then in steps.
    let step = 1 + usize::from(bytes.last().copied().unwrap_or_default()) % 97;
    let cuts = (0..bytes.len().min(16)).chain((16..bytes.len()).step_by(step));
    let mut settled = None;
    for cut in cuts {
        let now = detector.advance(&bytes[..cut]);
        if let Some(settled) = settled {
            assert_eq!(now, settled, "a verdict changes at byte {cut}");
        }
        if !now.needs_more() {
            settled = Some(now);
        }
    }
    assert_eq!(detector.advance(bytes), verdict, "pieces and the whole differ");
    assert!(!verdict.needs_more() || bytes.len() <= MAX_RAW_BYTES);

    match verdict {
        Detection::ClientHello { length } => {
            assert!(length <= bytes.len().min(MAX_RAW_BYTES));
            let message = handshake_message(&bytes[..length]);
            assert!(message.len() <= MAX_MESSAGE_BYTES);
            parse(&message);
            let clear = Replay::new(bytes.to_vec(), length, ()).go_on_in_clear();
            assert!(bytes[length..].ends_with(&clear));
        }
        Detection::Sslv2 { length, .. } => assert!(length <= bytes.len()),
        _ => {}
    }
    // Also what no detector let through.
    parse(bytes);
}

fn parse(message: &[u8]) {
    for (at, number) in extension_offsets(message) {
        assert!(message[at..].starts_with(&number.to_be_bytes()));
    }
    let Ok(hello) = ClientHello::parse(message) else { return };
    assert!(hello.cipher_suites.iter().count() <= message.len());
    assert_eq!(Ja3(&hello).md5().len(), 32);
    let ja4 = Ja4::new(&hello);
    let hashed = ja4.hashed();
    assert_eq!(hashed.len(), 36, "{hashed}");
    assert!(hashed.is_ascii() && hashed.split('_').count() == 3, "{hashed}");
    assert!(ja4.raw().is_ascii() && ja4.raw().starts_with(&hashed[..10]));
    let facts = HelloFacts::new(&hello);
    assert!(facts.protocols.len() <= 64 && facts.ja4 == hashed);
}
