//! The maps that the programs share, and the constants that the loader sets.
//!
//! BTF maps, so that `bpftool map dump` prints field names. The loader may change the number of entries. The constants
//! are in a frozen read-only map: the verifier knows their values, and leaves out the branches that they exclude,
//! together with helpers that an older kernel does not have.

use aya_ebpf::{
    Global,
    btf_maps::{Array, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use spip_common::{
    Counters, Entry, SynData, SynEvent, SynKey,
    event::RING_BYTES,
    map::{DEFAULT_ENTRIES, SYN_DATA_ENTRIES},
};

const ENTRIES: usize = DEFAULT_ENTRIES as usize;

/// SYNs that wait for their connection.
#[btf_map]
pub static SYNS: LruHashMap<SynKey, Entry, ENTRIES> = LruHashMap::new();

/// Data that came with SYNs.
#[btf_map]
pub static SYN_DATA: LruHashMap<SynKey, SynData, { SYN_DATA_ENTRIES as usize }> = LruHashMap::new();

/// A buffer of each CPU, on the way to SYN_DATA.
#[btf_map]
pub static SYN_DATA_BUFFER: PerCpuArray<SynData, 1> = PerCpuArray::new();

/// Origins of the listener's connections, by socket cookie.
#[btf_map]
pub static ORIGINS: LruHashMap<u64, Entry, ENTRIES> = LruHashMap::new();

/// The counters of each CPU.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// Whether the listening sockets take no packet any more: not 0 from the agent's stop on.
#[btf_map]
pub static CLOSED: Array<u32, 1> = Array::new();

/// Events for the agent's account of scans.
#[btf_map]
pub static EVENTS: RingBuf<SynEvent, { RING_BYTES as usize }> = RingBuf::new();

/// The listener's port; 0, which no connection has, until the loader sets it.
#[unsafe(no_mangle)]
pub static LISTENER_PORT: Global<u32> = Global::new(0);

/// Cookie of the listener's network namespace; 0 where the kernel cannot compare it.
#[unsafe(no_mangle)]
pub static NETNS_COOKIE: Global<u64> = Global::new(0);

/// 1 when `syn_observer` is attached.
#[unsafe(no_mangle)]
pub static OBSERVER_ATTACHED: Global<u32> = Global::new(0);

/// 1 when the agent wants to know of scans.
#[unsafe(no_mangle)]
pub static SCANS: Global<u32> = Global::new(0);

/// 1 where the kernel may take a SYN for a packet of another connection from the same port.
#[unsafe(no_mangle)]
pub static CONFUSES: Global<u32> = Global::new(0);

/// Reports whether the listening sockets take no packet any more.
#[inline(always)]
pub fn is_closed() -> bool {
    CLOSED.get(0).is_some_and(|closed| *closed != 0)
}

/// Lets `count` change this CPU's counters.
#[inline(always)]
pub fn count(count: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own, valid as long as the program runs, and nothing else holds a reference.
        // A program of the other type that interrupts this one on the same CPU can lose an increment, no more.
        count(unsafe { &mut *counters });
    }
}
