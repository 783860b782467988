//! Keys of the store.
//!
//! - An IPv4 address is a signed number (32 bits, so that it takes four bytes), an IPv6 address a blob of 16 bytes.
//!   SQLite sorts numbers before blobs, so a prefix is one `BETWEEN`, and families never mix.
//! - A session is its accept in microseconds of the day, and an ordinal among those of the same microsecond. Sessions
//!   lie in the order of time, and a range of time is a range of keys.
//! - A fact is found by a salted hash. The salt is the store's own: no client can make two texts that fall together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rusqlite::types::{Value, ValueRef};
use sha2::{Digest, Sha256};

use crate::moment::{DAY, Day, Moment};
use crate::row::{Credential, Kind};

/// Flag of a session: TLS.
pub const TLS: i64 = 1;
/// Flag of a session: UDP.
pub const UDP: i64 = 2;
/// Flag of a session: bytes came that are not kept.
pub const TRUNCATED: i64 = 4;

/// Flag of a session: a limit refused it.
pub const REJECTED: i64 = 8;

/// Flag of a session or a scan: its source is in a list of known scanners.
pub const LISTED: i64 = 16;

/// Flag of a session: its client says of itself that it is a known scanner.
pub const CLAIMED: i64 = 32;

/// Flag of a session: it has credentials.
pub const TRIED: i64 = 64;

/// A condition on sessions or scans `s`: their source is known. What stands for many has none.
pub const HAS_SOURCE: &str = "s.source NOT IN (-2147483648, zeroblob(16))";

/// Ports of UDP stand behind those of TCP in roll-ups.
pub const UDP_PORTS: i64 = 65_536;

/// Bits of the ordinal among sessions of one microsecond: with the 37 of the time they make the largest key that SQLite
/// stores in six bytes.
pub const ORDINAL_BITS: u32 = 10;

/// The ordinal in the key of a session.
pub const ORDINAL: i64 = (1 << ORDINAL_BITS) - 1;

/// The store's own secret.
#[derive(Clone, Copy, Debug)]
pub struct Salt(pub [u8; 16]);

