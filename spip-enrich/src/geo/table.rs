//! Reads networks and countries from tables: lines of `first,last,number,name` or `first,last,country`, as ip-location-db
//! publishes what it may distribute of networks.
//!
//! Lines may come in any order. Ranges may lie in others, as they do in those files: the one that begins last wins. A
//! look-up is a binary search and at most [`NESTED`] steps back.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Place;

/// Upper bound of lines of a table: several times those of all networks.
const LINES: usize = 4_000_000;

/// The longest name of a network.
const NAME_BYTES: usize = 128;

/// Number of ranges before the nearest one that are tried, to find one that reaches further.
const NESTED: usize = 16;

/// Contents of one line; an index into the table's names.
#[derive(Clone, Copy, Debug)]
struct Row<A> {
    first: A,
    last: A,
    number: u32,
    name: u32,
}

/// A table in memory.
#[derive(Debug, Default)]
pub(super) struct Table {
    v4: Vec<Row<u32>>,
    v6: Vec<Row<u128>>,
    /// Names of networks, or codes of countries.
    names: Vec<Box<str>>,
}

impl Table {
    /// Reads a table.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        let mut known: HashMap<&str, u32> = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() {
                continue;
            }
            let at = |reason: &str| format!("line {}: {reason}", index + 1);
            if index == LINES {
                return Err(at("there are more lines than a table has"));
            }
            let mut fields = line.splitn(3, ',').map(|field| field.trim_matches('"'));
            let mut address = || fields.next().and_then(|field| field.parse::<IpAddr>().ok());
            let (Some(first), Some(last)) = (address(), address()) else {
                return Err(at("does not begin with two addresses"));
            };
            let rest = fields.next().unwrap_or_default();
            let (number, name) = match rest.split_once(',') {
                Some((number, name)) => {
                    let number =
                        number.trim_matches('"').parse().map_err(|_| at("the number of the network is none"))?;
                    (number, name.trim_matches('"'))
                }
                None if rest.len() == 2 && rest.bytes().all(|byte| byte.is_ascii_alphabetic()) => (0, rest),
                None => return Err(at("has neither a network nor a country")),
            };
            let mut end = name.len().min(NAME_BYTES);
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            let name = match known.get(&name[..end]) {
                Some(name) => *name,
                None => {
                    let place = u32::try_from(table.names.len()).map_err(|_| at("there are too many names"))?;
                    table.names.push(name[..end].into());
                    known.insert(&name[..end], place);
                    place
                }
            };
            let right = match (first, last) {
                (IpAddr::V4(first), IpAddr::V4(last)) => push(&mut table.v4, first.into(), last.into(), number, name),
                (IpAddr::V6(first), IpAddr::V6(last)) => push(&mut table.v6, first.into(), last.into(), number, name),
                _ => false,
            };
            if !right {
                return Err(at("is no range of addresses"));
            }
        }
        if table.v4.is_empty() && table.v6.is_empty() {
            return Err("has no line".to_owned());
        }
        table.v4.sort_by_key(|row| row.first);
        table.v6.sort_by_key(|row| row.first);
        table.v4.shrink_to_fit();
        table.v6.shrink_to_fit();
        Ok(table)
    }

    /// Returns what it says of an address.
    pub(super) fn find(&self, address: IpAddr) -> Option<Place> {
        let (number, name) = match address {
            IpAddr::V4(ip) => row(&self.v4, u32::from(ip)),
            IpAddr::V6(ip) => row(&self.v6, u128::from(ip)),
        }?;
        let name = self.names.get(name as usize)?;
        Some(match number {
            0 if name.len() == 2 => Place { country: Some(name.to_ascii_uppercase()), ..Place::default() },
            0 => return None,
            number => {
                Place { asn: Some(number), network: (!name.is_empty()).then(|| name.to_string()), ..Place::default() }
            }
        })
    }
}

fn push<A: Ord + Copy>(rows: &mut Vec<Row<A>>, first: A, last: A, number: u32, name: u32) -> bool {
    rows.push(Row { first, last, number, name });
    first <= last
}

fn row<A: Ord + Copy>(rows: &[Row<A>], address: A) -> Option<(u32, u32)> {
    let after = rows.partition_point(|row| row.first <= address);
    let row = rows[..after].iter().rev().take(NESTED).find(|row| address <= row.last)?;
    Some((row.number, row.name))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn find(table: &Table, address: &str) -> Option<Place> {
        table.find(address.parse().unwrap())
    }

    #[test]
    fn networks_and_countries_are_found() {
        let text = "1.0.0.0,1.0.0.255,13335,\"Cloudflare, Inc.\"\n1.0.4.0,1.0.7.255,38803,Wirefreebroadband\n2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,2500,WIDE\n";
        let table = Table::parse(text).unwrap();
        let place = find(&table, "1.0.0.255").unwrap();
        assert_eq!((place.asn, place.network.as_deref()), (Some(13335), Some("Cloudflare, Inc.")));
        assert_eq!(find(&table, "1.0.1.0"), None);
        assert_eq!(find(&table, "2001:200::1").unwrap().asn, Some(2500));
        assert_eq!(find(&table, "0.255.255.255"), None);
        let table = Table::parse("1.0.0.0,1.0.0.255,au\n").unwrap();
        assert_eq!(find(&table, "1.0.0.7").unwrap().country.as_deref(), Some("AU"));
    }

    #[test]
    fn a_damaged_table_is_refused_with_the_line() {
        for (text, reason) in [
            ("", "no line"),
            ("hello\n", "line 1: does not begin"),
            ("1.0.0.9,1.0.0.0,1,a\n", "line 1: is no range"),
            ("1.0.0.0,::1,1,a\n", "line 1: is no range"),
            ("1.0.0.0,1.0.0.255,x,a\n", "line 1: the number"),
            ("1.0.0.0,1.0.0.255\n", "line 1: has neither"),
        ] {
            let error = Table::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_range_in_another_one_wins_and_the_other_goes_on_behind_it() {
        let table = Table::parse("1.0.0.64,1.0.0.127,2,inner\n1.0.0.0,1.0.0.255,1,outer\n").unwrap();
        let number = |address| find(&table, address).and_then(|place| place.asn);
        assert_eq!(["1.0.0.63", "1.0.0.64", "1.0.0.128"].map(number), [Some(1), Some(2), Some(1)]);
    }

    #[test]
    fn both_ends_of_the_address_space_are_in_a_table() {
        let table = Table::parse("0.0.0.0,255.255.255.255,7,all\n").unwrap();
        assert_eq!(find(&table, &Ipv4Addr::BROADCAST.to_string()).unwrap().asn, Some(7));
        assert_eq!(find(&table, &Ipv6Addr::LOCALHOST.to_string()), None);
    }

    #[test]
    fn an_outer_range_is_found_behind_fifteen_inner_ones() {
        let number = |inner: usize| {
            let inner: String = (0..inner).map(|n| format!("1.0.0.{n},1.0.0.{n},2,inner\n")).collect();
            let table = Table::parse(&format!("0.0.0.0,1.0.0.255,1,outer\n{inner}")).unwrap();
            find(&table, "1.0.0.200").and_then(|place| place.asn)
        };
        assert_eq!((number(NESTED - 1), number(NESTED)), (Some(1), None));
    }
}
