//! Points in time: microseconds since 1970, written as RFC 3339 in UTC.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds of an hour.
pub const HOUR: i64 = 3_600 * SECOND;
/// Microseconds of a day.
pub const DAY: i64 = 24 * HOUR;

/// A point in time, microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub i64);

impl Moment {
    /// Reads the wall clock.
    #[must_use]
    pub fn now() -> Self {
        Self(Timestamp::now().as_microsecond())
    }

    /// Returns the day that the moment lies in.
    #[must_use]
    pub fn day(self) -> Day {
        Day(i32::try_from(self.0.div_euclid(DAY)).unwrap_or(0))
    }

    /// Parses RFC 3339, a date (`2026-01-31`, its begin in UTC), or a date and a time without an offset (UTC).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Some(Self(time.as_microsecond()));
        }
        let time = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(Self(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond()))
    }

    /// Returns the moment as RFC 3339 with whole seconds.
    #[must_use]
    pub fn to_seconds(self) -> String {
        let text = self.to_string();
        format!("{}Z", text.get(..19).unwrap_or(&text))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.6}"),
            // Outside of the years that the calendar has; records clamp to these, too.
            Err(_) if self.0 < 0 => f.write_str("0000-01-01T00:00:00.000000Z"),
            Err(_) => f.write_str("9999-12-31T23:59:59.999999Z"),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A day in UTC, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

impl Day {
    /// Returns its first moment.
    #[must_use]
    pub fn start(self) -> Moment {
        Moment(i64::from(self.0) * DAY)
    }

    /// Returns the first moment of the next day.
    #[must_use]
    pub fn end(self) -> Moment {
        Moment((i64::from(self.0) + 1) * DAY)
    }

    /// Parses `2026-01-31`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let date = text.parse::<jiff::civil::Date>().ok()?;
        // `2026-01-31T00:00` is a date to the parser, too.
        (text.len() <= 11 && !text.contains(['T', ' '])).then_some(())?;
        let start = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        Some(Moment(start.as_microsecond()).day())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.start().to_string();
        f.write_str(text.get(..text.find('T').unwrap_or(text.len())).unwrap_or(&text))
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Parses a span such as `90s`, `15m`, `24h`, `7d`, `2w`; microseconds.
#[must_use]
pub fn parse_span(text: &str) -> Option<i64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let unit = match unit {
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => HOUR,
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit).filter(|span| *span > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_it_is_read() {
        let moment = Moment(1_767_225_600_000_123);
        assert_eq!(moment.to_string(), "2026-01-01T00:00:00.000123Z");
        assert_eq!(Moment::parse("2026-01-01T00:00:00.000123Z"), Some(moment));
        assert_eq!(Moment::parse("2026-01-01T01:00:00.000123+01:00"), Some(moment));
        assert_eq!(Moment::parse("2026-01-01"), Some(Moment(1_767_225_600_000_000)));
        assert_eq!(Moment::parse("2026-01-01T12:30"), Some(Moment(1_767_225_600_000_000 + 12 * HOUR + HOUR / 2)));
        assert_eq!(moment.to_seconds(), "2026-01-01T00:00:00Z");
        assert_eq!(Moment::parse("yesterday"), None);
    }

    #[test]
    fn a_day_begins_at_midnight_in_utc_also_before_1970() {
        assert_eq!(Day::parse("2026-01-01"), Some(Moment(1_767_225_600_000_000).day()));
        assert_eq!(Moment(-1).day().to_string(), "1969-12-31");
        assert_eq!(Moment(0).day().start(), Moment(0));
        assert_eq!(Day::parse("2026-01-01T00:00"), None);
        assert_eq!(Moment(i64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        assert_eq!(parse_span("24h"), Some(DAY));
        assert_eq!(parse_span("7d"), Some(7 * DAY));
        for wrong in ["", "h", "0h", "24", "24x", "-1h", "99999999999999999999d", "9223372036854775807d"] {
            assert_eq!(parse_span(wrong), None, "{wrong}");
        }
    }
}
