//! The entries of one map of the kernel side, as they are and not as they were meant to be: where the kernel refuses one,
//! the others are changed all the same, and the next attempt begins with what is really there.

use std::collections::BTreeSet;

/// Contents of the map.
#[derive(Clone, Debug)]
pub(super) struct Entries<T>(BTreeSet<T>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Copy + Ord> Entries<T> {
    /// Reports whether exactly these are in the map.
    pub(super) fn are(&self, wanted: &BTreeSet<T>) -> bool {
        self.0 == *wanted
    }

    /// Adds what is missing with `add`; the first refusal, if there is any.
    pub(super) fn add<E>(&mut self, wanted: &BTreeSet<T>, mut add: impl FnMut(T) -> Result<(), E>) -> Result<(), E> {
        let missing: Vec<T> = wanted.difference(&self.0).copied().collect();
        first(missing.into_iter().map(|entry| {
            add(entry).map(|()| {
                self.0.insert(entry);
            })
        }))
    }

    /// Removes what is not wanted with `remove`; the first refusal, if there is any.
    pub(super) fn remove_others<E>(
        &mut self,
        wanted: &BTreeSet<T>,
        mut remove: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let others: Vec<T> = self.0.difference(wanted).copied().collect();
        first(others.into_iter().map(|entry| {
            remove(entry).map(|()| {
                self.0.remove(&entry);
            })
        }))
    }
}

/// All results are asked for.
fn first<E>(results: impl Iterator<Item = Result<(), E>>) -> Result<(), E> {
    results.fold(Ok(()), Result::and)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A map with room for so many.
    struct Map(RefCell<BTreeSet<u32>>, usize);

    impl Map {
        fn add(&self, entry: u32) -> Result<(), &'static str> {
            let mut map = self.0.borrow_mut();
            if map.len() < self.1 && map.insert(entry) { Ok(()) } else { Err("full") }
        }

        fn remove(&self, entry: u32) -> Result<(), &'static str> {
            if self.0.borrow_mut().remove(&entry) { Ok(()) } else { Err("absent") }
        }

        fn bring(&self, entries: &mut Entries<u32>, wanted: std::ops::Range<u32>) -> Result<(), &'static str> {
            let wanted = wanted.collect();
            let added = entries.add(&wanted, |entry| self.add(entry));
            added.and(entries.remove_others(&wanted, |entry| self.remove(entry)))
        }
    }

    #[test]
    fn all_entries_are_exchanged_at_once_where_there_is_room_for_both() {
        let (map, mut entries) = (Map(RefCell::default(), 20), Entries::default());
        for wanted in [0..10, 10..20, 20..30, 25..35, 0..0] {
            assert_eq!(map.bring(&mut entries, wanted.clone()), Ok(()));
            assert_eq!(*map.0.borrow(), wanted.clone().collect());
            assert!(entries.are(&wanted.collect()));
        }
    }

    #[test]
    fn what_found_no_room_is_there_the_next_time_and_nothing_stays_that_is_not_wanted() {
        let (map, mut entries) = (Map(RefCell::default(), 12), Entries::default());
        assert_eq!(map.bring(&mut entries, 0..10), Ok(()));
        assert_eq!(map.bring(&mut entries, 10..20), Err("full"));
        assert_eq!(*map.0.borrow(), [10, 11].into());
        assert_eq!(map.bring(&mut entries, 10..20), Ok(()));
        assert_eq!(*map.0.borrow(), (10..20).collect());
    }
}
