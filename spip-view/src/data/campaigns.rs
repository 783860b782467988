//! *Campaigns*: sources that belong together, found by the program.
//!
//! What sources of a campaign share, [`Kind::SHARED`], is a fact of its own, which the ingestion gives each session with a
//! payload and a fingerprint. Sources that have one within the range are one campaign. Roll-ups count its connections,
//! sources and ports by hour; the sessions answer for a query, and for columns of less than an hour.

use std::collections::HashMap;
use std::net::IpAddr;

use rusqlite::OptionalExtension as _;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::ask::{Ask, Scope};
use super::columns::Columns;
use super::names::name;
use super::tally::Key;
use super::{Fact, Series, Top};
use crate::filter::Filter;
use crate::moment::{HOUR, Moment};
use crate::query::quote;
use crate::row::Kind;
use crate::store::{Reader, Result, key};

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct CampaignsPage {
    /// Set when all sessions of the range were examined.
    pub is_exact: bool,
    /// Largest and newest first.
    pub campaigns: Vec<Campaign>,
}

/// Sources that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Campaign {
    /// Names it: a hash of what its sources share.
    pub id: String,
    /// Facts that all members share, and that they were grouped by.
    pub shared: Vec<Fact>,
    /// Text to show for the payload that they share.
    pub label: Option<String>,
    /// Number of sources.
    pub sources: u64,
    /// Some of them.
    pub examples: Vec<IpAddr>,
    /// Ports, most connections first.
    pub ports: Vec<Top>,
    /// Connections.
    pub connections: u64,
    /// First time in the range.
    pub first: Moment,
    /// Last time in the range.
    pub last: Moment,
    /// Connections over time.
    pub series: Series,
    /// A query that finds its sessions.
    pub query: String,
}

/// Sources that make a campaign.
const MIN_SOURCES: u64 = 3;

/// Campaigns that are shown.
const SHOWN: usize = 40;

/// Sources of a campaign that are shown.
const EXAMPLES: usize = 8;

/// Ports of a campaign that are shown.
const PORTS: usize = 8;

/// What is counted of a campaign.
#[derive(Default)]
struct Found {
    sources: u64,
    examples: Vec<Key>,
    ports: Vec<(Key, u64)>,
    connections: u64,
}

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<CampaignsPage> {
    let ask = Ask::new(reader, filter)?;
    let mut found: HashMap<i64, Found> = HashMap::new();
    let sources = ask.tally(Kind::CampaignSource)?;
    sources.each(|pair, _| {
        let (campaign, source) = pair.split();
        let campaign = found.entry(campaign).or_default();
        campaign.sources += 1;
        // The smallest, so that the page stays the same.
        let at = campaign.examples.partition_point(|other| *other < source);
        if at < EXAMPLES {
            campaign.examples.insert(at, source);
            campaign.examples.truncate(EXAMPLES);
        }
    });
    found.retain(|_, campaign| campaign.sources >= MIN_SOURCES);
    let ports = ask.tally(Kind::CampaignPort)?;
    ports.each(|pair, n| {
        let (campaign, port) = pair.split();
        if let Some(campaign) = found.get_mut(&campaign) {
            campaign.connections += n;
            campaign.ports.push((port, n));
        }
    });
    let mut list: Vec<(i64, Found)> = found.into_iter().collect();
    // Numbers of facts are given in the order of their first appearance.
    list.sort_unstable_by_key(|(id, found)| std::cmp::Reverse((found.sources, *id)));
    list.truncate(SHOWN);
    let mut times = times(&ask, list.iter().map(|(id, _)| *id))?;
    let mut campaigns = Vec::new();
    for (id, found) in list {
        if let Some(times) = times.remove(&id) {
            campaigns.extend(campaign(&ask, id, found, times)?);
        }
    }
    Ok(CampaignsPage { is_exact: sources.is_exact && ports.is_exact, campaigns })
}

/// Returns the first and the last time of a campaign in all that is stored.
fn seen(reader: &Reader, id: i64) -> Result<(Moment, Moment)> {
    let sql = "SELECT first_us, last_us FROM facts WHERE kind = ? AND id = ?";
    let found = reader.catalog().prepare_cached(sql).and_then(|mut statement| {
        let read = |row: &rusqlite::Row<'_>| Ok((Moment(row.get(0)?), Moment(row.get(1)?)));
        statement.query_row((Kind::Campaign as u8, id), read).optional()
    });
    Ok(found.map_err(|source| reader.failed(source))?.unwrap_or((Moment(0), Moment(0))))
}

