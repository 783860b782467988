//! *Sources*: who came, and everything about one of them.

use std::net::IpAddr;

use rusqlite::OptionalExtension as _;
use rusqlite::types::ValueRef;
use serde::Serialize;

use super::ask::{Ask, Key, unsigned};
use super::{Count, Fact, Series, SessionLine, Top, Totals};
use crate::filter::Filter;
use crate::moment::Moment;
use crate::row::Kind;
use crate::store::{Reader, Result, key};

/// The list.
#[derive(Clone, Debug, Serialize)]
pub struct SourcesPage {
    /// How many sources.
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
    /// When it first came, in all that is stored.
    pub first: Option<Moment>,
    /// When it last came, in all that is stored.
    pub last: Option<Moment>,
    /// Half-open SYNs, in all that is stored.
    pub half_open: u64,
}

/// One source.
#[derive(Clone, Debug, Serialize)]
pub struct SourcePage {
    /// The address.
    pub source: IpAddr,
    /// When it first came, in all that is stored; absent when it is not known.
    pub first: Option<Moment>,
    /// When it last came.
    pub last: Option<Moment>,
    /// Totals of the range.
    pub totals: Totals,
    /// Whether all of its sessions in the range were looked at.
    pub is_exact: bool,
    /// Connections over time.
    pub connections: Series,
    /// Ports in the order in which it first asked for them.
    pub ports: Vec<PortStep>,
    /// Groups of payloads that it sent.
    pub payloads: Vec<Top>,
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
    /// The port.
    pub port: u16,
    /// When it first asked for it in the range.
    pub first: Moment,
    /// Connections.
    pub count: u64,
    /// What it spoke there.
    pub protocols: Vec<String>,
}

/// A source that looks the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alike {
    /// The source.
    pub source: IpAddr,
    /// What it shares.
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
    for (key, connections) in tally.top(filter.limit, offset) {
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
    let next = (shown < usize::try_from(tally.distinct().value).unwrap_or(0)).then(|| shown.to_string());
    Ok(SourcesPage { total: tally.distinct(), sources, next })
}

/// Lines that a list can be scrolled down.
const MAX_OFFSET: usize = 1_000_000;

/// What the catalog knows of a source.
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
