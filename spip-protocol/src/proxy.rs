//! The PROXY protocol, version 1 and 2: what a load balancer says about the client, in front of everything else.
//! <https://github.com/haproxy/haproxy/blob/master/doc/proxy-protocol.txt>
//!
//! [`parse`] decides on a prefix and its answer is final, as that of [`super::classify`]. A header that is none by its own
//! rules moves no address: it is [`Parsed::Malformed`], with the reason, and its bytes stay what they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::reader::{End, Reader};
use super::value::{Object, clip};

/// Result of parsing a prefix of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// More bytes decide.
    NeedMore,
    /// The stream begins with something else.
    Absent,
    /// It begins like a header and breaks a rule.
    Malformed(&'static str),
    /// A whole header.
    Header(Header),
}

/// A whole header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Length of the header in bytes.
    pub length: usize,
    /// Client and the address that it asked for; absent for connections of the balancer itself, and for other families.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Everything that it says, for the record.
    pub facts: Object,
}

/// The signature of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its line end.
const LINE_BYTES: usize = 107;
/// The longest part behind the fixed one that is read; balancers send some hundred bytes, with a certificate's name.
const VARIABLE_BYTES: u16 = 4096;
/// Bytes in front of the variable part.
const FIXED_BYTES: usize = 16;

/// Kinds of further facts (section 2.2).
mod kind {
    pub(super) const ALPN: u8 = 0x01;
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const CRC32C: u8 = 0x03;
    pub(super) const NOOP: u8 = 0x04;
    pub(super) const UNIQUE_ID: u8 = 0x05;
    pub(super) const SSL: u8 = 0x20;
    pub(super) const SSL_VERSION: u8 = 0x21;
    pub(super) const SSL_CN: u8 = 0x22;
    pub(super) const SSL_CIPHER: u8 = 0x23;
    pub(super) const NETNS: u8 = 0x30;
}

/// Reads a header at the beginning of a stream.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    match bytes.first() {
        None => Parsed::NeedMore,
        Some(b'P') => version_1(bytes).unwrap_or(Parsed::NeedMore),
        Some(b'\r') => version_2(bytes).unwrap_or(Parsed::NeedMore),
        Some(_) => Parsed::Absent,
    }
}

