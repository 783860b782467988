//! *Clients*: what kind of programs came, and who shares one of their marks.

use serde::Serialize;
use spip_record::enrichment::Tag;

use super::ask::{Ask, Scope, unsigned};
use super::examined::Examined;
use super::names::fact_id;
use super::sources::{EXAMINED, LINES};
use super::tally::Key;
use super::{Fact, Series, SessionLine, Top, TopList, line};
use crate::filter::Filter;
use crate::moment::Moment;
use crate::row::Kind;
use crate::store::{Error, Reader, Result};

/// The lists.
#[derive(Clone, Debug, Serialize)]
pub struct ClientsPage {
    /// JA4, JA3, HASSH, SSH identification, HTTP fingerprint, SYN, user agent, tools: most connections first.
    pub kinds: Vec<TopList>,
}

/// One fingerprint, and who shares it.
#[derive(Clone, Debug, Serialize)]
pub struct FingerprintPage {
    /// Its kind.
    pub kind: Kind,
    /// Its value.
    pub value: String,
    /// First time, in all that is stored.
    pub first: Moment,
    /// Last time, in all that is stored.
    pub last: Moment,
    /// Connections, in all that is stored.
    pub count: u64,
    /// Connections over time.
    pub connections: Series,
    /// Set when all sessions in the range were examined.
    pub is_exact: bool,
    /// Sources that share it.
    pub sources: Vec<Top>,
    /// Ports.
    pub ports: Vec<Top>,
    /// Groups of payloads.
    pub payloads: Vec<Top>,
    /// Other fingerprints of the same sessions, and where their sources are.
    pub others: Vec<Fact>,
    /// Rules that matched the same sessions.
    pub tags: Vec<Top>,
    /// Indicators in their payloads.
    pub indicators: Vec<Top>,
    /// Of a tag, what is known of its rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Tag>,
    /// Text to show when it differs from the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The newest sessions.
    pub sessions: Vec<SessionLine>,
}

/// Returns the lists.
///
/// # Errors
/// The store does not answer.
pub fn list(reader: &Reader, filter: &Filter) -> Result<ClientsPage> {
    let ask = Ask::new(reader, filter)?;
    Ok(ClientsPage { kinds: ask.tops(Kind::FINGERPRINTS, LINES)? })
}

/// Returns everything about one fingerprint, or another text of a session: path, host, server name, protocol.
///
/// # Errors
/// There is no such fact, or the store does not answer.
pub fn one(reader: &Reader, filter: &Filter, kind: &str, value: &str) -> Result<FingerprintPage> {
    let unknown = || Error::NotFound(format!("{kind} {value}"));
    let kind =
        Kind::of_name(kind).filter(|kind| kind.column().is_some() || Kind::MARKS.contains(kind)).ok_or_else(unknown)?;
    let id = fact_id(reader, kind, value.as_bytes())?.ok_or_else(unknown)?;
    let ask = Ask::new(reader, filter)?;
    let key = Key::Number(id);
    let scope = Scope::of(kind, &key);
    let examined = Examined::of(&ask, &scope, EXAMINED)?;
    let connections = if ask.has_query() { ask.series_of(&scope, "s.n")?.0 } else { ask.series(kind, Some(key))? };
    let sql = "SELECT first_us, last_us, n, label FROM facts WHERE kind = ? AND id = ?";
    let (first, last, count, label) = reader
        .catalog()
        .query_row(sql, (kind as u8, id), |row| {
            Ok((Moment(row.get(0)?), Moment(row.get(1)?), unsigned(row, 2)?, row.get(3)?))
        })
        .map_err(|source| reader.failed(source))?;
    let others = Kind::FINGERPRINTS.iter().chain(Kind::PLACES).copied().filter(|other| *other != kind);
    let others: Vec<Kind> = others.collect();
    let rule = if kind == Kind::Tag { super::tags::rule(reader, value)? } else { None };
    Ok(FingerprintPage {
        kind,
        value: value.to_owned(),
        first,
        last,
        count,
        connections,
        is_exact: examined.is_exact,
        sources: ask.named(Kind::Source, examined.top(Kind::Source, LINES))?,
        ports: ask.named(Kind::Port, examined.top(Kind::Port, LINES))?,
        payloads: ask.named(Kind::Group, examined.top(Kind::Group, LINES))?,
        others: examined.facts(reader, &others)?,
        tags: ask.named(Kind::Tag, examined.top(Kind::Tag, LINES))?,
        indicators: ask.named(Kind::Indicator, examined.top(Kind::Indicator, LINES))?,
        rule,
        label,
        sessions: line::latest(&ask, &scope, filter.limit)?.0,
    })
}
