//! Tells which SYNs arrive at the agent's listening sockets, whatever led them there: firewall rules, `sk_lookup`, or
//! their own destination. So no list of the agent's ports is needed.
//!
//! A socket filter on each listening socket. The kernel's TCP calls it for every packet that it has found to be for
//! that socket, before it answers (Linux `net/ipv4/tcp_ipv4.c`, `tcp_v4_rcv`, where `tcp_filter` is called), for SYN
//! cookies and for a port that is used again in TIME_WAIT too. It lets everything pass, uncut, until the agent stops: then a
//! listening socket gets nothing any more, so that no handshake is completed behind the last accept. Accepted sockets inherit
//! it, so the first thing is to leave where the socket does not listen: that costs two reads a packet. Only behind REDIRECT on
//! kernels that take a SYN for a packet of an established connection from the same port (early demux) is it looked at there:
//! it was for the listener, and becomes no connection.
//!
//! The kernel has accepted what comes here, and the observer saw the same packet a moment ago, if it could read it.
//! Where what it saw under the key looks different, or a fragment may have hidden the SYN, the agent is told so: a scan
//! is not claimed of a SYN that did not arrive.
//!
//! The last packet of a handshake comes here, too, before the kernel looks whether the queue of connections that wait for
//! accept has room. It is noted with the SYN: where no connection follows, the agent asks for that.

use aya_ebpf::{
    bindings::{BPF_TCP_LISTEN, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::generated::bpf_skb_load_bytes_relative,
    macros::socket_filter,
    programs::SkBuffContext,
};
use spip_common::{Entry, Step, Syn, SynKey, event::KIND_REACHED, packet::mapped};

use crate::{
    events,
    maps::{CONFUSES, SYNS, is_closed},
    skb::Skb,
};

/// Keep all of the packet: the kernel cuts to this length what is longer.
const KEEP: i64 = u32::MAX as i64;
/// Keep nothing: the kernel discards the packet.
const DISCARD: i64 = 0;
/// `EtherType` of IPv4.
const ETH_P_IP: u16 = 0x0800;
/// `EtherType` of IPv6.
const ETH_P_IPV6: u16 = 0x86dd;
/// Offset of the time to live in an IPv4 header, four bytes before the two addresses.
const IPV4_TTL: u32 = 8;
/// Offset of the hop limit in an IPv6 header.
const IPV6_HOP_LIMIT: u32 = 7;
/// Offset of the two addresses in an IPv6 header.
const IPV6_ADDRESSES: u32 = 8;

/// Entry of the program: looks, and lets pass.
#[socket_filter]
pub fn syn_arrival(ctx: SkBuffContext) -> i64 {
    if !events::wanted() {
        return KEEP;
    }
    let is_listener = at_listener(&ctx);
    if !is_listener && CONFUSES.load() == 0 {
        return KEEP;
    }
    if is_listener && is_closed() {
        return DISCARD;
    }
    arrived(&ctx, is_listener);
    KEEP
}

#[inline(always)]
fn arrived(ctx: &SkBuffContext, is_listener: bool) {
    // The packet starts with its TCP header here (RFC 9293, 3.1).
    let Ok(header) = ctx.load::<[u8; 16]>(0) else {
        return;
    };
    let flags = header[13] & (Syn::SYN | Syn::ACK | Syn::RST);
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    if flags == Syn::ACK {
        if is_listener {
            acknowledged(ctx, sequence);
        }
        return;
    }
    if flags & (Syn::SYN | Syn::ACK) != Syn::SYN {
        return;
    }
    let (source, destination, ttl) = match Skb(ctx).protocol() {
        ETH_P_IP => {
            let Some([ttl, _, _, _, a, b, c, d, e, f, g, h]) = network::<12>(ctx, IPV4_TTL) else { return };
            (mapped([a, b, c, d]), mapped([e, f, g, h]), ttl)
        }
        ETH_P_IPV6 => {
            let Some([hop_limit]) = network::<1>(ctx, IPV6_HOP_LIMIT) else { return };
            let Some(source) = network::<16>(ctx, IPV6_ADDRESSES) else { return };
            let Some(destination) = network::<16>(ctx, IPV6_ADDRESSES + 16) else { return };
            (source, destination, hop_limit)
        }
        _ => return,
    };
    let key = SynKey { source, next_sequence: sequence.wrapping_add(1) };
    let mut doubtful = false;
    if let Some(known) = SYNS.get_ptr_mut(&key) {
        // SAFETY: the entry is valid while the program runs; where the LRU has given it to another key meanwhile, a
        // foreign SYN is taken for one that has arrived, and stays when it is sent again.
        let known = unsafe { &mut *known };
        known.reached |= Entry::ARRIVED;
        // Of many under one key this is the first, and some tools give each another time to live.
        let comparable = known.observed != 0 && known.ambiguous & Entry::SHARED == 0;
        let seen = &known.syn;
        let differs = seen.ttl != ttl || seen.window != u16::from_be_bytes([header[14], header[15]]);
        doubtful = known.ambiguous & Entry::CUT != 0 || comparable && differs;
    }
    events::tell_step(&Step {
        kind: KIND_REACHED,
        next_sequence: key.next_sequence,
        source,
        destination,
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        doubtful: doubtful.into(),
    });
}

/// Notes a segment with the sequence number that follows a SYN's.
#[inline(always)]
fn acknowledged(ctx: &SkBuffContext, sequence: u32) {
    let source = match Skb(ctx).protocol() {
        ETH_P_IP => network::<4>(ctx, IPV4_TTL + 4).map(mapped),
        ETH_P_IPV6 => network::<16>(ctx, IPV6_ADDRESSES),
        _ => None,
    };
    let Some(source) = source else { return };
    if let Some(known) = SYNS.get_ptr_mut(&SynKey { source, next_sequence: sequence }) {
        // SAFETY: the entry is valid while the program runs; where the LRU has given it to another key meanwhile, a foreign
        // SYN is marked, of which the agent asks only when no connection came of it and the accept queue overflowed.
        unsafe { (*known).reached |= Entry::ACKNOWLEDGED };
    }
}

/// Reports whether the kernel assigned the packet to a listening socket.
#[inline(always)]
fn at_listener(ctx: &SkBuffContext) -> bool {
    // SAFETY: only the address of a field of the context, which is valid while the program runs.
    let field = unsafe { &raw const (*ctx.skb.skb).__bindgen_anon_2.sk };
    // SAFETY: as above; the verifier turns the read into the kernel's own.
    let socket = unsafe { field.read() };
    if socket.is_null() {
        return false;
    }
    // SAFETY: as above; the kernel lets this field of any socket be read.
    unsafe { (*socket).state == BPF_TCP_LISTEN }
}

/// Bytes of the network header.
#[inline(always)]
fn network<const N: usize>(ctx: &SkBuffContext, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let into = bytes.as_mut_ptr().cast();
    // SAFETY: the helper writes as many bytes as the array has, or reports an error.
    let result = unsafe { bpf_skb_load_bytes_relative(ctx.skb.skb.cast(), offset, into, N as u32, BPF_HDR_START_NET) };
    (result == 0).then_some(bytes)
}
