//! Keeps the first bytes of the data that came with a SYN.
//!
//! They are copied into a buffer of this CPU, for the stack has no room, and from there into a map of their own: hardly any
//! SYN has data. Only a SYN that made or took its entry in SYNS is copied, so that both are of one packet. The observer looks
//! at received packets alone, which one CPU handles one after the other, so the buffer is not shared.

use aya_ebpf::{helpers::bpf_skb_load_bytes, programs::SkBuffContext};
use spip_common::{Syn, SynKey, map::SYN_DATA_BYTES};

use crate::maps::{SYN_DATA, SYN_DATA_BUFFER};

/// Length of the fixed part of an IPv4 header.
const IPV4_HEADER: u32 = 20;
/// Length of the fixed IPv6 header.
const IPV6_HEADER: u32 = 40;
/// Length of the fixed part of a TCP header.
const TCP_HEADER: u32 = 20;

/// Keeps what `syn` carries, which may be nothing.
#[inline(always)]
pub fn keep(ctx: &SkBuffContext, key: &SynKey, syn: &Syn) {
    if syn.payload_length == 0 {
        return;
    }
    let Some(buffer) = SYN_DATA_BUFFER.get_ptr_mut(0) else { return };
    // SAFETY: the slot is this CPU's own, valid as long as the program runs, and nothing else holds a reference.
    let buffer = unsafe { &mut *buffer };
    let header = if syn.ip_version == 4 { IPV4_HEADER } else { IPV6_HEADER };
    let offset = header + u32::from(syn.ip_options_len) + TCP_HEADER + u32::from(syn.options_len);
    let wanted = u64::from(syn.payload_length).min(SYN_DATA_BYTES as u64);
    // As in `Skb::load_options`: the verifier must see both bounds.
    let last = wanted.wrapping_sub(1);
    // SAFETY: the pointer is to a live local variable.
    let last = unsafe { core::ptr::read_volatile(&raw const last) };
    if last >= SYN_DATA_BYTES as u64 {
        return;
    }
    let length = last as u32 + 1;
    // SAFETY: the buffer has `SYN_DATA_BYTES` bytes, and no more than that are asked for.
    let result = unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, buffer.bytes.as_mut_ptr().cast(), length) };
    if result == 0 {
        buffer.length = length;
        let _ = SYN_DATA.insert(key, &*buffer, 0);
    }
}
