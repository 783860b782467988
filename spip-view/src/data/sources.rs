//! *Sources*: who came, and everything about one of them.

use std::net::IpAddr;

use rusqlite::OptionalExtension as _;
use rusqlite::types::ValueRef;
use serde::Serialize;

use super::ask::{Ask, Scope, unsigned};
use super::examined::Examined;
use super::tally::{Key, Tally};
use super::{Count, Fact, Series, SessionLine, Top, Totals, line};
use crate::filter::Filter;
use crate::moment::Moment;
use crate::row::Kind;
use crate::store::{Error, Reader, Result, key};

/// The list.
#[derive(Clone, Debug, Serialize)]
pub struct SourcesPage {
    /// Number of sources.
    pub total: Count,
    /// Most connections first.
    pub sources: Vec<SourceLine>,
    /// The value of `after` for the next page.
    pub next: Option<String>,
}

/// A source in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceLine {
    /// The address; 0.0.0.0 stands for sources that were refused together.
    pub source: IpAddr,
    /// Connections in the range.
    pub connections: u64,
    /// Time of its first connection, in all that is stored.
    pub first: Option<Moment>,
    /// Time of its last connection, in all that is stored.
    pub last: Option<Moment>,
    /// Half-open SYNs, in all that is stored.
    pub half_open: u64,
}

/// One source.
#[derive(Clone, Debug, Serialize)]
pub struct SourcePage {
    /// The address.
    pub source: IpAddr,
    /// Time of its first connection, in all that is stored; absent when it is not known.
    pub first: Option<Moment>,
    /// Time of its last connection.
    pub last: Option<Moment>,
    /// Totals of the range.
    pub totals: Totals,
    /// Set when all of its sessions in the range were examined.
    pub is_exact: bool,
    /// Connections over time.
    pub connections: Series,
    /// Ports in the order in which it first asked for them.
    pub ports: Vec<PortStep>,
    /// Groups of payloads that it sent.
    pub payloads: Vec<Top>,
    /// Its country, network and known scanner.
    pub places: Vec<Fact>,
    /// Rules that matched what it sent.
    pub tags: Vec<Top>,
    /// Its fingerprints.
    pub fingerprints: Vec<Fact>,
    /// Paths, hosts, server names that it asked for.
    pub asked: Vec<Fact>,
    /// Credentials that it tried, in order: protocol, user, secret.
    pub credentials: Vec<super::credentials::Attempt>,
    /// Its half-open scans, newest first.
    pub scans: Vec<super::scans::ScanLine>,
    /// Sources that share fingerprints with it.
    pub alike: Vec<Alike>,
    /// Its newest sessions.
    pub sessions: Vec<SessionLine>,
}

/// A port that a source asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortStep {
    /// The port: `22`, `53/udp`.
    pub port: String,
    /// Time of its first connection to the port in the range.
    pub first: Moment,
    /// Connections.
    pub count: u64,
    /// Protocols that it spoke there.
    pub protocols: Vec<String>,
}

/// A source that looks the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alike {
    /// The source.
    pub source: IpAddr,
    /// Facts that both sources share.
    pub shared: Vec<Fact>,
}

/// Returns the list.
///
/// # Errors
/// The store does not answer.
pub fn list(reader: &Reader, filter: &Filter) -> Result<SourcesPage> {
    let ask = Ask::new(reader, filter)?;
    let tally = ask.tally(Kind::Source)?;
    let offset = filter.after.as_deref().and_then(|after| after.parse().ok()).unwrap_or(0).min(MAX_OFFSET);
    let mut sources = Vec::new();
    let (top, total) = tally.ranked(filter.limit, offset);
    for (key, connections) in top {
        let known = known(reader, &key)?;
        sources.push(SourceLine {
            source: key::read_address(ValueRef::from(&key.value())),
            connections,
            first: known.map(|known| known.first),
            last: known.map(|known| known.last),
            half_open: known.map_or(0, |known| known.half_open),
        });
    }
    let shown = offset + sources.len();
    let next = (shown < usize::try_from(total.value).unwrap_or(0)).then(|| shown.to_string());
    Ok(SourcesPage { total, sources, next })
}

/// Lines that a list can be scrolled down.
const MAX_OFFSET: usize = 1_000_000;

/// Facts of a source in the catalog.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) first: Moment,
    pub(super) last: Moment,
    pub(super) half_open: u64,
}

