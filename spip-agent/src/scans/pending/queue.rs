//! The groups that wait for their decision, oldest first, and who gives way when there is no room.
//!
//! A flood comes from invented addresses, each of which sends one SYN; a scanner sends many. So the oldest SYN of a source
//! that has no other one gives way first, and those of the others are kept apart, in half of the room. Where that is
//! full too, as when a flood sends two from each address, the source gives way that has sent less. Of many SYNs under one
//! key a part gives way at a time.

use std::collections::{BTreeMap, HashMap};

use lru::LruCache;
use spip_common::SynKey;

use super::group::{Attempt, Group};

/// Of so many that are kept, the one whose source sent least gives way; others are looked at each time.
const CANDIDATES: usize = 16;

/// Of a group that gives way and has at least so many SYNs, the oldest of so many parts goes.
const PARTS: usize = 16;

/// The groups.
#[derive(Debug)]
pub(super) struct Queue {
    fresh: LruCache<SynKey, Group>,
    /// Groups that had to give way, of sources that have sent more than one SYN.
    kept: Kept,
    /// SYNs in all groups.
    attempts: usize,
    by_source: HashMap<[u8; 16], usize>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { fresh: LruCache::unbounded(), kept: Kept::default(), attempts: 0, by_source: HashMap::new() }
    }
}

impl Queue {
    pub(super) fn get_mut(&mut self, key: &SynKey) -> Option<&mut Group> {
        self.fresh.peek_mut(key).or_else(|| self.kept.groups.get_mut(key).map(|(_, group)| group))
    }

    /// Adds a group that is younger than all others, or is looked at when all others were.
    pub(super) fn insert(&mut self, key: SynKey, group: Group) {
        self.count(&key, group.attempts().len());
        self.fresh.put(key, group);
    }

    /// Adds a SYN to a group that is there.
    pub(super) fn add(&mut self, key: &SynKey, attempt: Attempt) {
        if let Some(group) = self.fresh.peek_mut(key) {
            group.add(attempt);
        } else if let Some((_, group)) = self.kept.groups.get_mut(key) {
            group.add(attempt);
            self.kept.attempts += 1;
        } else {
            return;
        }
        self.count(key, 1);
    }

    pub(super) fn remove(&mut self, key: &SynKey) -> Option<Group> {
        let group = match self.fresh.pop(key) {
            Some(group) => group,
            None => self.kept.remove(key)?,
        };
        self.discount(key, group.attempts().len());
        Some(group)
    }

    /// A group whose first SYN was seen at `until_ns` or before.
    pub(super) fn pop_ripe(&mut self, until_ns: u64) -> Option<(SynKey, Group)> {
        let fresh = self.fresh.peek_lru().map(|(key, group)| (group.oldest_ns, *key));
        let oldest = match (self.kept.oldest(), fresh) {
            (Some(kept), Some(fresh)) if fresh.0 < kept.0 => Some(fresh),
            (kept, fresh) => kept.or(fresh),
        };
        let (_, key) = oldest.filter(|(oldest_ns, _)| *oldest_ns <= until_ns)?;
        self.remove(&key).map(|group| (key, group))
    }

    /// The group that gives way when there are more than `capacity` SYNs.
    pub(super) fn make_room(&mut self, capacity: usize) -> Option<(SynKey, Group)> {
        while self.attempts > capacity {
            let Some((key, mut group)) = self.fresh.pop_lru() else {
                let (_, key) = self.kept.oldest()?;
                let mut group = self.kept.remove(&key)?;
                if let Some(later) = group.split_off_oldest(group.attempts().len() / PARTS) {
                    self.kept.insert(key, later);
                }
                return Some(self.gone(key, group));
            };
            let (sent, length) = (self.sent(&key), group.attempts().len());
            if sent > 1 {
                // The kernel side may have forgotten it: what is sent again has to be known here.
                group.shared = true;
                if self.kept.attempts + length <= capacity / 2 {
                    self.kept.insert(key, group);
                    continue;
                }
                let weakest = self.weakest();
                if let Some(weaker) = weakest.filter(|weakest| self.sent(weakest) < sent) {
                    self.kept.insert(key, group);
                    return self.remove(&weaker).map(|group| (weaker, group));
                }
            }
            // A scan of all ports may be one group: its oldest part is enough.
            if let Some(later) = group.split_off_oldest(length / PARTS) {
                self.fresh.put(key, later);
            }
            return Some(self.gone(key, group));
        }
        None
    }

