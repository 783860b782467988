//! ClientHellos that somebody captured, with their published fingerprints.

use serde_json::Value;

/// A captured hello.
pub(crate) struct Vector {
    /// Where it was captured.
    pub(crate) source: String,
    /// The client's stream from the hello on.
    pub(crate) stream: Vec<u8>,
    /// Its published JA4.
    pub(crate) ja4: String,
}

/// All of them.
pub(crate) fn vectors() -> Vec<Vector> {
    let text = include_str!("../../../spip-agent/fixtures/ja4.json");
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
