//! *Health*: sensors, their runs, what is missing, and this program itself.

use rusqlite::{Params, Row};
use serde::Serialize;

use super::ask::{Ask, unsigned};
use super::now::Message;
use crate::filter::Filter;
use crate::moment::{Day, Moment};
use crate::row::Kind;
use crate::store::{Reader, Result};

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct HealthPage {
    /// Sensors by name.
    pub sensors: Vec<Sensor>,
    /// Logs that are read.
    pub logs: Vec<Log>,
    /// The store.
    pub store: StoreState,
    /// Messages of the agents, newest first.
    pub messages: Vec<Message>,
    /// Events of the store: days dropped, damage, a new start.
    pub events: Vec<Event>,
}

/// A sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sensor {
    /// Its name.
    pub name: String,
    /// Its runs, newest first.
    pub runs: Vec<Run>,
    /// Records that are missing by their numbers, over all of its runs.
    pub missing: u64,
    /// Connections that a limit refused, in the range.
    pub rejected: u64,
}

/// One run of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The run; empty where the agent does not say it.
    pub run: String,
    /// Its first record.
    pub first: Moment,
    /// Its last record.
    pub last: Moment,
    /// Records.
    pub records: u64,
    /// The last number.
    pub last_seq: u64,
    /// Numbers that are missing.
    pub missing: u64,
    /// The missing numbers as ranges, the first ones.
    pub missing_ranges: Vec<(u64, u64)>,
    /// Records that came twice and were ignored.
    pub duplicates: u64,
}

/// A log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    /// Its path.
    pub path: String,
    /// Lines read.
    pub lines: u64,
    /// Lines that are no record of this format, and the newest reason.
    pub foreign: u64,
    /// Reason why the newest of them was refused.
    pub foreign_reason: Option<String>,
    /// Lines that were too long.
    pub overlong: u64,
    /// Files that went before they were read.
    pub lost_files: u64,
    /// Position at which reading continues.
    pub position: String,
    /// Time at which a line was last read.
    pub last_read: Option<Moment>,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreState {
    /// Its directory.
    pub directory: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes that it may take.
    pub keep_bytes: u64,
    /// Days that it may keep.
    pub keep_days: u32,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// Its days, newest first.
    pub days: Vec<DayState>,
}

/// A day in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DayState {
    /// The day.
    pub day: Day,
    /// Bytes of its file.
    pub bytes: u64,
    /// Records of sessions.
    pub sessions: u64,
}

/// Something that this program did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Time of the event.
    pub time: Moment,
    /// Text of the event.
    pub text: String,
}

/// Messages and events that are shown.
const SHOWN: usize = 100;

/// Runs of a sensor that are shown.
const RUNS: usize = 50;

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<HealthPage> {
    let (from, to) = reader.clamp(filter.from, filter.to);
    Ok(HealthPage {
        sensors: sensors(reader, filter)?,
        logs: logs(reader)?,
        store: store(reader)?,
        messages: messages(reader, from, to, false, SHOWN)?,
        events: events(reader)?,
    })
}

/// Messages of the agents in a range, newest first.
pub(super) fn messages(
    reader: &Reader,
    from: Moment,
    to: Moment,
    only_warnings: bool,
    limit: usize,
) -> Result<Vec<Message>> {
    let levels = if only_warnings { "AND m.level IN ('warn', 'error')" } else { "" };
    let sql = format!(
        "SELECT m.time_us, m.level, m.target, m.message, l.path FROM messages m JOIN logs l ON l.id = m.log
         WHERE m.time_us >= ? AND m.time_us < ? {levels} ORDER BY m.time_us DESC, m.id DESC LIMIT ?"
    );
    list(reader, &sql, (from.0, to.0, count(limit)), |row| {
        Ok(Message {
            time: Moment(row.get(0)?),
            level: row.get(1)?,
            target: row.get(2)?,
            message: row.get(3)?,
            log: row.get(4)?,
        })
    })
}

