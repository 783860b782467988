//! Chooses a listener of the agent for every new TCP connection that no other service on this machine takes.
//!
//! An `sk_lookup` program of the agent's network namespace. The kernel calls it when a packet matches no connection,
//! before it looks for a listening socket. Everything that was decided about who is left alone is in maps; the
//! program only follows them, and when in doubt lets the kernel go on as if it were not there.
//!
//! - The socket is chosen here, by a hash of the connection, and not by the kernel's `SO_REUSEPORT` groups: while a new
//!   agent takes over from an old one, both have listeners in the same group, and only the new one's are to be used.
//! - What the agent found and was told at its start is in maps that are frozen, and in constants. What it
//!   has learnt since is in maps that it can write, and with it an attacker who has broken into it: they can give up
//!   more ports, and never take one that was kept at the start, nor loopback's.
//! - What another program has chosen before stays: `bpf_sk_assign` refuses a second choice.
//! - A client on this machine is known by the loopback interface or by its addresses. IPv6 shows the interface that has
//!   the address rather than loopback, hence the second. A local client that binds one of the machine's addresses
//!   and connects to another one over IPv6 is taken for a remote client.
//! - A packet that is no SYN and belongs to no connection is given to the listener, too: it answers as an open port
//!   does (reset for an acknowledgement, silence for the rest), which is what the scan should see.

use core::ptr::read_volatile;

use aya_ebpf::{
    Global,
    bindings::bpf_sk_lookup,
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, SockMap, lpm_trie::Key},
    macros::{btf_map, sk_lookup},
    programs::SkLookupContext,
};
use spip_common::{
    map::LOOPBACK_INTERFACE,
    steer::{
        Endpoint, Exclusion, LINK_ENTRIES, MAX_ENDPOINTS, MAX_SOCKETS, PORTS, PREFIX_ENTRIES, Settings, SteerCounters,
        worker,
    },
};

use crate::connection::address;

/// The listeners; the loader makes the map as large as there are workers.
#[btf_map]
static STEER_SOCKETS: SockMap<{ MAX_SOCKETS as usize }> = SockMap::new();

/// Addresses on which each port is left alone.
#[btf_map]
static STEER_PORTS: Array<Exclusion, { PORTS as usize }> = Array::new();

/// Services on single addresses.
#[btf_map]
static STEER_ENDPOINTS: HashMap<Endpoint, u32, { MAX_ENDPOINTS as usize }> = HashMap::new();

/// Addresses on which each port is left alone until the agent restarts.
#[btf_map]
static STEER_KEPT: Array<Exclusion, { PORTS as usize }> = Array::new();

/// Services on single addresses that keep their ports for good.
#[btf_map]
static STEER_KEPT_ENDS: HashMap<Endpoint, u32, { MAX_ENDPOINTS as usize }> = HashMap::new();

/// Local prefixes to steer.
#[btf_map]
static STEER_PREFIXES: LpmTrie<[u8; 16], u32, { PREFIX_ENTRIES as usize }> = LpmTrie::new();

/// Interfaces to steer.
#[btf_map]
static STEER_LINKS: HashMap<u32, u32, { LINK_ENTRIES as usize }> = HashMap::new();

/// Current settings.
#[btf_map]
static STEER_SETTINGS: Array<Settings, 1> = Array::new();

/// Counters of look-ups.
#[btf_map]
static STEER_COUNTERS: PerCpuArray<SteerCounters, 1> = PerCpuArray::new();

/// Number of sockets; 0 when steering is off.
#[unsafe(no_mangle)]
pub static STEER_WORKERS: Global<u32> = Global::new(0);

/// Secret seed of the hash that spreads connections.
#[unsafe(no_mangle)]
static STEER_SEED: Global<u32> = Global::new(0);

/// 1 where the kernel knows the interface.
#[unsafe(no_mangle)]
static STEER_KNOWS_LINK: Global<u32> = Global::new(0);

/// 1 where clients on this machine may be steered.
#[unsafe(no_mangle)]
static STEER_MAY_LOOPBACK: Global<u32> = Global::new(0);

