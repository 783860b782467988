//! Protocols of plants and grids: DNP3, IEC 60870-5-104, OPC UA, synchrophasors, EtherNet/IP, ADS, HART-IP, FINS.
//!
//! Each decides at its first frame. Where a frame has a check sum it is computed: two fixed bytes are not enough to
//! name a protocol. Controllers are asked by few and feared by many, so a name here must be right.

use super::Protocol;
use super::openings::opening;
use super::reader::{End, Reader};

opening!(
    /// DNP3 (IEEE 1815): start, length, and the check sum of the head.
    DNP3,
    "dnp3",
    dnp3,
    [b"\x05\x64\x08\xc4\x04\x00\x03\x00\xb4\xb8\xc0\xd7\x00\x7a\xce"]
);
opening!(
    /// IEC 60870-5-104: a frame of control functions, with which every client begins.
    IEC104,
    "iec104",
    |reader| {
        if !reader.literal(&[0x68, 4])? || !matches!(reader.u8()?, 0x07 | 0x0b | 0x13 | 0x23 | 0x43 | 0x83) {
            return Ok(false);
        }
        reader.literal(&[0, 0, 0])
    },
    [b"\x68\x04\x07\x00\x00\x00", b"\x68\x04\x43\x00\x00\x00"]
);
opening!(
    /// OPC UA's binary protocol: a hello, its length and five numbers.
    OPCUA,
    "opcua",
    |reader| {
        let hello = reader.one_of(&[b"HELF", b"HELC"])?;
        Ok(hello && matches!(reader.le32()?, 32..=4128))
    },
    [b"HELF\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x88\x13\x00\x00\x00\x00\x00\x00"]
);
opening!(
    /// Synchrophasors (IEEE C37.118): a command of 18 bytes or more, with its check sum.
    SYNCHROPHASOR,
    "synchrophasor",
    synchrophasor,
    [b"\xaa\x41\x00\x12\x00\xc8\x65\x53\xf1\x0e\x00\x00\x00\x00\x00\x03\xa2\x44"]
);
opening!(
    /// EtherNet/IP: a command that needs no session, in its head of 24 bytes.
    ENIP,
    "enip",
    enip,
    [
        b"\x63\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc1\xde\xbe\xd1\x00\x00\x00\x00",
        b"\x65\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"
    ]
);
opening!(
    /// Beckhoff's ADS: lengths of both heads that fit each other, and a request.
    ADS,
    "ads",
    ads,
    [b"\x00\x00\x20\x00\x00\x00\x05\x0d\x75\x60\x01\x01\x10\x27\xc0\xa8\x01\x63\x01\x01\x03\x80\x04\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00"]
);
opening!(
    /// HART-IP: the request to initiate a session.
    HARTIP,
    "hartip",
    |reader| {
        if !reader.literal(&[1, 0, 0, 0])? {
            return Ok(false);
        }
        reader.take(2)?;
        Ok(reader.literal(&[0, 13])? && matches!(reader.u8()?, 0 | 1))
    },
    [b"\x01\x00\x00\x00\x00\x02\x00\x0d\x01\x00\x00\x75\x30"]
);
opening!(
    /// Omron's FINS over TCP.
    OMRON_FINS,
    "omron_fins",
    |reader| Ok(reader.literal(b"FINS\x00\x00")? && reader.be16()? >= 8),
    [b"FINS\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"]
);

fn dnp3(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut head = *reader;
    if !reader.literal(&[0x05, 0x64])? || reader.u8()? < 5 {
        return Ok(false);
    }
    reader.take(5)?;
    Ok(reader.le16()? == dnp3_check(head.take(8)?))
}

/// The check sum of DNP3: polynomial 0x3d65, reflected, complemented (IEEE 1815, 9.2.4.3).
fn dnp3_check(bytes: &[u8]) -> u16 {
    let crc = bytes.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa6bc } else { crc >> 1 })
    });
    !crc
}

fn synchrophasor(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut frame = *reader;
    if !reader.literal(&[0xaa])? || !matches!(reader.u8()?, 0x41 | 0x42) {
        return Ok(false);
    }
    let length = usize::from(reader.be16()?);
    if !(18..=1024).contains(&length) {
        return Ok(false);
    }
    let bytes = frame.take(length)?;
    let (body, check) = bytes.split_at_checked(length - 2).ok_or(End)?;
    Ok(check == synchrophasor_check(body).to_be_bytes())
}

/// CRC-CCITT from 0xffff (IEEE C37.118.2, annex B).
fn synchrophasor_check(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

fn enip(reader: &mut Reader<'_>) -> Result<bool, End> {
    let command = reader.le16()?;
    let length = reader.le16()?;
    // List identity, list interfaces, register session. To list services (4) is a number among zeros.
    let expected = match command {
        0x63 | 0x64 => 0,
        0x65 => 4,
        _ => return Ok(false),
    };
    if length != expected || reader.le32()? != 0 || reader.le32()? != 0 {
        return Ok(false);
    }
    reader.take(8)?;
    if reader.le32()? != 0 {
        return Ok(false);
    }
    // The version of the protocol, and no options.
    if command == 0x65 { reader.literal(&[1, 0, 0, 0]) } else { Ok(true) }
}

fn ads(reader: &mut Reader<'_>) -> Result<bool, End> {
    const HEAD_BYTES: u32 = 32;
    if !reader.literal(&[0, 0])? {
        return Ok(false);
    }
    let length = reader.le32()?;
    if !(HEAD_BYTES..=1 << 20).contains(&length) {
        return Ok(false);
    }
    reader.take(16)?;
    // Nine commands, and the flags of a request.
    let (command, flags) = (reader.le16()?, reader.le16()?);
    Ok((1..=9).contains(&command) && flags == 4 && reader.le32()? == length - HEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::super::{all, understand};

    #[test]
    fn a_wrong_check_sum_is_no_frame() {
        for name in ["dnp3", "synchrophasor"] {
            let protocol = all().find(|protocol| protocol.name() == name).expect("it is in the table");
            let mut bytes = protocol.samples[0].to_vec();
            assert_eq!(understand(&bytes, false).protocol, Some(name));
            bytes[5] ^= 1;
            assert_eq!(understand(&bytes, false).protocol, None, "{name}");
        }
    }
}
