//! Notes every initial SYN of the network namespace before address translation: where it was going, and what it
//! looked like.
//!
//! A socket filter on a packet socket, which sees packets before netfilter does. It returns 0, so nothing is ever
//! queued on that socket. Packets that are not for this machine are left out, as the kernel's TCP leaves them out.
//!
//! The first SYN under a key stays, unless its checksum is wrong and a later one's is right: then the kernel has
//! dropped the first, as far as can be told, and the later one takes its place. A first fragment that may hide a SYN
//! marks its key as one of which nothing is believed. A retransmission says nothing new and is only counted. Where the
//! agent wants to know of scans, so that it is known which SYNs have arrived at its sockets, two others take the place
//! of the first: one that follows a SYN which arrived nowhere, because the kernel threw it away (a wrong checksum, for
//! one) or because the port was another port's then, and one that is too late for a retransmission. A SYN with the same
//! key but another destination or port is either chance (one in four thousand million per pair), or a tool that uses
//! one sequence number for many SYNs, or an attacker who wants a false destination recorded. It cannot be
//! told whose connection will be established, so the entry is marked, and the program that joins it asks another
//! source. A marked entry stays marked until the LRU drops it.
//!
//! Where the agent wants to know of scans, it is told each SYN that is not known to be a retransmission or a copy,
//! those under a key that is taken included: there they are told apart by the ports. SYNs over the loopback interface
//! are left out; they come from this machine, and address translation comes before the packet filter there.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
    macros::socket_filter,
    programs::SkBuffContext,
};
use aya_log_ebpf::{debug, info};
use spip_common::{
    Entry, Refused, Syn, SynKey,
    event::{REPLACES, SHARED, WRONG_CHECKSUM},
    map::RETRANSMISSION_NS,
    packet::read,
};

use crate::{
    events,
    maps::{SYNS, count},
    skb::Skb,
    syn_data,
};

/// `EtherType` of IPv4.
const ETH_P_IP: u16 = 0x0800;
/// `EtherType` of IPv6.
const ETH_P_IPV6: u16 = 0x86dd;
/// The packet is addressed to this machine (`if_packet.h`).
const PACKET_HOST: u32 = 0;

/// Entry of the program: looks, and keeps nothing of the packet.
#[socket_filter]
pub fn syn_observer(ctx: SkBuffContext) -> i64 {
    observe(&ctx);
    0
}

#[inline(always)]
fn observe(ctx: &SkBuffContext) {
    let skb = Skb(ctx);
    if skb.packet_type() != PACKET_HOST {
        return;
    }
    // Read where it is kept: the stack has no room for a second copy.
    let mut entry = MaybeUninit::uninit();
    let entry = empty(&mut entry);
    let mut source = [0; 16];
    let version = match skb.protocol() {
        ETH_P_IP => 4,
        ETH_P_IPV6 => 6,
        _ => return,
    };
    match read(&skb, version, &mut source, &mut entry.syn) {
        Ok(wrong_checksum) => {
            entry.observed = 1;
            entry.wrong_checksum = wrong_checksum.into();
            entry.syn.interface = skb.interface();
            // SAFETY: the helper reads a clock.
            entry.syn.seen_ns = unsafe { bpf_ktime_get_ns() };
            store(ctx, &source, entry);
        }
        Err(Refused::Cut) => {
            entry.ambiguous = Entry::CUT;
            mark(&source, entry);
        }
        Err(refused) if refused.is_malformed() => count(|counters| counters.malformed += 1),
        Err(_) => {}
    }
}

/// Makes it [`Entry::EMPTY`], word by word. An assignment becomes a call of `memset`, whose frame counts beside this one:
/// kernels before 6.9 then find more than 512 bytes of stack.
#[inline(always)]
fn empty(entry: &mut MaybeUninit<Entry>) -> &mut Entry {
    const WORDS: usize = size_of::<Entry>() / size_of::<u64>();
    const { assert!(size_of::<Entry>() == WORDS * size_of::<u64>() && align_of::<Entry>() == align_of::<u64>()) };
    let words = entry.as_mut_ptr().cast::<u64>();
    for word in 0..WORDS {
        // SAFETY: the word lies within the entry.
        let word = unsafe { words.add(word) };
        // SAFETY: the entry is this function's alone, and aligned as a word is.
        unsafe { word.write_volatile(0) };
    }
    // SAFETY: an entry has numbers only, and all of its bytes are zero now, as those of `Entry::EMPTY` are.
    unsafe { entry.assume_init_mut() }
}

/// Notes a SYN and tells the agent of it. Each of the two steps that follow stands here once: the kernel charges the
/// whole program to the socket that it is attached to, and kernels before 6.8 have room for 2,550 instructions.
#[inline(always)]
fn store(ctx: &SkBuffContext, source: &[u8; 16], entry: &mut Entry) {
    let key = SynKey::of(source, &entry.syn);
    let noted = note(ctx, &key, source, entry);
    if noted & KEEP != 0 {
        syn_data::keep(ctx, &key, &entry.syn);
    }
    if noted & TELL != 0 {
        events::tell_syn(source, &entry.syn, noted & !(KEEP | TELL));
    }
}

