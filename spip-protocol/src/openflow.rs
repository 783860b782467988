//! OpenFlow: a switch that says hello to its controller.
//!
//! Decides at a Hello (type 0) and the header of a second message of the same version. A Hello of eight bytes is a frame
//! of Cassandra that is cut off, too, so one alone counts only where nothing follows it (see [`super::pause`]).
//! <https://opennetworking.org/wp-content/uploads/2014/10/openflow-switch-v1.5.1.pdf>

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "openflow",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x01\x00\x00\x08\x00\x00\x2e\x1b",
        b"\x06\x00\x00\x10\x00\x00\x00\x01\x00\x01\x00\x08\x00\x00\x00\x40",
        b"\x04\x00\x00\x08\x83\xea\x7e\x23\x04\x02\x00\x08\x00\x00\x00\x00",
    ],
};

/// The highest type of a message (version 1.5 has 35).
const LAST_TYPE: u8 = 35;

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut version = *reader;
    let version = version.u8()?;
    if !greets(reader)? || reader.u8()? != version || reader.u8()? > LAST_TYPE {
        return Ok(false);
    }
    Ok(reader.be16()? >= 8)
}

/// Reports whether a whole Hello comes next: its sender may wait for the controller's.
pub(super) fn greets(reader: &mut Reader<'_>) -> Result<bool, End> {
    let version = reader.u8()?;
    if !(1..=6).contains(&version) || reader.u8()? != 0 {
        return Ok(false);
    }
    let length = reader.be16()?;
    // Elements came with version 1.3, which is 4 on the wire; the only one is a bitmap of versions.
    if !(length == 8 || version >= 4 && length == 16) {
        return Ok(false);
    }
    // Version 3 with a data TPDU behind it is a TPKT of eight bytes.
    if reader.array::<4>()?.starts_with(&[0x02, 0xf0]) && version == 3 {
        return Ok(false);
    }
    if length == 8 { Ok(true) } else { Ok(reader.literal(&[0, 1, 0, 8])? && reader.be32()? != 0) }
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    // 1 is OpenFlow 1.0, 6 is 1.5.
    let version = reader.u8()?;
    out.details.text("version", format!("1.{}", version.saturating_sub(1)).as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;

    #[test]
    fn an_error_of_openflow_is_no_request_of_socks() {
        let error = b"\x04\x01\x00\x1c\x00\x00\x00\x41\x00\x01\x00\x06\x04\x04\x00\x10\x00\x00\x00\x41\x00\xd0\xf0\xdb\x00\x00\x00\x65";
        assert_eq!(understand(error, false).protocol, None);
    }

    #[test]
    fn a_hello_that_goes_on_as_cassandra_is_not_openflow() {
        let options = b"\x04\x00\x00\x08\x05\x00\x00\x00\x00";
        assert_eq!(understand(options, false).protocol, Some("cassandra"));
        assert_eq!(understand(&options[..8], false).protocol, Some("openflow"));
    }
}