fn campaign(ask: &Ask<'_>, id: i64, mut found: Found, times: Times) -> Result<Option<Campaign>> {
    let (text, _) = name(ask.reader, Kind::Campaign, &Key::Number(id))?;
    let Ok(shared) = serde_json::from_str::<[Option<i64>; 5]>(&text) else {
        return Ok(None);
    };
    let mut facts = Vec::new();
    let mut label = None;
    for (kind, id) in Kind::SHARED.into_iter().zip(shared) {
        let Some(id) = id else { continue };
        let (value, own) = name(ask.reader, kind, &Key::Number(id))?;
        label = label.or_else(|| own.clone());
        facts.push(Fact { kind, value, label: own, count: found.connections });
    }
    let query: Vec<String> = facts.iter().map(|fact| format!("{}:{}", fact.kind.name(), quote(&fact.value))).collect();
    let query = query.join(" and ");
    let digest: [u8; 32] = Sha256::digest(query.as_bytes()).into();
    found.ports.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    found.ports.truncate(PORTS);
    Ok(Some(Campaign {
        id: hex::encode(digest.get(..6).unwrap_or_default()),
        shared: facts,
        label,
        sources: found.sources,
        examples: found.examples.iter().map(|key| key::read_address((&key.value()).into())).collect(),
        ports: ask.named(Kind::Port, found.ports)?,
        connections: found.connections,
        first: times.first,
        last: times.last,
        series: times.columns.series(),
        query,
    }))
}

/// When a campaign came in the range.
struct Times {
    first: Moment,
    last: Moment,
    columns: Columns,
}

/// Returns the first and the last time of campaigns in the range, and their connections over time.
fn times(ask: &Ask<'_>, ids: impl Iterator<Item = i64>) -> Result<HashMap<i64, Times>> {
    let mut times: HashMap<i64, Times> = ids
        .map(|id| {
            let columns = Columns::new(ask.from, ask.to);
            (id, Times { first: Moment(i64::MAX), last: Moment(i64::MIN), columns })
        })
        .collect();
    let mut is_rolled = false;
    let mut take = |us: i64, key: Key, n: u64| {
        let Key::Number(id) = key else { return };
        if let Some(times) = times.get_mut(&id) {
            (times.first, times.last) = (times.first.min(Moment(us)), times.last.max(Moment(us)));
            times.columns.add(us, n);
        }
    };
    if ask.has_query() || Columns::new(ask.from, ask.to).step_us < HOUR {
        ask.each(&Scope::all(), "s.campaign, s.id, s.n", "AND s.campaign IS NOT NULL", |day, row| {
            take(key::accepted(day, row.get(1)?).0, Key::read(row.get_ref(0)?), super::ask::unsigned(row, 2)?);
            Ok(true)
        })?;
    } else {
        is_rolled = true;
        ask.over(Kind::Campaign, None, take)?;
    }
    if is_rolled {
        for (id, times) in &mut times {
            let known = seen(ask.reader, *id)?;
            times.first = end(ask, *id, known.0, times.first, "ASC")?;
            times.last = end(ask, *id, known.1, times.last, "DESC")?;
        }
    }
    Ok(times)
}

/// Returns the first or the last time of a campaign in the range, which lies in the hour of `moment`: what the catalog
/// knows, or else what the sessions of that hour say.
fn end(ask: &Ask<'_>, id: i64, known: Moment, moment: Moment, order: &str) -> Result<Moment> {
    // The catalog knows it of all sensors and sources.
    if !ask.is_narrowed() && known >= ask.from && known < ask.to {
        return Ok(known);
    }
    let hour = Moment(moment.0.div_euclid(HOUR) * HOUR);
    let within = ask.between(hour.max(ask.from), Moment(hour.0.saturating_add(HOUR)).min(ask.to));
    let scope = Scope { index: None, ..Scope::of(Kind::Campaign, &Key::Number(id)) };
    let mut found = None;
    within.each(&scope, "s.id", &format!("ORDER BY s.id {order} LIMIT 1"), |day, row| {
        found = Some(key::accepted(day, row.get(0)?));
        Ok(false)
    })?;
    Ok(found.unwrap_or(known))
}
