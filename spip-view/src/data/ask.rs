//! How pages ask the store: totals, series and most frequent values by roll-up where neither query nor edge of the range
//! stands in the way, and by sessions where they do.
//!
//! A range that does not begin at a whole hour is answered exactly: whole hours from the roll-ups, the rest from the
//! sessions. With a query everything comes from the sessions, the newest day first, until the time for it is over; what is
//! then missing makes a count inexact.

mod part;
mod rolled;
mod scope;
mod summary;

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use self::part::{Part, round};
use self::rolled::hours_of;
pub(super) use self::rolled::stored;
pub(crate) use self::scope::Scope;
use super::columns::Columns;
use super::names::{fact_id, name};
use super::tally::{Key, Tally};
use super::{Series, Top, TopList, Totals};
use crate::filter::{Filter, Without};
use crate::moment::{Day, HOUR, Moment};
use crate::query::sql::Condition;
use crate::row::Kind;
use crate::store::{Reader, Result, key, rows, schema};

/// Time for looking at sessions one by one, after which a page shows what it has. Tests compare all of it with a slow
/// evaluation, on machines on which a few hundred sessions may take longer.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 60_000 } else { 1_500 });

/// Columns of the totals of sessions `s`: records, connections, rejected, bytes.
const SUMS: &str = "count(*), sum(s.n), sum(CASE WHEN s.flags & 8 <> 0 THEN s.n ELSE 0 END), sum(s.bytes_in)";

/// A question with its filter compiled.
pub(crate) struct Ask<'r> {
    pub(crate) reader: &'r Reader,
    pub(crate) from: Moment,
    pub(crate) to: Moment,
    pub(crate) limit: usize,
    condition: Condition,
    has_query: bool,
    sensor: Option<i64>,
    without: Without,
    parts: Vec<Part>,
    started: Instant,
    is_patient: bool,
    /// Hours of a day in which a value occurs, the newest first.
    hours: RefCell<HashMap<(Day, Kind, Key), Vec<i64>>>,
}

impl<'r> Ask<'r> {
    pub(crate) fn new(reader: &'r Reader, filter: &Filter) -> Result<Self> {
        let condition = match &filter.query {
            Some(query) => Condition::of(query.expr(), reader.salt()),
            None => Condition::all(),
        };
        condition.register(reader.catalog()).map_err(|source| reader.failed(source))?;
        let sensor = match &filter.sensor {
            // A sensor that is not known has no sessions.
            Some(name) => Some(fact_id(reader, Kind::Sensor, name.as_bytes())?.unwrap_or(-1)),
            None => None,
        };
        let (from, to) = reader.clamp(filter.from, filter.to);
        let mut parts: Vec<Part> =
            reader.days(from, to).into_iter().filter_map(|day| Part::of(day, from, to)).collect();
        let has_query = filter.query.is_some();
        if !has_query {
            round(reader, &mut parts)?;
        }
        Ok(Self {
            reader,
            from,
            to,
            limit: filter.limit,
            condition,
            has_query,
            sensor,
            without: filter.without,
            parts,
            started: Instant::now(),
            is_patient: false,
            hours: RefCell::default(),
        })
    }

    /// Asks the same about another range. The query is not worked out again.
    pub(crate) fn over_range(&self, from: Moment, to: Moment) -> Result<Self> {
        let (from, to) = self.reader.clamp(from, to);
        let mut ask = self.between(from, to);
        (ask.condition, ask.has_query, ask.is_patient) = (self.condition.clone(), self.has_query, self.is_patient);
        if !ask.has_query {
            round(self.reader, &mut ask.parts)?;
        }
        Ok(ask)
    }

    /// Asks about all sessions of another range, whatever the query says.
    pub(crate) fn between(&self, from: Moment, to: Moment) -> Self {
        let condition = Condition::all();
        let parts = self.reader.days(from, to).into_iter().filter_map(|day| Part::of(day, from, to)).collect();
        Self {
            reader: self.reader,
            from,
            to,
            limit: self.limit,
            condition,
            has_query: false,
            sensor: self.sensor,
            without: self.without,
            parts,
            started: Instant::now(),
            is_patient: false,
            hours: RefCell::default(),
        }
    }

    /// The same question about what is older than this session only.
    pub(crate) fn before(mut self, day: Day, id: i64) -> Self {
        self.parts.retain(|part| part.day <= day);
        for part in self.parts.iter_mut().filter(|part| part.day == day) {
            part.keys.1 = part.keys.1.min(id);
        }
        self
    }

