//! The addresses that a source asked for: ranges while they are few, and for every 65,536 neighbours a set of their own
//! when they are not. So a source that scans a telescope in random order is counted to the last address.
//!
//! Bounded: ranges are few, and blocks come out of a [`Store`] that all sources share. An IPv6 prefix can be asked for
//! addresses without end, of which no two are neighbours; for such a source no block is spent. What does not fit is
//! left out, and the record says so.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::process::ports::Ports;

/// Ranges that are kept of one source: 32 bytes each.
pub(super) const RANGES_MAX: usize = 256;
/// Ranges are given up for blocks where they lie in so many at most. 256 random addresses of an IPv4 /8 lie in 162 of
/// its 256 blocks, and those of a whole IPv6 /64 in as many as there are addresses.
const WORTHWHILE_BLOCKS: usize = 192;
/// Blocks for all sources together: 8 MiB when all of them are full of holes.
const BLOCKS_MAX: usize = 1_024;
/// Bits of an address within its block.
const BLOCK_BITS: u32 = 16;

/// Blocks that may still be made.
#[derive(Debug)]
pub struct Store(usize);

impl Default for Store {
    fn default() -> Self {
        Self(BLOCKS_MAX)
    }
}

impl Store {
    fn take(&mut self, blocks: usize) -> bool {
        let left = self.0.checked_sub(blocks);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    /// Blocks that were made.
    #[must_use]
    pub fn taken(&self) -> usize {
        BLOCKS_MAX.saturating_sub(self.0)
    }

    /// Takes back what the set of a source that is given up had.
    pub fn give_back(&mut self, addresses: &Addresses) {
        self.0 += addresses.blocks();
    }
}

/// A bounded set of addresses.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    kept: Kept,
    incomplete: bool,
}

#[derive(Clone, Debug)]
enum Kept {
    /// Inclusive, ascending, neither overlapping nor adjacent; IPv4 as `::ffff:a.b.c.d`.
    Ranges(Vec<(u128, u128)>),
    /// By the upper bits, the lower ones.
    Blocks(BTreeMap<u128, Ports>),
}

impl Default for Kept {
    fn default() -> Self {
        Self::Ranges(Vec::new())
    }
}

impl Addresses {
    /// Adds an address; IPv4 as `::ffff:a.b.c.d`.
    pub fn insert(&mut self, address: [u8; 16], store: &mut Store) {
        let address = u128::from_be_bytes(address);
        let fits = match &mut self.kept {
            Kept::Ranges(ranges) => {
                let fits = insert(ranges, address);
                // Tried once: what is incomplete stays so.
                let blocks = if fits || self.incomplete { None } else { in_blocks(ranges, address, store) };
                let became = blocks.map(|blocks| self.kept = Kept::Blocks(blocks)).is_some();
                fits || became
            }
            Kept::Blocks(blocks) => {
                let (block, number) = split(address);
                let fits = blocks.contains_key(&block) || store.take(1);
                if fits {
                    blocks.entry(block).or_default().insert(number);
                }
                fits
            }
        };
        self.incomplete |= !fits;
    }

    /// Blocks that it has of the [`Store`].
    #[must_use]
    pub fn blocks(&self) -> usize {
        match &self.kept {
            Kept::Ranges(_) => 0,
            Kept::Blocks(blocks) => blocks.len(),
        }
    }

    /// Ranges that are kept as such.
    #[must_use]
    pub fn kept_ranges(&self) -> usize {
        match &self.kept {
            Kept::Ranges(ranges) => ranges.len(),
            Kept::Blocks(_) => 0,
        }
    }

    /// Returns the number of addresses in the set.
    #[must_use]
    pub fn count(&self) -> u128 {
        match &self.kept {
            Kept::Ranges(ranges) => ranges.iter().map(|(from, to)| to - from + 1).sum(),
            Kept::Blocks(blocks) => blocks.values().map(|numbers| u128::from(numbers.count())).sum(),
        }
    }

    /// Reports whether the set had no room for some.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The addresses as inclusive ranges, ascending, as few as possible.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        let (ranges, blocks) = match &self.kept {
            Kept::Ranges(ranges) => (Some(ranges), None),
            Kept::Blocks(blocks) => (None, Some(blocks)),
        };
        let whole = |block: u128, number: u16| block << BLOCK_BITS | u128::from(number);
        let in_blocks = blocks.into_iter().flatten().flat_map(move |(block, numbers)| {
            numbers.ranges().map(move |(from, to)| (whole(*block, from), whole(*block, to)))
        });
        let mut all = ranges.into_iter().flatten().copied().chain(in_blocks).peekable();
        std::iter::from_fn(move || {
            let (from, mut to) = all.next()?;
            // A range may go on in the next block.
            while let Some((_, end)) = all.next_if(|(next, _)| to.checked_add(1) == Some(*next)) {
                to = end;
            }
            Some((address(from), address(to)))
        })
    }
}

/// Adds an address where there is room for it.
fn insert(ranges: &mut Vec<(u128, u128)>, address: u128) -> bool {
    // The first range that does not end before the address.
    let place = ranges.partition_point(|(_, to)| *to < address);
    let after = ranges.get(place).copied();
    if after.is_some_and(|(from, _)| from <= address) {
        return true;
    }
    let touches_before = place > 0 && ranges[place - 1].1.checked_add(1) == Some(address);
    let touches_after = after.is_some_and(|(from, _)| address.checked_add(1) == Some(from));
    match (touches_before, touches_after) {
        (true, true) => {
            ranges[place - 1].1 = ranges[place].1;
            ranges.remove(place);
        }
        (true, false) => ranges[place - 1].1 = address,
        (false, true) => ranges[place].0 = address,
        (false, false) if ranges.len() < RANGES_MAX => ranges.insert(place, (address, address)),
        (false, false) => return false,
    }
    true
}

