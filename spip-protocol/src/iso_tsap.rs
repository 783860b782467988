//! ISO transport over TCP (RFC 1006), where nothing tells which application is meant: MMS, or an RDP client that sends
//! neither cookie nor negotiation request.
//!
//! Decides at the end of a TPKT connection request that has no parameters or well-formed ones, when `rdp` and `s7`
//! have declined.

use super::reader::{End, Reader};
use super::{Protocol, Understanding, tpkt};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "iso_tsap",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x03\x00\x00\x0b\x06\xe0\x00\x00\x00\x00\x00",
        b"\x03\x00\x00\x16\x11\xe0\x00\x00\x00\x01\x00\xc0\x01\x0d\xc2\x02\x00\x01\xc1\x02\x00\x00",
    ],
};

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let request = tpkt::connection_request(reader)?;
    Ok(request.is_some_and(|rest| tpkt::parameters(rest).is_some()))
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    describe(&mut Reader::new(bytes), out)
}

/// The selectors in hexadecimal, and the size of a TPDU in bytes.
pub(super) fn describe(reader: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    let parameters = tpkt::connection_request(reader)?.and_then(tpkt::parameters).unwrap_or_default();
    if let Some(calling) = tpkt::value(&parameters, tpkt::parameter::CALLING) {
        out.details.hex("calling_tsap", calling);
    }
    if let Some(called) = tpkt::value(&parameters, tpkt::parameter::CALLED) {
        out.details.hex("called_tsap", called);
    }
    // 128 bytes (7) to 8192 bytes (13): ITU-T X.224, 13.3.4.
    if let Some([power @ 7..=13]) = tpkt::value(&parameters, tpkt::parameter::TPDU_SIZE) {
        out.details.number("tpdu_bytes", 1_u32 << power);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn selectors_of_no_known_application_are_shown() {
        let details = understand(PROTOCOL.samples[1], false).details;
        let expected = r#"{"calling_tsap":"0000","called_tsap":"0001","tpdu_bytes":8192}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn parameters_that_do_not_fit_leave_the_request_unknown() {
        let bytes = b"\x03\x00\x00\x0e\x09\xe0\x00\x00\x00\x01\x00\xc0\x09\x0d";
        assert_eq!(understand(bytes, false).protocol, None);
    }
}