    /// Gives memory back that a flood has taken.
    pub(super) fn shrink(&mut self) {
        if self.attempts == 0 {
            *self = Self::default();
        }
    }

    /// Returns the sizes of all tables.
    pub(super) fn sizes(&self) -> Sizes {
        let kept = self.kept.groups.values().map(|(_, group)| group);
        Sizes {
            attempts: self.attempts,
            groups: self.fresh.len() + self.kept.groups.len().max(self.kept.order.len()),
            sources: self.by_source.len(),
            settled: self.fresh.iter().map(|(_, group)| group).chain(kept).map(Group::settled).sum(),
        }
    }

    /// A group, or a part of one, that is in no list any more.
    fn gone(&mut self, key: SynKey, group: Group) -> (SynKey, Group) {
        self.discount(&key, group.attempts().len());
        (key, group)
    }

    fn weakest(&mut self) -> Option<SynKey> {
        self.kept.next().into_iter().min_by_key(|key| self.sent(key))
    }

    /// Returns the number of waiting SYNs of the same source.
    fn sent(&self, key: &SynKey) -> usize {
        self.by_source.get(&key.source).copied().unwrap_or_default()
    }

    fn count(&mut self, key: &SynKey, attempts: usize) {
        self.attempts += attempts;
        *self.by_source.entry(key.source).or_default() += attempts;
    }

    fn discount(&mut self, key: &SynKey, attempts: usize) {
        self.attempts -= attempts;
        if let Some(sent) = self.by_source.get_mut(&key.source) {
            *sent = sent.saturating_sub(attempts);
            if *sent == 0 {
                self.by_source.remove(&key.source);
            }
        }
    }
}

/// Sizes of all tables.
#[derive(Debug)]
pub(super) struct Sizes {
    /// SYNs in all groups.
    pub(super) attempts: usize,
    pub(super) groups: usize,
    pub(super) sources: usize,
    /// Decided SYNs that groups know.
    pub(super) settled: usize,
}

/// Groups that were spared, in the order in which they were seen.
#[derive(Debug, Default)]
struct Kept {
    groups: HashMap<SynKey, (Place, Group)>,
    order: BTreeMap<Place, SynKey>,
    /// SYNs in all of them.
    attempts: usize,
    /// Place at which the next look begins.
    cursor: Place,
    /// Groups that were spared so far.
    number: u64,
}

/// Time at which a group was first seen, and a number that tells it from others of that time.
type Place = (u64, u64);

impl Kept {
    fn insert(&mut self, key: SynKey, group: Group) {
        let place = (group.oldest_ns, self.number);
        self.number += 1;
        self.attempts += group.attempts().len();
        self.order.insert(place, key);
        self.groups.insert(key, (place, group));
    }

    fn remove(&mut self, key: &SynKey) -> Option<Group> {
        let (place, group) = self.groups.remove(key)?;
        self.order.remove(&place);
        self.attempts -= group.attempts().len();
        Some(group)
    }

    fn oldest(&self) -> Option<(u64, SynKey)> {
        self.order.first_key_value().map(|((seen_ns, _), key)| (*seen_ns, *key))
    }

    /// Some of them, others than the last time.
    fn next(&mut self) -> Vec<SynKey> {
        let looked_at = self.order.range(self.cursor..).chain(&self.order).take(CANDIDATES);
        let (places, keys): (Vec<Place>, Vec<SynKey>) = looked_at.map(|(place, key)| (*place, *key)).unzip();
        self.cursor = places.last().map_or((0, 0), |(seen_ns, number)| (*seen_ns, number + 1));
        keys
    }
}
