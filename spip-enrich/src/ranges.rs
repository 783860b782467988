//! Finds what is known of an address among many ranges of addresses.
//!
//! Ranges may overlap: the narrowest one that holds the address wins, and of two equal ones the first. Building cuts
//! them into pieces that do not overlap, so that a look-up is one binary search: 16 steps among 50,000 ranges.

use std::collections::BinaryHeap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Values of type `T` for ranges of addresses.
#[derive(Clone, Debug)]
pub struct Ranges<T> {
    values: Vec<T>,
    v4: Vec<Piece<u32>>,
    v6: Vec<Piece<u128>>,
}

/// From `start` up to the next piece one value holds, or none.
#[derive(Clone, Copy, Debug)]
struct Piece<A> {
    start: A,
    value: Option<u32>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { values: Vec::new(), v4: Vec::new(), v6: Vec::new() }
    }
}

impl<T> Ranges<T> {
    /// Builds the index. Takes at most `u32::MAX` networks.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = (IpNetwork, T)>) -> Self {
        let (mut values, mut v4, mut v6) = (Vec::new(), Vec::new(), Vec::new());
        for (network, value) in networks {
            let Ok(index) = u32::try_from(values.len()) else { break };
            values.push(value);
            match network {
                IpNetwork::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()), index)),
                IpNetwork::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()), index)),
            }
        }
        Self { values, v4: pieces(v4), v6: pieces(v6) }
    }

    /// Returns the value of the narrowest range that holds `address`. An IPv4 address in IPv6 form is IPv4.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<&T> {
        let index = match address.to_canonical() {
            IpAddr::V4(ip) => piece(&self.v4, u32::from(ip)),
            IpAddr::V6(ip) => piece(&self.v6, u128::from(ip)),
        }?;
        self.values.get(index as usize)
    }

    /// Returns the number of ranges that it was built from.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Reports whether it holds no range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

fn piece<A: Ord + Copy>(pieces: &[Piece<A>], address: A) -> Option<u32> {
    let after = pieces.partition_point(|piece| piece.start <= address);
    pieces.get(after.checked_sub(1)?)?.value
}

/// An unsigned address.
trait Address: Ord + Copy {
    fn next(self) -> Option<Self>;
    fn minus(self, other: Self) -> u128;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn minus(self, other: Self) -> u128 {
        u128::from(self - other)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn minus(self, other: Self) -> u128 {
        self - other
    }
}

/// Cuts ranges `(first, last, value)` where one begins or has ended. A heap holds those that are open, the narrowest on
/// top; those that have ended leave it when they come to the top.
fn pieces<A: Address>(mut ranges: Vec<(A, A, u32)>) -> Vec<Piece<A>> {
    ranges.sort_unstable_by_key(|&(first, _, index)| (first, index));
    let mut cuts: Vec<A> = ranges.iter().flat_map(|&(first, last, _)| [Some(first), last.next()]).flatten().collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut open = BinaryHeap::new();
    let mut pending = ranges.into_iter().peekable();
    let mut pieces: Vec<Piece<A>> = Vec::with_capacity(cuts.len());
    for cut in cuts {
        while let Some((first, last, index)) = pending.next_if(|&(first, _, _)| first <= cut) {
            open.push((std::cmp::Reverse((last.minus(first), index)), last));
        }
        while open.peek().is_some_and(|&(_, last)| last < cut) {
            open.pop();
        }
        let value = open.peek().map(|&(std::cmp::Reverse((_, index)), _)| index);
        if pieces.last().is_none_or(|piece| piece.value != value) {
            pieces.push(Piece { start: cut, value });
        }
    }
    pieces.shrink_to_fit();
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(list: &[(&str, &'static str)]) -> Ranges<&'static str> {
        Ranges::new(list.iter().map(|(net, name)| (net.parse().unwrap(), *name)))
    }

    fn find(ranges: &Ranges<&'static str>, address: &str) -> Option<&'static str> {
        ranges.find(address.parse().unwrap()).copied()
    }

    #[test]
    fn the_narrowest_range_wins() {
        let ranges = ranges(&[("10.0.0.0/8", "wide"), ("10.1.0.0/16", "middle"), ("10.1.2.3/32", "one")]);
        assert_eq!(find(&ranges, "10.0.0.0"), Some("wide"));
        assert_eq!(find(&ranges, "10.1.2.2"), Some("middle"));
        assert_eq!(find(&ranges, "10.1.2.3"), Some("one"));
        assert_eq!(find(&ranges, "10.1.2.4"), Some("middle"));
        assert_eq!(find(&ranges, "10.255.255.255"), Some("wide"));
        assert_eq!(find(&ranges, "11.0.0.0"), None);
        assert_eq!(find(&ranges, "9.255.255.255"), None);
    }

    #[test]
    fn the_ends_of_the_address_space_are_found() {
        let ranges = ranges(&[("0.0.0.0/32", "first"), ("255.255.255.255/32", "last"), ("ff00::/8", "multicast")]);
        assert_eq!(find(&ranges, "0.0.0.0"), Some("first"));
        assert_eq!(find(&ranges, "0.0.0.1"), None);
        assert_eq!(find(&ranges, "255.255.255.255"), Some("last"));
        assert_eq!(find(&ranges, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), Some("multicast"));
    }

    #[test]
    fn a_mapped_address_is_the_address_that_it_maps() {
        assert_eq!(find(&ranges(&[("192.0.2.0/24", "net")]), "::ffff:192.0.2.7"), Some("net"));
    }

    proptest! {
        #[test]
        fn a_look_up_finds_what_a_search_through_all_finds(
            nets in proptest::collection::vec((any::<u16>(), 16u8..=32), 0..40),
            address in any::<u16>(),
        ) {
            let nets: Vec<IpNetwork> = nets
                .into_iter()
                .map(|(low, bits)| IpNetwork::new(IpAddr::from([192, 0, (low >> 8) as u8, low as u8]), bits).unwrap())
                .collect();
            let ranges = Ranges::new(nets.iter().copied().enumerate().map(|(index, net)| (net, index)));
            let address = IpAddr::from([192, 0, (address >> 8) as u8, address as u8]);
            let expected = nets
                .iter()
                .enumerate()
                .filter(|(_, net)| net.contains(address))
                .max_by_key(|(index, net)| (net.prefix(), std::cmp::Reverse(*index)))
                .map(|(index, _)| index);
            prop_assert_eq!(ranges.find(address).copied(), expected);
        }
    }
}
