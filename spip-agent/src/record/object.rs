//! JSON objects written straight into bytes: keys are the program's own and need no escaping, values that can be a
//! stranger's are escaped.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serialize;

use crate::json;

const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// An object that is being written. Whoever opens one closes it, unless the log is to add to its end.
#[derive(Debug)]
pub(super) struct Members<'a> {
    pub(super) out: &'a mut Vec<u8>,
}

impl<'a> Members<'a> {
    /// Begins an object.
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    /// Ends it.
    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// Begins the next member.
    pub(super) fn key(&mut self, key: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Members as they stand in the text, with the commas between them and before the first: several at once are
    /// written faster than one by one.
    pub(super) fn constant(&mut self, text: &'static str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Begins a member that is an object.
    pub(super) fn nested(&mut self, key: &'static str) -> Members<'_> {
        self.key(key);
        Members::open(self.out)
    }

    /// A word of the program's own.
    pub(super) fn word(&mut self, key: &'static str, word: &str) {
        self.key(key);
        self.quoted(word.as_bytes());
    }

    pub(super) fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        json::string(self.out, text);
    }

    pub(super) fn optional(&mut self, key: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    pub(super) fn texts<T: AsRef<str>>(&mut self, key: &'static str, texts: &[T]) {
        if !texts.is_empty() {
            self.key(key);
            list(self.out, texts, |out, text| json::string(out, text.as_ref()));
        }
    }

    /// Bytes as text.
    pub(super) fn lossy(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        json::lossy_string(self.out, bytes);
    }

    pub(super) fn number(&mut self, key: &'static str, number: u64) {
        self.key(key);
        json::number(self.out, number);
    }

    pub(super) fn flag(&mut self, key: &'static str, flag: bool) {
        self.key(key);
        self.out.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    pub(super) fn value(&mut self, key: &str, value: &impl Serialize) {
        self.key(key);
        json::value(self.out, value);
    }

    pub(super) fn pairs(&mut self, key: &'static str, pairs: &[(Cow<'_, str>, Cow<'_, str>)]) {
        self.key(key);
        list(self.out, pairs, |out, (name, value)| {
            out.push(b'[');
            json::string(out, name);
            out.push(b',');
            json::string(out, value);
            out.push(b']');
        });
    }

    pub(super) fn hex(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        let start = self.out.len() + 1;
        self.out.resize(start + bytes.len() * 2, b'"');
        // The slice is twice as long as the bytes, which is the only error there is.
        let _ = hex::encode_to_slice(bytes, &mut self.out[start..]);
        self.out.push(b'"');
    }

    /// An address and a port.
    pub(super) fn endpoint(&mut self, ip: &'static str, port: &'static str, endpoint: SocketAddr) {
        self.key(ip);
        address(self.out, endpoint.ip());
        self.number(port, u64::from(endpoint.port()));
    }

    /// RFC 3339 in UTC, microseconds.
    pub(super) fn time(&mut self, key: &'static str, us: i64) {
        self.key(key);
        self.out.push(b'"');
        instant(self.out, us);
        self.out.push(b'"');
    }

    fn quoted(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        self.out.extend_from_slice(bytes);
        self.out.push(b'"');
    }
}

/// Appends an address as a string.
pub(super) fn address(out: &mut Vec<u8>, ip: IpAddr) {
    out.push(b'"');
    match ip {
        IpAddr::V4(ip) => {
            for (place, octet) in ip.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                json::number(out, octet);
            }
        }
        // Writing to memory cannot fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
    out.push(b'"');
}

/// Appends a list.
pub(super) fn list<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Appends a time in UTC, such as `2026-01-31T23:59:59.000001Z`, without quotes. What no calendar has is 1970.
pub(super) fn instant(out: &mut Vec<u8>, us: i64) {
    /// Where the library's calendar ends, on the last days of the year 9999. Before 1970 and from there on it decides.
    const LAST: i64 = 253_402_207_200_000_000;
    if !(0..LAST).contains(&us) {
        let time = Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH);
        let _ = TIME.print_timestamp(&time, &mut *out);
        return;
    }
    let (seconds, micros) = (us / 1_000_000, us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counted in eras of 400 years from 1 March 0000, a year ends with its leap day.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on: 153 days are five months.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |at: usize, width: usize, mut value: i64| {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, second / 3_600);
    put(14, 2, second / 60 % 60);
    put(17, 2, second % 60);
    put(20, 6, micros);
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(us: i64) -> String {
        let mut out = Vec::new();
        instant(&mut out, us);
        String::from_utf8(out).expect("ASCII")
    }

    fn by_library(us: i64) -> String {
        let mut text = String::new();
        let time = Timestamp::from_microsecond(us).expect("in range");
        TIME.print_timestamp(&time, &mut text).expect("memory");
        text
    }

    #[test]
    fn every_day_is_the_one_that_the_library_knows() {
        let days = 253_402_207_200 / 86_400;
        for day in 0..days {
            let us = day * 86_400_000_000 + 86_399_999_999;
            assert_eq!(shown(us), by_library(us));
        }
        assert_eq!(shown(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(shown(i64::MAX), "1970-01-01T00:00:00.000000Z");
    }

    proptest! {
        #[test]
        fn every_time_is_the_one_that_the_library_knows(us in 0..253_402_207_200_000_000_i64) {
            prop_assert_eq!(shown(us), by_library(us));
        }
    }
}
