//! *Tags*: rules that matched, with the vulnerabilities that they mean and what the payloads name.

use rusqlite::OptionalExtension as _;
use rusqlite::types::ValueRef;
use serde::Serialize;
use spip_record::enrichment::Tag;
use std::net::IpAddr;

use super::ask::{Ask, Scope, unsigned};
use super::tally::{Key, Tally};
use super::{Count, Series, Top, TopList};
use crate::filter::Filter;
use crate::moment::Moment;
use crate::row::Kind;
use crate::store::{Reader, Result, key};

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct TagsPage {
    /// Number of different rules that matched.
    pub total: Count,
    /// The worst first, of those the most connections.
    pub tags: Vec<TagLine>,
    /// Vulnerabilities, most connections first.
    pub cves: TopList,
    /// URLs, hosts and hashes that payloads name, most connections first.
    pub indicators: TopList,
    /// Connections with a tag over time. A connection counts once for each of its tags.
    pub series: Series,
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagLine {
    /// Facts of the rule.
    #[serde(flatten)]
    pub tag: Tag,
    /// Connections.
    pub connections: u64,
    /// Time of its first match, in all that is stored.
    pub first: Moment,
    /// Time of its last match.
    pub last: Moment,
    /// The source that brought it first.
    pub source: IpAddr,
}

/// Lines of the lists beside.
const LINES: usize = 20;

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<TagsPage> {
    let ask = Ask::new(reader, filter)?;
    let tally = ask.tally(Kind::Tag)?;
    let mut tags = Vec::new();
    for (key, connections) in tally.top(filter.limit, 0) {
        let Key::Number(id) = key else { continue };
        tags.extend(line(reader, id, connections)?);
    }
    tags.sort_by_key(|line| (line.tag.priority, std::cmp::Reverse(line.connections)));
    let series = if ask.has_query() {
        let tagged = Scope {
            sql: format!("EXISTS (SELECT 1 FROM marks m WHERE m.session = s.id AND m.kind = {})", Kind::Tag as u8),
            ..Scope::all()
        };
        ask.series_of(&tagged, "s.n")?.0
    } else {
        ask.series(Kind::Tag, None)?
    };
    Ok(TagsPage {
        total: tally.distinct(),
        tags,
        cves: ask.top(Kind::Cve, LINES)?,
        indicators: ask.top(Kind::Indicator, LINES)?,
        series,
    })
}

fn line(reader: &Reader, id: i64, connections: u64) -> Result<Option<TagLine>> {
    let sql = "SELECT value, label, first_us, last_us, source FROM facts WHERE kind = ? AND id = ?";
    let found = reader.catalog().prepare_cached(sql).and_then(|mut statement| {
        statement
            .query_row((Kind::Tag as u8, id), |row| {
                let source = row.get_ref(4)?;
                let source = if source == ValueRef::Null { [0; 4].into() } else { key::read_address(source) };
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, Option<String>>(1)?,
                    Moment(row.get(2)?),
                    Moment(row.get(3)?),
                    source,
                ))
            })
            .optional()
    });
    let Some((value, label, first, last, source)) = found.map_err(|source| reader.failed(source))? else {
        return Ok(None);
    };
    // A rule whose row is gone keeps its number and its name.
    let tag = rule(reader, &value)?.unwrap_or_else(|| Tag {
        id: value.parse().unwrap_or(0),
        name: label.unwrap_or_default(),
        ..Tag::default()
    });
    Ok(Some(TagLine { tag, connections, first, last, source }))
}

/// Returns what is known of a rule.
pub(super) fn rule(reader: &Reader, sid: &str) -> Result<Option<Tag>> {
    crate::store::rule(reader.catalog(), sid).map_err(|source| reader.failed(source))
}

/// The most frequent marks of a kind in a scope.
pub(super) fn marks(ask: &Ask<'_>, scope: &Scope, kind: Kind, limit: usize) -> Result<Vec<Top>> {
    let mut tally = Tally::default();
    // The scope's own conditions name `m` within parentheses only.
    ask.each_in(&crate::store::rows::marked(&[kind]), scope, "m.fact, s.n", "", |_, row| {
        tally.add(Key::read(row.get_ref(0)?), unsigned(row, 1)?);
        Ok(true)
    })?;
    ask.named(kind, tally.top(limit, 0))
}