/// `SK_PASS` of linux/bpf.h.
const PASS: u32 = 1;
/// `IPPROTO_TCP`.
const TCP: u32 = 6;
/// `BPF_SK_LOOKUP_F_NO_REUSEPORT` of linux/bpf.h: the socket that is assigned is the one that is meant.
const NO_REUSEPORT: u64 = 1 << 1;
/// `-EEXIST`: another program has chosen.
const CHOSEN: i32 = -17;
/// Bits of an address.
const ADDRESS_BITS: u32 = 128;
/// The first twelve bytes of an IPv4 address as IPv6 writes it.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Entry of the program. It never answers `SK_DROP`: the kernel would refuse the connection with a reset.
#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    let lookup = Lookup(ctx.lookup);
    if lookup.protocol() != TCP {
        return PASS;
    }
    let Some((remote, local)) = lookup.addresses() else {
        return PASS;
    };
    let local_port = lookup.local_port();
    let Some(settings) = STEER_SETTINGS.get(0) else {
        return PASS;
    };
    if let Some(outcome) = left_alone(&lookup, &remote, &local, local_port, settings) {
        count(outcome);
        return PASS;
    }
    let index = worker(STEER_SEED.load(), &remote, lookup.remote_port(), local_port, STEER_WORKERS.load());
    match STEER_SOCKETS.redirect_sk_lookup(&ctx, index, NO_REUSEPORT) {
        Ok(()) => count(Outcome::Steered),
        Err(CHOSEN) => count(Outcome::Chosen),
        Err(_) => count(Outcome::Missed),
    }
    PASS
}

/// Results of a look-up; each has its counter.
#[derive(Clone, Copy)]
enum Outcome {
    Steered,
    Excluded,
    Loopback,
    Elsewhere,
    OtherLink,
    Chosen,
    Missed,
}

/// Returns the reason why the agent does not take the connection; `None` when it does.
#[inline(always)]
fn left_alone(
    lookup: &Lookup,
    remote: &[u8; 16],
    local: &[u8; 16],
    local_port: u32,
    settings: &Settings,
) -> Option<Outcome> {
    let (Some(kept), Some(exclusion)) = (STEER_KEPT.get(local_port), STEER_PORTS.get(local_port)) else {
        return Some(Outcome::Excluded);
    };
    if kept.everywhere | exclusion.everywhere != 0 {
        return Some(Outcome::Excluded);
    }
    let knows_link = STEER_KNOWS_LINK.load() != 0;
    let link = if knows_link { lookup.link() } else { 0 };
    let loopback = link == LOOPBACK_INTERFACE || is_same(remote, local) || is_loopback(remote);
    if loopback {
        if settings.loopback == 0 || STEER_MAY_LOOPBACK.load() == 0 {
            return Some(Outcome::Loopback);
        }
        if kept.loopback | exclusion.loopback != 0 {
            return Some(Outcome::Excluded);
        }
    }
    if has_service(kept, exclusion, local, local_port) {
        return Some(Outcome::Excluded);
    }
    // SAFETY: only whether there is a value is asked.
    if settings.links != 0 && knows_link && !loopback && unsafe { STEER_LINKS.get(&link) }.is_none() {
        return Some(Outcome::OtherLink);
    }
    if settings.prefixes != 0 && STEER_PREFIXES.get(&Key::new(ADDRESS_BITS, *local)).is_none() {
        return Some(Outcome::Elsewhere);
    }
    None
}

/// Reports whether the agent takes a connection to this port of this address, for programs that look at it later.
/// Clients on this machine count as remote here, except where a service is bound to loopback.
#[inline(always)]
pub fn is_steered(local: &[u8; 16], local_port: u32) -> bool {
    let (Some(kept), Some(exclusion)) = (STEER_KEPT.get(local_port), STEER_PORTS.get(local_port)) else {
        return false;
    };
    let loopback = kept.loopback | exclusion.loopback != 0 && is_loopback(local);
    kept.everywhere | exclusion.everywhere == 0 && !loopback && !has_service(kept, exclusion, local, local_port)
}

