//! Numbers by key, for lists of the most frequent values.

use std::collections::HashMap;
use std::hash::Hash;

use super::Count;
pub(crate) use crate::store::Key;

/// Different values that are counted at once: about 20 MB of memory.
const MAX_VALUES: usize = 400_000;

/// Numbers by key.
pub(crate) struct Tally {
    /// By number, which most keys are: they take half of the room.
    numbers: HashMap<i64, u64, foldhash::fast::RandomState>,
    others: HashMap<Key, u64, foldhash::fast::RandomState>,
    pub(super) is_exact: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self { numbers: HashMap::default(), others: HashMap::default(), is_exact: true }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, key: Key, n: u64) {
        match key {
            Key::Number(number) => *self.numbers.entry(number).or_default() += n,
            key => *self.others.entry(key).or_default() += n,
        }
        if self.numbers.len() > MAX_VALUES {
            halve(&mut self.numbers);
            self.is_exact = false;
        }
        if self.others.len() > MAX_VALUES {
            halve(&mut self.others);
            self.is_exact = false;
        }
    }

    pub(crate) fn into_counts(self) -> impl Iterator<Item = (Key, u64)> {
        self.numbers.into_iter().map(|(number, n)| (Key::Number(number), n)).chain(self.others)
    }

    pub(crate) fn distinct(&self) -> Count {
        Count { value: (self.numbers.len() + self.others.len()) as u64, is_exact: self.is_exact }
    }

    /// The most frequent ones, those of equal number by key.
    pub(crate) fn top(&self, limit: usize, offset: usize) -> Vec<(Key, u64)> {
        let numbers = self.numbers.iter().map(|(number, n)| (Key::Number(*number), *n));
        let order = |a: &(Key, u64), b: &(Key, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0));
        let wanted = limit + offset;
        // Shortened now and then rather than at the end: values are many, and those wanted few.
        let mut list: Vec<(Key, u64)> = Vec::new();
        for cell in numbers.chain(self.others.iter().map(|(key, n)| (*key, *n))) {
            list.push(cell);
            if wanted > 0 && list.len() >= 2 * wanted.max(1_000) {
                list.select_nth_unstable_by(wanted - 1, order);
                list.truncate(wanted);
            }
        }
        list.sort_unstable_by(order);
        list.into_iter().skip(offset).take(limit).collect()
    }
}

/// Drops the rarest half; which values are rare is known by now for all but the newest.
fn halve<K: Eq + Hash>(counted: &mut HashMap<K, u64, foldhash::fast::RandomState>) {
    let mut counts: Vec<u64> = counted.values().copied().collect();
    let half = counts.len() / 2;
    let (_, median, _) = counts.select_nth_unstable(half);
    let median = *median;
    let mut spare = MAX_VALUES / 2;
    counted.retain(|_, count| {
        let stays = *count > median || (*count == median && spare > 0);
        spare = spare.saturating_sub(usize::from(*count == median));
        stays
    });
}
