//! SYNs of which it is not yet known what they become: a connection, a half-open scan, or nothing of ours.
//!
//! A SYN is found again by its source and sequence number, which address translation leaves alone. Tools that use one
//! sequence number for many SYNs have them all under one key, where they are told apart by where they went. What
//! becomes of them is told with the addresses and ports that are left after translation: where those lead to no SYN,
//! the SYN that was seen last has reached the listener, because the two are seen within one packet's way through the
//! kernel. Wrong can this be only about which of several ports a tool with one sequence number reached, and only where
//! some of them are not ours and packets came in bursts.
//!
//! A SYN that arrived nowhere may be sent again: the kernel side tells it again then, and it is judged anew, as is one
//! that comes later than any retransmission. A SYN is decided when it is as old as the timeout; of many under one key
//! those that came later up to twice that. What completes later still has its record of a scan already, and is a
//! session all the same: it is counted as unmatched. When there is no room SYNs are given up undecided ([`queue`] says
//! whose): a scan is never claimed of a SYN that might have been completed. The same holds when the kernel could not
//! tell what became of SYNs.

mod group;
mod queue;

use std::collections::HashMap;
use std::num::NonZeroUsize;

use lru::LruCache;
use spip_common::event::{REPLACES, SHARED};
use spip_common::map::RETRANSMISSION_NS;
use spip_common::{Step, Syn, SynEvent, SynKey};

use super::hearing::{Arrival, Hearing};
use super::{Counts, Fill};
use group::{Attempt, Attempts, Ends, Group, State};
use queue::{Queue, Sizes};
use spip_protocol::syn::Tools;

/// Decided SYNs that are remembered under shared keys, so that retransmissions of them are known.
const DECIDED_MAX: usize = 65_536;

/// A SYN that reached the listener and did not become a connection.
#[derive(Clone, Copy, Debug)]
pub struct HalfOpen<'a> {
    /// The sender's address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination; IPv4 likewise.
    pub destination: [u8; 16],
    /// The port where it went.
    pub destination_port: u16,
    /// The sender's port.
    pub source_port: u16,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub seen_ns: u64,
    /// Tools that it shows.
    pub tools: Tools,
    /// Bytes of data that came with it.
    pub data_length: u16,
    /// The first SYN with its source and sequence number: itself, but for tools that use one number for many.
    pub syn: &'a Syn,
}

/// SYNs that were given up, for the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Number of SYNs.
    pub count: u64,
    /// Time of the last of them.
    pub last_ns: u64,
}

impl GivenUp {
    fn add(&mut self, count: u64, seen_ns: u64) {
        self.count += count;
        self.last_ns = self.last_ns.max(seen_ns);
    }
}

/// The SYNs that wait.
#[derive(Debug)]
pub struct Pending {
    queue: Queue,
    capacity: usize,
    /// Time up to which observed SYNs may have been completed unseen.
    doubt_until_ns: u64,
    /// Destinations and times of decided SYNs under shared keys.
    decided: LruCache<SynKey, HashMap<Ends, u64>>,
    decided_len: usize,
    counts: Counts,
    given_up: GivenUp,
    hearing: Hearing,
}

impl Pending {
    /// Room for `capacity` SYNs.
    #[must_use]
    pub fn new(capacity: NonZeroUsize, hearing: Hearing) -> Self {
        Self {
            queue: Queue::default(),
            capacity: capacity.get(),
            doubt_until_ns: 0,
            decided: LruCache::unbounded(),
            decided_len: 0,
            counts: Counts::default(),
            given_up: GivenUp::default(),
            hearing,
        }
    }

    /// Returns the judgement on whether SYNs reach the listener.
    pub fn hearing(&mut self) -> &mut Hearing {
        &mut self.hearing
    }

