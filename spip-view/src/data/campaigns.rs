//! *Campaigns*: sources that belong together, found by the program.
//!
//! Sessions with a payload are keyed by their fingerprints (JA4, HASSH, HTTP fingerprint, SYN) and the group of the payload. Sources that share a key within the range are one campaign.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use rusqlite::types::ValueRef;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::ask::{Ask, Key, Scope, Tally, name, unsigned};
use super::{Fact, Series, Top};
use crate::filter::Filter;
use crate::moment::Moment;
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
const MIN_SOURCES: usize = 3;

/// Campaigns that are shown.
const SHOWN: usize = 40;

/// Sessions that are looked at, the newest ones.
const EXAMINED: usize = 400_000;

/// Keys that are followed at once; the smallest ones give way.
const MAX_KEYS: usize = 50_000;

/// Sources of a campaign that are told apart; more are counted as a lower bound by their hashes.
const MAX_SOURCES: usize = 5_000;

/// Facts that sources share: fingerprints and the group of the payload, as numbers of facts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Shared {
    group: Option<i64>,
    ja4: Option<i64>,
    hassh: Option<i64>,
    http: Option<i64>,
    syn: Option<i64>,
}

struct Found {
    sources: BTreeSet<Key>,
    ports: Tally,
    connections: u64,
    first: Moment,
    last: Moment,
    hours: BTreeMap<i64, u64>,
}

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<CampaignsPage> {
    let ask = Ask::new(reader, filter)?;
    let mut found: HashMap<Shared, Found> = HashMap::new();
    let mut is_exact = true;
    let mut left = EXAMINED;
    let columns = "s.id, s.n, s.source, s.port, s.flags, (SELECT grp FROM facts WHERE kind = 3 AND id = s.payload), s.ja4, s.hassh,
                   s.http_fingerprint, s.syn";
    let step = Filter::step(ask.from, ask.to);
    let is_whole = ask.each(&Scope::all(), columns, "AND s.payload IS NOT NULL ORDER BY s.id DESC", |day, row| {
        left -= 1;
        let shared =
            Shared { group: row.get(5)?, ja4: row.get(6)?, hassh: row.get(7)?, http: row.get(8)?, syn: row.get(9)? };
        // One mark alone joins half of the internet.
        let marks = [shared.ja4, shared.hassh, shared.http, shared.syn];
        if marks.iter().all(Option::is_none) {
            return Ok(left > 0);
        }
        let time = key::accepted(day, row.get(0)?);
        let n = unsigned(row, 1)?;
        let campaign = found.entry(shared).or_insert_with(|| Found {
            sources: BTreeSet::new(),
            ports: Tally::default(),
            connections: 0,
            first: time,
            last: time,
            hours: BTreeMap::new(),
        });
        if campaign.sources.len() < MAX_SOURCES {
            campaign.sources.insert(Key::read(row.get_ref(2)?));
        }
        let udp = if row.get::<_, i64>(4)? & key::UDP == 0 { 0 } else { key::UDP_PORTS };
        campaign.ports.add(Key::Number(row.get::<_, i64>(3)? + udp), n);
        campaign.connections += n;
        campaign.first = campaign.first.min(time);
        campaign.last = campaign.last.max(time);
        *campaign.hours.entry(time.0.div_euclid(step)).or_default() += n;
        if found.len() > MAX_KEYS {
            found.retain(|_, campaign| campaign.sources.len() >= MIN_SOURCES);
            is_exact = false;
        }
        Ok(left > 0)
    })?;
    let mut list: Vec<(Shared, Found)> =
        found.into_iter().filter(|(_, found)| found.sources.len() >= MIN_SOURCES).collect();
    list.sort_by(|a, b| (b.1.sources.len(), b.1.last, a.0).cmp(&(a.1.sources.len(), a.1.last, b.0)));
    list.truncate(SHOWN);
    let campaigns =
        list.into_iter().map(|(shared, found)| campaign(&ask, shared, found, step)).collect::<Result<_>>()?;
    Ok(CampaignsPage { is_exact: is_exact && is_whole, campaigns })
}

fn campaign(ask: &Ask<'_>, shared: Shared, found: Found, step_us: i64) -> Result<Campaign> {
    let mut facts = Vec::new();
    let mut label = None;
    for (kind, id) in [
        (Kind::Group, shared.group),
        (Kind::Ja4, shared.ja4),
        (Kind::Hassh, shared.hassh),
        (Kind::HttpFingerprint, shared.http),
        (Kind::Syn, shared.syn),
    ] {
        let Some(id) = id else { continue };
        let (value, own) = name(ask.reader, kind, &Key::Number(id))?;
        label = label.or_else(|| own.clone());
        facts.push(Fact { kind, value, label: own, count: found.connections });
    }
    let query: Vec<String> = facts.iter().map(|fact| format!("{}:{}", fact.kind.name(), quote(&fact.value))).collect();
    let query = query.join(" and ");
    let digest: [u8; 32] = Sha256::digest(query.as_bytes()).into();
    let start = ask.from.0.div_euclid(step_us);
    let columns = usize::try_from((ask.to.0 - start * step_us + step_us - 1) / step_us).unwrap_or(0).min(400);
    let points = (0..columns).map(|column| found.hours.get(&(start + column as i64)).copied().unwrap_or(0)).collect();
    Ok(Campaign {
        id: hex::encode(digest.get(..6).unwrap_or_default()),
        shared: facts,
        label,
        sources: found.sources.len() as u64,
        examples: found.sources.iter().take(8).map(|key| key::read_address(ValueRef::from(&key.value()))).collect(),
        ports: ask.named(Kind::Port, found.ports.top(8, 0))?,
        connections: found.connections,
        first: found.first,
        last: found.last,
        series: Series { start: Moment(start * step_us), step_us, points },
        query,
    })
}
