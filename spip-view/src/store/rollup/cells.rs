//! Cells of a roll-up: numbers by key, ascending, packed into bytes.
//!
//! Keys are written as the distance to the one before, in groups of seven bits, with a bit that says whether the number
//! is one, as most are. So a source of an hour takes about three bytes, where a row of SQLite takes fifteen, and a day of
//! sources is read in a millisecond. Bytes of a damaged file end the list early and never do more harm.

use rusqlite::types::{Value, ValueRef};

/// The key of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The number of a fact, a port, an IPv4 address, or two of them in one.
    Number(i64),
    /// An IPv6 address.
    Address([u8; 16]),
    /// The number of a fact and an IPv6 address.
    Pair(u32, [u8; 16]),
}

impl Key {
    /// Reads a column.
    pub(crate) fn read(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Integer(number) => Self::Number(number),
            ValueRef::Blob(bytes) => match bytes.split_at_checked(4) {
                Some(([a, b, c, d], address)) if address.len() == 16 => {
                    Self::Pair(u32::from_be_bytes([*a, *b, *c, *d]), address.try_into().unwrap_or_default())
                }
                _ => Self::Address(bytes.try_into().unwrap_or_default()),
            },
            _ => Self::Number(0),
        }
    }

    /// Returns the value that a column has.
    pub(crate) fn value(self) -> Value {
        match self {
            Self::Number(number) => Value::Integer(number),
            Self::Address(octets) => Value::Blob(octets.to_vec()),
            Self::Pair(number, octets) => Value::Blob([number.to_be_bytes().as_slice(), &octets].concat()),
        }
    }

    /// Returns the key of `first` and `second` together: the number of a fact, and an address or a port.
    pub(crate) fn pair(first: i64, second: Self) -> Self {
        match second {
            // Shifted, so that it is never negative.
            Self::Number(number) => Self::Number(first << 32 | number.wrapping_add(1 << 31) & 0xffff_ffff),
            Self::Address(octets) | Self::Pair(_, octets) => Self::Pair(u32::try_from(first).unwrap_or(0), octets),
        }
    }

    /// Takes apart what [`Key::pair`] joined.
    pub(crate) fn split(self) -> (i64, Self) {
        match self {
            Self::Number(number) => (number >> 32, Self::Number((number & 0xffff_ffff) - (1 << 31))),
            Self::Address(octets) => (0, Self::Address(octets)),
            Self::Pair(first, octets) => (first.into(), Self::Address(octets)),
        }
    }
}

/// Sorts cells and adds up those of one key.
pub(crate) fn sum_up<K: Ord + Copy>(cells: &mut Vec<(K, u64)>) {
    // Stable, because it merges runs that are sorted already.
    cells.sort_by_key(|(key, _)| *key);
    cells.dedup_by(|later, first| {
        let is_same = later.0 == first.0;
        if is_same {
            first.1 = first.1.saturating_add(later.1);
        }
        is_same
    });
}

/// Packs cells, which are sorted and have each key once.
pub(crate) fn pack(cells: impl IntoIterator<Item = (Key, u64)>) -> Vec<u8> {
    let (mut numbers, mut addresses, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut number_count, mut address_count) = (0, 0);
    let mut before = None;
    for (key, n) in cells {
        match key {
            Key::Number(number) => {
                // The first distance may be negative; its sign is in the last bit.
                let distance = match before {
                    None => ((number << 1) ^ (number >> 63)) as u64,
                    Some(before) => number.wrapping_sub(before) as u64,
                };
                before = Some(number);
                number_count += 1;
                put(&mut numbers, distance << 1 | u64::from(n == 1));
                if n != 1 {
                    put(&mut numbers, n);
                }
            }
            Key::Address(octets) => {
                address_count += 1;
                addresses.extend_from_slice(&octets);
                put(&mut addresses, n);
            }
            Key::Pair(number, octets) => {
                pairs.extend_from_slice(&number.to_be_bytes());
                pairs.extend_from_slice(&octets);
                put(&mut pairs, n);
            }
        }
    }
    let mut out = Vec::with_capacity(numbers.len() + addresses.len() + pairs.len() + 16);
    put(&mut out, number_count);
    out.append(&mut numbers);
    put(&mut out, address_count);
    out.append(&mut addresses);
    out.append(&mut pairs);
    out
}