pub(super) fn known(reader: &Reader, source: &Key) -> Result<Option<Known>> {
    reader
        .catalog()
        .prepare_cached("SELECT first_us, last_us, half_open FROM sources WHERE source = ?")
        .and_then(|mut statement| {
            statement
                .query_row([source.value()], |row| {
                    Ok(Known { first: Moment(row.get(0)?), last: Moment(row.get(1)?), half_open: unsigned(row, 2)? })
                })
                .optional()
        })
        .map_err(|source| reader.failed(source))
}

/// Sessions that a page looks at one by one, the newest ones.
pub(super) const EXAMINED: usize = 20_000;

/// Lines of the lists on a page of one thing.
pub(super) const LINES: usize = 20;

/// Ports of one source that are shown.
const PORTS: usize = 200;

/// Attempts of one source that are shown.
const ATTEMPTS: usize = 200;

/// Sources that are looked for because they share fingerprints.
const ALIKE: usize = 12;

/// Sessions with a fingerprint, the newest ones, and hours with it, in which these sources are looked for.
const NEWEST: usize = 5_000;
const HOURS: usize = 12;

/// Returns everything about one source.
///
/// # Errors
/// The address is none, or the store does not answer.
pub fn one(reader: &Reader, filter: &Filter, source: &str) -> Result<SourcePage> {
    let address: IpAddr = source.parse().map_err(|_| Error::NotFound(format!("source {source}")))?;
    let address = address.to_canonical();
    let ask = Ask::new(reader, filter)?;
    let key = Key::read(ValueRef::from(&key::address(address)));
    let scope = Scope::of(Kind::Source, &key);
    let known = known(reader, &key)?;
    let examined = Examined::of(&ask, &scope, EXAMINED)?;
    let (mut totals, is_counted) = if examined.is_exact { (examined.totals, true) } else { ask.totals_of(&scope)? };
    let scans = super::scans::of_source(&ask, &key, LINES)?;
    totals.half_open = ask.sum(Kind::ScanSource, Some(key))?;
    totals.scans = scans.len() as u64;
    let connections =
        if ask.has_query() { ask.series_of(&scope, "s.n")?.0 } else { ask.series(Kind::Source, Some(key))? };
    Ok(SourcePage {
        source: address,
        first: known.map(|known| known.first),
        last: known.map(|known| known.last),
        totals,
        is_exact: examined.is_exact && is_counted,
        connections,
        ports: examined.port_steps(reader, PORTS)?,
        payloads: ask.named(Kind::Group, examined.top(Kind::Group, LINES))?,
        places: examined.facts(reader, Kind::PLACES)?,
        tags: ask.named(Kind::Tag, examined.top(Kind::Tag, LINES))?,
        fingerprints: examined.facts(reader, Kind::FINGERPRINTS)?,
        asked: examined.facts(reader, &[Kind::Path, Kind::Host, Kind::ServerName])?,
        credentials: super::credentials::attempts(reader, &examined.tried, ATTEMPTS)?,
        scans,
        alike: alike(&ask, &examined, &key)?,
        sessions: line::latest(&ask, &scope, filter.limit)?.0,
    })
}

/// Sources that share the rarest fingerprints, among the newest sessions with them.
fn alike(ask: &Ask<'_>, examined: &Examined, own: &Key) -> Result<Vec<Alike>> {
    let mut shared: std::collections::BTreeMap<Key, Vec<Fact>> = std::collections::BTreeMap::new();
    for (kind, key) in examined.rarest(ask.reader, 3)? {
        let (value, label) = super::names::name(ask.reader, kind, &key)?;
        let mut tally = Tally::default();
        let scope = Scope { hours: HOURS, ..Scope::of(kind, &key) };
        let mut left = NEWEST;
        let behind = format!("ORDER BY s.id DESC LIMIT {NEWEST}");
        ask.each(&scope, "s.source, s.n", &behind, |_, row| {
            tally.add(Key::read(row.get_ref(0)?), unsigned(row, 1)?);
            left -= 1;
            Ok(left > 0)
        })?;
        for (source, count) in tally.top(ALIKE * 2, 0).into_iter().filter(|(source, _)| source != own) {
            shared.entry(source).or_default().push(Fact { kind, value: value.clone(), label: label.clone(), count });
        }
    }
    let mut list: Vec<(Key, Vec<Fact>)> = shared.into_iter().collect();
    list.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.0.cmp(&b.0)));
    list.truncate(ALIKE);
    Ok(list
        .into_iter()
        .map(|(source, shared)| Alike { source: key::read_address(ValueRef::from(&source.value())), shared })
        .collect())
}
