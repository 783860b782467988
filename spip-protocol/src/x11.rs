//! The X Window System, version 11: the setup of a connection, with which open displays are found.
//!
//! Decides at byte order, unused byte and version 11.0. <https://www.x.org/releases/current/doc/xproto/x11protocol.html>

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "x11",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"l\x00\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"B\x00\x00\x0b\x00\x00\x00\x12\x00\x10\x00\x00MIT-MAGIC-COOKIE-1\x00\x000123456789abcdef",
    ],
};

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    match reader.u8()? {
        b'l' => reader.literal(&[0, 11, 0, 0, 0]),
        b'B' => reader.literal(&[0, 0, 11, 0, 0]),
        _ => Ok(false),
    }
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let little = reader.u8()? == b'l';
    out.details.word("byte_order", if little { "little" } else { "big" });
    reader.take(5)?;
    let length = if little { reader.le16()? } else { reader.be16()? };
    // The length of the authorisation data, and two unused bytes.
    reader.take(4)?;
    if length > 0 {
        out.details.text("authorization", reader.take(usize::from(length))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn byte_order_and_authorization_are_shown() {
        let details = understand(PROTOCOL.samples[1], false).details;
        let expected = r#"{"byte_order":"big","authorization":"MIT-MAGIC-COOKIE-1"}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
        let details = understand(PROTOCOL.samples[0], false).details;
        assert_eq!(serde_json::to_string(&details).expect("json"), r#"{"byte_order":"little"}"#);
    }
}
