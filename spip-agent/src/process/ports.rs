//! A set of ports, complete and bounded: a sorted list while it is short, one bit for each port when it is not. A scan
//! of all ports in random order is 8 KiB at any time, and three lines of text at the end.

/// Ports that are kept as a list: half the size of the bits.
const LISTED: usize = 2_048;
/// Words of 64 bits for all ports.
const WORDS: usize = 65_536 / 64;

/// A set of ports.
#[derive(Clone, Debug)]
pub enum Ports {
    /// A few, sorted.
    Few(Vec<u16>),
    /// Any number, one bit for each port.
    Many(Box<[u64; WORDS]>),
}

impl Default for Ports {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Ports {
    /// Adds a port.
    pub fn insert(&mut self, port: u16) {
        match self {
            Self::Few(list) => {
                let Err(place) = list.binary_search(&port) else { return };
                if list.len() < LISTED {
                    list.insert(place, port);
                    return;
                }
                let mut bits = Box::new([0; WORDS]);
                list.iter().for_each(|port| set(&mut bits, *port));
                set(&mut bits, port);
                *self = Self::Many(bits);
            }
            Self::Many(bits) => set(bits, port),
        }
    }

    /// Reports whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next(0).is_none()
    }

    /// Reports whether a port is in the set.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.next(port) == Some(port)
    }

    /// Returns the number of ports.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Self::Few(list) => u32::try_from(list.len()).unwrap_or(u32::MAX),
            Self::Many(bits) => bits.iter().map(|word| word.count_ones()).sum(),
        }
    }

    /// The ports as inclusive ranges, ascending, as few as possible.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        let mut from = self.next(0);
        std::iter::from_fn(move || {
            let start = from?;
            let mut end = start;
            loop {
                from = end.checked_add(1).and_then(|port| self.next(port));
                match from {
                    Some(port) if port == end + 1 => end = port,
                    _ => return Some((start, end)),
                }
            }
        })
    }

    /// The first port of the set from `port` on.
    fn next(&self, port: u16) -> Option<u16> {
        match self {
            Self::Few(list) => list.get(list.partition_point(|listed| *listed < port)).copied(),
            Self::Many(bits) => {
                let mut index = usize::from(port) / 64;
                let mut word = bits[index] & (u64::MAX << (port % 64));
                while word == 0 {
                    index += 1;
                    word = *bits.get(index)?;
                }
                u16::try_from(index * 64 + word.trailing_zeros() as usize).ok()
            }
        }
    }
}

fn set(bits: &mut [u64; WORDS], port: u16) {
    bits[usize::from(port) / 64] |= 1 << (port % 64);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(ports: impl IntoIterator<Item = u16>) -> Ports {
        let mut set = Ports::default();
        ports.into_iter().for_each(|port| set.insert(port));
        set
    }

    #[test]
    fn a_scan_of_all_ports_in_any_order_is_one_range() {
        // 40,503 is odd, so that every port comes once.
        let all = of((0..=u16::MAX).map(|number| number.wrapping_mul(40_503)));
        assert_eq!(all.ranges().collect::<Vec<_>>(), [(0, 65_535)]);
        assert_eq!(all.count(), 65_536);
    }

    #[test]
    fn an_empty_set_has_no_range() {
        assert_eq!(Ports::default().ranges().count(), 0);
    }

    #[test]
    fn the_list_becomes_bits_and_loses_nothing() {
        let even = of((0..5_000).map(|number| number * 2));
        assert!(matches!(even, Ports::Many(_)));
        assert_eq!((even.count(), even.ranges().count()), (5_000, 5_000));
        assert_eq!(even.ranges().last(), Some((9_998, 9_998)));
    }

    proptest! {
        #[test]
        fn ranges_are_the_ports_that_came(ports in proptest::collection::vec(any::<u16>(), 0..3_000)) {
            let expected: BTreeSet<u16> = ports.iter().copied().collect();
            let set = of(ports.clone());
            let ranges: Vec<_> = set.ranges().collect();
            prop_assert!(ranges.windows(2).all(|pair| u32::from(pair[0].1) + 1 < u32::from(pair[1].0)));
            let found: BTreeSet<u16> = ranges.iter().flat_map(|(from, to)| *from..=*to).collect();
            prop_assert_eq!(set.count() as usize, expected.len());
            prop_assert_eq!(set.is_empty(), expected.is_empty());
            for port in ports.iter().flat_map(|port| [port.wrapping_sub(1), *port, port.wrapping_add(1)]) {
                prop_assert_eq!(set.contains(port), expected.contains(&port));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
