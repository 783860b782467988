//! ClientHellos: captured ones with their published fingerprints, and those made by hand.

use serde_json::Value;

/// A captured hello.
pub(crate) struct Vector {
    /// Origin of the capture.
    pub(crate) source: String,
    /// The client's stream from the hello on.
    pub(crate) stream: Vec<u8>,
    /// Its published JA4.
    pub(crate) ja4: String,
}

impl Vector {
    /// The handshake message, header included.
    pub(crate) fn message(&self) -> &[u8] {
        // Each of them is in one record.
        let length = usize::from(u16::from_be_bytes([self.stream[7], self.stream[8]]));
        assert!(self.stream[3..5] >= self.stream[7..9] && self.stream[6] == 0, "{}", self.source);
        &self.stream[5..][..4 + length]
    }
}

/// A hello made by hand, as a handshake message.
pub(crate) fn message(version: u16, suites: &[u16], extensions: &[u8]) -> Vec<u8> {
    let list = |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat();
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let mut body = [&version.to_be_bytes()[..], &[7; 32], &[0], &list(&suites), &[1, 0]].concat();
    if !extensions.is_empty() {
        body.extend(list(extensions));
    }
    [&[1, 0][..], &list(&body)].concat()
}

/// A handshake message in records with at most this many bytes of content.
pub(crate) fn in_records(message: &[u8], content: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).expect("short").to_be_bytes();
        [&[0x16, 3, 1], &length[..], part].concat()
    };
    message.chunks(content).flat_map(record).collect()
}

/// All of them.
pub(crate) fn vectors() -> Vec<Vector> {
    let text = include_str!("../../../spip-protocol/fixtures/ja4.json");
    let all: Vec<Value> = serde_json::from_str(text).expect("the fixture is JSON");
    let vectors: Vec<Vector> = all
        .iter()
        .map(|vector| {
            let text = |key: &str| vector[key].as_str().expect(key).to_owned();
            Vector {
                source: text("source"),
                stream: hex::decode(text("client_hello_records_hex")).expect("hexadecimal"),
                ja4: text("ja4"),
            }
        })
        .collect();
    assert_eq!(vectors.len(), 7, "the fixture holds seven hellos");
    vectors
}
