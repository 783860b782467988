//! *Now*: is it working, and what is going on?

use std::net::IpAddr;

use serde::Serialize;

use super::ask::{Ask, Scope};
use super::{Series, SessionLine, TopList, Totals, health, line};
use crate::filter::{DEFAULT_LIMIT, Filter};
use crate::moment::{DAY, HOUR, Moment};
use crate::row::Kind;
use crate::store::{Reader, Result};

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct NowPage {
    /// State of the sensors.
    pub status: Status,
    /// Totals of the range.
    pub totals: Totals,
    /// Totals of the range before it, of the same length.
    pub before: Totals,
    /// Rate of connections now, against the same hour yesterday and a week ago.
    pub rates: Rates,
    /// Connections over time.
    pub connections: Series,
    /// Half-open SYNs over time.
    pub half_open: Series,
    /// Most frequent sources, ports, protocols, and where data is there countries and networks.
    pub tops: Vec<TopList>,
    /// The newest sessions, newest first; the live stream goes on from here.
    pub latest: Vec<SessionLine>,
}

/// State of the sensors: records arrive, or since when they do not.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Time of the newest record (accept and duration); absent in an empty store.
    pub last_record: Option<Moment>,
    /// Bytes of logs that are not read yet.
    pub behind_bytes: u64,
    /// Records that are missing by their numbers, in the range.
    pub missing: u64,
    /// Sensors that have sent records in the range.
    pub sensors: u64,
    /// The agent's warnings and errors in the range, newest first.
    pub warnings: Vec<Message>,
}

/// A message of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Time of the event.
    pub time: Moment,
    /// `error`, `warn`, `info`.
    pub level: String,
    /// The part of the agent that says it.
    pub target: String,
    /// The text.
    pub message: String,
    /// The log that it stands in.
    pub log: String,
}

/// Connections an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// In the 60 minutes up to the end of the range.
    pub hour: u64,
    /// In the same 60 minutes of the day before; absent when the store has nothing of then.
    pub yesterday: Option<u64>,
    /// In the same 60 minutes a week before.
    pub last_week: Option<u64>,
}

/// A record as the live stream sends it, an event each.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LiveEvent {
    /// A session.
    Session(Box<SessionLine>),
    /// A scan.
    Scan {
        /// Time of the first SYN.
        time: Moment,
        /// The source.
        source: IpAddr,
        /// Half-open SYNs.
        count: u64,
        /// Number of ports.
        ports: u64,
    },
    /// Records that were left out, because the browser is slower than they come.
    Skipped {
        /// Number of events.
        count: u64,
    },
}

/// Lists of the most frequent.
const LISTS: &[Kind] = &[Kind::Tag, Kind::Source, Kind::Port, Kind::Protocol, Kind::Group];

/// Lines of the lists of the most frequent.
const TOP: usize = 10;

/// Messages that are shown.
const WARNINGS: usize = 5;

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<NowPage> {
    let ask = Ask::new(reader, filter)?;
    let everything = Scope::all();
    let before = filter.before();
    let kinds: Vec<Kind> = LISTS.iter().chain(Kind::PLACES).copied().collect();
    let (connections, totals, mut tops) = ask.summary(&kinds, TOP)?;
    // Places only where there is data on addresses or a list of scanners.
    tops.retain(|list| LISTS.contains(&list.kind) || !list.items.is_empty());
    Ok(NowPage {
        status: status(&ask, filter)?,
        totals,
        before: ask.over_range(before.from, before.to)?.totals()?,
        rates: rates(&ask)?,
        connections,
        half_open: ask.series(Kind::HalfOpen, None)?,
        tops,
        latest: line::latest(&ask, &everything, ask.limit.min(DEFAULT_LIMIT))?.0,
    })
}

fn status(ask: &Ask<'_>, filter: &Filter) -> Result<Status> {
    let catalog = ask.reader.catalog();
    let failed = |source| ask.reader.failed(source);
    let last: Option<i64> = catalog.query_row("SELECT max(last_us) FROM runs", [], |row| row.get(0)).map_err(failed)?;
    let behind: Option<i64> =
        catalog.query_row("SELECT sum(behind_bytes) FROM logs", [], |row| row.get(0)).map_err(failed)?;
    let warnings = health::messages(ask.reader, ask.from, ask.to, true, WARNINGS)?;
    let plain = Filter { query: None, ..filter.clone() };
    let sensors = Ask::new(ask.reader, &plain)?.tally(Kind::Sensor)?.distinct().value;
    Ok(Status {
        last_record: last.map(Moment),
        behind_bytes: behind.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        missing: health::missing(ask.reader, ask.from, ask.to)?,
        sensors,
        warnings,
    })
}

/// Compares the last hour of the range with the same hour earlier. The query does not narrow it.
fn rates(ask: &Ask<'_>) -> Result<Rates> {
    let ago = |days: i64| {
        let to = Moment(ask.to.0.saturating_sub(days * DAY));
        let from = Moment(to.0.saturating_sub(HOUR));
        let is_known = days == 0 || !ask.reader.days(Moment(i64::MIN), from).is_empty();
        let hour = ask.between(from, to);
        is_known.then(|| hour.sum(Kind::Connections, None)).transpose()
    };
    Ok(Rates { hour: ago(0)?.unwrap_or(0), yesterday: ago(1)?, last_week: ago(7)? })
}
