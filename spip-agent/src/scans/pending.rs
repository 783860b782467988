//! SYNs of which it is not yet known what they become: a connection, a half-open scan, or nothing of ours.
//!
//! A SYN is found again by its source and sequence number, which address translation leaves alone. Tools that use one
//! sequence number for many SYNs have them all under one key, where they are told apart by where they went. What
//! becomes of them is told with the addresses and ports that are left after translation: where those lead to no SYN, the
//! SYN that was seen last has reached the listener, because the two are seen within one packet's way through the
//! kernel. Wrong can this be only about which of several ports a tool with one sequence number reached, and only where
//! some of them are not ours and packets came in bursts.
//!
//! All SYNs under one key are decided together, when the first of them is as old as the timeout: the last ones a little
//! early. What completes later is counted as late. When there is no room the oldest are given up undecided: a scan is
//! never claimed of a SYN that might have been completed. The same holds when the kernel could not tell what became of
//! SYNs.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use lru::LruCache;
use spip_common::{Step, Syn, SynEvent, SynKey};

use super::Counts;
use crate::protocol::syn::Tools;

/// Decided SYNs that are remembered under shared keys, so that retransmissions of them are known.
const DECIDED_MAX: usize = 65_536;

/// Both ends of a connection, without the source's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    address: [u8; 16],
    port: u16,
    source_port: u16,
}

impl Ends {
    fn of_syn(syn: &Syn) -> Self {
        Self { address: syn.destination, port: syn.destination_port, source_port: syn.source_port }
    }

    fn of_step(step: &Step) -> Self {
        Self { address: step.destination, port: step.destination_port, source_port: step.source_port }
    }
}

/// One SYN.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    ends: Ends,
    seen_ns: u64,
    tools: Tools,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Seen on an interface.
    Seen,
    /// At the listening socket.
    Reached,
    /// Its connection is established.
    Joined,
}

impl Attempt {
    fn new(syn: &Syn) -> Self {
        Self { ends: Ends::of_syn(syn), seen_ns: syn.seen_ns, tools: Tools::of(syn), state: State::Seen }
    }
}

/// The SYNs under one key.
#[derive(Debug)]
struct Group {
    /// The first one, whole.
    syn: Syn,
    attempts: Attempts,
    /// Whether retransmissions have to be known after the decision.
    shared: bool,
}

#[derive(Debug)]
enum Attempts {
    /// One, and what was left of its ends after translation once it has reached the listener.
    One(Attempt, Option<Ends>),
    Many(Box<Many>),
}

/// Several SYNs under one key, each found in one step.
#[derive(Debug, Default)]
struct Many {
    list: Vec<Attempt>,
    by_ends: HashMap<Ends, usize>,
    /// By what was left after translation, for those that have reached the listener.
    by_view: HashMap<Ends, usize>,
    /// Those that have not, oldest first, and some that have.
    unreached: Vec<usize>,
}

impl Many {
    fn with(first: Attempt, view: Option<Ends>) -> Self {
        let mut many = Self { by_view: view.map(|view| (view, 0)).into_iter().collect(), ..Self::default() };
        many.add(first);
        many
    }

    fn add(&mut self, attempt: Attempt) {
        let index = self.list.len();
        self.by_ends.insert(attempt.ends, index);
        if attempt.state == State::Seen {
            self.unreached.push(index);
        }
        self.list.push(attempt);
    }

    fn reach(&mut self, view: Ends) {
        if self.by_view.contains_key(&view) {
            return;
        }
        let unreached = |list: &[Attempt], index: usize| list.get(index).is_some_and(|one| one.state == State::Seen);
        let exact = self.by_ends.get(&view).copied().filter(|index| unreached(&self.list, *index));
        let index = exact.or_else(|| {
            loop {
                let last = self.unreached.pop()?;
                if unreached(&self.list, last) {
                    return Some(last);
                }
            }
        });
        if let Some(index) = index {
            self.by_view.insert(view, index);
            self.list[index].state = State::Reached;
        }
    }

    fn join(&mut self, view: Ends) -> bool {
        let index = self.by_view.get(&view).or_else(|| self.by_ends.get(&view)).copied();
        let attempt = index.and_then(|index| self.list.get_mut(index)).filter(|one| one.state != State::Joined);
        attempt.map(|attempt| attempt.state = State::Joined).is_some()
    }
}

/// A SYN that reached the listener and that nobody completed.
#[derive(Clone, Copy, Debug)]
pub struct HalfOpen<'a> {
    /// The sender's address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Where it went; IPv4 likewise.
    pub destination: [u8; 16],
    /// The port where it went.
    pub destination_port: u16,
    /// The sender's port.
    pub source_port: u16,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub seen_ns: u64,
    /// What it shows of its sender's tool.
    pub tools: Tools,
    /// The first SYN with its source and sequence number: itself, but for tools that use one number for many.
    pub syn: &'a Syn,
}

/// What the record needs of SYNs that were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// How many.
    pub count: u64,
    /// When the last of them was seen.
    pub last_ns: u64,
}

/// The SYNs that wait.
#[derive(Debug)]
pub struct Pending {
    groups: LruCache<SynKey, Group>,
    /// SYNs in all groups.
    attempts: usize,
    capacity: usize,
    /// What was seen until then may have been completed in secret.
    doubt_until_ns: u64,
    /// Where decided SYNs under shared keys went.
    decided: LruCache<SynKey, HashSet<Ends>>,
    decided_len: usize,
    counts: Counts,
    given_up: GivenUp,
}

