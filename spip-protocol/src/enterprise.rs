//! Protocols of company servers: directories, databases, remote procedures, queues.
//!
//! Each decides at the head of its first message, where lengths, versions and codes must fit each other. Named without
//! further facts; for more facts, give one of them a file of its own.

use super::Protocol;
use super::openings::opening;
use super::reader::{End, Reader};

opening!(
    /// DCE/RPC, connection-oriented: version, type, data representation, lengths.
    DCERPC,
    "dcerpc",
    dcerpc,
    [b"\x05\x00\x0b\x03\x10\x00\x00\x00\x48\x00\x00\x00\x01\x00\x00\x00"]
);
opening!(
    /// Kerberos 5 over TCP: a length, and an AS or TGS request of the same length (RFC 4120).
    KRB5,
    "krb5",
    krb5,
    [b"\x00\x00\x00\x71\x6a\x81\x6e\x30\x81\x6b\xa1\x03\x02\x01\x05\xa2\x03\x02\x01\x0a"]
);
opening!(
    /// ONC RPC: one fragment with a call of version 2 (RFC 5531).
    SUNRPC,
    "sunrpc",
    sunrpc,
    [b"\x80\x00\x00\x28\x72\xfe\x1d\x13\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01\x86\xa0\x00\x01\x97\x7c\x00\x00\x00\x00\x00\x00\x00\x00"]
);
opening!(
    /// Oracle's TNS: a packet to connect, with the versions that the client speaks.
    TNS,
    "tns",
    tns,
    [b"\x00\x5a\x00\x00\x01\x00\x00\x00\x01\x36\x01\x2c\x00\x00\x08\x00\x7f\xff\x7f\x08"]
);
opening!(
    /// DRDA of Db2 and Derby: a request of data management, EXCSAT.
    DRDA,
    "drda",
    drda,
    [b"\x00\x32\xd0\x41\x00\x01\x00\x2c\x10\x41\x00\x04\x11\x5e"]
);
opening!(
    /// Apache JServ Protocol 1.3, from server to container: forward a request, shut down, ping.
    AJP,
    "ajp",
    |reader| {
        if !reader.literal(&[0x12, 0x34])? {
            return Ok(false);
        }
        let length = reader.be16()?;
        Ok(match reader.u8()? {
            2 => length > 8 && matches!(reader.u8()?, 1..=28 | 0xff),
            7 | 10 => length == 1,
            _ => false,
        })
    },
    [b"\x12\x34\x00\x01\x0a", b"\x12\x34\x00\x4e\x02\x01\x00\x08HTTP/1.1\x00"]
);
opening!(
    /// Cassandra's native protocol 3 to 5: a request for options, or a start-up.
    CASSANDRA,
    "cassandra",
    cassandra,
    [
        b"\x04\x00\x00\x00\x05\x00\x00\x00\x00",
        b"\x04\x00\x00\x01\x01\x00\x00\x00\x16\x00\x01\x00\x0bCQL_VERSION\x00\x053.0.0"
    ]
);
opening!(
    /// DICOM: a request to associate, version 1, with two titles of printable characters.
    DICOM,
    "dicom",
    dicom,
    [b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00ANY-SCP         ECHOSCU         \x00\x00"]
);
opening!(
    /// iSCSI (RFC 7143): a login whose text names the initiator.
    ISCSI,
    "iscsi",
    |reader| {
        if !matches!(reader.u8()?, 0x03 | 0x43) || reader.u8()? & 0x30 != 0 || !reader.literal(&[0, 0])? {
            return Ok(false);
        }
        reader.take(44)?;
        reader.literal(b"InitiatorName=")
    },
    [b"\x43\x81\x00\x00\x00\x00\x00\x5f\x40\x00\x01\x37\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00InitiatorName=iqn.x"]
);
opening!(
    /// FastCGI: the begin of a request, with a role and five reserved zeros.
    FASTCGI,
    "fastcgi",
    |reader| {
        if !reader.literal(&[1, 1])? || reader.be16()? == 0 || !reader.literal(&[0, 8])? {
            return Ok(false);
        }
        reader.take(2)?;
        Ok(matches!(reader.be16()?, 1..=3) && reader.u8()? <= 1 && reader.literal(&[0, 0, 0, 0, 0])?)
    },
    [b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00"]
);
opening!(
    /// Firebird: an operation to connect, for an attachment.
    FIREBIRD,
    "firebird",
    |reader| Ok(reader.literal(b"\x00\x00\x00\x01\x00\x00\x00\x13\x00\x00\x00")? && matches!(reader.u8()?, 2 | 3)),
    [b"\x00\x00\x00\x01\x00\x00\x00\x13\x00\x00\x00\x02\x00\x00\x00\x24\x00\x00\x00\x0bservice_mgr\x00"]
);
opening!(
    /// Informix: a connection of SQLI.
    INFORMIX,
    "informix",
    |reader| {
        reader.take(2)?;
        if !reader.literal(&[1, 0x3c])? {
            return Ok(false);
        }
        reader.take(10)?;
        reader.literal(b"\x00\x06IEEEM\x00")
    },
    [b"\x00\x94\x01\x3c\x00\x00\x00\x64\x00\x65\x00\x00\x00\x3d\x00\x06IEEEM\x00\x00lsqlexec"]
);
opening!(
    /// Thrift's strict binary protocol: a call by its name.
    THRIFT,
    "thrift",
    |reader| {
        if !reader.literal(&[0x80, 1, 0, 1])? {
            return Ok(false);
        }
        let length = reader.be32()?;
        if !(1..=128).contains(&length) {
            return Ok(false);
        }
        for _ in 0..length {
            let byte = reader.u8()?;
            if !byte.is_ascii_alphanumeric() && !matches!(byte, b'_' | b':' | b'.') {
                return Ok(false);
            }
        }
        Ok(true)
    },
    [b"\x80\x01\x00\x01\x00\x00\x00\x14anonymous_command_on\x00\x00\x00\x00\x08\x00\x01"]
);
opening!(
    /// AFP: a request of DSI for the status of the server or for a session.
    AFP,
    "afp",
    |reader| {
        if !reader.literal(&[0])? || !matches!(reader.u8()?, 3 | 4) {
            return Ok(false);
        }
        reader.take(2)?;
        if reader.be32()? != 0 {
            return Ok(false);
        }
        // A status, or a session with the size of its quantum.
        match (reader.be32()?, reader.be32()?) {
            (2, 0) => reader.literal(&[0x0f, 0]),
            (6, 0) => Ok(matches!(reader.u8()?, 0 | 1) && reader.u8()? == 4),
            _ => Ok(false),
        }
    },
    [b"\x00\x03\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x0f\x00"]
);
opening!(
    /// Aerospike's info protocol: version 2, type 1, a length, and lines of printable characters.
    AEROSPIKE,
    "aerospike",
    |reader| {
        if !reader.literal(&[2, 1, 0, 0])? {
            return Ok(false);
        }
        let length = reader.be32()?;
        if !(1..=8192).contains(&length) {
            return Ok(false);
        }
        for _ in 0..length.min(16) {
            if !matches!(reader.u8()?, b' '..=b'~' | b'\n' | b'\t') {
                return Ok(false);
            }
        }
        Ok(true)
    },
    [b"\x02\x01\x00\x00\x00\x00\x00\x05node\n"]
);
opening!(
    /// HiSLIP of measuring instruments: an initialisation.
    HISLIP,
    "hislip",
    |reader| Ok(reader.literal(b"HS\x00\x00")? && reader.be16()? >= 0x0100 && reader.take(2)?.len() == 2 && reader.be32()? == 0),
    [b"HS\x00\x00\x01\x00RS\x00\x00\x00\x00\x00\x00\x00\x07hislip0"]
);

fn dcerpc(reader: &mut Reader<'_>) -> Result<bool, End> {
    const HEAD_BYTES: u16 = 16;
    /// Windows offers fragments of 5,840 bytes at most, Samba of 4,280.
    const LENGTH_BYTES: u16 = 16 * 1024;
    if reader.u8()? != 5 || reader.u8()? > 1 {
        return Ok(false);
    }
    // How long a request, a bind, a change of context and an authentication are at least.
    let (least, flags) = match (reader.u8()?, reader.u8()?) {
        (0, flags) => (24, flags),
        (11 | 14, flags) => (72, flags),
        (16, flags) => (28, flags),
        _ => return Ok(false),
    };
    // A request that is no first fragment comes later.
    if least == 24 && flags & 1 == 0 {
        return Ok(false);
    }
    let is_little = match reader.u8()? {
        0x10 => true,
        0x00 => false,
        _ => return Ok(false),
    };
    if !reader.literal(&[0, 0, 0])? {
        return Ok(false);
    }
    let (length, authentication) =
        if is_little { (reader.le16()?, reader.le16()?) } else { (reader.be16()?, reader.be16()?) };
    Ok((least..=LENGTH_BYTES).contains(&length) && authentication <= length - HEAD_BYTES)
}

fn krb5(reader: &mut Reader<'_>) -> Result<bool, End> {
    let length = reader.be32()?;
    let kind = reader.u8()?;
    if !(16..=1 << 20).contains(&length) || !matches!(kind, 0x6a | 0x6c) {
        return Ok(false);
    }
    let Some((inner, head)) = der_length(reader)? else { return Ok(false) };
    if inner + head + 1 != length || reader.u8()? != 0x30 || der_length(reader)?.is_none() {
        return Ok(false);
    }
    reader.literal(&[0xa1, 3, 2, 1, 5])
}

/// A length of DER, and how many bytes it took.
fn der_length(reader: &mut Reader<'_>) -> Result<Option<(u32, u32)>, End> {
    Ok(match reader.u8()? {
        short @ 0..=0x7f => Some((u32::from(short), 1)),
        0x81 => Some((u32::from(reader.u8()?), 2)),
        0x82 => Some((u32::from(reader.be16()?), 3)),
        0x83 => Some((reader.be24()?, 4)),
        _ => None,
    })
}

fn sunrpc(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mark = reader.be32()?;
    // The last fragment, with at least the call and two empty authenticators.
    if mark & 0x8000_0000 == 0 || !(40..=1 << 16).contains(&(mark & 0x7fff_ffff)) {
        return Ok(false);
    }
    reader.take(4)?;
    if reader.be32()? != 0 || reader.be32()? != 2 {
        return Ok(false);
    }
    let _program = reader.be32()?;
    let _version = reader.be32()?;
    let _procedure = reader.be32()?;
    // Kinds of authentication: none, unix, short, DES, Kerberos, RSA, GSS.
    Ok(reader.be32()? <= 6)
}

fn tns(reader: &mut Reader<'_>) -> Result<bool, End> {
    let length = reader.be16()?;
    if length < 34 || !reader.literal(&[0, 0, 1, 0, 0, 0])? {
        return Ok(false);
    }
    let (version, oldest) = (reader.be16()?, reader.be16()?);
    Ok((300..=400).contains(&version) && (200..=version).contains(&oldest))
}

fn drda(reader: &mut Reader<'_>) -> Result<bool, End> {
    const HEAD_BYTES: u16 = 6;
    const EXCSAT: u16 = 0x1041;
    let length = reader.be16()?;
    if length <= HEAD_BYTES || reader.u8()? != 0xd0 || reader.u8()? & 0x8f != 1 {
        return Ok(false);
    }
    reader.take(2)?;
    Ok(reader.be16()? == length - HEAD_BYTES && reader.be16()? == EXCSAT)
}

fn cassandra(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !matches!(reader.u8()?, 3..=5) || reader.u8()? & 0xe0 != 0 {
        return Ok(false);
    }
    reader.take(2)?;
    match reader.u8()? {
        5 => Ok(reader.be32()? == 0),
        1 => {
            let length = reader.be32()?;
            let options = reader.be16()?;
            let name = reader.be16()?;
            if !(4..=4096).contains(&length) || !(1..=32).contains(&options) || !(1..=64).contains(&name) {
                return Ok(false);
            }
            for _ in 0..name {
                if !matches!(reader.u8()?, b'A'..=b'Z' | b'_') {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn dicom(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !reader.literal(&[1, 0])? || !(68..=1 << 16).contains(&reader.be32()?) || !reader.literal(&[0, 1, 0, 0])? {
        return Ok(false);
    }
    for _ in 0..32 {
        if !matches!(reader.u8()?, b' '..=b'~') {
            return Ok(false);
        }
    }
    Ok(true)
}
