//! The addresses that a source asked for: ranges while there is room for them, and whether there was.
//!
//! A telescope has a prefix that is asked through in any order, so the room is for more ranges than are ever written.
//! An IPv6 prefix can be asked for addresses without end; what does not fit is left out, and the record says so.

use std::net::{IpAddr, Ipv6Addr};

/// Ranges that are kept of one source: 32 bytes each.
const RANGES_MAX: usize = 256;

/// A bounded set of addresses.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Inclusive, ascending, neither overlapping nor adjacent; IPv4 as `::ffff:a.b.c.d`.
    ranges: Vec<(u128, u128)>,
    incomplete: bool,
}

impl Addresses {
    /// Adds an address; IPv4 as `::ffff:a.b.c.d`.
    pub fn insert(&mut self, address: [u8; 16]) {
        let address = u128::from_be_bytes(address);
        // The first range that does not end before the address.
        let place = self.ranges.partition_point(|(_, to)| *to < address);
        let after = self.ranges.get(place).copied();
        if after.is_some_and(|(from, _)| from <= address) {
            return;
        }
        let touches_before = place > 0 && self.ranges[place - 1].1.checked_add(1) == Some(address);
        let touches_after = after.is_some_and(|(from, _)| address.checked_add(1) == Some(from));
        match (touches_before, touches_after) {
            (true, true) => {
                self.ranges[place - 1].1 = self.ranges[place].1;
                self.ranges.remove(place);
            }
            (true, false) => self.ranges[place - 1].1 = address,
            (false, true) => self.ranges[place].0 = address,
            (false, false) if self.ranges.len() < RANGES_MAX => self.ranges.insert(place, (address, address)),
            (false, false) => self.incomplete = true,
        }
    }

    /// How many are in the set.
    #[must_use]
    pub fn count(&self) -> u128 {
        self.ranges.iter().map(|(from, to)| to - from + 1).sum()
    }

    /// Whether some found no room.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The addresses as inclusive ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        self.ranges.iter().map(|(from, to)| (address(*from), address(*to)))
    }
}

fn address(bits: u128) -> IpAddr {
    Ipv6Addr::from(bits).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> [u8; 16] {
        std::net::Ipv4Addr::new(198, 51, 100, last).to_ipv6_mapped().octets()
    }

    fn shown(set: &Addresses) -> Vec<String> {
        set.ranges().map(|(from, to)| format!("{from}-{to}")).collect()
    }

    #[test]
    fn a_prefix_in_any_order_is_one_range() {
        let mut set = Addresses::default();
        (0..=255_u8).for_each(|number| set.insert(v4(number.wrapping_mul(101))));
        (0..=255_u8).for_each(|number| set.insert(v4(number)));
        assert_eq!(shown(&set), ["198.51.100.0-198.51.100.255"]);
        assert_eq!((set.count(), set.is_incomplete()), (256, false));
    }

    #[test]
    fn addresses_without_end_find_no_room_and_are_not_forgotten() {
        let mut set = Addresses::default();
        for number in 0..10_000_u128 {
            set.insert(((0x2001_0db8 << 96) + number * 2).to_be_bytes());
        }
        assert_eq!((set.count(), set.is_incomplete()), (RANGES_MAX as u128, true));
    }

    #[test]
    fn the_last_address_of_all_has_no_next_one() {
        let mut set = Addresses::default();
        for bits in [u128::MAX, u128::MAX - 1, 0, u128::MAX] {
            set.insert(bits.to_be_bytes());
        }
        assert_eq!(shown(&set).len(), 2);
        assert_eq!(set.count(), 3);
    }
}
