//! *Ports*: all 65,536 over time at a glance, and what is spoken on one.

use std::collections::HashMap;

use rusqlite::OptionalExtension as _;
use serde::Serialize;

use super::ask::{Ask, Scope};
use super::examined::Examined;
use super::names::{port_text, read_port};
use super::sources::{EXAMINED, LINES};
use super::tally::{Key, Tally};
use super::{Count, Series, SessionLine, Top, Totals, line};
use crate::filter::Filter;
use crate::moment::{HOUR, Moment};
use crate::row::Kind;
use crate::store::{Reader, Result, key};

/// The map and the list.
#[derive(Clone, Debug, Serialize)]
pub struct PortsPage {
    /// The heat map.
    pub heat: Heat,
    /// Number of different ports.
    pub total: Count,
    /// Most connections first.
    pub ports: Vec<PortLine>,
}

/// Ports over time. `cells[row][column]`: rows are ranges of ports, ascending; columns are steps of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heat {
    /// The first port of the first row.
    pub first_port: u16,
    /// The last port of the last row.
    pub last_port: u16,
    /// Ports of a row.
    pub ports_per_row: u32,
    /// Begin of the first column.
    pub start: Moment,
    /// Width of a column, microseconds.
    pub step_us: i64,
    /// Connections.
    pub cells: Vec<Vec<u64>>,
    /// The greatest cell.
    pub most: u64,
}

/// A port in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortLine {
    /// The port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// Connections in the range.
    pub connections: u64,
    /// Time of the first connection to it, in all that is stored.
    pub first: Option<Moment>,
    /// Connections over the range, for a small chart.
    pub series: Vec<u64>,
}

/// One port.
#[derive(Clone, Debug, Serialize)]
pub struct PortPage {
    /// The port: `22`, `53/udp`.
    pub port: String,
    /// Time of the first connection to it, in all that is stored.
    pub first: Option<Moment>,
    /// Totals of the range.
    pub totals: Totals,
    /// Set when all of its sessions in the range were examined.
    pub is_exact: bool,
    /// Connections over time.
    pub connections: Series,
    /// Protocols that clients spoke on it.
    pub protocols: Vec<Top>,
    /// Groups of payloads.
    pub payloads: Vec<Top>,
    /// Sources.
    pub sources: Vec<Top>,
    /// Scans that asked for it without ever connecting: records.
    pub scans: u64,
    /// The newest sessions.
    pub sessions: Vec<SessionLine>,
}

/// Rows of the map.
const ROWS: u32 = 256;

/// Columns of the map at most.
const COLUMNS: usize = 200;

/// Ports of the list that have a small chart.
const CHARTS: usize = 50;

/// Returns the map and the list. `first` and `last` zoom into a range of ports.
///
/// # Errors
/// The store does not answer.
pub fn list(reader: &Reader, filter: &Filter) -> Result<PortsPage> {
    let ask = Ask::new(reader, filter)?;
    let (first_port, last_port) = filter.ports.unwrap_or((0, u16::MAX));
    let span = u32::from(last_port) - u32::from(first_port) + 1;
    let ports_per_row = span.div_ceil(ROWS);
    let rows = span.div_ceil(ports_per_row) as usize;
    let step_us = Filter::step(ask.from, ask.to).max(if ask.has_query() { 0 } else { HOUR });
    let start = Moment(ask.from.0.div_euclid(step_us) * step_us);
    let columns = usize::try_from((ask.to.0 - start.0 + step_us - 1) / step_us).unwrap_or(0).min(COLUMNS);
    let mut cells = vec![vec![0_u64; columns]; rows];
    let mut tally = Tally::default();
    let is_exact = ask.over_time(Kind::Port, |us, key, n| {
        let Key::Number(port) = key else { return };
        let number = u32::try_from(port % key::UDP_PORTS).unwrap_or(0);
        let column = usize::try_from((us - start.0).div_euclid(step_us)).unwrap_or(usize::MAX);
        if (u32::from(first_port)..=u32::from(last_port)).contains(&number) {
            let row = ((number - u32::from(first_port)) / ports_per_row) as usize;
            if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                *cell += n;
            }
            tally.add(key, n);
        }
    })?;
    let top = tally.top(filter.limit, 0);
    // In a second pass, so that memory is for the charts that are shown, not for one of each of 131,072 ports.
    let mut series: HashMap<Key, Vec<u64>, foldhash::fast::RandomState> =
        top.iter().take(CHARTS).map(|(key, _)| (*key, vec![0; columns])).collect();
    let is_exact = is_exact
        && ask.over_time(Kind::Port, |us, key, n| {
            let column = usize::try_from((us - start.0).div_euclid(step_us)).unwrap_or(usize::MAX);
            if let Some(point) = series.get_mut(&key).and_then(|series| series.get_mut(column)) {
                *point += n;
            }
        })?;
    let mut ports = Vec::new();
    for (key, connections) in top {
        let Key::Number(port) = key else { continue };
        let own = series.remove(&key).unwrap_or_default();
        ports.push(PortLine {
            port: u16::try_from(port % key::UDP_PORTS).unwrap_or(0),
            transport: if port >= key::UDP_PORTS { "udp" } else { "tcp" },
            connections,
            first: first(reader, port)?,
            series: own,
        });
    }
    let most = cells.iter().flatten().copied().max().unwrap_or(0);
    let mut total = tally.distinct();
    total.is_exact &= is_exact;
    Ok(PortsPage { heat: Heat { first_port, last_port, ports_per_row, start, step_us, cells, most }, total, ports })
}

fn first(reader: &Reader, port: i64) -> Result<Option<Moment>> {
    let hash = reader.salt().hash(Kind::Port, port_text(port).as_bytes());
    reader
        .catalog()
        .prepare_cached("SELECT first_us FROM facts WHERE hash = ?")
        .and_then(|mut statement| statement.query_row([hash], |row| row.get(0).map(Moment)).optional())
        .map_err(|source| reader.failed(source))
}

/// Returns everything about one port: `22`, `53/udp`.
///
/// # Errors
/// The text is no port, or the store does not answer.
pub fn one(reader: &Reader, filter: &Filter, port: &str) -> Result<PortPage> {
    let number = read_port(port)?;
    let ask = Ask::new(reader, filter)?;
    let key = Key::Number(number);
    let scope = Scope::of(Kind::Port, &key);
    let examined = Examined::of(&ask, &scope, EXAMINED)?;
    let connections =
        if ask.has_query() { ask.series_of(&scope, "s.n")?.0 } else { ask.series(Kind::Port, Some(key))? };
    let counted = Totals { connections: connections.points.iter().sum(), ..Totals::default() };
    let totals = if examined.is_exact { examined.totals } else { counted };
    let scanned = (number < key::UDP_PORTS).then(|| ask.sum(Kind::ScanPort, Some(key))).transpose()?;
    Ok(PortPage {
        port: port_text(number),
        first: first(reader, number)?,
        totals,
        is_exact: examined.is_exact,
        connections,
        protocols: ask.named(Kind::Protocol, examined.top(Kind::Protocol, LINES))?,
        payloads: ask.named(Kind::Group, examined.top(Kind::Group, LINES))?,
        sources: ask.named(Kind::Source, examined.top(Kind::Source, LINES))?,
        scans: scanned.unwrap_or(0),
        sessions: line::latest(&ask, &scope, filter.limit)?.0,
    })
}
