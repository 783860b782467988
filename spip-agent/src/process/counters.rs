//! Counts what sessions come to, at the cost of a few uncontended additions for each.
//!
//! Threads count in places of their own, as far as there are some, and readers add them up. A name is one of this
//! program's: the type demands it. Each place finds a name by looking through those that it has seen, of which the
//! frequent ones come first.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use spip_record::{CloseReason, Conflict, DestinationSource, Limit};

/// Places to count in. More threads than these share.
const PLACES: usize = 16;

/// More than any kind of name has: there are some fifty protocols.
const NAMES: usize = 96;

/// Counts of all sessions of this process.
pub static TALLY: Tallies = Tallies { places: [const { Tally::new() }; PLACES] };

/// The tallies of all threads.
pub struct Tallies {
    places: [Tally; PLACES],
}

/// The tally of one thread. As large as two cache lines at least, so that neighbours do not disturb each other.
#[repr(align(128))]
pub struct Tally {
    /// Recorded sessions.
    pub close_reasons: Named,
    /// Recorded sessions; `none` where nothing came.
    pub protocols: Named,
    /// Recorded sessions.
    pub destination_sources: Named,
    /// Recorded sessions whose SYN, as the packet filter saw it, was not believed.
    pub conflicts: Named,
    /// Recorded sessions.
    pub tls: Named,
    /// Refused connections, and sessions that made room, by limit.
    pub rejected: Named,
    received: AtomicU64,
    sent: AtomicU64,
    truncated: AtomicU64,
}

/// The counted facts of a recorded session.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Reason why it ended.
    pub close_reason: CloseReason,
    /// Protocol that the client spoke, if it sent anything.
    pub protocol: Option<&'static str>,
    /// Source of the destination.
    pub destination_source: DestinationSource,
    /// Reason why the packet filter was not believed.
    pub conflict: Option<Conflict>,
    /// Result of TLS.
    pub tls: &'static str,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Set when bytes came that were not kept.
    pub is_truncated: bool,
}

