//! Finds the initial SYN in an IP packet, or says why there is none.
//!
//! Decides: IPv4 with options, IPv6 with hop-by-hop, routing, fragment and destination headers (at most
//! [`EXTENSION_HEADERS`] of them). Refuses: later fragments (they carry no TCP header, and the first one did), packets
//! that end before their headers do or contradict themselves, routing headers that have not reached their end, and what
//! the kernel refuses for certain: IPv4 headers whose checksum is wrong, IPv6 addresses that are v4-mapped, hop-by-hop
//! options behind another header. The cheap refusals come first, because nearly every packet of a busy machine is
//! refused: not TCP, not a SYN.
//!
//! A first fragment that ends within the TCP header may be a SYN that cannot be read here: it is refused as
//! [`Refused::Cut`], which names the key that it has, so that no other SYN under that key is believed.
//!
//! The TCP checksum of a SYN without data is computed, and only noted: where an interface has checked it already, or
//! where the sender is on the same machine, the kernel takes packets whose checksum was never filled in. A SYN with
//! data is not summed, for it may have a whole packet of it.
//!
//! The same code runs in the kernel, where the verifier must see that every loop ends and every access is inside: hence
//! fixed-size loads, a constant bound on headers, and no slicing.

use crate::{Syn, SynKey};

/// IPv6 extension headers that are followed; more than these are refused as malformed. Real packets have one or two.
/// The kernel follows as many as there are: in a packet of 1,500 bytes, at eight bytes each, there is room for 180.
pub const EXTENSION_HEADERS: usize = 184;

/// TCP's protocol number.
const TCP: u8 = 6;
/// IPv6 hop-by-hop options (RFC 8200, 4.3).
const HOP_BY_HOP: u8 = 0;
/// IPv6 routing header (RFC 8200, 4.4).
const ROUTING: u8 = 43;
/// IPv6 fragment header (RFC 8200, 4.5).
const FRAGMENT: u8 = 44;
/// IPv6 destination options (RFC 8200, 4.6).
const DESTINATION_OPTIONS: u8 = 60;

/// Length of the fixed part of an IPv4 header.
const IPV4_HEADER: u32 = 20;
/// Length of the fixed IPv6 header.
const IPV6_HEADER: u32 = 40;
/// Length of the fixed part of a TCP header.
const TCP_HEADER: u32 = 20;
/// Longest TCP options: 4 bits of data offset in words, less the fixed part.
const TCP_OPTIONS: usize = 40;

/// Source of the bytes of an IP packet; offset 0 is the first byte of the IP header.
pub trait Packet {
    /// IPv6 extension headers that are followed.
    const FOLLOWED: usize = EXTENSION_HEADERS;

    /// Bytes that arrived, link-layer padding included; `u32::MAX` where only headers were kept.
    fn length(&self) -> u32;

    /// `N` bytes from `offset` on, or `None` when they are not all there.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// Copies `length` bytes (1 to 40) from `offset` on to the beginning of `options`; false when they are not all
    /// there.
    fn load_options(&self, offset: u32, length: u32, options: &mut [u8; 40]) -> bool;

    /// Reports whether the kernel has accepted this packet, so that its checksums have been verified.
    #[inline(always)]
    fn is_accepted(&self) -> bool {
        false
    }
}

impl Packet for &[u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..)?.first_chunk().copied()
    }

    fn load_options(&self, offset: u32, length: u32, options: &mut [u8; 40]) -> bool {
        let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
        let Some((start, length)) = range else {
            return false;
        };
        let from = self.get(start..).and_then(|rest| rest.get(..length));
        match (from, options.get_mut(..length)) {
            (Some(from), Some(into)) => {
                into.copy_from_slice(from);
                true
            }
            _ => false,
        }
    }
}

/// Headers without what followed them, as `TCP_SAVED_SYN` returns them.
struct Headers<'a>(&'a [u8]);

impl Packet for Headers<'_> {
    /// As many as a packet of 64 KiB has room for: the kernel has followed them.
    const FOLLOWED: usize = 8_192;

    fn length(&self) -> u32 {
        u32::MAX
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.load(offset)
    }

    fn load_options(&self, offset: u32, length: u32, options: &mut [u8; 40]) -> bool {
        self.0.load_options(offset, length, options)
    }

    fn is_accepted(&self) -> bool {
        true
    }
}

