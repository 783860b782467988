//! Modbus over TCP: which unit is asked, and for what.
//!
//! Decides at one whole request and the header of a second one: protocol 0, a length that the function's request has,
//! and values that it may ask for. Other protocols have zeros there too, so a single request counts only where nothing
//! follows it (see [`super::pause`]), and a function without a known length is refused.
//! <https://www.modbus.org/docs/Modbus_Messaging_Implementation_Guide_V1_0b.pdf>

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "modbus",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x00\x01\x00\x00\x00\x06\x01\x03\x00\x00\x00\x0a",
        b"\x00\x00\x00\x00\x00\x05\x00\x2b\x0e\x01\x00",
        b"\x44\x62\x00\x00\x00\x02\x01\x11",
    ],
};

/// A function's name, and the lengths that its request may have, with the unit and the function itself.
fn function(code: u8) -> Option<(&'static str, std::ops::RangeInclusive<u16>)> {
    Some(match code {
        1 => ("read_coils", 6..=6),
        2 => ("read_discrete_inputs", 6..=6),
        3 => ("read_holding_registers", 6..=6),
        4 => ("read_input_registers", 6..=6),
        5 => ("write_single_coil", 6..=6),
        6 => ("write_single_register", 6..=6),
        7 => ("read_exception_status", 2..=2),
        8 => ("diagnostics", 6..=254),
        11 => ("event_counter", 2..=2),
        12 => ("event_log", 2..=2),
        15 => ("write_multiple_coils", 8..=254),
        16 => ("write_multiple_registers", 9..=254),
        17 => ("report_server_id", 2..=2),
        20 => ("read_file_record", 10..=248),
        21 => ("write_file_record", 12..=254),
        22 => ("mask_write_register", 8..=8),
        23 => ("read_write_multiple_registers", 13..=254),
        24 => ("read_fifo_queue", 4..=4),
        43 => ("device_identification", 5..=5),
        90 => ("schneider_unity", 3..=254),
        _ => return None,
    })
}

/// Unit and function of a request; `None` when the bytes are none.
fn request(reader: &mut Reader<'_>) -> Result<Option<(u8, u8)>, End> {
    reader.take(2)?;
    if !reader.literal(&[0, 0, 0])? {
        return Ok(None);
    }
    let length = u16::from(reader.u8()?);
    let (unit, code) = (reader.u8()?, reader.u8()?);
    let known = function(code).is_some_and(|(_, lengths)| lengths.contains(&length));
    Ok(known.then_some((unit, code)))
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    Ok(asks(reader)? && request(reader)?.is_some())
}

/// Reports whether a whole request comes next: its sender waits for the answer.
pub(super) fn asks(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut header = *reader;
    let Some((_, code)) = request(reader)? else { return Ok(false) };
    header.take(4)?;
    let length = usize::from(header.be16()?);
    // Unit and function are read.
    let Some(length) = length.checked_sub(2) else { return Ok(false) };
    let body = Reader::new(reader.take(length)?);
    Ok(values_fit(code, length, body).unwrap_or(false))
}

/// Reports whether a request of this function may hold these values (Modbus application protocol 1.1b3, section 6).
/// Scanners ask for more than a device has, so quantities are bounded by the size of an answer only where they
/// determine the length of the request.
fn values_fit(code: u8, length: usize, mut body: Reader<'_>) -> Result<bool, End> {
    Ok(match code {
        1..=4 => {
            body.take(2)?;
            (1..=2000).contains(&body.be16()?)
        }
        15 | 16 => {
            body.take(2)?;
            let quantity = usize::from(body.be16()?);
            let bytes = usize::from(body.u8()?);
            let expected = if code == 15 { quantity.div_ceil(8) } else { quantity * 2 };
            quantity > 0 && bytes == expected && length == 5 + bytes
        }
        23 => {
            body.take(6)?;
            let quantity = usize::from(body.be16()?);
            let bytes = usize::from(body.u8()?);
            bytes == quantity * 2 && length == 9 + bytes
        }
        // Encapsulated interface: device identification and CANopen.
        43 => matches!(body.u8()?, 13 | 14),
        // Subfunctions of diagnostics: 0 to 21.
        8 => body.be16()? <= 21,
        _ => true,
    })
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let Some((unit, code)) = request(&mut reader)? else {
        return Ok(());
    };
    out.details.number("unit", unit);
    out.details.number("function", code);
    if let Some((name, _)) = function(code) {
        out.details.word("function_name", name);
    }
    match code {
        1..=4 | 15 | 16 | 23 => {
            out.details.number("address", reader.be16()?);
            out.details.number("quantity", reader.be16()?);
        }
        5 | 6 => {
            out.details.number("address", reader.be16()?);
            out.details.number("value", reader.be16()?);
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_read_shows_unit_function_and_registers() {
        let details = understand(PROTOCOL.samples[0], false).details;
        let expected = r#"{"unit":1,"function":3,"function_name":"read_holding_registers","address":0,"quantity":10}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
        let details = understand(PROTOCOL.samples[1], false).details;
        let expected = r#"{"unit":0,"function":43,"function_name":"device_identification"}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn a_length_that_the_function_does_not_have_stays_unknown() {
        assert_eq!(understand(b"\x00\x01\x00\x00\x00\x07\x01\x03\x00\x00\x00\x0a", false).protocol, None);
    }

    #[test]
    fn the_bytes_of_a_write_are_those_that_its_quantity_takes() {
        let is_modbus = |body: &[u8]| {
            let length = u16::try_from(body.len() + 1).expect("short").to_be_bytes();
            understand(&[&[0, 1, 0, 0], &length[..], &[1], body].concat(), false).protocol == Some("modbus")
        };
        // Coils take a bit each, registers two bytes.
        assert!(is_modbus(&[15, 0, 0, 0, 9, 2, 0xff, 1]) && !is_modbus(&[15, 0, 0, 0, 9, 1, 0xff]));
        assert!(is_modbus(&[16, 0, 0, 0, 3, 6, 0, 1, 0, 2, 0, 3]) && !is_modbus(&[16, 0, 0, 0, 3, 5, 0, 1, 0, 2, 0]));
        assert!(!is_modbus(&[16, 0, 0, 0, 0, 0]));
        let both = |quantity: u8, values: &[u8]| {
            is_modbus(
                &[&[23, 0, 0, 0, 1, 0, 0, 0, quantity, u8::try_from(values.len()).expect("short")], values].concat(),
            )
        };
        assert!(both(1, &[0, 1]) && both(3, &[0; 6]) && !both(3, &[0; 5]) && !both(4, &[0; 6]));
        // Reading: 1 to 2000 values.
        for (quantity, fits) in [(0_u16, false), (1, true), (2000, true), (2001, false)] {
            let [high, low] = quantity.to_be_bytes();
            assert_eq!(is_modbus(&[3, 0, 0, high, low]), fits, "{quantity}");
        }
        assert!(is_modbus(&[8, 0, 21, 0, 0]) && !is_modbus(&[8, 0, 22, 0, 0]));
    }
}
