//! Times as records show them: UTC, of the years 0 to 9999, in a text whose length never changes.
//!
//! The calendar is worked out here and not by a library: the libraries end before the year 9999 does, and a certificate
//! that never expires says `99991231235959Z` (RFC 5280, section 4.1.2.5). What lies outside of these years becomes the
//! first or the last instant of them, so that times keep their order.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// `0000-01-01T00:00:00.000000Z`, in microseconds since 1970.
const FIRST: i64 = -62_167_219_200_000_000;

/// `9999-12-31T23:59:59.999999Z`.
const LAST: i64 = 253_402_300_799_999_999;

/// Days from 1 March 0000 to 1 January 1970.
const DAYS_TO_1970: i64 = 719_468;

/// Length of a time up to its seconds.
const SECONDS_LENGTH: usize = "0000-00-00T00:00:00".len();

/// Appends a time such as `2026-01-31T23:59:59.000001Z`, without quotes.
pub(super) fn instant(out: &mut Vec<u8>, us: i64) {
    out.extend_from_slice(&text(us));
}

/// Appends a time of whole seconds without offset, such as `2026-01-31T23:59:59`, without quotes.
pub(super) fn seconds(out: &mut Vec<u8>, seconds: i64) {
    out.extend_from_slice(&text(seconds.saturating_mul(1_000_000))[..SECONDS_LENGTH]);
}

fn text(us: i64) -> [u8; 27] {
    let us = us.clamp(FIRST, LAST);
    let (seconds, micros) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Counted in eras of 400 years from 1 March 0000, a year ends with its leap day.
    let shifted = days + DAYS_TO_1970;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on: 153 days are five months.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    // Two digits at a time: every record has several times.
    let mut pair = |at: usize, value: i64| {
        let value = value as u8;
        text[at] = b'0' + value / 10;
        text[at + 1] = b'0' + value % 10;
    };
    pair(0, year / 100);
    pair(2, year % 100);
    pair(5, month);
    pair(8, day);
    pair(11, second / 3_600);
    pair(14, second / 60 % 60);
    pair(17, second % 60);
    pair(20, micros / 10_000);
    pair(22, micros / 100 % 100);
    pair(24, micros % 100);
    text
}

/// A time that was read, in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read(pub(super) i64);

impl Read {
    /// The second that it lies in.
    pub(super) fn second(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Read;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time of RFC 3339")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Read, E> {
                read(text).map(Read).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Microseconds since 1970 of a time in UTC as it is written here, or in any other way that RFC 3339 has.
fn read(text: &str) -> Result<i64, String> {
    match own(text.as_bytes()) {
        Some(us) => Ok(us),
        None => text.parse::<Timestamp>().map(Timestamp::as_microsecond).map_err(|error| error.to_string()),
    }
}

/// Parses times in the forms that [`instant`] and [`seconds`] with a `Z` write.
fn own(text: &[u8]) -> Option<i64> {
    let number = |at: usize, width: usize| {
        let digits = text.get(at..at + width)?;
        digits
            .iter()
            .try_fold(0_i64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| text.get(*at) != Some(mark)) {
        return None;
    }
    let micros = match text.get(SECONDS_LENGTH..)? {
        b"Z" => 0,
        [b'.', .., b'Z'] if text.len() == 27 => number(20, 6)?,
        _ => return None,
    };
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // The inverse of `text`: years begin with March.
    let shifted = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - DAYS_TO_1970;
    let us = ((days * 24 + hour) * 60 + minute) * 60 * 1_000_000 + second * 1_000_000 + micros;
    // A day that the month does not have comes out as another one.
    (self::text(us)[..SECONDS_LENGTH] == text[..SECONDS_LENGTH]).then_some(us)
}

#[cfg(test)]
mod tests {
    use jiff::fmt::temporal::DateTimePrinter;
    use proptest::prelude::*;

    use super::*;

    const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

    /// Last instant of the library's calendar.
    const LIBRARY_LAST: i64 = 253_402_207_200_000_000;

    fn shown(us: i64) -> String {
        String::from_utf8(text(us).to_vec()).expect("ASCII")
    }

    fn by_library(us: i64) -> String {
        let mut text = String::new();
        let time = Timestamp::from_microsecond(us).expect("in range");
        TIME.print_timestamp(&time, &mut text).expect("memory");
        text
    }

    #[test]
    fn every_day_is_the_one_that_the_library_knows_and_reads_back() {
        for day in FIRST / 86_400_000_000..LIBRARY_LAST / 86_400_000_000 {
            let us = day * 86_400_000_000 + 86_399_999_999;
            assert_eq!(shown(us), by_library(us));
            assert_eq!(own(shown(us).as_bytes()), Some(us));
        }
    }

    #[test]
    fn the_calendar_has_whole_years_and_ends_with_the_year_9999() {
        for (us, expected) in [
            (-1, "1969-12-31T23:59:59.999999Z"),
            (FIRST, "0000-01-01T00:00:00.000000Z"),
            (253_402_300_799_000_000, "9999-12-31T23:59:59.000000Z"),
            (LAST, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(shown(us), expected);
            assert_eq!(read(expected), Ok(us));
        }
        assert_eq!((shown(i64::MIN), shown(i64::MAX)), (shown(FIRST), shown(LAST)));
        assert_eq!(read("9999-12-31T23:59:59Z"), Ok(253_402_300_799_000_000));
        let mut out = Vec::new();
        seconds(&mut out, 253_402_300_799);
        assert_eq!(out, b"9999-12-31T23:59:59");
    }

    #[test]
    fn other_forms_of_a_time_are_read_and_what_is_none_is_refused() {
        assert_eq!(read("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(read("1970-01-01T00:00:00.5Z"), Ok(500_000));
        for wrong in
            ["", "1970", "1970-02-30T00:00:00Z", "1970-13-01T00:00:00Z", "1970-01-01T24:00:00Z", "x970-01-01T00:00:00Z"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_time_is_the_one_that_the_library_knows_and_reads_back(us in FIRST..LIBRARY_LAST) {
            prop_assert_eq!(shown(us), by_library(us));
            prop_assert_eq!(read(&shown(us)), Ok(us));
        }

        #[test]
        fn any_text_is_a_time_or_refused(text in "[-0-9T:.Z+]{0,30}") {
            let _ = read(&text);
        }
    }
}