/// A SYN and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The sender's address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// The SYN; time and interface are 0.
    pub syn: Syn,
    /// Set when its TCP checksum is wrong, as far as that was computed. The kernel drops such a SYN, unless the
    /// interface vouches for it.
    pub wrong_checksum: bool,
}

impl Parsed {
    /// The key under which its connection will ask for it.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> SynKey {
        SynKey::of(&self.source, &self.syn)
    }
}

/// Reasons why a packet is no initial SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Neither IPv4 nor IPv6 by its first byte.
    NotIp,
    /// Another protocol, or TCP behind headers that this machine would not follow.
    NotTcp,
    /// Not the first fragment of its packet.
    LaterFragment,
    /// TCP, but without SYN, or with ACK.
    NotInitialSyn,
    /// It ends before its headers, or what its headers announce.
    Truncated,
    /// A length in it is impossible, its IPv4 header's checksum is wrong, or it has more extension headers than are
    /// followed.
    Malformed,
    /// An IPv6 packet with a v4-mapped address, which Linux drops since 5.4 (commit 6af1799aaf3f for the source).
    Mapped,
    /// The first fragment of a TCP segment, which ends within its header, behind the sequence number: it may be a SYN.
    Cut,
}

impl Refused {
    /// Reports whether this counts as malformed; other refusals are other traffic.
    #[inline(always)]
    #[must_use]
    pub fn is_malformed(self) -> bool {
        matches!(self, Self::Truncated | Self::Malformed | Self::Mapped)
    }
}

/// Finds the initial SYN in an IP packet of either version.
///
/// # Errors
///
/// See [`Refused`]; a packet that is cut anywhere is refused.
#[inline(always)]
pub fn parse(packet: &impl Packet) -> Result<Parsed, Refused> {
    let [first] = packet.load(0).ok_or(Refused::Truncated)?;
    let (mut source, mut syn) = ([0; 16], Syn::ZERO);
    let wrong_checksum = read(packet, first >> 4, &mut source, &mut syn)?;
    Ok(Parsed { source, syn, wrong_checksum })
}

/// Finds the initial SYN in its own IP and TCP headers, as `TCP_SAVED_SYN` returns them: whatever data the SYN carried
/// is missing, and not missed. `seen_ns` becomes the time of the SYN.
///
/// # Errors
///
/// See [`Refused`]; headers that are cut anywhere are refused.
pub fn parse_headers(headers: &[u8], seen_ns: u64) -> Result<Parsed, Refused> {
    let mut parsed = parse(&Headers(headers))?;
    parsed.syn.seen_ns = seen_ns;
    Ok(parsed)
}

/// Reads the initial SYN of a packet of IP `version` into `source` and `syn`, which is [`Syn::ZERO`]; whether its TCP
/// checksum is wrong, as far as that was computed. Of what is refused, something may be left there; of
/// [`Refused::Cut`], the source and the sequence number are.
///
/// # Errors
///
/// See [`Refused`].
#[inline(always)]
pub fn read(packet: &impl Packet, version: u8, source: &mut [u8; 16], syn: &mut Syn) -> Result<bool, Refused> {
    syn.ip_version = version;
    let (offset, end) = match version {
        4 => read_ipv4(packet, syn),
        6 => read_ipv6(packet, syn),
        _ => Err(Refused::NotIp),
    }?;
    // Both versions come together here: the kernel side has little room for instructions.
    let read = parse_tcp(packet, offset, end, syn);
    if let Err(refused) = read
        && syn.ip_flags & Syn::MF == 0
    {
        return Err(refused);
    }
    // Only now, when it may be a SYN: most packets are none.
    if version == 4 {
        *source = mapped(packet.load(12).ok_or(Refused::Truncated)?);
        syn.destination = mapped(packet.load(16).ok_or(Refused::Truncated)?);
    } else {
        *source = packet.load(8).ok_or(Refused::Truncated)?;
        syn.destination = packet.load(24).ok_or(Refused::Truncated)?;
    }
    let sum = match read {
        Ok(sum) => sum,
        Err(refused) => return Err(cut(packet, offset, end, refused, syn)),
    };
    if version == 6 && (is_mapped(source) || is_mapped(&syn.destination)) {
        return Err(Refused::Mapped);
    }
    if packet.is_accepted() {
        return Ok(false);
    }
    if version == 4 && !is_header_sum_right(packet, u32::from(syn.ip_options_len)) {
        return Err(Refused::Malformed);
    }
    Ok(is_segment_sum_wrong(sum, source, syn))
}