/// Records that are missing by their numbers in runs that touch the range.
pub(crate) fn missing(reader: &Reader, from: Moment, to: Moment) -> Result<u64> {
    let sum: Option<i64> = reader
        .catalog()
        .query_row("SELECT sum(missing) FROM runs WHERE last_us >= ? AND first_us < ?", (from.0, to.0), |row| {
            row.get(0)
        })
        .map_err(|source| reader.failed(source))?;
    Ok(sum.and_then(|sum| u64::try_from(sum).ok()).unwrap_or(0))
}

fn sensors(reader: &Reader, filter: &Filter) -> Result<Vec<Sensor>> {
    let names = list(reader, "SELECT id, value FROM facts WHERE kind = 1 ORDER BY value LIMIT 1000", (), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut sensors = Vec::new();
    for (id, name) in names.into_iter().filter(|(_, name)| filter.sensor.as_ref().is_none_or(|wanted| wanted == name)) {
        let sql = "SELECT run, first_us, last_us, records, last_seq, missing, ranges, duplicates FROM runs
                   WHERE sensor = ? ORDER BY last_us DESC LIMIT ?";
        let runs = list(reader, sql, (id, count(RUNS)), |row| {
            Ok(Run {
                run: row.get(0)?,
                first: Moment(row.get(1)?),
                last: Moment(row.get(2)?),
                records: unsigned(row, 3)?,
                last_seq: unsigned(row, 4)?,
                missing: unsigned(row, 5)?,
                missing_ranges: serde_json::from_str(&row.get::<_, String>(6)?).unwrap_or_default(),
                duplicates: unsigned(row, 7)?,
            })
        })?;
        let total = list(reader, "SELECT sum(missing) FROM runs WHERE sensor = ?", [id], |row| unsigned(row, 0))?;
        let own = Filter { sensor: Some(name.clone()), query: None, ..filter.clone() };
        let rejected = Ask::new(reader, &own)?.sum(Kind::Rejected, None)?;
        sensors.push(Sensor { name, runs, missing: total.into_iter().sum(), rejected });
    }
    Ok(sensors)
}

fn logs(reader: &Reader) -> Result<Vec<Log>> {
    let sql = "SELECT path, lines, is_foreign, foreign_reason, overlong, lost_files, position, last_read_us FROM logs ORDER BY path";
    list(reader, sql, (), |row| {
        Ok(Log {
            path: row.get(0)?,
            lines: unsigned(row, 1)?,
            foreign: unsigned(row, 2)?,
            foreign_reason: row.get(3)?,
            overlong: unsigned(row, 4)?,
            lost_files: unsigned(row, 5)?,
            position: row.get(6)?,
            last_read: row.get::<_, Option<i64>>(7)?.map(Moment),
        })
    })
}

fn events(reader: &Reader) -> Result<Vec<Event>> {
    list(reader, "SELECT time_us, text FROM events ORDER BY id DESC LIMIT ?", [count(SHOWN)], |row| {
        Ok(Event { time: Moment(row.get(0)?), text: row.get(1)? })
    })
}

fn store(reader: &Reader) -> Result<StoreState> {
    let usage = reader.store().usage()?;
    let mut days = Vec::new();
    for (day, bytes) in usage.days.iter().rev() {
        let sessions = reader.in_day(*day, |connection| {
            super::ask::stored(connection, Kind::Sessions).map_err(|source| reader.failed(source))
        })?;
        days.extend(sessions.map(|sessions| DayState { day: *day, bytes: *bytes, sessions }));
    }
    Ok(StoreState {
        directory: reader.store().directory().display().to_string(),
        bytes: usage.bytes,
        keep_bytes: usage.keep.bytes,
        keep_days: usage.keep.days,
        free_bytes: usage.free_bytes,
        days,
    })
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn list<T>(
    reader: &Reader,
    sql: &str,
    parameters: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let rows = reader.catalog().prepare(sql).and_then(|mut statement| statement.query_map(parameters, read)?.collect());
    rows.map_err(|source| reader.failed(source))
}
