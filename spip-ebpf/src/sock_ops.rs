//! Joins a connection of the listener to the SYN that began it.
//!
//! Called by the kernel for every TCP connection below the cgroup, so the first thing is to leave: an accepted
//! connection that is not to the listener's port, or any that is not in its network namespace, costs two comparisons.
//!
//! - **A client of this machine** (`ACTIVE_ESTABLISHED`, before the client answers, so before the listener's side is
//!   established): its socket knows what it asked for, before address translation; the observer saw its SYN on the
//!   loopback interface, after. The entry is corrected. A SYN that came over loopback and was not corrected is
//!   doubtful.
//! - **The listener's side** (`PASSIVE_ESTABLISHED`): the SYN is found by the client's sequence number, and written to
//!   ORIGINS under the socket's cookie. The SYN's entry has done its work and goes, unless it is ambiguous: an
//!   ambiguous one must stay, or the next SYN with its key would be believed by a connection that is still on its way.
//!
//! The agent removes an origin when it is done with the connection: only it knows when. A connection that ended may still
//! wait to be accepted, and the question for its origin is then to come. What is never accepted waits for the LRU.

use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB},
    helpers::bpf_ktime_get_ns,
    macros::sock_ops,
    programs::SockOpsContext,
};
use aya_log_ebpf::{debug, info};
use spip_common::{Entry, SynKey, map::LOOPBACK_INTERFACE};

use crate::{
    connection::Connection,
    events,
    maps::{LISTENER_PORT, OBSERVER_ATTACHED, ORIGINS, SYNS, count},
    steer::{STEER_WORKERS, is_steered},
};

/// Entry of the program. The return value only matters to callbacks that ask for one; this program answers none.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => connected(&ctx),
        _ => {}
    }
    1
}

/// Reports whether the entry found under a key belongs to it.
///
/// The LRU may give an entry's memory to another key while it is copied. The sequence number is in both key and entry,
/// so that a foreign entry is noticed. Entries are copied once, on the stack: a scratch map would be shared with
/// a softirq that runs this program while a process is in it.
#[inline(always)]
fn belongs(entry: &Entry, key: &SynKey) -> bool {
    entry.syn.sequence.wrapping_add(1) == key.next_sequence
}

/// A connection of this machine's own client is established.
#[inline(always)]
fn connected(ctx: &SockOpsContext) {
    let connection = Connection(ctx);
    if !connection.is_in_our_namespace() {
        return;
    }
    let (Some(source), Some(destination)) = (connection.local_address(), connection.remote_address()) else {
        return;
    };
    let key = SynKey { source, next_sequence: connection.oldest_unacknowledged() };
    let observed = OBSERVER_ATTACHED.load() != 0;
    let mut entry = Entry::EMPTY;
    if observed {
        // SAFETY: the reference is only used for this copy, before any insertion or removal by this program.
        let Some(known) = (unsafe { SYNS.get(&key) }) else {
            return;
        };
        entry = *known;
        // Only loopback brings this machine's own SYNs back to it as they left.
        if !belongs(&entry, &key) || entry.syn.interface != LOOPBACK_INTERFACE {
            return;
        }
    } else {
        entry.syn.sequence = key.next_sequence.wrapping_sub(1);
        // SAFETY: the helper reads a clock.
        entry.syn.seen_ns = unsafe { bpf_ktime_get_ns() };
    }
    entry.local = 1;
    entry.syn.destination = destination;
    entry.syn.destination_port = connection.remote_port();
    entry.syn.source_port = connection.local_port() as u16;
    let flags = if observed { BPF_EXIST } else { BPF_NOEXIST };
    let written = SYNS.insert(&key, &entry, flags.into()).is_ok();
    count(|counters| {
        if !written {
            counters.failed += 1;
        } else if observed {
            counters.local += 1;
        } else {
            counters.inserted += 1;
        }
    });
    debug!(
        ctx,
        "local client {:i} port {} asked for {:i} port {}",
        key.source,
        entry.syn.source_port,
        entry.syn.destination,
        entry.syn.destination_port
    );
}

/// Reports whether the listener has, or will have, this connection: it is to the listener's port, or to a steered one.
#[inline(always)]
fn is_ours(connection: &Connection<'_>) -> bool {
    let port = connection.local_port();
    let ours = port == LISTENER_PORT.load()
        || STEER_WORKERS.load() != 0 && connection.local_address().is_some_and(|address| is_steered(&address, port));
    ours && connection.is_in_our_namespace()
}

/// A connection to the listener is established.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let connection = Connection(ctx);
    if !is_ours(&connection) {
        return;
    }
    let Some(source) = connection.remote_address() else {
        return;
    };
    count(|counters| counters.passive += 1);
    let key = SynKey { source, next_sequence: connection.next_expected() };
    events::tell_joined(&connection, &key);
    let mut entry = Entry::EMPTY;
    // SAFETY: the reference is only used for this copy, before any insertion or removal by this program.
    if let Some(known) = unsafe { SYNS.get(&key) } {
        entry = *known;
    }
    if entry.observed | entry.local | entry.ambiguous == 0 || !belongs(&entry, &key) {
        count(|counters| counters.not_found += 1);
        info!(ctx, "no syn for a connection from {:i}", key.source);
        return;
    }
    let keep = entry.ambiguous != 0;
    if entry.local == 0 && entry.syn.interface == LOOPBACK_INTERFACE {
        entry.ambiguous |= Entry::SHARED;
    }
    if ORIGINS.insert(connection.cookie(), &entry, 0).is_err() {
        count(|counters| counters.failed += 1);
        return;
    }
    let removed = !keep && SYNS.remove(&key).is_ok();
    count(|counters| {
        counters.joined += 1;
        if entry.ambiguous != 0 {
            counters.doubtful += 1;
        }
        if removed {
            counters.removed += 1;
        }
    });
    debug!(
        ctx,
        "connection from {:i} port {} was to {:i} port {}",
        key.source,
        entry.syn.source_port,
        entry.syn.destination,
        entry.syn.destination_port
    );
}