/// Reads the header of an IPv4 packet (RFC 791) into `syn`, all but the addresses. Returns where the TCP header begins
/// and where the packet ends by its own account.
#[inline(always)]
fn read_ipv4(packet: &impl Packet, syn: &mut Syn) -> Result<(u32, u32), Refused> {
    let header: [u8; 10] = packet.load(0).ok_or(Refused::Truncated)?;
    if header[0] >> 4 != 4 {
        return Err(Refused::Malformed);
    }
    if header[9] != TCP {
        return Err(Refused::NotTcp);
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & 0x1fff != 0 {
        return Err(Refused::LaterFragment);
    }
    let header_length = u32::from(header[0] & 0x0f) * 4;
    if header_length < IPV4_HEADER {
        return Err(Refused::Malformed);
    }
    syn.tos = header[1];
    syn.ip_length = u16::from_be_bytes([header[2], header[3]]);
    syn.ip_id = u16::from_be_bytes([header[4], header[5]]);
    syn.ip_flags = header[6] >> 5;
    syn.ttl = header[8];
    syn.ip_options_len = (header_length - IPV4_HEADER) as u16;
    Ok((header_length, u32::from(syn.ip_length)))
}

/// Reports whether an IPv4 header with that many bytes of options adds up (RFC 1071). The kernel drops those that do
/// not.
#[inline(always)]
fn is_header_sum_right(packet: &impl Packet, options: u32) -> bool {
    let mut sum = Sum::default();
    let Some(fixed) = packet.load::<20>(0) else { return false };
    sum.add(&fixed);
    let mut at = 0;
    // Word by word, for the kernel side has little room on its stack. Options are whole words of 4 bytes.
    while at < TCP_OPTIONS as u32 {
        if at < options {
            let Some(word) = packet.load::<4>(IPV4_HEADER + at) else { return false };
            sum.add(&word);
        }
        at += 4;
    }
    sum.is_right()
}

/// Reports whether the TCP checksum of a SYN is wrong for certain, where `sum` is that of the fixed part of its TCP
/// header; never for one with data, or of several fragments.
#[inline(always)]
fn is_segment_sum_wrong(mut sum: Sum, source: &[u8; 16], syn: &Syn) -> bool {
    if syn.payload_length != 0 || syn.ip_flags & Syn::MF != 0 {
        return false;
    }
    // The pseudo-header (RFC 9293, 3.1). The marks of a mapped address add 0xffff, which changes no such sum.
    sum.add(source);
    sum.add(&syn.destination);
    sum.0 += u32::from(TCP) + TCP_HEADER + u32::from(syn.options_len);
    sum.add(&syn.options);
    !sum.is_right()
}

/// A sum of words of 16 bits (RFC 1071), not yet folded: it has room for more words than a SYN has.
#[derive(Default)]
struct Sum(u32);

impl Sum {
    /// Adds bytes that begin and end with whole words.
    #[inline(always)]
    fn add<const N: usize>(&mut self, bytes: &[u8; N]) {
        let mut at = 0;
        while at + 1 < N {
            self.0 += u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            at += 2;
        }
    }

    /// Reports whether what was added, its checksum included, adds up.
    #[inline(always)]
    fn is_right(&self) -> bool {
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        (once & 0xffff) + (once >> 16) == 0xffff
    }
}

/// Reads the sequence number of a first fragment in which the TCP header is not whole, where that much of it is there.
#[inline(always)]
fn cut(packet: &impl Packet, offset: u32, end: u32, refused: Refused, syn: &mut Syn) -> Refused {
    if !refused.is_malformed() || offset + 8 > end {
        return refused;
    }
    let Some([_, _, _, _, a, b, c, d]) = packet.load::<8>(offset) else { return refused };
    syn.sequence = u32::from_be_bytes([a, b, c, d]);
    Refused::Cut
}

/// Reads the headers of an IPv6 packet (RFC 8200) up to TCP's, likewise.
#[inline(always)]
fn read_ipv6<P: Packet>(packet: &P, syn: &mut Syn) -> Result<(u32, u32), Refused> {
    let header: [u8; 8] = packet.load(0).ok_or(Refused::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Refused::Malformed);
    }
    syn.tos = header[0] << 4 | header[1] >> 4;
    syn.flow_label = u32::from_be_bytes([0, header[1] & 0x0f, header[2], header[3]]);
    syn.ttl = header[7];
    let end = u32::from(u16::from_be_bytes([header[4], header[5]])) + IPV6_HEADER;
    syn.ip_length = if end > 0xffff { 0xffff } else { end as u16 };

    let mut next = header[6];
    let mut offset = IPV6_HEADER;
    for _ in 0..P::FOLLOWED {
        if next == TCP {
            break;
        }
        // Linux takes hop-by-hop options in the first place only (net/ipv6/ip6_input.c, ip6_rcv_core).
        if next == HOP_BY_HOP && offset != IPV6_HEADER {
            return Err(Refused::NotTcp);
        }
        let [following, words, third, fourth] = match next {
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS => packet.load(offset).ok_or(Refused::Truncated)?,
            _ => return Err(Refused::NotTcp),
        };
        if next == FRAGMENT {
            let position = u16::from_be_bytes([third, fourth]);
            if position & 0xfff8 != 0 {
                return Err(Refused::LaterFragment);
            }
            syn.ip_flags = position as u8 & Syn::MF;
            offset += 8;
        } else {
            // Segments are left: the destination is not this packet's last one, and the kernel will hand it on changed.
            if next == ROUTING && fourth != 0 {
                return Err(Refused::NotTcp);
            }
            offset += (u32::from(words) + 1) * 8;
        }
        next = following;
    }
    if next != TCP {
        // A last header beyond the bound: whether TCP would have followed is unknown.
        return Err(Refused::Malformed);
    }
    syn.ip_options_len = (offset - IPV6_HEADER) as u16;
    Ok((offset, end))
}

