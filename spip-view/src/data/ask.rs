//! How pages ask the store: totals, series and most frequent values by roll-up where neither query nor edge of the range
//! stands in the way, and by sessions where they do.
//!
//! A range that does not begin at a whole hour is answered exactly: whole hours from the roll-ups, the rest from the
//! sessions. With a query everything comes from the sessions, the newest day first, until the time for it is over; what is
//! then missing makes a count inexact.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter};

use super::{Count, Series, Top, TopList, Totals};
use crate::filter::{Filter, Without};
use crate::meaning::Class;
use crate::moment::{DAY, Day, HOUR, Moment};
use crate::query::sql::Condition;
use crate::row::Kind;
use crate::store::{Error, Reader, Result, key};

/// Time for looking at sessions one by one, after which a page shows what it has.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Different values that are counted at once: about 50 MB of memory.
const MAX_VALUES: usize = 400_000;

/// A key of a roll-up: number or IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Number(i64),
    Address([u8; 16]),
}

impl Key {
    pub(crate) fn read(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Integer(number) => Self::Number(number),
            ValueRef::Blob(bytes) => Self::Address(bytes.try_into().unwrap_or_default()),
            _ => Self::Number(0),
        }
    }

    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Number(number) => Value::Integer(*number),
            Self::Address(octets) => Value::Blob(octets.to_vec()),
        }
    }
}

/// Numbers by key.
pub(crate) struct Tally {
    counts: HashMap<Key, u64>,
    is_exact: bool,
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: HashMap::new(), is_exact: true }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, key: Key, n: u64) {
        *self.counts.entry(key).or_default() += n;
        if self.counts.len() > MAX_VALUES {
            // The rarest go; which of them are rare is known by now for all but the newest.
            let mut counts: Vec<u64> = self.counts.values().copied().collect();
            let half = counts.len() / 2;
            let (_, median, _) = counts.select_nth_unstable(half);
            let median = *median;
            let mut spare = MAX_VALUES / 2;
            self.counts.retain(|_, count| {
                let stays = *count > median || (*count == median && spare > 0);
                spare = spare.saturating_sub(usize::from(*count == median));
                stays
            });
            self.is_exact = false;
        }
    }

    pub(crate) fn into_counts(self) -> impl Iterator<Item = (Key, u64)> {
        self.counts.into_iter()
    }

    pub(crate) fn distinct(&self) -> Count {
        Count { value: self.counts.len() as u64, is_exact: self.is_exact }
    }

    /// The most frequent ones, those of equal number by key.
    pub(crate) fn top(&self, limit: usize, offset: usize) -> Vec<(Key, u64)> {
        let mut list: Vec<(&Key, u64)> = self.counts.iter().map(|(key, n)| (key, *n)).collect();
        let order = |a: &(&Key, u64), b: &(&Key, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0));
        let wanted = limit + offset;
        if wanted > 0 && list.len() > wanted {
            list.select_nth_unstable_by(wanted - 1, order);
            list.truncate(wanted);
        }
        list.sort_unstable_by(order);
        list.into_iter().skip(offset).map(|(key, n)| (key.clone(), n)).collect()
    }
}

/// The part of a day that a range covers.
#[derive(Clone, Copy, Debug)]
struct Part {
    day: Day,
    /// Whole hours, the last one excluded; empty where the first is not below it.
    hours: (i64, i64),
    /// Keys of sessions before and behind them.
    edges: [(i64, i64); 2],
    /// Keys of all sessions.
    keys: (i64, i64),
}

/// A narrower set of sessions than the filter's.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// A condition on `s`.
    pub(crate) sql: String,
    pub(crate) parameters: Vec<Value>,
    /// The roll-up that says in which hours there are any, and counts them.
    pub(crate) index: Option<(Kind, Value)>,
}

impl Scope {
    pub(crate) fn all() -> Self {
        Self { sql: "1".to_owned(), parameters: Vec::new(), index: None }
    }