    /// The same question, which may take as long as the reader's deadline allows.
    pub(crate) fn patient(reader: &'r Reader, filter: &Filter) -> Result<Self> {
        let mut ask = Self::new(reader, filter)?;
        ask.is_patient = true;
        Ok(ask)
    }

    /// Calls `take` with (hour or moment, key, number) of a roll-up.
    pub(super) fn over(&self, kind: Kind, only: Option<Key>, mut take: impl FnMut(i64, Key, u64)) -> Result<()> {
        self.rolled(kind, only, |day, us, key, n| take(day.start().0 + us, key, n))
    }

    /// Calls `take` with (moment, key, number) of a kind: by roll-up or by session, as the query wants it. Returns
    /// whether everything was looked at.
    pub(crate) fn over_time(&self, kind: Kind, mut take: impl FnMut(i64, Key, u64)) -> Result<bool> {
        if !self.has_query {
            self.over(kind, None, take)?;
            return Ok(true);
        }
        let rows::Rows { key, n, tables, narrowing } = rows::of(kind);
        let behind = format!("AND {narrowing} AND {key} IS NOT NULL");
        self.each_in(&tables, &Scope::all(), &format!("{key}, s.id, {n}"), &behind, |day, row| {
            take(key::accepted(day, row.get(1)?).0, Key::read(row.get_ref(0)?), unsigned(row, 2)?);
            Ok(true)
        })
    }

    /// Reports whether some sensors or sources are left out.
    pub(super) fn is_narrowed(&self) -> bool {
        self.sensor.is_some() || self.without != Without::Nothing
    }

    pub(crate) fn has_query(&self) -> bool {
        self.has_query
    }

    /// Reports whether looking at more sessions would take too long.
    pub(crate) fn is_late(&self) -> bool {
        (!self.is_patient && self.started.elapsed() > PATIENCE) || self.reader.deadline().is_over()
    }

    /// A condition on sessions `s` and what is bound to it, behind the keys of a part.
    pub(crate) fn condition(&self, scope: &Scope) -> (String, Vec<Value>) {
        let mut sql = format!("{} AND {}", self.condition.sql, scope.sql);
        let mut parameters = self.condition.parameters.clone();
        parameters.extend(scope.parameters.iter().cloned());
        if let Some(sensor) = self.sensor {
            sql.push_str(" AND s.sensor = ?");
            parameters.push(Value::Integer(sensor));
        }
        sql.push_str(&self.of_known_scanners());
        (sql, parameters)
    }

    /// A condition on the flags of sessions or scans `s`: sources that are left out.
    fn of_known_scanners(&self) -> String {
        match self.without {
            Without::Nothing => String::new(),
            Without::Listed => format!(" AND s.flags & {} = 0", key::LISTED),
            Without::Claimed => format!(" AND s.flags & {} = 0", key::LISTED | key::CLAIMED),
        }
    }

    /// One number over the range.
    pub(crate) fn sum(&self, kind: Kind, only: Option<Key>) -> Result<u64> {
        let mut sum = 0_u64;
        self.rolled(kind, only, |_, _, _, n| sum = sum.saturating_add(n))?;
        Ok(sum)
    }

    /// Totals of the range, by roll-up.
    pub(crate) fn totals(&self) -> Result<Totals> {
        if self.has_query {
            return self.totals_of(&Scope::all()).map(|(totals, _)| totals);
        }
        let mut totals = Totals::default();
        for part in &self.parts {
            self.reader.in_day(part.day, |connection| {
                for (kind, sum) in [
                    (Kind::Sessions, &mut totals.sessions),
                    (Kind::Connections, &mut totals.connections),
                    (Kind::Rejected, &mut totals.rejected),
                    (Kind::BytesIn, &mut totals.bytes_in),
                    (Kind::Scans, &mut totals.scans),
                    (Kind::HalfOpen, &mut totals.half_open),
                ] {
                    self.hours(connection, kind, None, part, |_, _, n| *sum = sum.saturating_add(n))?;
                }
                for edge in part.edges.iter().filter(|(first, last)| first < last) {
                    self.edge_totals(connection, *edge, &mut totals)?;
                }
                Ok(())
            })?;
        }
        Ok(totals)
    }

