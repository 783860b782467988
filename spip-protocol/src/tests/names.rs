//! Holds names against streams of the field: a protocol is named right or not at all.
//!
//! `fixtures/names.tsv` has a stream a line: whether it is named today (`named`) or only must not be named otherwise
//! (`open`), its protocol, and its first bytes in hexadecimal.

use super::*;
use crate::client_hello::{Detection, detect};

struct Stream {
    is_named: bool,
    protocol: &'static str,
    bytes: Vec<u8>,
}

fn streams() -> Vec<Stream> {
    let lines = include_str!("../../fixtures/names.tsv").lines();
    let stream = |line: &'static str| {
        let mut columns = line.split('\t');
        let mut column = || columns.next().expect("three columns");
        Stream { is_named: column() == "named", protocol: column(), bytes: hex::decode(column()).expect("hexadecimal") }
    };
    lines.map(stream).collect()
}

/// Returns the protocol that a record names for these bytes: TLS is detected before protocols are tried.
fn name(bytes: &[u8]) -> &'static str {
    match detect(bytes) {
        Detection::ClientHello { .. } | Detection::Partial | Detection::Sslv2 { .. } => "tls",
        _ => understand(bytes, false).protocol.unwrap_or(UNKNOWN),
    }
}

#[test]
fn streams_of_the_field_are_named_right_or_not_at_all() {
    let streams = streams();
    assert!(streams.len() > 500);
    for Stream { is_named, protocol, bytes } in streams {
        let found = name(&bytes);
        let is_right = found == protocol || !is_named && found == UNKNOWN;
        assert!(is_right, "{protocol} is taken for {found}: {}", hex::encode(&bytes[..bytes.len().min(48)]));
    }
}

#[test]
fn the_beginning_of_a_stream_is_named_right_or_not_at_all() {
    for Stream { protocol, bytes, .. } in streams() {
        // Each length where protocols decide, and some of those behind.
        for length in (0..bytes.len()).filter(|length| *length < 100 || length % 16 == 0) {
            let found = name(&bytes[..length]);
            assert!(
                found == protocol || found == UNKNOWN,
                "{protocol} is taken for {found} after {length} bytes: {}",
                hex::encode(&bytes[..length.min(48)])
            );
        }
    }
}

#[test]
fn a_stream_that_is_joined_at_a_message_or_a_line_is_named_right_or_not_at_all() {
    let mut joined = 0;
    for Stream { protocol, bytes, .. } in streams() {
        for start in boundaries(protocol, &bytes) {
            let found = name(&bytes[start..]);
            // What a proxy, or a server that agreed to TLS, is given is another protocol by then.
            let is_inner = found == "tls" || protocol == "socks" && found == "http";
            assert!(
                found == protocol || found == UNKNOWN || is_inner,
                "{protocol} is taken for {found} from byte {start}: {}",
                hex::encode(&bytes[start..bytes.len().min(start + 48)])
            );
            joined += 1;
        }
    }
    assert!(joined > 1500, "only {joined} boundaries");
}

/// Returns the ends of lines, and the starts of messages in protocols that state their length.
fn boundaries(protocol: &str, bytes: &[u8]) -> Vec<usize> {
    // Text of others hardly ever stands in binary protocols, but a line feed may.
    let is_binary = bytes.iter().take(64).any(|byte| !byte.is_ascii() || matches!(byte, 0..=8));
    let lines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n' && !is_binary).map(|(at, _)| at + 1);
    let mut starts: Vec<_> = lines.collect();
    let mut at = 0;
    while at < bytes.len() {
        let Some(length) = message(protocol, &bytes[at..]).filter(|length| *length > 0) else { break };
        at += length;
        if at < bytes.len() {
            starts.push(at);
        }
    }
    starts
}

/// Returns the length of the message that begins here.
fn message(protocol: &str, bytes: &[u8]) -> Option<usize> {
    let be = |at: usize, count: usize| {
        let field = bytes.get(at..at + count)?;
        Some(field.iter().fold(0_usize, |value, byte| value << 8 | usize::from(*byte)))
    };
    let le = |at: usize, count: usize| {
        let field = bytes.get(at..at + count)?;
        Some(field.iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte)))
    };
    Some(match protocol {
        "tls" => be(3, 2)? + 5,
        "rdp" | "s7" | "iso_tsap" | "h323" if bytes.first() == Some(&3) => be(2, 2)?,
        "rdp" => be(3, 2)? + 5,
        "smb" => be(1, 3)? + 4,
        "mysql" => le(0, 3)? + 4,
        "mongodb" | "maxdb" => le(0, 4)?,
        "dns" | "openvpn" => be(0, 2)? + 2,
        "tns" | "drda" | "pptp" | "informix" => be(0, 2)?,
        "modbus" => be(4, 2)? + 6,
        "kafka" | "krb5" | "zookeeper" | "openwire" => be(0, 4)? + 4,
        "openflow" | "synchrophasor" => be(2, 2)?,
        "tds" => be(2, 2)?,
        "dcerpc" => le(8, 2)?,
        "opcua" => le(4, 4)?,
        "iec104" => be(1, 1)? + 2,
        "enip" => le(2, 2)? + 24,
        "ads" => le(2, 4)? + 6,
        "cassandra" => be(5, 4)? + 9,
        "sunrpc" => (be(0, 4)? & 0x7fff_ffff) + 4,
        "diameter" => be(1, 3)?,
        "http2" if bytes.starts_with(b"PRI ") => 24,
        "http2" => be(0, 3)? + 9,
        "postgresql" if bytes.first() == Some(&0) => be(0, 4)?,
        "postgresql" => be(1, 4)? + 1,
        "mqtt" => {
            let length = |at: usize| be(at, 1);
            match length(1)? {
                short @ 0..=0x7f => short + 2,
                low => (low & 0x7f | length(2)? << 7) + 3,
            }
        }
        "ldap" => match be(1, 1)? {
            short @ 0..=0x7f => short + 2,
            0x81 => be(2, 1)? + 3,
            0x82 => be(2, 2)? + 4,
            _ => be(2, 4)? + 6,
        },
        "socks" if bytes.first() == Some(&5) => be(1, 1)? + 2,
        "dnp3" => {
            let data = be(2, 1)?.checked_sub(5)?;
            10 + data + data.div_ceil(16) * 2
        }
        _ => return None,
    })
}
