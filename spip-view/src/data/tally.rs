//! Numbers by key, for lists of the most frequent values.
//!
//! What is added is sorted now and then into a run of packed cells, about four bytes a value, and runs are merged when they
//! are asked for. So all values of a month are counted exactly, in a fraction of the memory of a table.

use super::Count;
pub(crate) use crate::store::Key;
use crate::store::{Cells, pack, sum_up};

/// Cells that are collected before they are packed.
const COLLECTED: usize = 65_536;

/// Runs that are merged into one.
const RUNS: usize = 16;

/// Bytes of all runs: some eight million values. Of more, the rarest are dropped.
const MAX_BYTES: usize = 32 << 20;

/// Numbers by key.
pub(crate) struct Tally {
    numbers: Vec<(i64, u64)>,
    others: Vec<(Key, u64)>,
    runs: Vec<Vec<u8>>,
    /// Upper bound of their bytes.
    most_bytes: usize,
    pub(super) is_exact: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self { numbers: Vec::new(), others: Vec::new(), runs: Vec::new(), most_bytes: MAX_BYTES, is_exact: true }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, key: Key, n: u64) {
        match key {
            Key::Number(number) => self.numbers.push((number, n)),
            key => self.others.push((key, n)),
        }
        if self.numbers.len() + self.others.len() >= COLLECTED {
            self.settle();
        }
    }

    /// Adds what is collected to the runs.
    fn settle(&mut self) {
        sum_up(&mut self.numbers);
        sum_up(&mut self.others);
        if self.numbers.len() + self.others.len() < COLLECTED / 2 && self.runs.is_empty() {
            // Few different values: they stay as they are.
            return;
        }
        let numbers = self.numbers.drain(..).map(|(number, n)| (Key::Number(number), n));
        let run = pack(numbers.chain(self.others.drain(..)));
        self.runs.push(run);
        if self.runs.len() >= RUNS {
            self.runs = vec![pack(Merged::of(&self.runs))];
            let mut least = 1;
            while self.runs.iter().map(Vec::len).sum::<usize>() > self.most_bytes {
                self.is_exact = false;
                self.runs = vec![pack(Merged::of(&self.runs).filter(|(_, n)| *n > least))];
                least *= 2;
            }
        }
    }

    /// Calls `take` with each key and its number, ascending.
    pub(crate) fn each(&self, mut take: impl FnMut(Key, u64)) {
        let (mut numbers, mut others) = (self.numbers.clone(), self.others.clone());
        sum_up(&mut numbers);
        sum_up(&mut others);
        let collected = numbers.into_iter().map(|(number, n)| (Key::Number(number), n)).chain(others);
        if self.runs.is_empty() {
            return collected.for_each(|(key, n)| take(key, n));
        }
        let newest = pack(collected);
        Merged::of(self.runs.iter().chain([&newest])).for_each(|(key, n)| take(key, n));
    }

    pub(crate) fn distinct(&self) -> Count {
        let mut value = 0;
        self.each(|_, _| value += 1);
        Count { value, is_exact: self.is_exact }
    }

    /// Returns the most frequent ones, those of equal number by key.
    pub(crate) fn top(&self, limit: usize, offset: usize) -> Vec<(Key, u64)> {
        self.ranked(limit, offset).0
    }

    /// Returns the most frequent ones and the number of all keys. Runs are merged once for both.
    pub(crate) fn ranked(&self, limit: usize, offset: usize) -> (Vec<(Key, u64)>, Count) {
        let order = |a: &(Key, u64), b: &(Key, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0));
        let wanted = limit + offset;
        // Shortened now and then rather than at the end: values are many, and those wanted few.
        let mut list: Vec<(Key, u64)> = Vec::new();
        let mut value = 0;
        self.each(|key, n| {
            value += 1;
            list.push((key, n));
            if wanted > 0 && list.len() >= 2 * wanted.max(1_000) {
                list.select_nth_unstable_by(wanted - 1, order);
                list.truncate(wanted);
            }
        });
        list.sort_unstable_by(order);
        (list.into_iter().skip(offset).take(limit).collect(), Count { value, is_exact: self.is_exact })
    }
}