    /// Adds the sessions and scans of a part of an hour.
    fn edge_totals(&self, connection: &Connection, (first, last): (i64, i64), totals: &mut Totals) -> Result<()> {
        let mut only = self.sensor.map_or_else(String::new, |sensor| format!(" AND s.sensor = {sensor}"));
        only.push_str(&self.of_known_scanners());
        let sql = |columns: &str, table: &str| {
            format!("SELECT {columns} FROM {table} s WHERE s.id >= ?1 AND s.id < ?2{only}")
        };
        let read = |sql: &str, sums: &mut [&mut u64]| {
            connection.prepare_cached(sql)?.query_row([first, last], |row| {
                for (index, sum) in sums.iter_mut().enumerate() {
                    **sum = sum.saturating_add(unsigned(row, index)?);
                }
                Ok(())
            })
        };
        let Totals { sessions, connections, rejected, bytes_in, scans, half_open } = totals;
        read(&sql(SUMS, "session_rows"), &mut [sessions, connections, rejected, bytes_in])
            .and_then(|()| read(&sql("count(*), sum(s.n)", "scans"), &mut [scans, half_open]))
            .map_err(|source| self.reader.failed(source))
    }

    /// Totals of sessions one by one, and whether all were looked at. Scans are not among them.
    pub(crate) fn totals_of(&self, scope: &Scope) -> Result<(Totals, bool)> {
        let mut totals = Totals::default();
        let is_exact = self.each(scope, SUMS, "", |_, row| {
            totals.sessions += unsigned(row, 0)?;
            totals.connections += unsigned(row, 1)?;
            totals.rejected += unsigned(row, 2)?;
            totals.bytes_in += unsigned(row, 3)?;
            Ok(true)
        })?;
        Ok((totals, is_exact))
    }

    /// Connections over time; of one value where `scope` has an index.
    pub(crate) fn series(&self, kind: Kind, only: Option<Key>) -> Result<Series> {
        let mut columns = Columns::new(self.from, self.to);
        if columns.step_us < HOUR {
            return self.short_series(kind, only, columns);
        }
        self.rolled(kind, only, |day, us, _, n| columns.add(day.start().0 + us, n))?;
        Ok(columns.series())
    }

    /// A series of at most six hours, from the rows themselves.
    fn short_series(&self, kind: Kind, only: Option<Key>, mut columns: Columns) -> Result<Series> {
        for part in &self.parts {
            self.reader.in_day(part.day, |connection| {
                self.edge(connection, kind, only, part.keys, |us, _, n| columns.add(part.day.start().0 + us, n))
            })?;
        }
        Ok(columns.series())
    }

    /// Connections over time of sessions one by one, and whether all were looked at.
    pub(crate) fn series_of(&self, scope: &Scope, counted: &str) -> Result<(Series, bool)> {
        let mut columns = Columns::new(self.from, self.to);
        // Not grouped by SQLite, which would sort the sessions for it, in memory.
        let is_exact = self.each(scope, &format!("s.id, {counted}"), "", |day, row| {
            columns.add(key::accepted(day, row.get(0)?).0, unsigned(row, 1)?);
            Ok(true)
        })?;
        Ok((columns.series(), is_exact))
    }

    /// Numbers of one kind: by roll-up, or of the sessions that the query means.
    pub(crate) fn tally(&self, kind: Kind) -> Result<Tally> {
        let mut tally = Tally::default();
        if !self.has_query {
            self.rolled(kind, None, |_, _, key, n| tally.add(key, n))?;
            return Ok(tally);
        }
        let rows::Rows { key, n, tables, narrowing } = rows::of(kind);
        let is_exact = self.each_in(
            &tables,
            &Scope::all(),
            &format!("{key}, {n}"),
            &format!("AND {narrowing} AND {key} IS NOT NULL"),
            |_, row| {
                tally.add(Key::read(row.get_ref(0)?), unsigned(row, 1)?);
                Ok(true)
            },
        )?;
        tally.is_exact &= is_exact;
        Ok(tally)
    }

    /// Numbers of several kinds, which looks at each day once.
    fn tallies(&self, kinds: &[Kind]) -> Result<Vec<Tally>> {
        if self.has_query {
            return self.tallies_of(kinds, |_, _, _| Ok(()));
        }
        let mut tallies: Vec<Tally> = kinds.iter().map(|_| Tally::default()).collect();
        for part in &self.parts {
            self.reader.in_day(part.day, |connection| {
                for (kind, tally) in kinds.iter().zip(&mut tallies) {
                    self.rolled_in(connection, *kind, None, part, |_, key, n| tally.add(key, n))?;
                }
                Ok(())
            })?;
        }
        Ok(tallies)
    }

