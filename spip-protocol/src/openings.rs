//! Protocols that a fixed text or number opens, and that are named without further facts.
//!
//! Each decides at its opening, which is long or odd enough to belong to nothing else. A contributor who wants more
//! facts of one of them gives it a file of its own.

use super::Protocol;
use super::reader::{End, Reader};
use super::request_line::{Family, request_line};

/// Makes the registry's entry of a protocol without facts.
macro_rules! opening {
    ($(#[$doc:meta])* $entry:ident, $name:literal, $recognise:expr, $samples:expr) => {
        $(#[$doc])*
        pub(super) static $entry: Protocol = Protocol {
            name: $name,
            recognise: $recognise,
            understand: |_, _| Ok(()),
            #[cfg(any(test, feature = "samples"))]
            samples: &$samples,
        };
    };
}
pub(super) use opening;

opening!(
    /// ICAP (RFC 3507): a request line with its version.
    ICAP,
    "icap",
    |reader| Ok(request_line(reader)?.is_some_and(|line| line.family == Family::Icap)),
    [b"OPTIONS icap://192.0.2.1/avscan ICAP/1.0\r\nHost: 192.0.2.1\r\n\r\n"]
);
opening!(
    /// rsync's daemon: the greeting with the version.
    RSYNC,
    "rsync",
    |reader| Ok(reader.literal(b"@RSYNCD: ")? && reader.u8()?.is_ascii_digit()),
    [b"@RSYNCD: 31.0\n"]
);
opening!(
    /// Java's remote method invocation (JRMP): magic, version, and one of three protocols.
    RMI,
    "rmi",
    |reader| Ok(reader.literal(b"JRMI\x00")? && matches!(reader.u8()?, 1 | 2) && matches!(reader.u8()?, 0x4b..=0x4d)),
    [b"JRMI\x00\x02\x4b"]
);
opening!(
    /// WebLogic's T3: protocol, the client's version, line end.
    T3,
    "t3",
    t3,
    [b"t3 12.2.1\nAS:255\nHL:19\n\n", b"t3s 12.2.1\nAS:255\n"]
);
opening!(
    /// The Java Debug Wire Protocol.
    JDWP,
    "jdwp",
    |reader| reader.literal(b"JDWP-Handshake"),
    [b"JDWP-Handshake"]
);
opening!(
    /// Git's own transport: a packet line with the service that is asked for.
    GIT,
    "git",
    git,
    [b"0033git-upload-pack /project.git\0host=example.com\0"]
);
opening!(
    /// CORBA's General Inter-ORB Protocol 1.x.
    GIOP,
    "giop",
    |reader| Ok(reader.literal(b"GIOP\x01")? && matches!(reader.u8()?, 0..=3)),
    [b"GIOP\x01\x00\x01\x00\x24\x00\x00\x00"]
);
opening!(
    /// Zabbix: magic and flags.
    ZABBIX,
    "zabbix",
    |reader| Ok(reader.literal(b"ZBXD")? && matches!(reader.u8()?, 1 | 3 | 5 | 7)),
    [b"ZBXD\x01\x0a\x00\x00\x00\x00\x00\x00\x00proc.num[]"]
);
opening!(
    /// STOMP 1.x: the command to connect and a header line of it.
    STOMP,
    "stomp",
    stomp,
    [b"STOMP\naccept-version:1.1\n\n\0", b"CONNECT\r\naccept-version:1.2\r\nhost:h\r\n\r\n\0"]
);
opening!(
    /// NATS: the command to connect with its options.
    NATS,
    "nats",
    |reader| reader.literal(b"CONNECT {"),
    [b"CONNECT {\"verbose\":false}\r\n"]
);
opening!(
    /// Printer Job Language, with or without the escape that leads to it.
    PJL,
    "pjl",
    |reader| reader.one_of(&[b"\x1b%-12345X@PJL", b"@PJL "]),
    [b"\x1b%-12345X@PJL INFO ID\r\n\x1b%-12345X\r\n", b"@PJL INFO STATUS\r\n"]
);
opening!(
    /// XMPP: the head of a stream.
    XMPP,
    "xmpp",
    xmpp,
    [
        b"<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams'",
        b"<stream:stream xmlns='jabber:client' to='example.com'>"
    ]
);
opening!(
    /// FIX: the version of the first field.
    FIX,
    "fix",
    |reader| reader.one_of(&[b"8=FIX.4.", b"8=FIX.5.", b"8=FIXT.1."]),
    [b"8=FIX.4.2\x019=62\x0135=A\x01"]
);
opening!(
    /// distcc: version 1, number of arguments.
    DISTCC,
    "distcc",
    |reader| reader.literal(b"DIST00000001ARGC"),
    [b"DIST00000001ARGC00000005ARGV00000002cc"]
);
opening!(
    /// CVS' password server.
    CVS,
    "cvs",
    |reader| reader.one_of(&[b"BEGIN AUTH REQUEST\n", b"BEGIN VERIFICATION REQUEST\n"]),
    [b"BEGIN AUTH REQUEST\n/demo\nrepository\n"]
);
opening!(
    /// gpsd's commands.
    GPSD,
    "gpsd",
    |reader| reader.one_of(&[b"?WATCH", b"?VERSION;", b"?POLL;", b"?DEVICES;"]),
    [b"?WATCH={\"enable\":true,\"nmea\":true}\r\n"]
);
opening!(
    /// Nessus' own transport.
    NESSUS,
    "nessus",
    |reader| reader.literal(b"< NTP/1."),
    [b"< NTP/1.2 >\n"]
);
opening!(
    /// NoMachine's shell.
    NOMACHINE,
    "nomachine",
    |reader| Ok(reader.literal(b"NXSH-")? && reader.u8()?.is_ascii_digit()),
    [b"NXSH-5.6.7\n"]
);
opening!(
    /// Munin's node: the capabilities of a master.
    MUNIN,
    "munin",
    |reader| reader.literal(b"cap multigraph"),
    [b"cap multigraph dirtyconfig\nlist\n"]
);
opening!(
    /// Automatic tank gauges (Veeder-Root TLS-350): SOH, or its caret form, and a function code.
    ATG,
    "atg",
    |reader| {
        if !reader.one_of(&[b"\x01", b"^A"])? || reader.u8()? != b'I' {
            return Ok(false);
        }
        Ok(reader.array::<5>()?.iter().all(u8::is_ascii_digit))
    },
    [b"\x01I20100\n", b"^AI21400"]
);
opening!(
    /// Bitcoin: the magic of one of its networks and the first message.
    BITCOIN,
    "bitcoin",
    |reader| {
        let magics: [&[u8]; 4] = [b"\xf9\xbe\xb4\xd9", b"\x0b\x11\x09\x07", b"\xfa\xbf\xb5\xda", b"\x0a\x03\xcf\x40"];
        Ok(reader.one_of(&magics)? && reader.literal(b"version\0\0\0\0\0")?)
    },
    [b"\xf9\xbe\xb4\xd9version\0\0\0\0\0\x55\0\0\0\x8d\x52\x53\x52"]
);
opening!(
    /// ActiveMQ's OpenWire: a length and WIREFORMAT_INFO with its magic.
    OPENWIRE,
    "openwire",
    |reader| {
        reader.be32()?;
        reader.literal(b"\x01ActiveMQ")
    },
    [b"\x00\x00\x00\xda\x01ActiveMQ\x00\x00\x00\x0a"]
);
opening!(
    /// ClickHouse's native protocol: hello and the client's name.
    CLICKHOUSE,
    "clickhouse",
    |reader| {
        if reader.u8()? != 0 || !matches!(reader.u8()?, 10..=64) {
            return Ok(false);
        }
        reader.literal(b"ClickHouse")
    },
    [b"\x00\x11ClickHouse client\x15\x08\xb1\xa9\x03\x00\x07default\x00"]
);
opening!(
    /// IBM MQ: the head of a segment.
    MQSERIES,
    "mqseries",
    |reader| Ok(reader.one_of(&[b"TSH ", b"TSHM", b"TSHC"])? && reader.be16()? == 0),
    [b"TSH \x00\x00\x00\xec\x01\x01"]
);
opening!(
    /// Message Queuing of Microsoft: version, and the signature of its packets.
    MSMQ,
    "msmq",
    |reader| Ok(reader.u8()? == 0x10 && reader.take(3)?.len() == 3 && reader.literal(b"LIOR")?),
    [b"\x10\xc0\x0b\x00LIOR\x3c\x02\x00\x00"]
);
opening!(
    /// NetWare Core Protocol over TCP.
    NCP,
    "ncp",
    |reader| Ok(reader.literal(b"DmdT")? && reader.be16()? == 0),
    [b"DmdT\x00\x00\x00\x17\x00\x00\x00\x01"]
);
opening!(
    /// Apple's events from program to program.
    EPPC,
    "eppc",
    |reader| reader.literal(b"PPCT\x00\x00\x00\x01"),
    [b"PPCT\x00\x00\x00\x01\x00\x00\x00\x01"]
);
opening!(
    /// Db2's administration server.
    DB2_DAS,
    "db2_das",
    |reader| reader.literal(b"\x00\x00\x00\x00DB2DAS"),
    [b"\x00\x00\x00\x00DB2DAS      \x20\x01\x04\x00\x00\x00"]
);
opening!(
    /// PPTP: length and magic cookie (RFC 2637).
    PPTP,
    "pptp",
    |reader| Ok(reader.be16()? >= 12 && reader.literal(b"\x00\x01\x1a\x2b\x3c\x4d\x00\x01")?),
    [b"\x00\x9c\x00\x01\x1a\x2b\x3c\x4d\x00\x01\x00\x00\x01\x00\x00\x00"]
);
opening!(
    /// Radmin's first request.
    RADMIN,
    "radmin",
    |reader| reader.literal(b"\x01\x00\x00\x00\x01\x00\x00\x00\x08\x08"),
    [b"\x01\x00\x00\x00\x01\x00\x00\x00\x08\x08"]
);
opening!(
    /// Cisco's Smart Install: the request with which scanners find it.
    CISCO_SMI,
    "cisco_smi",
    |reader| reader.literal(b"\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x08\x00\x00\x00\x01"),
    [b"\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00"]
);
opening!(
    /// The API of MikroTik's RouterOS: a word of six characters.
    MIKROTIK_API,
    "mikrotik_api",
    |reader| reader.literal(b"\x06/login"),
    [b"\x06/login\x00"]
);
opening!(
    /// Gearman: a request and one of its types.
    GEARMAN,
    "gearman",
    |reader| Ok(reader.literal(b"\x00REQ")? && matches!(reader.be32()?, 1..=42)),
    [b"\x00REQ\x00\x00\x00\x01\x00\x00\x00\x02wc"]
);
opening!(
    /// NJE of mainframes: OPEN in EBCDIC.
    NJE,
    "nje",
    |reader| reader.literal(b"\xd6\xd7\xc5\xd5\x40\x40\x40\x40"),
    [b"\xd6\xd7\xc5\xd5\x40\x40\x40\x40\xc6\xc1\xd2\xc5\x40\x40\x40\x40"]
);
opening!(
    /// tinc: the identity of a peer that speaks version 17.
    TINC,
    "tinc",
    |reader| {
        if !reader.literal(b"0 ")? {
            return Ok(false);
        }
        let mut name = 0;
        loop {
            match reader.u8()? {
                b' ' if name > 0 => break,
                byte if name < 64 && (byte.is_ascii_alphanumeric() || byte == b'_') => name += 1,
                _ => return Ok(false),
            }
        }
        Ok(reader.literal(b"17")? && matches!(reader.u8()?, b'.' | b'\n'))
    },
    [b"0 think 17.1\n1 429 672 0 0 2CDA\n"]
);

fn t3(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !reader.literal(b"t3")? {
        return Ok(false);
    }
    match reader.u8()? {
        b' ' => {}
        b's' if reader.u8()? == b' ' => {}
        _ => return Ok(false),
    }
    for position in 0..32 {
        match reader.u8()? {
            b'\n' => return Ok(position > 0),
            b'0'..=b'9' => {}
            b'.' | b'\r' if position > 0 => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

fn git(reader: &mut Reader<'_>) -> Result<bool, End> {
    for _ in 0..4 {
        if !reader.u8()?.is_ascii_hexdigit() {
            return Ok(false);
        }
    }
    reader.one_of(&[b"git-upload-pack /", b"git-receive-pack /", b"git-upload-archive /"])
}

/// A header line of the frame is read too: `CONNECT` alone is a word of others.
fn stomp(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !reader.one_of(&[b"STOMP\n", b"STOMP\r\n", b"CONNECT\n", b"CONNECT\r\n"])? {
        return Ok(false);
    }
    reader.one_of(&[b"accept-version:", b"login:", b"passcode:", b"host:", b"heart-beat:", b"\n\0", b"\r\n\0"])
}

/// An XML declaration may stand before it.
fn xmpp(reader: &mut Reader<'_>) -> Result<bool, End> {
    const DECLARATION_BYTES: usize = 128;
    const STREAM: &[u8] = b"<stream:stream";
    let mut declaration = *reader;
    if !declaration.one_of(&[b"<?xml ", STREAM])? {
        return Ok(false);
    }
    if reader.literal(STREAM)? {
        return Ok(true);
    }
    if reader.until(b'>', DECLARATION_BYTES)?.is_none() {
        return Ok(false);
    }
    loop {
        let mut ahead = *reader;
        if !matches!(ahead.u8()?, b'\r' | b'\n' | b' ') {
            break;
        }
        *reader = ahead;
    }
    reader.literal(STREAM)
}

#[cfg(test)]
mod tests {
    use super::super::understand;

    #[test]
    fn openings_that_end_otherwise_stay_unknown() {
        let others: &[&[u8]] = &[
            b"t3 is a word\n",
            b"t3 \n",
            b"0045git-upload-pack x",
            b"CONNECT\nnow\n",
            b"<?xml version='1.0'?><html>",
            b"0 think 18\n",
            b"cap x\n",
            b"ZBXD\x02",
            b"\x01X20100",
            b"8=FIX.9.",
        ];
        for bytes in others {
            assert_eq!(understand(bytes, false).protocol, None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