    /// A SYN was seen.
    pub fn seen(&mut self, event: &SynEvent) {
        let syn = &event.syn;
        let key = SynKey { source: event.source, next_sequence: syn.sequence.wrapping_add(1) };
        let attempt = Attempt::new(event);
        let decided_ns = self.decided.peek(&key).and_then(|ends| ends.get(&attempt.ends));
        if decided_ns.is_some_and(|decided_ns| syn.seen_ns.saturating_sub(*decided_ns) <= RETRANSMISSION_NS) {
            return self.counts.retransmitted += 1;
        }
        let replaced = |group: &mut Group| !group.has(&attempt.ends) && group.is_one_on_its_way();
        if event.flags & REPLACES != 0 && self.queue.get_mut(&key).is_some_and(replaced) {
            self.queue.remove(&key);
            self.counts.ignored += 1;
            self.counts.pending -= 1;
        }
        if let Some(group) = self.queue.get_mut(&key) {
            if group.has(&attempt.ends) {
                if group.is_one_on_its_way() {
                    // The kernel may have thrown the other one away: what is answered, and how it looks, is this one.
                    let shared = group.shared;
                    self.queue.remove(&key);
                    self.queue.insert(key, Group::new(syn, attempt, shared));
                } else {
                    group.shared = true;
                }
                return self.counts.retransmitted += 1;
            }
            group.shared = true;
            self.queue.add(&key, attempt);
        } else {
            self.queue.insert(key, Group::new(syn, attempt, event.flags & SHARED != 0));
        }
        self.counts.seen += 1;
        self.counts.pending += 1;
        while let Some((key, group)) = self.queue.make_room(self.capacity) {
            self.give_up(key, &group);
        }
    }

    /// A SYN has reached the listener, perhaps again.
    pub fn reached(&mut self, step: &Step) {
        let key = SynKey { source: step.source, next_sequence: step.next_sequence };
        if step.doubtful != 0 {
            return self.contradict(&key);
        }
        let Some(group) = self.queue.get_mut(&key) else { return };
        let interface = group.syn.interface;
        match &mut group.attempts {
            Attempts::One(attempt, view) => {
                if attempt.state == State::Seen {
                    attempt.state = State::Reached;
                    *view = Some(Ends::of_step(step));
                }
                self.hearing.reached(&arrival(key.source, attempt, interface));
            }
            Attempts::Many(many) => {
                many.reach(Ends::of_step(step));
                self.hearing.reached_one_of(&key.source, group.attempts().iter().map(|attempt| attempt.ends.port));
            }
        }
    }

    /// The SYN that has reached the listener is none of those that were seen under its key: what became of these is not
    /// known, and nothing is claimed of them. A connection that comes of it is counted as unmatched.
    ///
    /// Where one of them has arrived, this is taken for another look of it: some tools change theirs when they send
    /// again.
    fn contradict(&mut self, key: &SynKey) {
        let on_its_way = |group: &mut Group| group.attempts().iter().all(|attempt| attempt.state == State::Seen);
        if !self.queue.get_mut(key).is_some_and(on_its_way) {
            return;
        }
        let Some(group) = self.queue.remove(key) else { return };
        let waiting = group.attempts().len() as u64;
        self.counts.contradicted += waiting;
        self.counts.pending -= waiting;
        self.remember(*key, &group, |_| true);
    }

    /// A connection is established.
    pub fn joined(&mut self, step: &Step) {
        let key = SynKey { source: step.source, next_sequence: step.next_sequence };
        let found = match self.queue.get_mut(&key).map(|group| &mut group.attempts) {
            Some(Attempts::Many(many)) => many.join(Ends::of_step(step)),
            Some(Attempts::One(..)) => {
                self.queue.remove(&key);
                true
            }
            None => false,
        };
        if found {
            self.counts.joined += 1;
            self.counts.pending -= 1;
        } else {
            self.counts.unmatched += 1;
        }
    }

    /// The kernel could not tell all that became of the SYNs that were seen until `now_ns`.
    pub fn doubt(&mut self, now_ns: u64) {
        self.doubt_until_ns = now_ns;
        self.hearing.cannot_know();
    }

    /// The kernel could not tell `count` SYNs.
    pub fn untold(&mut self, count: u64, now_ns: u64) {
        self.counts.seen += count;
        self.counts.evicted += count;
        self.given_up.add(count, now_ns);
    }