/// Set when the SYN is the one under its key from now on, so that its data is kept.
const KEEP: u32 = 1 << 31;
/// Set when the SYN is sent to the agent as an event, with the other flags.
const TELL: u32 = 1 << 30;

/// Notes a SYN under its key, and returns [`KEEP`], [`TELL`] and the flags of [`spip_common::SynEvent`].
#[inline(always)]
fn note(ctx: &SkBuffContext, key: &SynKey, source: &[u8; 16], entry: &mut Entry) -> u32 {
    let syn = &entry.syn;
    let wrong = if entry.wrong_checksum != 0 { WRONG_CHECKSUM } else { 0 };
    let stored = SYNS.insert(key, &*entry, BPF_NOEXIST.into()).is_ok();
    count(|counters| {
        counters.syns += 1;
        if stored {
            counters.stored += 1;
        }
    });
    if stored {
        debug!(
            ctx,
            "syn from {:i} port {} to {:i} port {}", *source, syn.source_port, syn.destination, syn.destination_port
        );
        return KEEP | TELL | wrong;
    }

    let Some(known) = SYNS.get_ptr_mut(key) else {
        // Neither new nor there: the map could not take it.
        count(|counters| counters.failed += 1);
        return TELL | SHARED | wrong;
    };
    // SAFETY: the entry is valid while the program runs. Another CPU may change it, or the LRU give it to another key,
    // between this line and the next ones: then a mark or a count is lost or stands on another entry. Both
    // are harmless; a marked entry only means that someone else is asked.
    let known = unsafe { &mut *known };
    if entry.wrong_checksum != 0 && known.wrong_checksum == 0 {
        count(|counters| counters.wrong += 1);
        return 0;
    }
    if known.wrong_checksum != 0 && entry.wrong_checksum == 0 && known.local == 0 {
        // Under a key of many the others are as they were.
        entry.ambiguous = known.ambiguous;
        renew(key, entry);
        return KEEP | TELL | if entry.ambiguous != 0 { SHARED } else { REPLACES };
    }
    if known.local == 0 && !same_connection(&known.syn, syn) {
        known.ambiguous |= Entry::SHARED;
        count(|counters| counters.ambiguous += 1);
        info!(
            ctx,
            "ambiguous syn from {:i} port {} to {:i} port {}",
            *source,
            syn.source_port,
            syn.destination,
            syn.destination_port
        );
        return TELL | SHARED | wrong;
    }
    if events::wanted() && known.local == 0 && is_news(known, syn) {
        if known.ambiguous != 0 {
            count(|counters| counters.renewed += 1);
            return TELL | SHARED | wrong;
        }
        renew(key, entry);
        return KEEP | TELL | wrong;
    }
    if known.syn.interface == syn.interface {
        known.repeats = known.repeats.saturating_add(1);
        if !looks_like(&known.syn, syn) {
            known.varied = 1;
        }
        count(|counters| counters.retransmitted += 1);
    } else {
        count(|counters| counters.copies += 1);
    }
    0
}

/// Puts a SYN in the place of the one under its key.
#[inline(always)]
fn renew(key: &SynKey, entry: &Entry) {
    let renewed = SYNS.insert(key, entry, BPF_EXIST.into()).is_ok();
    count(|counters| if renewed { counters.renewed += 1 } else { counters.failed += 1 });
}

/// Reports whether a SYN for the connection of a known entry may be more than a retransmission or a copy. For a key
/// with many SYNs this cannot tell which of them arrived.
#[inline(always)]
fn is_news(known: &Entry, syn: &Syn) -> bool {
    (known.reached == 0 || known.ambiguous != 0) && known.syn.interface == syn.interface
        || syn.seen_ns.wrapping_sub(known.syn.seen_ns) > RETRANSMISSION_NS
}

/// Marks the key of a SYN that cannot be read: nothing under it is believed. `entry` has what could be read of it.
#[inline(always)]
fn mark(source: &[u8; 16], entry: &Entry) {
    count(|counters| counters.cut += 1);
    let key = SynKey::of(source, &entry.syn);
    if let Some(known) = SYNS.get_ptr_mut(&key) {
        // SAFETY: the entry is valid while the program runs; where the LRU has given it to another key meanwhile, a
        // foreign entry is not believed.
        unsafe { (*known).ambiguous |= Entry::CUT };
    } else if SYNS.insert(&key, entry, BPF_NOEXIST.into()).is_err() {
        count(|counters| counters.failed += 1);
    }
}

/// Reports whether two SYNs of a connection look like retransmissions of one.
#[inline(always)]
fn looks_like(one: &Syn, other: &Syn) -> bool {
    one.ttl == other.ttl
        && one.window == other.window
        && one.options_len == other.options_len
        && one.payload_length == other.payload_length
}

/// Reports whether two SYNs ask for the same connection.
#[inline(always)]
fn same_connection(one: &Syn, other: &Syn) -> bool {
    one.source_port == other.source_port
        && one.destination_port == other.destination_port
        && one.destination == other.destination
}
