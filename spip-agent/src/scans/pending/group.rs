//! The SYNs of one source with one sequence number: nearly always one; many where a tool uses one number for all.
//!
//! They are told apart by where they went. What becomes of them is told with the ends that are left after translation.

use std::collections::{HashMap, HashSet};

use spip_common::event::WRONG_CHECKSUM;
use spip_common::{Step, Syn, SynEvent};

use super::super::hearing;

use spip_protocol::syn::Tools;

/// Both ends of a connection, without the source's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) address: [u8; 16],
    pub(super) port: u16,
    pub(super) source_port: u16,
}

impl Ends {
    fn of_syn(syn: &Syn) -> Self {
        Self { address: syn.destination, port: syn.destination_port, source_port: syn.source_port }
    }

    pub(super) fn of_step(step: &Step) -> Self {
        Self { address: step.destination, port: step.destination_port, source_port: step.source_port }
    }
}

/// One SYN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) ends: Ends,
    pub(super) seen_ns: u64,
    pub(super) tools: Tools,
    /// Bytes of data that came with it.
    pub(super) data_length: u16,
    /// Set when nothing in its headers keeps it from a listener.
    pub(super) plain: bool,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Seen on an interface.
    Seen,
    /// At the listening socket.
    Reached,
    /// Its connection is established.
    Joined,
}

impl Attempt {
    pub(super) fn new(event: &SynEvent) -> Self {
        let syn = &event.syn;
        Self {
            ends: Ends::of_syn(syn),
            seen_ns: syn.seen_ns,
            tools: Tools::of(syn),
            data_length: syn.payload_length,
            plain: event.flags & WRONG_CHECKSUM == 0 && hearing::is_plain(syn),
            state: State::Seen,
        }
    }
}

/// The SYNs under one key.
#[derive(Debug)]
pub(super) struct Group {
    /// The first one, whole.
    pub(super) syn: Syn,
    /// Time of the first one of those that are left.
    pub(super) oldest_ns: u64,
    pub(super) attempts: Attempts,
    /// Set when retransmissions have to be known after the decision.
    pub(super) shared: bool,
}

impl Group {
    pub(super) fn new(syn: &Syn, attempt: Attempt, shared: bool) -> Self {
        Self { syn: *syn, oldest_ns: attempt.seen_ns, attempts: Attempts::One(attempt, None), shared }
    }

    pub(super) fn attempts(&self) -> &[Attempt] {
        match &self.attempts {
            Attempts::One(attempt, _) => std::slice::from_ref(attempt),
            Attempts::Many(many) => &many.list,
        }
    }

    pub(super) fn has(&self, ends: &Ends) -> bool {
        match &self.attempts {
            Attempts::One(attempt, _) => attempt.ends == *ends,
            Attempts::Many(many) => many.by_ends.contains_key(ends),
        }
    }

    /// Reports whether there is one SYN only, and it has arrived nowhere yet.
    pub(super) fn is_one_on_its_way(&self) -> bool {
        matches!(&self.attempts, Attempts::One(attempt, _) if attempt.state == State::Seen)
    }

    /// Returns the number of earlier decided SYNs that it remembers.
    pub(super) fn settled(&self) -> usize {
        match &self.attempts {
            Attempts::One(..) => 0,
            Attempts::Many(many) => many.settled.len(),
        }
    }

    pub(super) fn add(&mut self, attempt: Attempt) {
        if let Attempts::One(first, view) = self.attempts {
            self.attempts = Attempts::Many(Box::new(Many::with(first, view)));
        }
        if let Attempts::Many(many) = &mut self.attempts {
            many.add(attempt);
        }
    }

    /// Leaves the `count` oldest here, and returns the others, if there are any; with a count of 0 there are none.
    pub(super) fn split_off_oldest(&mut self, count: usize) -> Option<Self> {
        let until_ns = self.attempts().get(count.checked_sub(1)?)?.seen_ns;
        self.split_off(until_ns)
    }

    /// Leaves here what was seen at `until_ns` or before, and returns the others, if there are any.
    pub(super) fn split_off(&mut self, until_ns: u64) -> Option<Self> {
        let Attempts::Many(many) = &mut self.attempts else { return None };
        let later = many.split_off(until_ns)?;
        let oldest_ns = later.list.first()?.seen_ns;
        Some(Self { syn: self.syn, oldest_ns, attempts: Attempts::Many(Box::new(later)), shared: self.shared })
    }
}

#[derive(Debug)]
pub(super) enum Attempts {
    /// One, and what was left of its ends after translation once it has reached the listener.
    One(Attempt, Option<Ends>),
    Many(Box<Many>),
}

/// Several SYNs under one key, each found in one step.
#[derive(Debug, Default)]
pub(super) struct Many {
    list: Vec<Attempt>,
    by_ends: HashMap<Ends, usize>,
    /// By what was left after translation, for those that have reached the listener.
    by_view: HashMap<Ends, usize>,
    /// Those that have not, oldest first, and some that have.
    unreached: Vec<usize>,
    /// Ends of earlier decided SYNs: their retransmissions are none of the others.
    settled: HashSet<Ends>,
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

    /// Takes out those that were seen later, if there are any.
    fn split_off(&mut self, until_ns: u64) -> Option<Self> {
        if self.list.iter().all(|one| one.seen_ns <= until_ns) {
            return None;
        }
        let mut later = Self::default();
        // Of several parts that have gone, as long as that is no more than what is left.
        if self.settled.len() <= self.list.len() {
            later.settled = std::mem::take(&mut self.settled);
        }
        let mut moved = HashMap::new();
        for (index, one) in self.list.iter().enumerate().filter(|(_, one)| one.seen_ns > until_ns) {
            moved.insert(index, later.list.len());
            later.add(*one);
        }
        for (view, index) in self.by_view.drain() {
            match moved.get(&index) {
                Some(index) => drop(later.by_view.insert(view, *index)),
                None => drop(later.settled.insert(view)),
            }
        }
        self.list.retain(|one| one.seen_ns <= until_ns);
        Some(later)
    }

    pub(super) fn reach(&mut self, view: Ends) {
        if self.by_view.contains_key(&view) || self.settled.contains(&view) {
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

    pub(super) fn join(&mut self, view: Ends) -> bool {
        if self.settled.contains(&view) {
            return false;
        }
        let index = self.by_view.get(&view).or_else(|| self.by_ends.get(&view)).copied();
        let attempt = index.and_then(|index| self.list.get_mut(index)).filter(|one| one.state != State::Joined);
        attempt.map(|attempt| attempt.state = State::Joined).is_some()
    }
}
