//! *New*: what appeared for the first time in the range, over all ports.
//!
//! First means: the store has nothing earlier of it. What was seen only in days that retention has removed is new
//! again.

use std::net::IpAddr;

use rusqlite::Row;
use serde::Serialize;

use super::ask::unsigned;
use super::names::fact_text;
use super::{Count, session_id};
use crate::filter::{Filter, Without};
use crate::meaning::Class;
use crate::moment::Moment;
use crate::row::Kind;
use crate::store::{Reader, Result, key};

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct NewPage {
    /// Since when the store has records: what came before that cannot be known.
    pub since: Option<Moment>,
    /// One section a kind: tags, vulnerabilities, groups of payloads, paths, ports, JA4, HASSH, user agents,
    /// credentials, … Sections without anything are left out.
    pub sections: Vec<NewSection>,
    /// Sources that were here before the range and came back with something that no source had sent.
    pub returned: Vec<Returned>,
}

/// New values of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct NewSection {
    /// The kind.
    pub kind: Kind,
    /// Number of new values.
    pub total: Count,
    /// Newest first.
    pub items: Vec<NewItem>,
}

/// Something that appeared for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewItem {
    /// Its value, as addresses of pages need it.
    pub value: String,
    /// Text to show when it differs from the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Time of its first appearance.
    pub first: Moment,
    /// Time of its last appearance.
    pub last: Moment,
    /// Source of its first appearance.
    pub source: IpAddr,
    /// The session that brought it.
    pub session: Option<String>,
    /// The port that it was sent to first.
    pub port: Option<u16>,
    /// Connections since then, in all that is stored.
    pub count: u64,
}

/// A source that came back with something new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Returned {
    /// The source.
    pub source: IpAddr,
    /// Time of its first appearance.
    pub first: Moment,
    /// Time at which the source came back with it.
    pub time: Moment,
    /// Kind of the value.
    pub kind: Kind,
    /// Its value.
    pub value: String,
    /// Text to show when it differs from the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The session that brought it.
    pub session: Option<String>,
}

/// Kinds that are worth a look when they are new, the most telling first.
const KINDS: &[Kind] = &[
    Kind::Tag,
    Kind::Cve,
    Kind::Group,
    Kind::Path,
    Kind::Port,
    Kind::Ja4,
    Kind::Hassh,
    Kind::UserAgent,
    Kind::SshClient,
    Kind::HttpFingerprint,
    Kind::Credential,
    Kind::ServerName,
    Kind::Host,
    Kind::Indicator,
    Kind::Protocol,
    Kind::Tool,
    Kind::Syn,
];

/// Kinds of values that show that a source did something new.
const RETURNED: &[Kind] = &[Kind::Tag, Kind::Group, Kind::Path, Kind::Hassh, Kind::Ja4, Kind::UserAgent];

/// Lines of a section on the page with all of them.
const ITEMS: usize = 15;

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<NewPage> {
    let since = reader.days(Moment(i64::MIN), Moment(i64::MAX)).first().map(|day| day.start());
    Ok(NewPage { since, sections: sections(reader, filter, ITEMS)?, returned: returned(reader, filter)? })
}

/// Sections of what is new, those without anything left out.
pub(crate) fn sections(reader: &Reader, filter: &Filter, limit: usize) -> Result<Vec<NewSection>> {
    let (from, to) = reader.clamp(filter.from, filter.to);
    let mut sections = Vec::new();
    for kind in KINDS {
        let (items, total) = items(reader, filter, *kind, from, to, limit)?;
        if total > 0 {
            sections.push(NewSection { kind: *kind, total: Count { value: total, is_exact: true }, items });
        }
    }
    Ok(sections)
}

fn items(
    reader: &Reader,
    filter: &Filter,
    kind: Kind,
    from: Moment,
    to: Moment,
    limit: usize,
) -> Result<(Vec<NewItem>, u64)> {
    let failed = |source| reader.failed(source);
    let bounds = (kind as u8, from.0, to.0);
    let shown = brought_by("", filter.without);
    let total = reader
        .catalog()
        .prepare_cached(&format!(
            "SELECT count(*) FROM facts WHERE kind = ? AND first_us >= ? AND first_us < ? AND n > 0{shown}"
        ))
        .and_then(|mut statement| statement.query_row(bounds, |row| unsigned(row, 0)))
        .map_err(failed)?;
    let sql = format!(
        "SELECT value, label, first_us, last_us, source, session, port, n FROM facts
         WHERE kind = ? AND first_us >= ? AND first_us < ? AND n > 0{shown} ORDER BY first_us DESC LIMIT ?"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = |row: &Row<'_>| {
        let first = Moment(row.get(2)?);
        Ok(NewItem {
            value: fact_text(row.get_ref(0)?),
            label: row.get(1)?,
            first,
            last: Moment(row.get(3)?),
            source: key::read_address(row.get_ref(4)?),
            session: session_of(first, row.get(5)?),
            port: row.get(6)?,
            count: unsigned(row, 7)?,
        })
    };
    let items = reader
        .catalog()
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_map((kind as u8, from.0, to.0, limit), read)?.collect())
        .map_err(failed)?;
    Ok((items, total))
}

/// The session that brought a fact, unless an earlier one came to light later.
fn session_of(first: Moment, id: Option<i64>) -> Option<String> {
    let id = id.filter(|id| key::accepted(first.day(), *id) == first)?;
    Some(session_id(first.day(), id))
}

/// A condition on facts: what a known scanner brought first is left out with it.
fn brought_by(table: &str, without: Without) -> String {
    match without {
        Without::Nothing => String::new(),
        Without::Listed => format!(" AND {table}class <> {}", Class::Listed as u8),
        Without::Claimed => format!(" AND {table}class = {}", Class::Unknown as u8),
    }
}

fn returned(reader: &Reader, filter: &Filter) -> Result<Vec<Returned>> {
    let (from, to) = reader.clamp(filter.from, filter.to);
    let kinds: Vec<String> = RETURNED.iter().map(|kind| (*kind as u8).to_string()).collect();
    let sql = format!(
        "SELECT f.kind, f.value, f.label, f.first_us, f.source, f.session, s.first_us FROM facts f
         JOIN sources s ON s.source = f.source AND s.first_us < ?1
         WHERE f.kind IN ({}) AND f.first_us >= ?1 AND f.first_us < ?2 AND f.n > 0{}
         ORDER BY f.first_us DESC LIMIT ?3",
        kinds.join(", "),
        brought_by("f.", filter.without)
    );
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let read = |row: &Row<'_>| {
        let time = Moment(row.get(3)?);
        Ok(Returned {
            source: key::read_address(row.get_ref(4)?),
            first: Moment(row.get(6)?),
            time,
            kind: Kind::of_number(row.get(0)?).unwrap_or(Kind::Group),
            value: fact_text(row.get_ref(1)?),
            label: row.get(2)?,
            session: session_of(time, row.get(5)?),
        })
    };
    let rows = reader
        .catalog()
        .prepare(&sql)
        .and_then(|mut statement| statement.query_map((from.0, to.0, limit), read)?.collect());
    rows.map_err(|source| reader.failed(source))
}