    /// Decides what was seen at `until_ns` or before; `found` gets the half-open ones.
    pub fn decide(&mut self, until_ns: u64, mut found: impl FnMut(&HalfOpen<'_>)) {
        while let Some((key, mut group)) = self.queue.pop_ripe(until_ns) {
            let later = group.split_off(until_ns);
            for attempt in group.attempts() {
                let doubtful = attempt.seen_ns <= self.doubt_until_ns;
                match attempt.state {
                    State::Joined => continue,
                    State::Seen | State::Reached if doubtful => {
                        self.counts.evicted += 1;
                        self.given_up.add(1, attempt.seen_ns);
                    }
                    State::Seen => {
                        self.counts.ignored += 1;
                        if attempt.plain {
                            let arrival = arrival(key.source, attempt, group.syn.interface);
                            self.hearing.unanswered(&arrival, attempt.seen_ns);
                        }
                    }
                    State::Reached => {
                        self.counts.half_open += 1;
                        found(&HalfOpen {
                            source: key.source,
                            destination: attempt.ends.address,
                            destination_port: attempt.ends.port,
                            source_port: attempt.ends.source_port,
                            seen_ns: attempt.seen_ns,
                            tools: attempt.tools,
                            data_length: attempt.data_length,
                            syn: &group.syn,
                        });
                    }
                }
                self.counts.pending -= 1;
            }
            // One that arrived nowhere may yet be sent again and arrive.
            self.remember(key, &group, |attempt| attempt.state != State::Seen);
            if let Some(later) = later {
                self.queue.insert(key, later);
            }
        }
        self.queue.shrink();
    }

    /// Counts `count` of the half-open SYNs as completed by their clients, and refused.
    pub fn refuse(&mut self, count: u64) {
        self.counts.half_open -= count;
        self.counts.refused += count;
    }

    /// Returns the counts of SYNs so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the fill level of each table: no traffic may take one beyond its bound.
    #[must_use]
    pub fn fill(&self) -> [Fill; 6] {
        let most = self.capacity;
        let Sizes { attempts, groups, sources, settled } = self.queue.sizes();
        [
            Fill { table: "waiting", entries: attempts, most },
            Fill { table: "groups", entries: groups, most },
            Fill { table: "their sources", entries: sources, most },
            // Twice what waits, and twice what was decided while the youngest of it waited.
            Fill { table: "settled", entries: settled, most: most.saturating_mul(5) },
            Fill { table: "decided", entries: self.decided_len, most: DECIDED_MAX },
            Fill { table: "keys of those", entries: self.decided.len(), most: self.decided_len },
        ]
    }

    /// Takes the SYNs that were given up since the last call.
    pub fn take_given_up(&mut self) -> GivenUp {
        std::mem::take(&mut self.given_up)
    }

    fn give_up(&mut self, key: SynKey, group: &Group) {
        for attempt in group.attempts().iter().filter(|attempt| attempt.state != State::Joined) {
            self.counts.evicted += 1;
            self.counts.pending -= 1;
            self.given_up.add(1, attempt.seen_ns);
        }
        self.remember(key, group, |_| true);
    }

    /// Every key that is remembered has at least one end: so the bound of the ends is one of the keys, too.
    fn remember(&mut self, key: SynKey, group: &Group, which: impl Fn(&Attempt) -> bool) {
        if !group.shared {
            return;
        }
        let attempts = group.attempts().iter().filter(|attempt| which(attempt));
        let mut ends = attempts.map(|attempt| (attempt.ends, attempt.seen_ns)).peekable();
        if ends.peek().is_none() {
            return;
        }
        let known = self.decided.get_or_insert_mut(key, HashMap::new);
        let before = known.len();
        known.extend(ends);
        self.decided_len += known.len() - before;
        while self.decided_len > DECIDED_MAX {
            let Some((_, ends)) = self.decided.pop_lru() else { break };
            self.decided_len -= ends.len();
        }
    }
}

/// Builds the destination of one SYN of a source.
fn arrival(source: [u8; 16], attempt: &Attempt, interface: u32) -> Arrival {
    Arrival { source, destination: attempt.ends.address, port: attempt.ends.port, interface }
}

#[cfg(test)]
mod tests;