fn version_1(bytes: &[u8]) -> Result<Parsed, End> {
    let mut reader = Reader::new(bytes);
    if !reader.literal(b"PROXY ")? {
        return Ok(Parsed::Absent);
    }
    let Some(line) = reader.line(LINE_BYTES - b"PROXY ".len())? else {
        return Ok(Parsed::Malformed("the line has no end within 107 bytes"));
    };
    let length = bytes.len() - reader.rest().len();
    if bytes.get(length.saturating_sub(2)..length) != Some(b"\r\n") {
        return Ok(Parsed::Malformed("the line does not end with CR LF"));
    }
    let mut facts = Object::default();
    facts.number("version", 1_u8);
    let mut words = line.split(|byte| *byte == b' ');
    let family = words.next().unwrap_or_default();
    let (name, is_v4) = match family {
        // What stands behind it is to be ignored.
        b"UNKNOWN" => {
            facts.word("family", "unknown");
            return Ok(Parsed::Header(Header { length, addresses: None, facts }));
        }
        b"TCP4" => ("tcp4", true),
        b"TCP6" => ("tcp6", false),
        _ => return Ok(Parsed::Malformed("the family is none of TCP4, TCP6 and UNKNOWN")),
    };
    facts.word("family", name);
    let mut address = || {
        let text = std::str::from_utf8(words.next()?).ok()?;
        let address: IpAddr = text.parse().ok()?;
        (address.is_ipv4() == is_v4).then_some(address)
    };
    let (Some(source), Some(destination)) = (address(), address()) else {
        return Ok(Parsed::Malformed("an address is not of its family"));
    };
    let mut port = || {
        let digits = words.next()?;
        let fits = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        // No zero in front, so that there is one way to write it.
        let fits = fits && (digits.len() == 1 || digits.first() != Some(&b'0'));
        std::str::from_utf8(digits).ok().filter(|_| fits)?.parse::<u16>().ok()
    };
    let (Some(source_port), Some(destination_port)) = (port(), port()) else {
        return Ok(Parsed::Malformed("a port is no number from 0 to 65535"));
    };
    if words.next().is_some() {
        return Ok(Parsed::Malformed("something stands behind the ports"));
    }
    let addresses = (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
    tell(addresses, &mut facts);
    Ok(Parsed::Header(Header { length, addresses: Some(addresses), facts }))
}

fn version_2(bytes: &[u8]) -> Result<Parsed, End> {
    let mut reader = Reader::new(bytes);
    if !reader.literal(SIGNATURE)? {
        return Ok(Parsed::Absent);
    }
    let version_and_command = reader.u8()?;
    if version_and_command >> 4 != 2 {
        return Ok(Parsed::Malformed("the version is not 2"));
    }
    let command = match version_and_command & 0x0f {
        0 => "local",
        1 => "proxy",
        _ => return Ok(Parsed::Malformed("the command is neither LOCAL nor PROXY")),
    };
    let family_and_transport = reader.u8()?;
    let size = reader.be16()?;
    if size > VARIABLE_BYTES {
        return Ok(Parsed::Malformed("the header is longer than 4,112 bytes"));
    }
    let variable = reader.take(usize::from(size))?;
    let length = FIXED_BYTES + variable.len();
    let mut facts = Object::default();
    facts.number("version", 2_u8);
    facts.word("command", command);
    let mut rest = Reader::new(variable);
    let Ok(addresses) = addresses(family_and_transport, command == "local", &mut rest, &mut facts) else {
        return Ok(Parsed::Malformed("the addresses are cut off"));
    };
    let Some(addresses) = addresses else {
        return Ok(Parsed::Malformed("the family or transport is not assigned"));
    };
    let header = bytes.get(..length).unwrap_or(bytes);
    match further(&mut rest, header, &mut facts) {
        Ok(None) => {}
        Ok(Some(reason)) => return Ok(Parsed::Malformed(reason)),
        Err(End) => return Ok(Parsed::Malformed("a further fact is cut off")),
    }
    // A connection of the balancer itself has its own addresses, whatever is said.
    let addresses = addresses.filter(|_| command == "proxy");
    if let Some(addresses) = addresses {
        tell(addresses, &mut facts);
    }
    Ok(Parsed::Header(Header { length, addresses, facts }))
}

/// Both addresses of a PROXY command; `Some(None)` for families without ports, `None` for what is not assigned.
fn addresses(
    family_and_transport: u8,
    is_local: bool,
    reader: &mut Reader<'_>,
    facts: &mut Object,
) -> Result<Option<Option<(SocketAddr, SocketAddr)>>, End> {
    let (name, addresses) = match family_and_transport {
        0x00 => ("unspecified", None),
        0x11 | 0x12 => {
            let (source, destination) = (Ipv4Addr::from(reader.array::<4>()?), Ipv4Addr::from(reader.array::<4>()?));
            let (from, to) = (reader.be16()?, reader.be16()?);
            let name = if family_and_transport == 0x11 { "tcp4" } else { "udp4" };
            (name, Some((SocketAddr::from((source, from)), SocketAddr::from((destination, to)))))
        }
        0x21 | 0x22 => {
            let (source, destination) = (Ipv6Addr::from(reader.array::<16>()?), Ipv6Addr::from(reader.array::<16>()?));
            let (from, to) = (reader.be16()?, reader.be16()?);
            let name = if family_and_transport == 0x21 { "tcp6" } else { "udp6" };
            (name, Some((SocketAddr::from((source, from)), SocketAddr::from((destination, to)))))
        }
        0x31 | 0x32 => {
            for key in ["source_path", "destination_path"] {
                let path = reader.take(108)?;
                let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                facts.text(key, path.get(..end).unwrap_or_default());
            }
            (if family_and_transport == 0x31 { "unix_stream" } else { "unix_datagram" }, None)
        }
        // A receiver of LOCAL ignores the rest.
        _ if is_local => {
            reader.take(reader.rest().len())?;
            ("unknown", None)
        }
        _ => return Ok(None),
    };
    facts.word("family", name);
    // No datagram comes on this connection.
    Ok(Some(addresses.filter(|_| matches!(family_and_transport, 0x11 | 0x21))))
}

/// Reads kinds, lengths and values up to the end of the header; a reason where they break a rule.
fn further(reader: &mut Reader<'_>, header: &[u8], facts: &mut Object) -> Result<Option<&'static str>, End> {
    let mut others = 0_usize;
    while !reader.rest().is_empty() {
        let before = header.len() - reader.rest().len();
        let kind = reader.u8()?;
        let length = reader.be16()?;
        let value = reader.take(usize::from(length))?;
        match kind {
            kind::ALPN => facts.text("alpn", value),
            kind::AUTHORITY => facts.text("authority", value),
            kind::UNIQUE_ID => facts.hex("unique_id", value),
            kind::NETNS => facts.text("netns", value),
            kind::NOOP => {}
            kind::CRC32C => {
                let Some(stated) = value.try_into().ok().map(u32::from_be_bytes) else {
                    return Ok(Some("the check sum has not four bytes"));
                };
                let at = before + 3;
                let (head, tail) = (header.get(..at).unwrap_or_default(), header.get(at + 4..).unwrap_or_default());
                let computed = [head, &[0; 4], tail].iter().fold(!0, |crc, part| crc32c(crc, part));
                if !computed != stated {
                    return Ok(Some("the check sum is wrong"));
                }
                facts.flag("checksum", true);
            }
            kind::SSL => ssl(&mut Reader::new(value), facts)?,
            _ => others += 1,
        }
    }
    if others > 0 {
        facts.count("other_facts", others);
    }
    Ok(None)
}

/// Reads the balancer's facts about the client's TLS.
fn ssl(reader: &mut Reader<'_>, facts: &mut Object) -> Result<(), End> {
    let client = reader.u8()?;
    let verify = reader.be32()?;
    facts.flag("tls", client & 1 == 1);
    if client & 6 != 0 {
        facts.flag("tls_client_verified", verify == 0);
    }
    while !reader.rest().is_empty() {
        let kind = reader.u8()?;
        let length = reader.be16()?;
        let value = reader.take(usize::from(length))?;
        match kind {
            kind::SSL_VERSION => facts.text("tls_version", value),
            kind::SSL_CN => facts.text("tls_client_name", value),
            kind::SSL_CIPHER => facts.text("tls_cipher", value),
            _ => {}
        }
    }
    Ok(())
}

fn tell((source, destination): (SocketAddr, SocketAddr), facts: &mut Object) {
    let mut address = |key: &'static str, ip: IpAddr| facts.text(key, clip(ip.to_string().as_bytes(), 64).0.as_bytes());
    address("source_ip", source.ip());
    address("destination_ip", destination.ip());
    facts.number("source_port", source.port());
    facts.number("destination_port", destination.port());
}

/// CRC-32C (Castagnoli), reflected, without the final complement.
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(parsed: &Parsed) -> String {
        match parsed {
            Parsed::Header(header) => serde_json::to_string(&header.facts).expect("json"),
            other => panic!("{other:?}"),
        }
    }

    fn two(command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
        let length = u16::try_from(variable.len()).expect("short");
        [SIGNATURE, &[0x20 | command, family], &length.to_be_bytes(), variable].concat()
    }

    /// Adds a fact of this kind.
    fn fact(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).expect("short").to_be_bytes(), value].concat()
    }

    const V4: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0xc8, 0x00, 0x00, 0x50];

    #[test]
    fn a_line_of_version_1_is_read_up_to_its_end() {
        let bytes = b"PROXY TCP4 203.0.113.77 192.0.2.1 51234 80\r\nGET / HTTP/1.1\r\n";
        let Parsed::Header(header) = parse(bytes) else { panic!("a header") };
        assert_eq!(&bytes[header.length..], b"GET / HTTP/1.1\r\n");
        let expected = ("203.0.113.77:51234".parse().expect("an address"), "192.0.2.1:80".parse().expect("an address"));
        assert_eq!(header.addresses, Some(expected));
        assert_eq!(
            facts(&parse(b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n")),
            r#"{"version":1,"family":"tcp6","source_ip":"2001:db8::7","destination_ip":"::1","source_port":1,"destination_port":65535}"#
        );
        assert_eq!(facts(&parse(b"PROXY UNKNOWN ffff::1 x\r\n")), r#"{"version":1,"family":"unknown"}"#);
    }

    #[test]
    fn what_breaks_a_rule_of_version_1_moves_no_address() {
        let lines = [
            "PROXY TCP4 203.0.113.77 192.0.2.1 51234 80\n",
            "PROXY TCP4 203.0.113.77 192.0.2.1 51234\r\n",
            "PROXY TCP4 203.0.113.77 192.0.2.1 51234 80 x\r\n",
            "PROXY TCP4 203.0.113.777 192.0.2.1 51234 80\r\n",
            "PROXY TCP4 ::1 ::2 51234 80\r\n",
            "PROXY TCP6 203.0.113.77 192.0.2.1 51234 80\r\n",
            "PROXY TCP4 203.0.113.77 192.0.2.1 65536 80\r\n",
            "PROXY TCP4 203.0.113.77 192.0.2.1 +1 80\r\n",
            "PROXY TCP4 203.0.113.77 192.0.2.1 01 80\r\n",
            "PROXY TCP4  203.0.113.77 192.0.2.1 1 80\r\n",
            "PROXY tcp4 203.0.113.77 192.0.2.1 1 80\r\n",
            "PROXY \r\n",
        ];
        for line in lines {
            assert!(matches!(parse(line.as_bytes()), Parsed::Malformed(_)), "{line:?}");
        }
        assert!(matches!(parse(&[&b"PROXY TCP4 "[..], &[b'1'; 100]].concat()), Parsed::Malformed(_)));
        for other in ["PROXX TCP4 ", "PRI * HTTP/2.0", "POST / HTTP/1.1", "\r\nGET /", "GET /"] {
            assert_eq!(parse(other.as_bytes()), Parsed::Absent, "{other:?}");
        }
    }

    #[test]
    fn version_2_shows_addresses_and_further_facts() {
        let tls =
            [&[3][..], &[0, 0, 0, 0], &fact(kind::SSL_VERSION, b"TLSv1.3"), &fact(kind::SSL_CN, b"client")].concat();
        let further =
            [fact(kind::ALPN, b"h2"), fact(kind::AUTHORITY, b"a.test"), fact(kind::SSL, &tls), fact(0xe0, b"x")];
        let parsed = parse(&two(1, 0x11, &[V4, &further.concat()].concat()));
        assert_eq!(
            facts(&parsed),
            concat!(
                r#"{"version":2,"command":"proxy","family":"tcp4","alpn":"h2","authority":"a.test","tls":true,"#,
                r#""tls_client_verified":true,"tls_version":"TLSv1.3","tls_client_name":"client","other_facts":1,"#,
                r#""source_ip":"203.0.113.7","destination_ip":"192.0.2.1","source_port":51200,"destination_port":80}"#
            )
        );
        let local = parse(&two(0, 0x11, V4));
        assert!(matches!(&local, Parsed::Header(header) if header.addresses.is_none()), "{local:?}");
        assert_eq!(facts(&parse(&two(0, 0, b""))), r#"{"version":2,"command":"local","family":"unspecified"}"#);
        let unix = [[b'/'; 108], [0; 108]].concat();
        assert!(facts(&parse(&two(1, 0x31, &unix))).contains(r#""family":"unix_stream""#));
        let udp = parse(&two(1, 0x12, V4));
        assert!(matches!(&udp, Parsed::Header(header) if header.addresses.is_none()), "{udp:?}");
    }

    #[test]
    fn a_check_sum_is_computed() {
        let mut bytes = two(1, 0x11, &[V4, &fact(kind::CRC32C, &[0; 4])].concat());
        let end = bytes.len();
        let crc = !crc32c(!0, &bytes);
        bytes[end - 4..].copy_from_slice(&crc.to_be_bytes());
        assert!(facts(&parse(&bytes)).contains(r#""checksum":true"#));
        bytes[20] ^= 1;
        assert_eq!(parse(&bytes), Parsed::Malformed("the check sum is wrong"));
        // The value of the specification's polynomial for its usual text.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn what_breaks_a_rule_of_version_2_moves_no_address() {
        let headers = [
            two(1, 0x11, &V4[..11]),
            two(1, 0x21, V4),
            two(2, 0x11, V4),
            two(1, 0x41, V4),
            two(1, 0x13, V4),
            two(1, 0x11, &[V4, &[1, 0, 5, 1]].concat()),
            [SIGNATURE, &[0x11, 0x11, 0, 12], V4].concat(),
            [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], V4].concat(),
            two(1, 0x11, &[V4, &fact(kind::SSL, &[1])].concat()),
        ];
        for header in headers {
            assert!(matches!(parse(&header), Parsed::Malformed(_)), "{header:02x?}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_final_and_nothing_panics(
            tail in proptest::collection::vec(any::<u8>(), 0..60),
            version in 0..3_usize,
        ) {
            let starts = [b"PROXY TCP4 1.1.1.1 ".to_vec(), two(1, 0x11, V4), SIGNATURE.to_vec()];
            let bytes = [&starts[version][..], &tail].concat();
            let mut settled = Parsed::NeedMore;
            for length in 0..=bytes.len() {
                let now = parse(&bytes[..length]);
                prop_assert!(settled == Parsed::NeedMore || now == settled, "{settled:?} becomes {now:?}");
                settled = now;
            }
        }
    }

    #[test]
    fn a_verification_is_told_where_the_client_had_a_certificate() {
        for (client, verify, expected) in [
            (0, 0, r#""tls":false"#),
            (1, 0, r#""tls":true"#),
            (1, 1, r#""tls":true"#),
            (3, 0, r#""tls":true,"tls_client_verified":true"#),
            (5, 0, r#""tls":true,"tls_client_verified":true"#),
            (5, 1, r#""tls":true,"tls_client_verified":false"#),
            (7, 1, r#""tls":true,"tls_client_verified":false"#),
            (2, 0, r#""tls":false,"tls_client_verified":true"#),
        ] {
            let facts = facts(&parse(&two(1, 0x11, &[V4, &fact(kind::SSL, &[client, 0, 0, 0, verify])].concat())));
            let found =
                facts.split_once(r#""family":"tcp4","#).and_then(|(_, rest)| rest.split_once(r#","source_ip""#));
            assert_eq!(found.map(|(found, _)| found), Some(expected), "{client} {verify}");
        }
    }
}