/// Cells of several runs in one order, those of one key added up.
struct Merged<'a> {
    runs: Vec<Cells<'a>>,
    /// The next cell of each run.
    heads: Vec<(Key, u64)>,
    /// Runs that have a next cell, the least key last.
    order: Vec<usize>,
}

impl<'a> Merged<'a> {
    fn of(runs: impl IntoIterator<Item = &'a Vec<u8>>) -> Self {
        let (mut cells, mut heads) = (Vec::new(), Vec::new());
        for run in runs {
            let mut own = Cells::new(run);
            if let Some(head) = own.next() {
                heads.push(head);
                cells.push(own);
            }
        }
        let mut order: Vec<usize> = (0..heads.len()).collect();
        order.sort_by_key(|run| std::cmp::Reverse(heads.get(*run).map(|head| head.0)));
        Self { runs: cells, heads, order }
    }

    /// Returns the least cell, and moves its run to its new place.
    fn step(&mut self) -> Option<(Key, u64)> {
        let run = *self.order.last()?;
        let head = self.heads.get_mut(run)?;
        let least = *head;
        match self.runs.get_mut(run)?.next() {
            None => {
                self.order.pop();
            }
            Some(next) => {
                *head = next;
                let key_of = |run: usize| self.heads.get(run).map(|head| head.0);
                for pair in (1..self.order.len()).rev() {
                    match self.order.get_mut(pair - 1..=pair) {
                        Some([before, own]) if key_of(*before) < key_of(*own) => std::mem::swap(before, own),
                        _ => break,
                    }
                }
            }
        }
        Some(least)
    }
}

impl Iterator for Merged<'_> {
    type Item = (Key, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, mut sum) = self.step()?;
        while self.order.last().and_then(|run| self.heads.get(*run)).is_some_and(|head| head.0 == key) {
            sum = sum.saturating_add(self.step()?.1);
        }
        Some((key, sum))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn all_of_many_values_are_counted_exactly() {
        let (mut tally, mut wanted) = (Tally::default(), BTreeMap::new());
        let mut state = 1_u64;
        for round in 0..1_500_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (state >> 40) as i64 & 0x7_ffff;
            let key = match round % 50 {
                0 => Key::Address(u128::from(number as u64).to_be_bytes()),
                1 => Key::Pair(7, u128::from(number as u64).to_be_bytes()),
                _ => Key::Number(number - 1_000),
            };
            tally.add(key, 1 + round % 3);
            *wanted.entry(key).or_insert(0) += 1 + round % 3;
        }
        assert_eq!(tally.distinct(), Count { value: wanted.len() as u64, is_exact: true });
        let mut found = BTreeMap::new();
        tally.each(|key, n| assert!(found.insert(key, n).is_none()));
        assert_eq!(found, wanted);
        let mut list: Vec<(Key, u64)> = wanted.into_iter().collect();
        list.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        assert_eq!(tally.top(50, 20), list[20..70]);
        assert_eq!(tally.ranked(50, 20), (list[20..70].to_vec(), tally.distinct()));
    }

    #[test]
    fn of_more_values_than_there_is_room_for_the_rarest_go_and_that_is_said() {
        let mut tally = Tally { most_bytes: 200_000, ..Tally::default() };
        // A thousand values that come often among a million that come once.
        for number in 0..(RUNS * COLLECTED) as i64 + 1 {
            tally.add(Key::Number(10_000 + number * 7), 1);
            tally.add(Key::Number(number % 1_000), 1);
        }
        let distinct = tally.distinct();
        assert!(!distinct.is_exact && distinct.value < 200_000, "{distinct:?}");
        assert!(tally.runs.iter().map(Vec::len).sum::<usize>() <= 200_000 + 4 * 2 * COLLECTED * RUNS);
        let top = tally.top(1_000, 0);
        assert!(top.iter().all(|(key, n)| matches!(key, Key::Number(0..1_000)) && *n > 1_000), "{:?}", top.last());
    }
}