/// Counts by name.
pub struct Named {
    counts: [(OnceLock<&'static str>, AtomicU64); NAMES],
    /// Of names for which there was no room.
    others: AtomicU64,
}

impl Tallies {
    /// Counts a session that is recorded now.
    pub fn session(&self, session: &Counted) {
        let tally = self.own();
        tally.close_reasons.add(session.close_reason.name());
        if let CloseReason::Rejected(limit) = session.close_reason {
            tally.rejected.add(limit.name());
        }
        tally.protocols.add(session.protocol.unwrap_or("none"));
        tally.destination_sources.add(session.destination_source.name());
        if let Some(conflict) = session.conflict {
            tally.conflicts.add(conflict.name());
        }
        tally.tls.add(session.tls);
        tally.received.fetch_add(session.bytes_in, Relaxed);
        if session.bytes_out > 0 {
            tally.sent.fetch_add(session.bytes_out, Relaxed);
        }
        if session.is_truncated {
            tally.truncated.fetch_add(1, Relaxed);
        }
    }

    /// Counts a connection that was refused and is no session.
    pub fn rejected(&self, limit: Limit) {
        self.own().rejected.add(limit.name());
    }

    /// The counts of all threads by name, those of `known` names also where they are zero.
    pub fn sum(&self, named: fn(&Tally) -> &Named, known: &[&'static str]) -> Vec<(&'static str, u64)> {
        let mut sums: Vec<(&'static str, u64)> = known.iter().map(|name| (*name, 0)).collect();
        for place in &self.places {
            let Named { counts, others } = named(place);
            let others = ("other", others.load(Relaxed));
            let found = counts.iter().map_while(|(name, count)| name.get().map(|name| (*name, count.load(Relaxed))));
            for (name, count) in found.chain((others.1 > 0).then_some(others)) {
                match sums.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum += count,
                    None => sums.push((name, count)),
                }
            }
        }
        sums
    }

    /// Bytes received, bytes sent, and sessions of which bytes were not kept.
    pub fn totals(&self) -> [u64; 3] {
        let sum = |count: fn(&Tally) -> &AtomicU64| self.places.iter().map(|place| count(place).load(Relaxed)).sum();
        [sum(|tally| &tally.received), sum(|tally| &tally.sent), sum(|tally| &tally.truncated)]
    }

    fn own(&self) -> &Tally {
        thread_local! {
            static PLACE: Cell<usize> = {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                Cell::new(NEXT.fetch_add(1, Relaxed) % PLACES)
            };
        }
        // A thread that is ending has no place any more.
        &self.places[PLACE.try_with(Cell::get).unwrap_or(0) % PLACES]
    }
}

impl Tally {
    const fn new() -> Self {
        Self {
            close_reasons: Named::new(),
            protocols: Named::new(),
            destination_sources: Named::new(),
            conflicts: Named::new(),
            tls: Named::new(),
            rejected: Named::new(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            truncated: AtomicU64::new(0),
        }
    }
}

impl Named {
    const fn new() -> Self {
        Self { counts: [const { (OnceLock::new(), AtomicU64::new(0)) }; NAMES], others: AtomicU64::new(0) }
    }

    /// Counts one more of `name`.
    pub fn add(&self, name: &'static str) {
        for (known, count) in &self.counts {
            if *known.get_or_init(|| name) == name {
                count.fetch_add(1, Relaxed);
                return;
            }
        }
        self.others.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_across_threads_and_known_ones_from_the_start() {
        static TALLIES: Tallies = Tallies { places: [const { Tally::new() }; PLACES] };
        std::thread::scope(|scope| {
            for _ in 0..2 * PLACES {
                scope.spawn(|| {
                    TALLIES.rejected(Limit::Rate);
                    TALLIES.rejected(Limit::Sessions);
                    TALLIES.rejected(Limit::Rate);
                });
            }
        });
        let sums = TALLIES.sum(|tally| &tally.rejected, &["max_sessions_per_source", "rate_limit"]);
        let places = 2 * PLACES as u64;
        assert_eq!(sums, [("max_sessions_per_source", 0), ("rate_limit", 2 * places), ("max_sessions", places)]);
    }

    #[test]
    fn each_count_of_a_session_is_its_own() {
        static TALLIES: Tallies = Tallies { places: [const { Tally::new() }; PLACES] };
        let session = Counted {
            close_reason: CloseReason::PayloadLimit,
            protocol: None,
            destination_source: spip_record::DestinationSource::Ebpf,
            conflict: None,
            tls: "none",
            bytes_in: 5,
            bytes_out: 3,
            is_truncated: true,
        };
        TALLIES.session(&session);
        TALLIES.session(&Counted {
            close_reason: CloseReason::Rejected(Limit::Memory),
            protocol: Some("ssh"),
            bytes_out: 0,
            is_truncated: false,
            ..session
        });
        assert_eq!(TALLIES.totals(), [10, 3, 1], "bytes in and out, and one that was truncated");
        let sum = |named| TALLIES.sum(named, &[]);
        assert_eq!(sum(|tally| &tally.close_reasons), [("payload_limit", 1), ("rejected", 1)]);
        assert_eq!(sum(|tally| &tally.rejected), [("payload_memory_bytes", 1)]);
        assert_eq!(sum(|tally| &tally.protocols), [("none", 1), ("ssh", 1)]);
        assert_eq!(sum(|tally| &tally.destination_sources), [("ebpf", 2)]);
        assert_eq!(sum(|tally| &tally.conflicts), []);
        assert_eq!(sum(|tally| &tally.tls), [("none", 2)]);
    }

    #[test]
    fn more_names_than_there_is_room_for_are_counted_together() {
        let named = Named::new();
        let names: Vec<&'static str> = (0..NAMES + 3).map(|n| &*n.to_string().leak()).collect();
        names.iter().for_each(|name| named.add(name));
        named.add(names[0]);
        assert_eq!(named.others.load(Relaxed), 3);
        assert_eq!(named.counts[0].1.load(Relaxed), 2);
    }
}