/// The ranges and one more address in blocks, where that is worthwhile and there are so many left. A range that reaches
/// over many blocks is as good as it is.
fn in_blocks(ranges: &[(u128, u128)], address: u128, store: &mut Store) -> Option<BTreeMap<u128, Ports>> {
    let mut blocks: BTreeMap<u128, Ports> = BTreeMap::new();
    for (from, to) in ranges.iter().copied().chain([(address, address)]) {
        let (first, last) = (split(from).0, split(to).0);
        for block in first..=last {
            if blocks.len() >= WORTHWHILE_BLOCKS && !blocks.contains_key(&block) {
                return None;
            }
            let numbers = blocks.entry(block).or_default();
            let start = if block == first { split(from).1 } else { 0 };
            let end = if block == last { split(to).1 } else { u16::MAX };
            (start..=end).for_each(|number| numbers.insert(number));
        }
    }
    store.take(blocks.len()).then_some(blocks)
}

/// The block of an address, and its number in there.
fn split(address: u128) -> (u128, u16) {
    (address >> BLOCK_BITS, (address & u128::from(u16::MAX)) as u16)
}

fn address(bits: u128) -> IpAddr {
    Ipv6Addr::from(bits).to_canonical()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn v4(bits: u32) -> [u8; 16] {
        Ipv4Addr::from_bits(bits).to_ipv6_mapped().octets()
    }

    fn of(addresses: impl IntoIterator<Item = [u8; 16]>, store: &mut Store) -> Addresses {
        let mut set = Addresses::default();
        addresses.into_iter().for_each(|address| set.insert(address, store));
        set
    }

    fn shown(set: &Addresses) -> Vec<String> {
        set.ranges().map(|(from, to)| format!("{from}-{to}")).collect()
    }

    /// 198.18.0.0.
    const CROWD: u32 = 0xc612_0000;

    #[test]
    fn a_prefix_in_any_order_is_one_range() {
        let order = (0..=255_u32).map(|number| v4(CROWD + number * 101 % 256));
        let set = of(order.chain((0..=255).map(|number| v4(CROWD + number))), &mut Store::default());
        assert_eq!(shown(&set), ["198.18.0.0-198.18.0.255"]);
        assert_eq!((set.count(), set.is_incomplete()), (256, false));
    }

    #[test]
    fn a_telescope_that_is_asked_through_at_random_is_counted_to_the_last_address() {
        // A /15: 40,503 is odd, so that every address comes once.
        let mut store = Store::default();
        let addresses = (0..131_072_u32).map(|number| v4(CROWD + number.wrapping_mul(40_503) % 131_072));
        let half = of(addresses.clone().take(50_000), &mut store);
        assert_eq!((half.count(), half.is_incomplete()), (50_000, false));
        let whole = of(addresses, &mut store);
        assert_eq!(shown(&whole), ["198.18.0.0-198.19.255.255"]);
        assert_eq!((whole.count(), whole.is_incomplete()), (131_072, false));
        assert_eq!(store.0, BLOCKS_MAX - 4);
        store.give_back(&half);
        assert_eq!(store.0, BLOCKS_MAX - 2);
    }

    #[test]
    fn addresses_that_have_no_neighbours_spend_no_blocks_and_are_not_forgotten() {
        let mut store = Store::default();
        let far = (0..10_000_u128).map(|number| ((0x2001_0db8 << 96) + (number << 40)).to_be_bytes());
        let set = of(far, &mut store);
        assert_eq!((set.count(), set.is_incomplete(), store.0), (RANGES_MAX as u128, true, BLOCKS_MAX));
    }

    #[test]
    fn blocks_are_bounded_for_all_sources_together() {
        let mut store = Store::default();
        let mut sources: Vec<Addresses> = Vec::new();
        for source in 0..20_u32 {
            // Two addresses in each of 150 blocks.
            let two = (0..300_u32).map(|number| v4(source << 26 | (number / 2) << 16 | ((number % 2) * 7)));
            sources.push(of(two, &mut store));
        }
        let complete = sources.iter().filter(|set| !set.is_incomplete()).count();
        assert_eq!((complete, store.0), (BLOCKS_MAX / 150, BLOCKS_MAX % 150));
    }

    #[test]
    fn the_last_address_of_all_has_no_next_one() {
        let set = of([u128::MAX, u128::MAX - 1, 0, u128::MAX].map(u128::to_be_bytes), &mut Store::default());
        assert_eq!(shown(&set).len(), 2);
        assert_eq!(set.count(), 3);
    }

    proptest! {
        #[test]
        fn ranges_are_the_addresses_that_came(numbers in proptest::collection::vec(0..200_000_u32, 0..2_000)) {
            let expected: BTreeSet<u32> = numbers.iter().map(|number| CROWD + number).collect();
            let set = of(numbers.iter().map(|number| v4(CROWD + number)), &mut Store::default());
            prop_assert_eq!((set.count(), set.is_incomplete()), (expected.len() as u128, false));
            let bits = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_bits(),
                IpAddr::V6(ip) => panic!("{ip}"),
            };
            let ranges: Vec<(u32, u32)> = set.ranges().map(|(from, to)| (bits(from), bits(to))).collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let found: BTreeSet<u32> = ranges.into_iter().flat_map(|(from, to)| from..=to).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
