//! S7 communication with Siemens controllers, over ISO transport (RFC 1006).
//!
//! Decides at the end of a connection request whose called selector is Siemens': two bytes, of which the first is a
//! connection type (1 programming device, 2 operator panel, 3 basic) and the second rack and slot, or a name that
//! begins with `SIMATIC`, and which names the size of a TPDU. Other requests are `iso_tsap`, and so is one that goes on
//! with anything but S7: the identifier 0x32 or 0x72 in a data TPDU, whose function is kept.

use super::reader::{End, Reader};
use super::{Protocol, Understanding, iso_tsap, tpkt};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "s7",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x03\x00\x00\x16\x11\xe0\x00\x00\x00\x14\x00\xc1\x02\x01\x00\xc2\x02\x01\x02\xc0\x01\x0a",
        b"\x03\x00\x00\x16\x11\xe0\x00\x00\x00\x05\x00\xc1\x02\x01\x00\xc2\x02\x02\x00\xc0\x01\x0a\x03\x00\x00\x19\x02\xf0\x80\x32\x01\x00\x00\x00\x00\x00\x08\x00\x00\xf0\x00\x00\x01\x00\x01\x01\xe0",
    ],
};

/// Functions of a job (parameter's first byte), as far as scanners use them.
fn function_name(function: u8) -> Option<&'static str> {
    Some(match function {
        0x00 => "cpu_services",
        0x04 => "read_variable",
        0x05 => "write_variable",
        0x1a => "request_download",
        0x1d => "start_upload",
        0x28 => "plc_control",
        0x29 => "plc_stop",
        0xf0 => "setup_communication",
        _ => return None,
    })
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !connects(reader)? || !reader.literal(&[3, 0])? {
        return Ok(false);
    }
    reader.take(2)?;
    // A data TPDU, and S7 or the newer S7 of the 1200 and 1500 in it. MMS puts a session there.
    Ok(reader.literal(&[0x02, 0xf0])? && matches!(reader.u8()?, 0x00 | 0x80) && matches!(reader.u8()?, 0x32 | 0x72))
}

/// Reports whether a whole connection request of S7 comes next: Siemens' selector, and the size of a TPDU, which
/// programming devices and scanners always ask for.
pub(super) fn connects(reader: &mut Reader<'_>) -> Result<bool, End> {
    let Some(rest) = tpkt::connection_request(reader)? else {
        return Ok(false);
    };
    let Some(parameters) = tpkt::parameters(rest) else { return Ok(false) };
    let called = tpkt::value(&parameters, tpkt::parameter::CALLED);
    let has_size = tpkt::value(&parameters, tpkt::parameter::TPDU_SIZE).is_some();
    Ok(has_size && called.is_some_and(|called| matches!(called, [1..=3, _]) || called.starts_with(b"SIMATIC")))
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    iso_tsap::describe(&mut reader, out)?;
    // What follows is TPKT again, with a data TPDU (02 f0 80) and in it S7.
    while !reader.rest().is_empty() {
        if !reader.literal(&[3, 0])? {
            break;
        }
        let length = usize::from(reader.be16()?);
        let Some(body) = length.checked_sub(4) else {
            break;
        };
        let mut packet = Reader::new(reader.take(body)?);
        if packet.literal(&[0x02, 0xf0, 0x80, 0x32]) == Ok(true) {
            let (Ok(kind), Ok(_)) = (packet.u8(), packet.take(8)) else {
                break;
            };
            out.details.number("message_type", kind);
            if let Ok(function) = packet.u8() {
                out.details.number("function", function);
                if let Some(name) = function_name(function) {
                    out.details.word("function_name", name);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_connection_to_rack_and_slot_is_shown() {
        let details = understand(PROTOCOL.samples[0], false).details;
        let expected = r#"{"calling_tsap":"0100","called_tsap":"0102","tpdu_bytes":1024}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn a_function_that_follows_at_once_is_named() {
        let details = understand(PROTOCOL.samples[1], false).details;
        assert_eq!(details.get("function_name").and_then(|name| name.as_text()), Some("setup_communication"));
    }
}