/// Reports whether a service has this port of this address, given that the port's `exclusion` or `kept` says that some
/// have.
#[inline(always)]
fn has_service(kept: &Exclusion, exclusion: &Exclusion, local: &[u8; 16], local_port: u32) -> bool {
    if kept.endpoints | exclusion.endpoints == 0 {
        return false;
    }
    let endpoint = Endpoint { address: *local, port: local_port };
    // SAFETY: only whether there is a value is asked.
    let known = unsafe { STEER_KEPT_ENDS.get(&endpoint) }.is_some();
    // SAFETY: as above.
    known || unsafe { STEER_ENDPOINTS.get(&endpoint) }.is_some()
}

#[inline(always)]
fn count(outcome: Outcome) {
    if let Some(counters) = STEER_COUNTERS.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own, valid as long as the program runs, and nothing else holds a reference.
        let counters = unsafe { &mut *counters };
        let counter = match outcome {
            Outcome::Steered => &mut counters.steered,
            Outcome::Excluded => &mut counters.excluded,
            Outcome::Loopback => &mut counters.loopback,
            Outcome::Elsewhere => &mut counters.elsewhere,
            Outcome::OtherLink => &mut counters.other_link,
            Outcome::Chosen => &mut counters.chosen,
            Outcome::Missed => &mut counters.missed,
        };
        *counter += 1;
    }
}

/// Compares without a call to `memcmp`, which the verifier has to follow byte by byte.
#[inline(always)]
fn is_same(one: &[u8; 16], other: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*one) == u128::from_ne_bytes(*other)
}

/// 127.0.0.0/8 or `::1`.
#[inline(always)]
fn is_loopback(address: &[u8; 16]) -> bool {
    let mapped = address[12] == 127 && address.first_chunk() == Some(&MAPPED);
    mapped || u128::from_be_bytes(*address) == 1
}

/// The kernel's description of a packet that it has no connection for.
///
/// Fields are read as whole words and volatile: the verifier knows them by offset and width, and the compiler would
/// otherwise read parts, or several at once.
struct Lookup(*mut bpf_sk_lookup);

impl Lookup {
    #[inline(always)]
    fn protocol(&self) -> u32 {
        // SAFETY: only the address of a field of the context, which is valid while the program runs.
        word(unsafe { &raw const (*self.0).protocol })
    }

    /// Remote and local address, or `None` for a family that is neither IPv4 nor IPv6.
    #[inline(always)]
    fn addresses(&self) -> Option<([u8; 16], [u8; 16])> {
        // SAFETY: as above.
        let family = word(unsafe { &raw const (*self.0).family });
        // SAFETY: as above.
        let remote_ipv4 = unsafe { &raw const (*self.0).remote_ip4 };
        // SAFETY: as above.
        let remote_ipv6 = unsafe { &raw const (*self.0).remote_ip6 };
        // SAFETY: as above.
        let local_ipv4 = unsafe { &raw const (*self.0).local_ip4 };
        // SAFETY: as above.
        let local_ipv6 = unsafe { &raw const (*self.0).local_ip6 };
        Some((address(family, remote_ipv4, remote_ipv6)?, address(family, local_ipv4, local_ipv6)?))
    }

    /// In the byte order of the machine.
    #[inline(always)]
    fn local_port(&self) -> u32 {
        // SAFETY: as above.
        word(unsafe { &raw const (*self.0).local_port })
    }

    /// In network order; it only has to be the same for all packets of a connection.
    #[inline(always)]
    fn remote_port(&self) -> u32 {
        // SAFETY: as above.
        let port = unsafe { &raw const (*self.0).remote_port };
        // SAFETY: the pointer is to a field of the context, which takes reads of two bytes.
        u32::from(unsafe { read_volatile(port) })
    }

    /// Index of the interface that the packet came by.
    #[inline(always)]
    fn link(&self) -> u32 {
        // SAFETY: as above.
        word(unsafe { &raw const (*self.0).ingress_ifindex })
    }
}

/// A word of the context.
#[inline(always)]
fn word(field: *const u32) -> u32 {
    // SAFETY: the pointer is to a field of the context.
    unsafe { read_volatile(field) }
}
