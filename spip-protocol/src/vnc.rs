//! VNC: the RFB protocol (RFC 6143). The server names its version first, the client answers with its own.
//!
//! Decides at the twelve bytes of the version.

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "vnc",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[b"RFB 003.008\n", b"RFB 003.008\n\x01\x01", b"RFB 003.003\n\x00"],
};

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !reader.literal(b"RFB ")? {
        return Ok(false);
    }
    for expected in *b"000.000\n" {
        let byte = reader.u8()?;
        let fits = if expected == b'0' { byte.is_ascii_digit() } else { byte == expected };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    reader.take(4)?;
    let version = reader.take(7)?;
    out.details.text("version", version);
    reader.take(1)?;
    // From 3.7 on the client chooses one of the server's security types (RFC 6143, section 7.1.2).
    if version != b"003.003"
        && let Ok(security) = reader.u8()
    {
        out.details.number("security_type", security);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn version_and_chosen_security_are_shown() {
        let details = understand(PROTOCOL.samples[1], false).details;
        assert_eq!(serde_json::to_string(&details).expect("json"), r#"{"version":"003.008","security_type":1}"#);
        let details = understand(PROTOCOL.samples[2], false).details;
        assert_eq!(serde_json::to_string(&details).expect("json"), r#"{"version":"003.003"}"#);
    }
}
