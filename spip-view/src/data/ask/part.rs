//! The parts of a range: its days, each with the whole hours that roll-ups answer for and the sessions before and behind.

use crate::moment::{DAY, Day, HOUR, Moment};
use crate::store::{Reader, Result, key};

/// The part of a day that a range covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) day: Day,
    /// Whole hours, the last one excluded; empty where the first is not below it.
    pub(super) hours: (i64, i64),
    /// Keys of sessions before and behind them.
    pub(super) edges: [(i64, i64); 2],
    /// Keys of all sessions.
    pub(super) keys: (i64, i64),
}

impl Part {
    pub(super) fn of(day: Day, from: Moment, to: Moment) -> Option<Self> {
        let keys = key::session_bounds(day, from, to)?;
        let start = day.start().0;
        let (from, to) = (from.0.max(start) - start, to.0.min(start + DAY) - start);
        let first_hour = (from + HOUR - 1).div_euclid(HOUR);
        let last_hour = to.div_euclid(HOUR);
        if first_hour >= last_hour {
            return Some(Self { day, hours: (0, 0), edges: [keys, (0, 0)], keys });
        }
        let at = |hour: i64| if hour >= 24 { i64::MAX } else { key::session(Moment(hour * HOUR)) };
        let edges = [(keys.0, at(first_hour)), (at(last_hour), keys.1)];
        Some(Self { day, hours: (first_hour, last_hour), edges, keys })
    }
}

/// Lets whole hours answer for parts of an hour outside of which nothing is stored, as when a range ends now.
pub(super) fn round(reader: &Reader, parts: &mut [Part]) -> Result<()> {
    for part in parts.iter_mut().filter(|part| part.hours.0 < part.hours.1) {
        let hour = |hour: i64| if hour >= 24 { i64::MAX } else { key::session(Moment(hour * HOUR)) };
        let [(before, _), (_, behind)] = part.edges;
        let outside = [(hour(part.hours.0 - 1), before), (behind, hour(part.hours.1 + 1))];
        let is_partial = part.edges.map(|(first, last)| first < last);
        if is_partial == [false, false] {
            continue;
        }
        let empty = reader.in_day(part.day, |connection| {
            let sql = "SELECT NOT EXISTS (SELECT 1 FROM session_rows WHERE id >= ?1 AND id < ?2)
                       AND NOT EXISTS (SELECT 1 FROM scans WHERE id >= ?1 AND id < ?2)";
            let mut empty = [false; 2];
            for (empty, (first, last)) in empty.iter_mut().zip(outside) {
                let found = connection.query_row(sql, [first, last], |row| row.get(0));
                *empty = found.map_err(|source| reader.failed(source))?;
            }
            Ok(empty)
        })?;
        let [is_first, is_last] = empty.unwrap_or_default();
        if is_first && is_partial[0] {
            (part.hours.0, part.edges[0]) = (part.hours.0 - 1, (0, 0));
        }
        if is_last && is_partial[1] {
            (part.hours.1, part.edges[1]) = (part.hours.1 + 1, (0, 0));
        }
    }
    Ok(())
}
