//! Sets of numbers as ranges: a run of a million records without a gap takes one.

/// A set of numbers, and how many came more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Sorted, disjoint and not adjacent; both ends are in it.
    ranges: Vec<(u64, u64)>,
    repeated: u64,
}

impl Ranges {
    /// Adds a number; counts one that is there.
    pub fn insert(&mut self, number: u64) {
        // Nearly always behind the last one.
        if let Some(last) = self.ranges.last_mut() {
            if last.1.checked_add(1) == Some(number) {
                last.1 = number;
                return;
            }
            if number > last.1 {
                self.ranges.push((number, number));
                return;
            }
        } else {
            self.ranges.push((number, number));
            return;
        }
        if self.contains(number) {
            self.repeated += 1;
        } else {
            self.add(number, number);
        }
    }

    /// Adds a range, without counting what is there.
    pub fn add(&mut self, start: u64, end: u64) {
        let from = self.ranges.partition_point(|(_, last)| last.saturating_add(1) < start);
        let to = self.ranges.partition_point(|(first, _)| *first <= end.saturating_add(1));
        let (mut first, mut last) = (start, end);
        if let Some(overlapping) = self.ranges.get(from..to) {
            first = overlapping.first().map_or(first, |range| range.0.min(first));
            last = overlapping.last().map_or(last, |range| range.1.max(last));
        }
        self.ranges.splice(from..to.max(from), [(first, last)]);
    }

    /// Notes that `count` numbers came more than once.
    pub fn repeat(&mut self, count: u64) {
        self.repeated += count;
    }

    /// Reports whether a number is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let index = self.ranges.partition_point(|(_, last)| *last < number);
        self.ranges.get(index).is_some_and(|(first, _)| *first <= number)
    }

    /// Returns how many numbers are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().fold(0_u64, |sum, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// Reports whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns how many numbers came more than once.
    #[must_use]
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Iterates over the ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().copied()
    }

    /// Returns the numbers that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (first, last) in self.iter() {
            // None behind the largest number.
            let mut next = Some(first);
            let from = other.ranges.partition_point(|range| range.1 < first);
            for (start, end) in other.ranges.get(from..).unwrap_or_default() {
                if *start > last {
                    break;
                }
                if let Some(next) = next.filter(|next| start > next) {
                    left.ranges.push((next, start - 1));
                }
                next = end.checked_add(1);
            }
            if let Some(next) = next.filter(|next| *next <= last) {
                left.ranges.push((next, last));
            }
        }
        left
    }

    /// Returns how many numbers lie between the first and the last one and are not in the set.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        match (self.ranges.first(), self.ranges.last()) {
            (Some(first), Some(last)) => (last.1 - first.0).saturating_add(1).saturating_sub(self.len()),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Numbers that look random and are the same each time.
    fn numbers(count: usize, below: u64, mut seed: u64) -> Vec<u64> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn ranges_hold_what_a_set_holds() {
        for seed in 0..50 {
            let (one, other) = (numbers(200, 150, seed), numbers(150, 150, seed + 1_000));
            let ranges = |numbers: &[u64]| {
                let mut ranges = Ranges::default();
                numbers.iter().for_each(|number| ranges.insert(*number));
                ranges
            };
            let (set, other_set): (BTreeSet<u64>, BTreeSet<u64>) =
                (one.iter().copied().collect(), other.iter().copied().collect());
            let (one, other) = (ranges(&one), ranges(&other));
            let listed = |ranges: &Ranges| ranges.iter().flat_map(|(first, last)| first..=last).collect::<Vec<_>>();
            assert_eq!(listed(&one), set.iter().copied().collect::<Vec<_>>());
            assert_eq!(one.len(), set.len() as u64);
            assert_eq!(one.repeated(), 200 - set.len() as u64);
            assert_eq!(listed(&one.without(&other)), set.difference(&other_set).copied().collect::<Vec<_>>());
            assert!((0..150).all(|number| one.contains(number) == set.contains(&number)));
            assert!(one.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "adjacent ranges are one");
        }
    }

    #[test]
    fn the_largest_number_overflows_nothing() {
        let mut ranges = Ranges::default();
        for number in [u64::MAX, 0, u64::MAX - 1, u64::MAX] {
            ranges.insert(number);
        }
        assert_eq!((ranges.len(), ranges.repeated()), (3, 1));
        assert_eq!(ranges.without(&ranges.clone()).len(), 0);
    }
}