impl Salt {
    /// Returns the number under which a fact is found.
    #[must_use]
    pub fn hash(self, kind: Kind, value: &[u8]) -> i64 {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update([kind as u8]);
        hash.update(value);
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        i64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Returns the key of an address.
#[must_use]
pub fn address(address: IpAddr) -> Value {
    match address.to_canonical() {
        IpAddr::V4(address) => Value::Integer(i64::from(u32::from(address)) - (1 << 31)),
        IpAddr::V6(address) => Value::Blob(address.octets().to_vec()),
    }
}

/// Returns the address of a key; unspecified for what is none.
#[must_use]
pub fn read_address(key: ValueRef<'_>) -> IpAddr {
    match key {
        ValueRef::Integer(number) => {
            let number = u32::try_from(number + (1 << 31)).unwrap_or(0);
            Ipv4Addr::from(number).into()
        }
        ValueRef::Blob(bytes) => <[u8; 16]>::try_from(bytes)
            .map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |octets| Ipv6Addr::from(octets).into()),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Returns the least key that a session of that moment can have, within its day.
#[must_use]
pub fn session(moment: Moment) -> i64 {
    moment.0.rem_euclid(DAY) << ORDINAL_BITS
}

/// Returns the key that a session or scan of that moment, in line `line` of its log, is stored under where it is free.
#[must_use]
pub fn of_line(moment: Moment, line: u64) -> i64 {
    session(moment) | (i64::try_from(line).unwrap_or(0) & ORDINAL)
}

/// Returns the accept of a session of `day`.
#[must_use]
pub fn accepted(day: Day, key: i64) -> Moment {
    Moment(day.start().0 + (key >> ORDINAL_BITS))
}

/// Returns the bounds of the keys of `day` that lie in `from..to`: the first, and the one behind the last. Nothing when
/// the day lies outside.
#[must_use]
pub fn session_bounds(day: Day, from: Moment, to: Moment) -> Option<(i64, i64)> {
    let (start, end) = (day.start(), day.end());
    if from >= end || to <= start {
        return None;
    }
    let first = if from <= start { 0 } else { session(from) };
    let last = if to >= end { i64::MAX } else { session(to) };
    (first < last).then_some((first, last))
}

/// Bits of a UUID that a session keeps: 48.
const UUID_DIGITS: usize = 12;

/// Returns the part of a UUID that a session keeps.
#[must_use]
pub fn uuid(id: &[u8; 16]) -> i64 {
    id.iter().take(UUID_DIGITS / 2).fold(0, |number, byte| number << 8 | i64::from(*byte))
}

/// Returns the least and the greatest of these parts that begin with these hexadecimal digits.
#[must_use]
pub fn uuid_bounds(digits: &str) -> (i64, i64) {
    let digits = digits.get(..UUID_DIGITS).unwrap_or(digits);
    let number = i64::from_str_radix(digits, 16).unwrap_or(0);
    let free = 4 * (UUID_DIGITS - digits.len().min(UUID_DIGITS));
    (number << free, (number << free) | ((1 << free) - 1))
}

/// Returns the text of a credential: a JSON array of protocol, user and secret.
#[must_use]
pub fn credential(protocol: &str, credential: &Credential) -> String {
    serde_json::to_string(&(protocol, &credential.user, &credential.secret)).unwrap_or_default()
}

/// Reads what [`credential`] wrote.
#[must_use]
pub fn read_credential(value: &[u8]) -> Option<(String, Credential)> {
    let (protocol, user, secret) = serde_json::from_slice(value).ok()?;
    Some((protocol, Credential { user, secret }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_come_back_and_keep_their_order(a: IpAddr, b: IpAddr) {
            let (a, b) = (a.to_canonical(), b.to_canonical());
            prop_assert_eq!(read_address(ValueRef::from(&address(a))), a);
            if let (Value::Integer(left), Value::Integer(right)) = (address(a), address(b)) {
                prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            }
        }

        #[test]
        fn a_session_keeps_its_time_to_the_microsecond(us in -4_000_000_000_000_000_i64..4_000_000_000_000_000) {
            let moment = Moment(us);
            prop_assert_eq!(accepted(moment.day(), session(moment) + 77), moment);
        }
    }

    #[test]
    fn a_range_of_time_is_a_range_of_keys() {
        let day = Day(20_000);
        let start = day.start();
        assert_eq!(session_bounds(day, start, day.end()), Some((0, i64::MAX)));
        assert_eq!(session_bounds(day, day.end(), Moment(i64::MAX)), None);
        assert_eq!(session_bounds(day, Moment(i64::MIN), start), None);
        let (first, last) = session_bounds(day, Moment(start.0 + 5), Moment(start.0 + 7)).unwrap();
        assert_eq!((accepted(day, first), accepted(day, last)), (Moment(start.0 + 5), Moment(start.0 + 7)));
        // No session of the last microsecond, whatever its ordinal, and all of the first.
        assert_eq!((first, last), (session(Moment(start.0 + 5)), session(Moment(start.0 + 7))));
        let noon = Moment(start.0 + DAY / 2);
        assert_eq!(session_bounds(day, Moment(i64::MIN), noon), Some((0, session(noon))));
        assert_eq!(session_bounds(day, noon, Moment(i64::MAX)), Some((session(noon), i64::MAX)));
        assert_eq!(session_bounds(day, noon, noon), None, "an empty range");
        assert_eq!(session_bounds(day, noon, Moment(noon.0 - 1)), None, "an end before the begin");
    }

    #[test]
    fn digits_of_a_uuid_are_bounds() {
        let id = [0x8c, 0x5f, 0x2c, 0x9e, 0x11, 0x22, 0x33, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for digits in ["8", "8c5f", "8c5f2c9e1122", "8c5f2c9e112233"] {
            let (first, last) = uuid_bounds(digits);
            assert!((first..=last).contains(&uuid(&id)), "{digits}");
        }
        let (first, last) = uuid_bounds("8d");
        assert!(!(first..=last).contains(&uuid(&id)));
    }

    #[test]
    fn a_credential_comes_back() {
        let given = Credential { user: Some("a\0\"b".to_owned()), secret: None };
        let text = credential("ftp", &given);
        assert_eq!(read_credential(text.as_bytes()), Some(("ftp".to_owned(), given)));
    }
}
