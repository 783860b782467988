//! Protocols of networks and of telephony: routing, signalling, tunnels, streams.
//!
//! Each decides at the head of its first message, where lengths, versions and codes must fit each other. Named without
//! further facts; for more facts, give one of them a file of its own.

use super::Protocol;
use super::openings::opening;
use super::reader::{End, Reader};

opening!(
    /// BGP: an open message of version 4 (RFC 4271).
    BGP,
    "bgp",
    |reader| Ok(reader.literal(&[0xff; 16])? && reader.be16()? >= 29 && reader.literal(&[1, 4])?),
    [b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x1d\x01\x04\x00\xff\xff\x00\x00\xb4\xc0\x00\x00"]
);
opening!(
    /// Diameter (RFC 6733): a request and the head of its first attribute.
    DIAMETER,
    "diameter",
    diameter,
    [b"\x01\x00\x00\xa8\x80\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x01\x08\x40\x00\x00\x1ahost"]
);
opening!(
    /// STUN and TURN over TCP: a request and the magic cookie (RFC 8489).
    STUN,
    "stun",
    |reader| {
        if !matches!(reader.be16()?, 1 | 3 | 4 | 6 | 8 | 9) || reader.be16()? % 4 != 0 {
            return Ok(false);
        }
        reader.literal(&[0x21, 0x12, 0xa4, 0x42])
    },
    [b"\x00\x01\x00\x00\x21\x12\xa4\x42\x6d\x6b\xbe\x3c\x65\x71\x1a\xb6\xcb\x6f\x8c\x5f"]
);
opening!(
    /// SMPP 3.4: a bind with a name of printable characters.
    SMPP,
    "smpp",
    smpp,
    [b"\x00\x00\x00\x28\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01abhik\x00password\x00SMPP\x00\x00\x00\x01\x00\x00\x00"]
);
opening!(
    /// OpenVPN over TCP: a hard reset of a client, whole in its length.
    OPENVPN,
    "openvpn",
    openvpn,
    [b"\x00\x0e\x38\x37\xa5\x26\x08\xa2\x1b\xa0\xb1\x00\x00\x00\x00\x00"]
);
opening!(
    /// H.323: a set-up of Q.931 in a TPKT.
    H323,
    "h323",
    |reader| {
        if !reader.literal(&[3, 0])? || reader.be16()? < 16 || !reader.literal(&[8, 2])? {
            return Ok(false);
        }
        reader.take(2)?;
        Ok(reader.u8()? == 5)
    },
    [b"\x03\x00\x00\xa0\x08\x02\x77\xf4\x05\x04\x03\x80\x90\xa5\x28\x08"]
);
opening!(
    /// RTMP: version 3, a time, four zeros, and all of 1,528 random bytes.
    RTMP,
    "rtmp",
    |reader| {
        if reader.u8()? != 3 {
            return Ok(false);
        }
        // The client's uptime in milliseconds: the version of a TLS record behind a 3 makes 50 days and more.
        if reader.u8()? != 0 {
            return Ok(false);
        }
        reader.take(3)?;
        if reader.be32()? != 0 {
            return Ok(false);
        }
        let random = reader.take(1528)?;
        Ok(random.iter().filter(|byte| **byte == 0).count() < random.len() / 2)
    },
    [&RTMP_SAMPLE]
);
opening!(
    /// LDP (RFC 5036): version 1, and an initialisation or a hello.
    LDP,
    "ldp",
    |reader| {
        if reader.be16()? != 1 {
            return Ok(false);
        }
        let length = reader.be16()?;
        reader.take(6)?;
        let kind = reader.be16()?;
        let inner = reader.be16()?;
        reader.take(4)?;
        Ok(kind == 0x0200 && length >= 14 && inner + 10 <= length && reader.be16()? == 0x0500)
    },
    [b"\x00\x01\x00\x25\xc0\xa8\x00\x02\x00\x00\x02\x00\x00\x1b\x00\x00\x00\x01\x05\x00\x00\x0e\x00\x01"]
);

fn diameter(reader: &mut Reader<'_>) -> Result<bool, End> {
    const HEAD_BYTES: u32 = 20;
    if reader.u8()? != 1 {
        return Ok(false);
    }
    let length = reader.be24()?;
    let flags = reader.u8()?;
    let command = reader.be24()?;
    if length < HEAD_BYTES + 8 || length % 4 != 0 || flags & 0x8f != 0x80 || !(257..=1000).contains(&command) {
        return Ok(false);
    }
    reader.take(12)?;
    let _code = reader.be32()?;
    let flags = reader.u8()?;
    Ok(flags & 0x1f == 0 && (8..=length - HEAD_BYTES).contains(&reader.be24()?))
}

fn smpp(reader: &mut Reader<'_>) -> Result<bool, End> {
    // Receiver, transmitter, transceiver.
    let length = reader.be32()?;
    if !(23..=256).contains(&length) || !matches!(reader.be32()?, 1 | 2 | 9) || reader.be32()? != 0 {
        return Ok(false);
    }
    reader.take(4)?;
    for position in 0..16 {
        match reader.u8()? {
            0 => return Ok(position > 0),
            b' '..=b'~' => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

fn openvpn(reader: &mut Reader<'_>) -> Result<bool, End> {
    const HARD_RESET_CLIENT_V2: u8 = 7 << 3;
    let length = reader.be16()?;
    // Without and with a control channel that is authenticated (digests of 16 to 64 bytes) or encrypted.
    if !matches!(length, 14 | 38 | 42 | 46 | 54 | 56 | 70 | 78 | 86) || reader.u8()? != HARD_RESET_CLIENT_V2 {
        return Ok(false);
    }
    let body = reader.take(usize::from(length) - 1)?;
    // It acknowledges nothing, and is the first packet.
    Ok(length != 14 || body.ends_with(&[0; 5]))
}

/// The first bytes of a client of RTMP; the random ones are all alike.
#[cfg(any(test, feature = "samples"))]
const RTMP_SAMPLE: [u8; 1537] = {
    let mut bytes = [b'r'; 1537];
    let head = [3, 0, 7, 0xaa, 0x57, 0, 0, 0, 0];
    let mut at = 0;
    while at < head.len() {
        bytes[at] = head[at];
        at += 1;
    }
    bytes
};
