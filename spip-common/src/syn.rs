//! One SYN as its sender wrote it: where it went, and every field that says what kind of machine or tool sent it.
//!
//! The fields are kept raw, not judged: a fingerprint is made of them later, in the agent, where it can change without
//! the kernel side changing. TCP options are kept as sent (all 40 bytes that a header can carry); IP options and
//! extension headers only as their length, which is what the usual fingerprints use.

use core::net::{IpAddr, Ipv6Addr};

/// A SYN. Numbers are in the byte order of the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// Destination before any address translation; IPv4 as `::ffff:a.b.c.d`.
    pub destination: [u8; 16],
    /// Time of the SYN in nanoseconds of `CLOCK_MONOTONIC`; 0 when no clock was read.
    pub seen_ns: u64,
    /// The sender's initial sequence number.
    pub sequence: u32,
    /// The acknowledgement number; 0 in a SYN of an ordinary TCP stack (RFC 9293, 3.10.7).
    pub acknowledgement: u32,
    /// IPv6 flow label, 20 bits; 0 for IPv4.
    pub flow_label: u32,
    /// Index of the interface that it came in on; 0 when unknown.
    pub interface: u32,
    /// The port that it was sent to, before any address translation.
    pub destination_port: u16,
    /// The port that the sender used, before any address translation.
    pub source_port: u16,
    /// The TCP window as sent; a SYN's window is never scaled.
    pub window: u16,
    /// The urgent pointer; 0 in a SYN of an ordinary TCP stack.
    pub urgent: u16,
    /// IPv4 identification; 0 for IPv6.
    pub ip_id: u16,
    /// Length of the IP packet in bytes, header included (IPv6: 40 + payload length, at most 65,535).
    pub ip_length: u16,
    /// Bytes of IPv4 options, or of IPv6 extension headers.
    pub ip_options_len: u16,
    /// Bytes of data in the SYN, as the IP length says.
    pub payload_length: u16,
    /// TTL or hop limit as it arrived.
    pub ttl: u8,
    /// Type of service or traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub tos: u8,
    /// [`Syn::DF`], [`Syn::MF`] and [`Syn::RESERVED`] of IPv4, or [`Syn::MF`] of an IPv6 fragment header.
    pub ip_flags: u8,
    /// The lower eight TCP flags, see the constants: at least [`Syn::SYN`], never [`Syn::ACK`].
    pub tcp_flags: u8,
    /// The four bits between data offset and flags; the lowest is AE, formerly NS. 0 in nearly every SYN.
    pub tcp_reserved: u8,
    /// Bytes of TCP options, 0 to 40.
    pub options_len: u8,
    /// TCP options as sent; zero behind `options_len`.
    pub options: [u8; 40],
    /// 4 or 6, or 0 when no packet was seen.
    pub ip_version: u8,
    /// Always zero.
    pub padding: u8,
}

// 104 bytes are exactly the fields: nothing is padded in silence.
const _: () = assert!(size_of::<Syn>() == 104 && align_of::<Syn>() == 8);

impl Syn {
    /// TCP flag FIN.
    pub const FIN: u8 = 0x01;
    /// TCP flag SYN.
    pub const SYN: u8 = 0x02;
    /// TCP flag RST.
    pub const RST: u8 = 0x04;
    /// TCP flag PSH.
    pub const PSH: u8 = 0x08;
    /// TCP flag ACK.
    pub const ACK: u8 = 0x10;
    /// TCP flag URG.
    pub const URG: u8 = 0x20;
    /// TCP flag ECE (RFC 3168): together with CWR, the sender asks for ECN.
    pub const ECE: u8 = 0x40;
    /// TCP flag CWR (RFC 3168).
    pub const CWR: u8 = 0x80;

    /// IP flag: more fragments.
    pub const MF: u8 = 0x1;
    /// IPv4 flag: do not fragment.
    pub const DF: u8 = 0x2;
    /// IPv4 flag that must be zero (RFC 791, 3.1).
    pub const RESERVED: u8 = 0x4;

    /// All zero: no packet.
    pub const ZERO: Self = Self {
        destination: [0; 16],
        seen_ns: 0,
        sequence: 0,
        acknowledgement: 0,
        flow_label: 0,
        interface: 0,
        destination_port: 0,
        source_port: 0,
        window: 0,
        urgent: 0,
        ip_id: 0,
        ip_length: 0,
        ip_options_len: 0,
        payload_length: 0,
        ttl: 0,
        tos: 0,
        ip_flags: 0,
        tcp_flags: 0,
        tcp_reserved: 0,
        options_len: 0,
        options: [0; 40],
        ip_version: 0,
        padding: 0,
    };

    /// Returns the destination; an IPv4 address is [`IpAddr::V4`].
    #[must_use]
    pub fn destination_ip(&self) -> IpAddr {
        Ipv6Addr::from(self.destination).to_canonical()
    }

    /// The TCP options as sent.
    #[must_use]
    pub fn options(&self) -> &[u8] {
        let end = usize::from(self.options_len).min(self.options.len());
        self.options.get(..end).unwrap_or_default()
    }
}

// SAFETY: `repr(C)`, only integers and arrays of them, no padding: any bytes are a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Syn {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;

    #[test]
    fn a_mapped_destination_is_ipv4() {
        let mut syn = Syn::ZERO;
        syn.destination = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
        assert_eq!(syn.destination_ip().to_string(), "192.0.2.1");
    }

    #[test]
    fn an_ipv6_destination_stays_ipv6() {
        let mut syn = Syn::ZERO;
        syn.destination[15] = 1;
        assert_eq!(syn.destination_ip().to_string(), "::1");
    }

    #[test]
    fn an_impossible_option_length_shows_no_more_than_there_is() {
        let mut syn = Syn::ZERO;
        syn.options_len = 255;
        assert_eq!(syn.options().len(), 40);
    }
}