impl Pending {
    /// Room for `capacity` SYNs.
    #[must_use]
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            groups: LruCache::unbounded(),
            attempts: 0,
            capacity: capacity.get(),
            doubt_until_ns: 0,
            decided: LruCache::unbounded(),
            decided_len: 0,
            counts: Counts::default(),
            given_up: GivenUp::default(),
        }
    }

    /// A SYN was seen.
    pub fn seen(&mut self, event: &SynEvent) {
        let syn = &event.syn;
        let key = SynKey { source: event.source, next_sequence: syn.sequence.wrapping_add(1) };
        let attempt = Attempt::new(syn);
        if let Some(group) = self.groups.peek_mut(&key) {
            group.shared = true;
            match &mut group.attempts {
                Attempts::One(first, _) if first.ends == attempt.ends => return self.counts.retransmitted += 1,
                Attempts::One(first, view) => {
                    let mut many = Many::with(*first, *view);
                    many.add(attempt);
                    group.attempts = Attempts::Many(Box::new(many));
                }
                Attempts::Many(many) if many.by_ends.contains_key(&attempt.ends) => {
                    return self.counts.retransmitted += 1;
                }
                Attempts::Many(many) => many.add(attempt),
            }
        } else if self.decided.peek(&key).is_some_and(|ends| ends.contains(&attempt.ends)) {
            return self.counts.retransmitted += 1;
        } else {
            self.groups
                .put(key, Group { syn: *syn, attempts: Attempts::One(attempt, None), shared: event.shared != 0 });
        }
        self.counts.seen += 1;
        self.counts.pending += 1;
        self.attempts += 1;
        while self.attempts > self.capacity {
            let Some((key, group)) = self.groups.pop_lru() else { break };
            self.give_up(key, group);
        }
    }

    /// A SYN has reached the listener, perhaps again.
    pub fn reached(&mut self, step: &Step) {
        let key = SynKey { source: step.source, next_sequence: step.next_sequence };
        match self.groups.peek_mut(&key).map(|group| &mut group.attempts) {
            Some(Attempts::One(attempt, view)) if attempt.state == State::Seen => {
                attempt.state = State::Reached;
                *view = Some(Ends::of_step(step));
            }
            Some(Attempts::Many(many)) => many.reach(Ends::of_step(step)),
            _ => {}
        }
    }

    /// A connection is established.
    pub fn joined(&mut self, step: &Step) {
        let key = SynKey { source: step.source, next_sequence: step.next_sequence };
        let found = match self.groups.peek_mut(&key).map(|group| &mut group.attempts) {
            Some(Attempts::Many(many)) => many.join(Ends::of_step(step)),
            Some(Attempts::One(..)) => {
                self.groups.pop(&key);
                self.attempts -= 1;
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
    }

    /// The kernel could not tell `count` SYNs.
    pub fn untold(&mut self, count: u64, now_ns: u64) {
        self.counts.seen += count;
        self.counts.evicted += count;
        self.note_given_up(count, now_ns);
    }

    /// Decides what was first seen at `until_ns` or before; `found` gets the half-open ones.
    pub fn decide(&mut self, until_ns: u64, mut found: impl FnMut(&HalfOpen<'_>)) {
        while self.groups.peek_lru().is_some_and(|(_, group)| group.syn.seen_ns <= until_ns) {
            let Some((key, group)) = self.groups.pop_lru() else { break };
            if group.syn.seen_ns <= self.doubt_until_ns {
                self.give_up(key, group);
                continue;
            }
            for attempt in group.attempts.as_slice() {
                self.attempts -= 1;
                match attempt.state {
                    State::Joined => {}
                    State::Seen => {
                        self.counts.ignored += 1;
                        self.counts.pending -= 1;
                    }
                    State::Reached => {
                        self.counts.half_open += 1;
                        self.counts.pending -= 1;
                        found(&HalfOpen {
                            source: key.source,
                            destination: attempt.ends.address,
                            destination_port: attempt.ends.port,
                            source_port: attempt.ends.source_port,
                            seen_ns: attempt.seen_ns,
                            tools: attempt.tools,
                            syn: &group.syn,
                        });
                    }
                }
            }
            self.remember(key, &group);
        }
        if self.groups.is_empty() && self.attempts == 0 {
            // What a flood has made large becomes small again.
            self.groups = LruCache::unbounded();
        }
    }

    /// What has become of SYNs so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What was given up since the last time.
    pub fn take_given_up(&mut self) -> GivenUp {
        std::mem::take(&mut self.given_up)
    }

    fn give_up(&mut self, key: SynKey, group: Group) {
        let list = group.attempts.as_slice();
        self.attempts -= list.len();
        let lost = list.iter().filter(|attempt| attempt.state != State::Joined);
        let (count, last) = lost.fold((0, 0), |(count, last), one| (count + 1, one.seen_ns.max(last)));
        self.counts.evicted += count;
        self.counts.pending -= count;
        self.note_given_up(count, last);
        self.remember(key, &group);
    }

    fn note_given_up(&mut self, count: u64, last_ns: u64) {
        self.given_up.count += count;
        self.given_up.last_ns = self.given_up.last_ns.max(last_ns);
    }

    fn remember(&mut self, key: SynKey, group: &Group) {
        if !group.shared {
            return;
        }
        let ends = group.attempts.as_slice().iter().map(|attempt| attempt.ends);
        let known = self.decided.get_or_insert_mut(key, HashSet::new);
        let before = known.len();
        known.extend(ends);
        self.decided_len += known.len() - before;
        while self.decided_len > DECIDED_MAX {
            let Some((_, ends)) = self.decided.pop_lru() else { break };
            self.decided_len -= ends.len();
        }
    }
}

impl Attempts {
    fn as_slice(&self) -> &[Attempt] {
        match self {
            Self::One(attempt, _) => std::slice::from_ref(attempt),
            Self::Many(many) => &many.list,
        }
    }
}

#[cfg(test)]
mod tests;
