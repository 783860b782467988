//! Tells the agent what happens, where it wants to know of scans.
//!
//! Records are written where they will be read, in the ring buffer: the stack of 512 bytes has no room for a second
//! copy. The reader is woken only when much is waiting, because a wake-up for each SYN would cost more than the SYN.
//! Each function is empty where scans are off: the constant is known when the programs are loaded.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ringbuf_query,
};
use spip_common::{
    Step, Syn, SynEvent, SynKey,
    event::{KIND_JOINED, KIND_SYN, RING_BYTES, RING_RESERVE_BYTES, RING_WAKE_BYTES},
    map::LOOPBACK_INTERFACE,
};

use crate::{
    connection::Connection,
    maps::{EVENTS, SCANS, count},
};

/// Reports whether the agent records scans.
#[inline(always)]
pub fn wanted() -> bool {
    SCANS.load() != 0
}

/// Bytes that wait to be read.
#[inline(always)]
fn waiting() -> u64 {
    // SAFETY: the helper takes the map, whose address the loader puts in the place of the static's.
    unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), BPF_RB_AVAIL_DATA.into()) }
}

/// Chooses how to wake the reader of the ring.
#[inline(always)]
fn wake(waiting: u64) -> u64 {
    if waiting >= RING_WAKE_BYTES.into() { BPF_RB_FORCE_WAKEUP.into() } else { BPF_RB_NO_WAKEUP.into() }
}

/// A SYN was seen that is not known to have been seen before; `flags` are those of [`SynEvent`].
#[inline(always)]
pub fn tell_syn(source: &[u8; 16], syn: &Syn, flags: u32) {
    if !wanted() || syn.interface == LOOPBACK_INTERFACE {
        return;
    }
    let waiting = waiting();
    let room = waiting < u64::from(RING_BYTES - RING_RESERVE_BYTES);
    let slot = if room { EVENTS.reserve_untyped::<SynEvent>(0) } else { None };
    let Some(mut slot) = slot else {
        count(|counters| counters.untold += 1);
        return;
    };
    let event = slot.as_mut_ptr();
    // SAFETY: the slot is large enough, aligned, and this program's alone until it is submitted; this writes all of it.
    unsafe { event.write(SynEvent { kind: KIND_SYN, flags, source: *source, syn: *syn }) };
    slot.submit(wake(waiting));
    count(|counters| counters.told += 1);
}

/// A connection of the listener is established.
#[inline(always)]
pub fn tell_joined(connection: &Connection<'_>, key: &SynKey) {
    if !wanted() {
        return;
    }
    tell_step(&Step {
        kind: KIND_JOINED,
        next_sequence: key.next_sequence,
        source: key.source,
        destination: connection.local_address().unwrap_or_default(),
        source_port: connection.remote_port(),
        destination_port: connection.local_port() as u16,
        doubtful: 0,
    });
}

/// Something became of a SYN.
#[inline(always)]
pub fn tell_step(step: &Step) {
    let wake = wake(waiting());
    let Some(mut slot) = EVENTS.reserve_untyped::<Step>(0) else {
        count(|counters| counters.untold_steps += 1);
        return;
    };
    slot.write(*step);
    slot.submit(wake);
}