/// Reads packed cells one by one, ascending.
pub(crate) struct Cells<'a> {
    rest: &'a [u8],
    /// Numbers that are left, and then addresses; what follows are pairs.
    numbers: u64,
    addresses: Option<u64>,
    before: Option<i64>,
}

impl<'a> Cells<'a> {
    pub(crate) fn new(mut packed: &'a [u8]) -> Self {
        let numbers = take(&mut packed).unwrap_or(0);
        Self { rest: packed, numbers, addresses: None, before: None }
    }

    fn number(&mut self) -> Option<(Key, u64)> {
        self.numbers -= 1;
        let first = take(&mut self.rest)?;
        let distance = first >> 1;
        let number = match self.before {
            None => (distance >> 1) as i64 ^ -((distance & 1) as i64),
            Some(before) => before.wrapping_add(distance as i64),
        };
        self.before = Some(number);
        let n = if first & 1 == 1 { 1 } else { take(&mut self.rest)? };
        Some((Key::Number(number), n))
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn wide(&mut self) -> Option<(Key, u64)> {
        let left = match self.addresses {
            Some(left) => left,
            None => take(&mut self.rest)?,
        };
        self.addresses = Some(left.saturating_sub(1));
        let key = if left > 0 {
            Key::Address(self.bytes()?)
        } else {
            Key::Pair(u32::from_be_bytes(self.bytes()?), self.bytes()?)
        };
        Some((key, take(&mut self.rest)?))
    }
}

impl Iterator for Cells<'_> {
    type Item = (Key, u64);

    fn next(&mut self) -> Option<(Key, u64)> {
        if self.numbers > 0 { self.number() } else { self.wide() }
    }
}

/// Returns the number of a key.
pub(crate) fn find(packed: &[u8], wanted: Key) -> Option<u64> {
    Cells::new(packed).take_while(|(key, _)| *key <= wanted).find(|(key, _)| *key == wanted).map(|(_, n)| n)
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            (-5_i64..5).prop_map(Key::Number),
            // As far as keys go: a fact of 30 bits and an address of 32.
            (-(1_i64 << 31)..1 << 61).prop_map(Key::Number),
            any::<[u8; 16]>().prop_map(Key::Address),
            any::<(u32, [u8; 16])>().prop_map(|(number, octets)| Key::Pair(number, octets)),
        ]
    }

    proptest! {
        #[test]
        fn cells_come_back_summed_and_in_order(cells in prop::collection::vec((key(), 0_u64..1_000), 0..200)) {
            let mut wanted = std::collections::BTreeMap::new();
            for (key, n) in &cells {
                *wanted.entry(*key).or_insert(0) += n;
            }
            let mut summed = cells;
            sum_up(&mut summed);
            let packed = pack(summed);
            prop_assert_eq!(Cells::new(&packed).collect::<Vec<_>>(), wanted.iter().map(|(key, n)| (*key, *n)).collect::<Vec<_>>());
            for (key, n) in &wanted {
                prop_assert_eq!(find(&packed, *key), Some(*n));
            }
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Cells::new(&bytes).count() <= bytes.len());
        }

        #[test]
        fn a_pair_comes_apart(first in 0_i64..1 << 30, address: std::net::IpAddr) {
            let address = Key::read(ValueRef::from(&crate::store::key::address(address)));
            let pair = Key::pair(first, address);
            prop_assert_eq!(pair.split(), (first, address));
            prop_assert_eq!(Key::read(ValueRef::from(&pair.value())), pair);
        }
    }
}
