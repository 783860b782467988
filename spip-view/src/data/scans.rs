//! *Scans*: who asks without ever connecting, for what, in which order.

use std::net::IpAddr;

use rusqlite::types::Value;
use serde::Serialize;

use super::ask::{Ask, Scope, unsigned};
use super::line::Names;
use super::sources::LINES;
use super::tally::{Key, Tally};
use super::{Count, Series, Top, Totals};
use crate::filter::Filter;
use crate::moment::Moment;
use crate::row::Kind;
use crate::store::{Reader, Result, key};

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct ScansPage {
    /// Totals of the range.
    pub totals: Totals,
    /// Half-open SYNs over time.
    pub half_open: Series,
    /// Connections over time.
    pub completed: Series,
    /// Number of sources that scanned.
    pub sources: Count,
    /// Sources, most SYNs first.
    pub top_sources: Vec<Top>,
    /// Ports that most scans of at most 1,024 ports asked for: records of scans, not SYNs.
    pub ports: Vec<Top>,
    /// Tools that showed, by records of scans.
    pub tools: Vec<Top>,
    /// Sources that swept over addresses: at least 8 addresses in one record.
    pub sweeps: Vec<ScanLine>,
    /// The newest scans.
    pub latest: Vec<ScanLine>,
}

/// Half-open SYNs of one source in one interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScanLine {
    /// Time of the first SYN.
    pub time: Moment,
    /// Time of the last SYN.
    pub last: Moment,
    /// The sensor.
    pub sensor: String,
    /// The source; 0.0.0.0 is the rest.
    pub source: IpAddr,
    /// Half-open SYNs.
    pub count: u64,
    /// Ports as ranges, ascending: `22-24,80`; shortened with `…` where they are many.
    pub ports: String,
    /// Number of different ports.
    pub port_count: u64,
    /// Addresses as ranges.
    pub destinations: String,
    /// Number of different addresses.
    pub destination_count: u64,
    /// Tools that showed.
    pub tools: Option<String>,
    /// Set when the same source also completed connections, in all that is stored.
    pub has_connected: bool,
}

/// Addresses in one record that make a sweep.
const SWEEP: u64 = 8;

/// Scans in a list.
const SHOWN: usize = 50;

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<ScansPage> {
    // A query is about sessions: scans have none of their fields but source and sensor.
    let plain = Filter { query: None, ..filter.clone() };
    let ask = Ask::new(reader, &plain)?;
    let sources = ask.tally(Kind::ScanSource)?;
    let mut tools = Tally::default();
    ask.each_in("scans s", &Scope::all(), "s.tool, count(*)", "AND s.tool IS NOT NULL GROUP BY 1", |_, row| {
        tools.add(Key::read(row.get_ref(0)?), unsigned(row, 1)?);
        Ok(true)
    })?;
    let (top_sources, sources) = sources.ranked(LINES, 0);
    Ok(ScansPage {
        totals: ask.totals()?,
        half_open: ask.series(Kind::HalfOpen, None)?,
        completed: ask.series(Kind::Connections, None)?,
        sources,
        top_sources: ask.named(Kind::ScanSource, top_sources)?,
        ports: ask.top(Kind::ScanPort, LINES)?.items,
        tools: ask.named(Kind::Tool, tools.top(LINES, 0))?,
        sweeps: lines(&ask, &format!("s.destination_count >= {SWEEP}"), Vec::new(), SHOWN)?,
        latest: lines(&ask, "1", Vec::new(), SHOWN)?,
    })
}

/// The newest scans of a source.
pub(super) fn of_source(ask: &Ask<'_>, source: &Key, limit: usize) -> Result<Vec<ScanLine>> {
    lines(ask, "s.source = ?", vec![source.value()], limit)
}

fn lines(ask: &Ask<'_>, condition: &str, parameters: Vec<Value>, limit: usize) -> Result<Vec<ScanLine>> {
    // The filter's query is about sessions and cannot be asked here.
    let plain = ask.between(ask.from, ask.to);
    let scope = Scope { sql: condition.to_owned(), parameters, ..Scope::all() };
    let columns = "s.id, s.n, s.source, s.sensor, s.duration_us, s.ports, s.port_count, s.destinations, s.destination_count, s.tool,
                   EXISTS (SELECT 1 FROM sources WHERE source = s.source AND n > 0)";
    let mut names = Names::new(ask.reader);
    let mut lines = Vec::new();
    let mut error = None;
    plain.each_in("scans s", &scope, columns, &format!("ORDER BY s.id DESC LIMIT {limit}"), |day, row| {
        let id: i64 = row.get(0)?;
        let tool: Option<i64> = row.get(9)?;
        let named = names.of(Kind::Sensor, row.get(3)?).and_then(|sensor| {
            let tools = tool.map(|tool| names.of(Kind::Tool, tool)).transpose()?;
            Ok((sensor, tools))
        });
        match named {
            Ok((sensor, tools)) => lines.push(ScanLine {
                time: key::accepted(day, id),
                last: Moment(key::accepted(day, id).0.saturating_add(row.get(4)?)),
                sensor,
                source: key::read_address(row.get_ref(2)?),
                count: unsigned(row, 1)?,
                ports: row.get(5)?,
                port_count: unsigned(row, 6)?,
                destinations: row.get(7)?,
                destination_count: unsigned(row, 8)?,
                tools,
                has_connected: row.get(10)?,
            }),
            Err(failure) => error = Some(failure),
        }
        Ok(error.is_none() && lines.len() < limit)
    })?;
    error.map_or(Ok(lines), Err)
}