    /// The most frequent values of several kinds.
    pub(crate) fn tops(&self, kinds: &[Kind], limit: usize) -> Result<Vec<TopList>> {
        let tallies = self.tallies(kinds)?;
        kinds.iter().zip(tallies).map(|(kind, tally)| self.list(*kind, &tally, limit)).collect()
    }

    /// The most frequent values of a kind.
    pub(crate) fn top(&self, kind: Kind, limit: usize) -> Result<TopList> {
        self.list(kind, &self.tally(kind)?, limit)
    }

    fn list(&self, kind: Kind, tally: &Tally, limit: usize) -> Result<TopList> {
        let (items, distinct) = tally.ranked(limit, 0);
        Ok(TopList { kind, items: self.named(kind, items)?, distinct })
    }

    /// Gives keys their names.
    pub(crate) fn named(&self, kind: Kind, list: Vec<(Key, u64)>) -> Result<Vec<Top>> {
        list.into_iter()
            .map(|(key, count)| name(self.reader, kind, &key).map(|(value, label)| Top { value, label, count }))
            .collect()
    }

    /// Calls `take` with rows of sessions, newest day first, until it says false or there is no more time. Returns
    /// whether all were looked at.
    pub(crate) fn each(
        &self,
        scope: &Scope,
        columns: &str,
        behind: &str,
        take: impl FnMut(Day, &Row<'_>) -> rusqlite::Result<bool>,
    ) -> Result<bool> {
        self.each_in("sessions s", scope, columns, behind, take)
    }

    pub(crate) fn each_in(
        &self,
        tables: &str,
        scope: &Scope,
        columns: &str,
        behind: &str,
        mut take: impl FnMut(Day, &Row<'_>) -> rusqlite::Result<bool>,
    ) -> Result<bool> {
        let (condition, bound) = self.condition(scope);
        let tables = schema::narrowest(tables, &[tables, columns, condition.as_str(), behind]);
        let mut hours = scope.hours;
        for part in self.parts.iter().rev() {
            if self.is_late() {
                return Ok(false);
            }
            let goes_on = self.reader.in_day(part.day, |connection| {
                let failed = |source| self.reader.failed(source);
                for (first, last) in self.ranges(connection, scope, part)? {
                    if self.is_late() || hours == 0 {
                        return Ok(false);
                    }
                    hours -= 1;
                    let sql =
                        format!("SELECT {columns} FROM {tables} WHERE s.id >= ? AND s.id < ? AND {condition} {behind}");
                    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
                    let parameters =
                        [Value::Integer(first), Value::Integer(last)].into_iter().chain(bound.iter().cloned());
                    let mut rows = statement.query(params_from_iter(parameters)).map_err(failed)?;
                    while let Some(row) = rows.next().map_err(failed)? {
                        if !take(part.day, row).map_err(failed)? {
                            return Ok(false);
                        }
                    }
                }
                Ok(true)
            })?;
            if goes_on == Some(false) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ranges of keys to look at, newest first: only hours in which the index has something.
    fn ranges(&self, connection: &Connection, scope: &Scope, part: &Part) -> Result<Vec<(i64, i64)>> {
        let Some((kind, key)) = scope.index else {
            return Ok(vec![part.keys]);
        };
        let own = (part.day, kind, key);
        let known = self.hours.borrow().get(&own).cloned();
        let hours = match known {
            Some(hours) => hours,
            None => {
                let hours = hours_of(connection, kind, key).map_err(|source| self.reader.failed(source))?;
                self.hours.borrow_mut().insert(own, hours.clone());
                hours
            }
        };
        let mut ranges = Vec::new();
        for hour in hours {
            let (first, last) = (
                key::session(Moment(hour * HOUR)),
                if hour >= 23 { i64::MAX } else { key::session(Moment((hour + 1) * HOUR)) },
            );
            let range = (first.max(part.keys.0), last.min(part.keys.1));
            if range.0 < range.1 {
                ranges.push(range);
            }
        }
        Ok(ranges)
    }
}

pub(super) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let number: Option<i64> = row.get(index)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0))
}