/// Reports whether an IPv6 address is a v4-mapped one, which no packet may have.
#[inline(always)]
fn is_mapped(address: &[u8; 16]) -> bool {
    u128::from_be_bytes(*address) >> 32 == 0xffff
}

/// Reads the TCP header at `offset` (RFC 9293, 3.1) of a packet that ends, by its own account, at `end`; the sum of its
/// fixed part.
#[inline(always)]
fn parse_tcp(packet: &impl Packet, offset: u32, end: u32, syn: &mut Syn) -> Result<Sum, Refused> {
    let header: [u8; 20] = packet.load(offset).ok_or(Refused::Truncated)?;
    // What follows a short fragment is the padding of the link layer, and no flag of it.
    if offset + TCP_HEADER > end {
        return Err(Refused::Malformed);
    }
    if header[13] & (Syn::SYN | Syn::ACK) != Syn::SYN {
        return Err(Refused::NotInitialSyn);
    }
    if end > packet.length() {
        return Err(Refused::Truncated);
    }
    let header_length = u32::from(header[12] >> 4) * 4;
    if header_length < TCP_HEADER || offset + header_length > end {
        return Err(Refused::Malformed);
    }
    syn.source_port = u16::from_be_bytes([header[0], header[1]]);
    syn.destination_port = u16::from_be_bytes([header[2], header[3]]);
    syn.sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    syn.acknowledgement = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    syn.tcp_reserved = header[12] & 0x0f;
    syn.tcp_flags = header[13];
    syn.window = u16::from_be_bytes([header[14], header[15]]);
    syn.urgent = u16::from_be_bytes([header[18], header[19]]);
    syn.payload_length = (end - offset - header_length) as u16;

    let options = header_length - TCP_HEADER;
    if options > 0 && options <= TCP_OPTIONS as u32 {
        if !packet.load_options(offset + TCP_HEADER, options, &mut syn.options) {
            return Err(Refused::Truncated);
        }
        syn.options_len = options as u8;
    }
    let mut sum = Sum::default();
    sum.add(&header);
    Ok(sum)
}

/// An IPv4 address as `::ffff:a.b.c.d`.
#[inline(always)]
#[must_use]
pub fn mapped(address: [u8; 4]) -> [u8; 16] {
    (0xffff_0000_0000 | u128::from(u32::from_be_bytes(address))).to_be_bytes()
}

#[cfg(test)]
mod tests;
