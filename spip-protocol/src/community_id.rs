//! The Community ID, version 1: one name for a flow that Zeek, Suricata and others compute as well, so that their
//! records can be joined with ours.
//!
//! Specification: corelight/community-id-spec. Only protocols with ports are covered; the mapping of ICMP types to
//! ports is left out, because the sensor sees no ICMP.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use sha1::{Digest, Sha1};

/// Length of `1:` and the base64 form of a SHA-1 digest.
const LENGTH: usize = 2 + 28;

/// A protocol with ports, by its IANA number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
    /// RFC 9260.
    Sctp = 132,
}

/// A finished identifier, such as `1:LQU9qZlK+B5F3KDmev6m5PMibrg=`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommunityId([u8; LENGTH]);

impl CommunityId {
    /// Names the flow between two endpoints; which of them is the source makes no difference.
    ///
    /// Addresses are made canonical first: an observer on the wire never sees `::ffff:a.b.c.d`.
    #[must_use]
    pub fn new(transport: Transport, seed: u16, source: SocketAddr, destination: SocketAddr) -> Self {
        let source = (Octets::new(source.ip()), source.port());
        let destination = (Octets::new(destination.ip()), destination.port());
        let forward = (source.0.as_slice(), source.1) <= (destination.0.as_slice(), destination.1);
        let (low, high) = if forward { (source, destination) } else { (destination, source) };
        let digest = Sha1::new()
            .chain_update(seed.to_be_bytes())
            .chain_update(low.0.as_slice())
            .chain_update(high.0.as_slice())
            .chain_update([transport as u8, 0])
            .chain_update(low.1.to_be_bytes())
            .chain_update(high.1.to_be_bytes())
            .finalize();
        Self(text(&digest.into()))
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII is ever written into it, so the fallback is never taken.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The identifier as ASCII bytes, for a record that is written without allocation.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a TCP flow.
#[must_use]
pub fn community_id(seed: u16, source: SocketAddr, destination: SocketAddr) -> CommunityId {
    CommunityId::new(Transport::Tcp, seed, source, destination)
}

/// The bytes of an address in network order.
#[derive(Clone, Copy)]
enum Octets {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Octets {
    fn new(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(address.octets()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

/// `1:` and the digest in base64 (RFC 4648, section 4).
fn text(digest: &[u8; 20]) -> [u8; LENGTH] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = [b'='; LENGTH];
    out[..2].copy_from_slice(b"1:");
    for (group, quad) in digest.chunks(3).zip(out[2..].chunks_exact_mut(4)) {
        let mut bits = 0u32;
        for (index, byte) in group.iter().enumerate() {
            bits |= u32::from(*byte) << (16 - 8 * index);
        }
        // n bytes make n + 1 digits; the rest of the quad stays padding.
        for (index, digit) in quad.iter_mut().take(group.len() + 1).enumerate() {
            *digit = ALPHABET[(bits >> (18 - 6 * index)) as usize & 63];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Vec<(Transport, SocketAddr, SocketAddr, String)> {
        let all: Vec<Value> =
            serde_json::from_str(include_str!("../fixtures/community_id_seed0.json")).expect("fixture");
        let endpoint = |vector: &Value, address: &str, port: &str| {
            let address: IpAddr = vector[address].as_str()?.parse().ok()?;
            Some(SocketAddr::new(address, vector[port].as_u64()?.try_into().ok()?))
        };
        all.iter()
            .filter_map(|vector| {
                let transport = match vector["proto"].as_u64()? {
                    6 => Transport::Tcp,
                    17 => Transport::Udp,
                    132 => Transport::Sctp,
                    _ => return None,
                };
                Some((
                    transport,
                    endpoint(vector, "saddr", "sport")?,
                    endpoint(vector, "daddr", "dport")?,
                    vector["communityid"].as_str()?.to_owned(),
                ))
            })
            .collect()
    }

    #[test]
    fn every_baseline_flow_with_ports_has_its_published_identifier() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 8, "the baseline has eight flows of TCP, UDP and SCTP");
        for (transport, source, destination, expected) in vectors {
            let id = CommunityId::new(transport, 0, source, destination);
            assert_eq!(id.to_string(), expected, "{source} -> {destination}");
            assert_eq!(id.as_bytes(), expected.as_bytes());
            assert_eq!(CommunityId::new(transport, 0, destination, source), id, "either direction");
        }
    }

    #[test]
    fn the_seed_changes_the_identifier() {
        let (source, destination) = ("192.0.2.1:1".parse().expect("a"), "192.0.2.2:2".parse().expect("b"));
        assert_ne!(community_id(0, source, destination), community_id(1, source, destination));
    }

    #[test]
    fn a_mapped_address_counts_as_ipv4() {
        let plain = community_id(0, "192.0.2.1:5".parse().expect("a"), "192.0.2.2:6".parse().expect("b"));
        let mapped =
            community_id(0, "[::ffff:192.0.2.1]:5".parse().expect("a"), "[::ffff:192.0.2.2]:6".parse().expect("b"));
        assert_eq!(plain, mapped);
    }

    #[test]
    fn the_port_decides_the_order_of_equal_addresses() {
        let (low, high) = ("192.0.2.1:80".parse().expect("a"), "192.0.2.1:8080".parse().expect("b"));
        assert_eq!(community_id(0, low, high), community_id(0, high, low));
    }
}