    /// Sessions whose column has this key.
    pub(crate) fn of(kind: Kind, key: &Key) -> Self {
        let (sql, parameters) = match kind {
            Kind::Group => (
                format!("s.payload IN (SELECT id FROM facts WHERE kind = {} AND grp = ?)", Kind::Payload as u8),
                vec![key.value()],
            ),
            Kind::Credential => {
                ("s.id IN (SELECT session FROM tries WHERE credential = ?)".to_owned(), vec![key.value()])
            }
            Kind::Port => match key {
                Key::Number(port) if *port >= key::UDP_PORTS => {
                    (format!("s.port = ? AND s.flags & {} <> 0", key::UDP), vec![Value::Integer(port - key::UDP_PORTS)])
                }
                _ => (format!("s.port = ? AND s.flags & {} = 0", key::UDP), vec![key.value()]),
            },
            kind if Kind::MARKS.contains(&kind) => (
                format!(
                    "EXISTS (SELECT 1 FROM marks m WHERE m.session = s.id AND m.kind = {} AND m.fact = ?)",
                    kind as u8
                ),
                vec![key.value()],
            ),
            kind => (format!("s.{} = ?", kind.column().unwrap_or("NULL")), vec![key.value()]),
        };
        Self { sql, parameters, index: Some((kind, key.value())) }
    }
}

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
        let parts = reader.days(from, to).into_iter().filter_map(|day| Part::of(day, from, to)).collect();
        let has_query = filter.query.is_some();
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
        })
    }

    /// The same question about another range.
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

    /// Calls `take` with (moment, key, number) of a kind: by roll-up or by session, as the query wants it. Returns
    /// whether everything was looked at.
    pub(crate) fn over_time(&self, kind: Kind, mut take: impl FnMut(i64, Key, u64)) -> Result<bool> {
        if !self.has_query {
            self.rolled(kind, None, |day, us, key, n| take(day.start().0 + us, key, n))?;
            return Ok(true);
        }
        let (key, n, tables, narrowing) = rows_of(kind);
        let behind = format!("AND {narrowing} AND {key} IS NOT NULL");
        self.each_in(&tables, &Scope::all(), &format!("{key}, s.id, {n}"), &behind, |day, row| {
            take(key::accepted(day, row.get(1)?).0, Key::read(row.get_ref(0)?), unsigned(row, 2)?);
            Ok(true)
        })
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

    /// A condition on the flags of sessions or scans `s`: sources that are left out.
    fn of_known_scanners(&self) -> String {
        match self.without {
            Without::Nothing => String::new(),
            Without::Listed => format!(" AND s.flags & {} = 0", key::LISTED),
            Without::Claimed => format!(" AND s.flags & {} = 0", key::LISTED | key::CLAIMED),
        }
    }

    /// Calls `take` with (key, hour of the day or moment, number) of a roll-up, day by day.
    fn rolled(&self, kind: Kind, only: Option<&Value>, mut take: impl FnMut(Day, i64, Key, u64)) -> Result<()> {
        let narrowed = if only.is_some() { " AND key = ?" } else { "" };
        let sensor = self.on_sensor();
        for part in &self.parts {
            self.reader.in_day(part.day, |connection| {
                let failed = |source| self.reader.failed(source);
                if part.hours.0 < part.hours.1 {
                    // Without the hour in the result there is a row a key.
                    let sql = format!(
                        "SELECT key, hour, n FROM hourly WHERE kind = {} AND hour >= {} AND hour < {}{narrowed}{sensor}",
                        kind as u8, part.hours.0, part.hours.1
                    );
                    let mut statement = connection.prepare(&sql).map_err(failed)?;
                    let mut rows = statement.query(params_from_iter(only)).map_err(failed)?;
                    while let Some(row) = rows.next().map_err(failed)? {
                        let key = Key::read(row.get_ref(0).map_err(failed)?);
                        let hour: i64 = row.get(1).map_err(failed)?;
                        take(part.day, hour * HOUR, key, unsigned(row, 2).map_err(failed)?);
                    }
                }
                for edge in part.edges.iter().filter(|(first, last)| first < last) {
                    self.edge(connection, kind, only, *edge, |us, key, n| take(part.day, us, key, n))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The same for the sessions or scans of a part of an hour.
    fn edge(
        &self,
        connection: &Connection,
        kind: Kind,
        only: Option<&Value>,
        (first, last): (i64, i64),
        mut take: impl FnMut(i64, Key, u64),
    ) -> Result<()> {
        let failed = |source| self.reader.failed(source);
        let mut sensor = self.sensor.map_or_else(String::new, |sensor| format!(" AND s.sensor = {sensor}"));
        sensor.push_str(&self.of_known_scanners());
        let (key, n, tables, narrowing) = rows_of(kind);
        let narrowed = if only.is_some() { format!(" AND {key} = ?3") } else { String::new() };
        let sql = format!(
            "SELECT {key}, s.id, {n} FROM {tables} WHERE s.id >= ?1 AND s.id < ?2 AND {key} IS NOT NULL AND {narrowing}{narrowed}{sensor}"
        );
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let mut parameters = vec![Value::Integer(first), Value::Integer(last)];
        parameters.extend(only.cloned());
        let mut rows = statement.query(params_from_iter(parameters)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let key = Key::read(row.get_ref(0).map_err(failed)?);
            let id: i64 = row.get(1).map_err(failed)?;
            take(key::accepted(Day(0), id).0, key, unsigned(row, 2).map_err(failed)?);
        }
        Ok(())
    }

    /// One number over the range.
    pub(crate) fn sum(&self, kind: Kind, only: Option<&Value>) -> Result<u64> {
        let mut sum = 0_u64;
        self.rolled(kind, only, |_, _, _, n| sum = sum.saturating_add(n))?;
        Ok(sum)
    }

    /// Totals of the range, by roll-up.
    pub(crate) fn totals(&self) -> Result<Totals> {
        if self.has_query {
            return self.totals_of(&Scope::all()).map(|(totals, _)| totals);
        }
        Ok(Totals {
            sessions: self.sum(Kind::Sessions, None)?,
            connections: self.sum(Kind::Connections, None)?,
            rejected: self.sum(Kind::Rejected, None)?,
            bytes_in: self.sum(Kind::BytesIn, None)?,
            scans: self.sum(Kind::Scans, None)?,
            half_open: self.sum(Kind::HalfOpen, None)?,
        })
    }

    /// Totals of sessions one by one, and whether all were looked at. Scans are not among them.
    pub(crate) fn totals_of(&self, scope: &Scope) -> Result<(Totals, bool)> {
        let mut totals = Totals::default();
        let columns = "count(*), sum(s.n), sum(CASE WHEN s.flags & 8 <> 0 THEN s.n ELSE 0 END), sum(s.bytes_in)";
        let is_exact = self.each(scope, columns, "", |_, row| {
            totals.sessions += unsigned(row, 0)?;
            totals.connections += unsigned(row, 1)?;
            totals.rejected += unsigned(row, 2)?;
            totals.bytes_in += unsigned(row, 3)?;
            Ok(true)
        })?;
        Ok((totals, is_exact))
    }

    /// Connections over time; of one value where `scope` has an index.
    pub(crate) fn series(&self, kind: Kind, only: Option<&Value>) -> Result<Series> {
        let mut columns = Columns::new(self.from, self.to);
        if columns.step_us < HOUR {
            return self.short_series(kind, only, columns);
        }
        self.rolled(kind, only, |day, us, _, n| columns.add(day.start().0 + us, n))?;
        Ok(columns.series())
    }

    /// A series of at most six hours, from the rows themselves.
    fn short_series(&self, kind: Kind, only: Option<&Value>, mut columns: Columns) -> Result<Series> {
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
        // Grouped by steps from midnight, which every step of less than a day divides.
        let step = columns.step_us.min(HOUR);
        let columns_sql = format!("((s.id >> {}) / {step}) * {step} AS us, sum({counted})", key::ORDINAL_BITS);
        let is_exact = self.each(scope, &columns_sql, "GROUP BY us", |day, row| {
            columns.add(day.start().0 + row.get::<_, i64>(0)?, unsigned(row, 1)?);
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
        let (key, n, tables, narrowing) = rows_of(kind);
        let is_exact = self.each_in(
            &tables,
            &Scope::all(),
            &format!("{key}, sum({n})"),
            &format!("AND {narrowing} AND {key} IS NOT NULL GROUP BY 1"),
            |_, row| {
                tally.add(Key::read(row.get_ref(0)?), unsigned(row, 1)?);
                Ok(true)
            },
        )?;
        tally.is_exact &= is_exact;
        Ok(tally)
    }

    /// The most frequent values of a kind.
    pub(crate) fn top(&self, kind: Kind, limit: usize) -> Result<TopList> {
        let tally = self.tally(kind)?;
        Ok(TopList { kind, items: self.named(kind, tally.top(limit, 0))?, distinct: tally.distinct() })
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
        for part in self.parts.iter().rev() {
            if self.is_late() {
                return Ok(false);
            }
            let goes_on = self.reader.in_day(part.day, |connection| {
                let failed = |source| self.reader.failed(source);
                for (first, last) in self.ranges(connection, scope, part)? {
                    if self.is_late() {
                        return Ok(false);
                    }
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
        let Some((kind, value)) = &scope.index else {
            return Ok(vec![part.keys]);
        };
        let failed = |source| self.reader.failed(source);
        let mut statement = connection
            .prepare_cached("SELECT DISTINCT hour FROM hourly WHERE kind = ? AND key = ? ORDER BY hour DESC")
            .map_err(failed)?;
        let kind = Value::Integer(i64::from(*kind as u8));
        let hours =
            statement.query_map(params_from_iter([&kind, value]), |row| row.get::<_, i64>(0)).map_err(failed)?;
        let mut ranges = Vec::new();
        for hour in hours {
            let hour = hour.map_err(failed)?;
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

impl Part {
    fn of(day: Day, from: Moment, to: Moment) -> Option<Self> {
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

/// Columns of a chart.
struct Columns {
    start: Moment,
    step_us: i64,
    points: Vec<u64>,
}

impl Columns {
    fn new(from: Moment, to: Moment) -> Self {
        let step_us = Filter::step(from, to);
        let start = from.0.div_euclid(step_us) * step_us;
        let length = to.0.saturating_sub(start).max(0);
        let columns = usize::try_from((length + step_us - 1) / step_us).unwrap_or(0).min(400);
        Self { start: Moment(start), step_us, points: vec![0; columns] }
    }

    fn add(&mut self, us: i64, n: u64) {
        let column = usize::try_from((us - self.start.0).div_euclid(self.step_us)).ok();
        if let Some(point) = column.and_then(|column| self.points.get_mut(column)) {
            *point = point.saturating_add(n);
        }
    }

    fn series(self) -> Series {
        Series { start: self.start, step_us: self.step_us, points: self.points }
    }
}

/// Returns the tables of sessions with their marks of some kinds.
pub(super) fn marked(kinds: &[Kind]) -> String {
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind as u8).to_string()).collect();
    format!("sessions s JOIN marks m ON m.session = s.id AND m.kind IN ({})", kinds.join(", "))
}

/// Returns the table of a kind of values: key, number, tables, and a condition.
fn rows_of(kind: Kind) -> (String, &'static str, Cow<'static, str>, String) {
    let sessions = Cow::Borrowed("sessions s");
    let all = || "1".to_owned();
    match kind {
        Kind::Connections => ("0".to_owned(), "s.n", sessions, all()),
        Kind::Sessions => ("0".to_owned(), "1", sessions, all()),
        Kind::Rejected => ("0".to_owned(), "s.n", sessions, format!("s.flags & {} <> 0", key::REJECTED)),
        Kind::BytesIn => ("0".to_owned(), "s.bytes_in", sessions, all()),
        Kind::HalfOpen => ("0".to_owned(), "s.n", "scans s".into(), all()),
        Kind::Scans => ("0".to_owned(), "1", "scans s".into(), all()),
        Kind::ScanSource => ("s.source".to_owned(), "s.n", "scans s".into(), all()),
        Kind::Port => (format!("s.port + (s.flags & {} <> 0) * {}", key::UDP, key::UDP_PORTS), "s.n", sessions, all()),
        Kind::Group => {
            ("f.grp".to_owned(), "s.n", "sessions s JOIN facts f ON f.kind = 3 AND f.id = s.payload".into(), all())
        }
        Kind::Credential => {
            ("t.credential".to_owned(), "s.n", "sessions s JOIN tries t ON t.session = s.id".into(), all())
        }
        // Ports of scans are in the roll-ups only: a part of an hour counts with its hour.
        Kind::ScanPort | Kind::ScanBlock => ("NULL".to_owned(), "s.n", "scans s".into(), all()),
        Kind::Tag | Kind::Cve | Kind::Indicator => ("m.fact".to_owned(), "s.n", marked(&[kind]).into(), all()),
        kind => (format!("s.{}", kind.column().unwrap_or("NULL")), "s.n", sessions, all()),
    }
}

pub(super) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let number: Option<i64> = row.get(index)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0))
}

/// Returns the number of a fact.
pub(super) fn fact_id(reader: &Reader, kind: Kind, value: &[u8]) -> Result<Option<i64>> {
    reader
        .catalog()
        .query_row(
            "SELECT id FROM facts WHERE hash = ? AND kind = ?",
            (reader.salt().hash(kind, value), kind as u8),
            |row| row.get(0),
        )
        .optional()
        .map_err(|source| reader.failed(source))
}

/// Returns the text of a key, and what to show where that is another one.
pub(crate) fn name(reader: &Reader, kind: Kind, key: &Key) -> Result<(String, Option<String>)> {
    match (kind, key) {
        (Kind::Source | Kind::ScanSource, key) => {
            Ok((key::read_address(ValueRef::from(&key.value())).to_string(), None))
        }
        (Kind::Port | Kind::ScanPort, Key::Number(port)) => Ok((port_text(*port), None)),
        (kind, Key::Number(id)) => {
            let named = reader
                .catalog()
                .prepare_cached("SELECT value, label FROM facts WHERE kind = ? AND id = ?")
                .and_then(|mut statement| {
                    statement
                        .query_row((kind as u8, id), |row| {
                            Ok((fact_text(row.get_ref(0)?), row.get::<_, Option<String>>(1)?))
                        })
                        .optional()
                })
                .map_err(|source| reader.failed(source))?;
            Ok(named.unwrap_or_default())
        }
        (_, Key::Address(_)) => Ok((String::new(), None)),
    }
}

/// Returns the value of a fact as text: a hash in hexadecimal digits.
pub(super) fn fact_text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ValueRef::Integer(number) => number.to_string(),
        _ => String::new(),
    }
}

/// Returns a port as text: `22`, `53/udp`.
pub(super) fn port_text(port: i64) -> String {
    if port >= key::UDP_PORTS { format!("{}/udp", port - key::UDP_PORTS) } else { port.to_string() }
}

/// Reads what [`port_text`] wrote.
pub(super) fn read_port(text: &str) -> Result<i64> {
    let (number, udp) = match text.split_once('/') {
        Some((number, "udp")) => (number, key::UDP_PORTS),
        Some((number, "tcp")) => (number, 0),
        Some(_) => ("", 0),
        None => (text, 0),
    };
    let port: Option<u16> = number.parse().ok();
    port.map(|port| i64::from(port) + udp).ok_or_else(|| Error::NotFound(format!("port {text}")))
}
