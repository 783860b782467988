//! Numbers from the roll-ups of whole hours, and from the rows of a range's first and last part of an hour.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::part::Part;
use super::{Ask, unsigned};
use crate::data::tally::Key;
use crate::filter::Without;
use crate::meaning::Class;
use crate::moment::{Day, HOUR};
use crate::row::Kind;
use crate::store::{Cells, Result, find, key, rows, schema};

impl Ask<'_> {
    /// Calls `take` with (key, hour of the day or moment, number) of a roll-up, day by day.
    pub(super) fn rolled(&self, kind: Kind, only: Option<Key>, mut take: impl FnMut(Day, i64, Key, u64)) -> Result<()> {
        for part in &self.parts {
            self.reader.in_day(part.day, |connection| {
                self.rolled_in(connection, kind, only, part, |us, key, n| take(part.day, us, key, n))
            })?;
        }
        Ok(())
    }

    /// The same in one day.
    pub(super) fn rolled_in(
        &self,
        connection: &Connection,
        kind: Kind,
        only: Option<Key>,
        part: &Part,
        mut take: impl FnMut(i64, Key, u64),
    ) -> Result<()> {
        self.hours(connection, kind, only, part, &mut take)?;
        for edge in part.edges.iter().filter(|(first, last)| first < last) {
            self.edge(connection, kind, only, *edge, &mut take)?;
        }
        Ok(())
    }

    /// The whole hours of a part. A key comes once for each run, sensor and class.
    pub(super) fn hours(
        &self,
        connection: &Connection,
        kind: Kind,
        only: Option<Key>,
        part: &Part,
        mut take: impl FnMut(i64, Key, u64),
    ) -> Result<()> {
        if part.hours.0 >= part.hours.1 {
            return Ok(());
        }
        let failed = |source| self.reader.failed(source);
        let sql =
            format!("SELECT hour, cells FROM hourly WHERE kind = ? AND hour >= ? AND hour < ?{}", self.on_sensor());
        let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query((kind as u8, part.hours.0, part.hours.1)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let us = row.get::<_, i64>(0).map_err(failed)? * HOUR;
            let cells = row.get_ref(1).and_then(|cells| Ok(cells.as_blob()?)).map_err(failed)?;
            match only {
                Some(key) => {
                    if let Some(n) = find(cells, key) {
                        take(us, key, n);
                    }
                }
                None => Cells::new(cells).for_each(|(key, n)| take(us, key, n)),
            }
        }
        Ok(())
    }

    /// The same for the sessions or scans of a part of an hour.
    pub(super) fn edge(
        &self,
        connection: &Connection,
        kind: Kind,
        only: Option<Key>,
        (first, last): (i64, i64),
        mut take: impl FnMut(i64, Key, u64),
    ) -> Result<()> {
        let failed = |source| self.reader.failed(source);
        let mut sensor = self.sensor.map_or_else(String::new, |sensor| format!(" AND s.sensor = {sensor}"));
        sensor.push_str(&self.of_known_scanners());
        let rows::Rows { key, n, tables, narrowing } = rows::of(kind);
        let narrowed = if only.is_some() { format!(" AND {key} = ?3") } else { String::new() };
        let tables = schema::narrowest(&tables, &[&tables, &key, &narrowing]);
        let sql = format!(
            "SELECT {key}, s.id, {n} FROM {tables} WHERE s.id >= ?1 AND s.id < ?2 AND {key} IS NOT NULL AND {narrowing}{narrowed}{sensor}"
        );
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let mut parameters = vec![Value::Integer(first), Value::Integer(last)];
        parameters.extend(only.map(Key::value));
        let mut rows = statement.query(params_from_iter(parameters)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let key = Key::read(row.get_ref(0).map_err(failed)?);
            let id: i64 = row.get(1).map_err(failed)?;
            take(key::accepted(Day(0), id).0, key, unsigned(row, 2).map_err(failed)?);
        }
        Ok(())
    }

    /// A condition on a roll-up: the sensor, and sources that are left out.
    fn on_sensor(&self) -> String {
        let mut sql = self.sensor.map_or_else(String::new, |sensor| format!(" AND sensor = {sensor}"));
        match self.without {
            Without::Nothing => {}
            Without::Listed => sql.push_str(&format!(" AND class <> {}", Class::Listed as u8)),
            Without::Claimed => sql.push_str(&format!(" AND class = {}", Class::Unknown as u8)),
        }
        sql
    }
}

/// Returns the number of all values of a kind in a day.
pub(in crate::data) fn stored(connection: &Connection, kind: Kind) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare("SELECT cells FROM hourly WHERE kind = ?")?;
    let mut rows = statement.query([kind as u8])?;
    let mut sum = 0_u64;
    while let Some(row) = rows.next()? {
        sum = Cells::new(row.get_ref(0)?.as_blob()?).fold(sum, |sum, (_, n)| sum.saturating_add(n));
    }
    Ok(sum)
}

/// Returns the hours of a day in which a value occurs, the newest first.
pub(super) fn hours_of(connection: &Connection, kind: Kind, key: Key) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT hour, cells FROM hourly WHERE kind = ? ORDER BY hour DESC")?;
    let mut rows = statement.query([kind as u8])?;
    let mut hours: Vec<i64> = Vec::new();
    while let Some(row) = rows.next()? {
        let hour = row.get(0)?;
        if hours.last() != Some(&hour) && find(row.get_ref(1)?.as_blob()?, key).is_some() {
            hours.push(hour);
        }
    }
    Ok(hours)
}
