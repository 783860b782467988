//! *Payloads*: grouped so that variants fall together, and one of them in full.

use std::net::IpAddr;

use rusqlite::{OptionalExtension as _, Row};
use serde::Serialize;

use super::ask::{Ask, Scope, unsigned};
use super::examined::Examined;
use super::names::fact_id;
use super::sources::{EXAMINED, LINES};
use super::tally::Key;
use super::{Count, Series, SessionLine, Top, line};
use crate::filter::Filter;
use crate::moment::Moment;
use crate::row::Kind;
use crate::store::{Error, Reader, Result, key};

/// The list of groups.
#[derive(Clone, Debug, Serialize)]
pub struct PayloadsPage {
    /// Number of groups.
    pub total: Count,
    /// Number of different payloads.
    pub distinct: Count,
    /// Most connections first.
    pub groups: Vec<GroupLine>,
}

/// A group of payloads that differ in numbers, hosts and tokens only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupLine {
    /// Its hash: the address of its page is `/payloads/groups/HASH`.
    pub group: String,
    /// Text that its members have in common: numbers, hosts and tokens are replaced by `<n>`, `<host>`, `<token>`.
    pub template: String,
    /// Connections in the range.
    pub connections: u64,
    /// First time, in all that is stored.
    pub first: Moment,
    /// Last time, in all that is stored.
    pub last: Moment,
    /// Source that sent it first.
    pub source: IpAddr,
}

/// One group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupPage {
    /// The group.
    pub group: GroupLine,
    /// Connections over time.
    pub connections: Series,
    /// Set when all sessions in the range were examined.
    pub is_exact: bool,
    /// Its members, most frequent first; the value is the SHA-256.
    pub variants: Vec<Top>,
    /// Sources.
    pub sources: Vec<Top>,
    /// Ports.
    pub ports: Vec<Top>,
    /// The newest sessions.
    pub sessions: Vec<SessionLine>,
}

/// One payload.
#[derive(Clone, Debug, Serialize)]
pub struct PayloadPage {
    /// SHA-256.
    pub sha256: String,
    /// Its group.
    pub group: String,
    /// Number of bytes that were kept in the session that sent it first.
    pub size: u64,
    /// The bytes: `/payloads/SHA256/download` has them as a file. As many as the record has.
    pub hex: String,
    /// As text, invalid UTF-8 as U+FFFD.
    pub text: String,
    /// Set when the bytes here are fewer than were kept.
    pub is_shortened: bool,
    /// First time, in all that is stored.
    pub first: Moment,
    /// Last time, in all that is stored.
    pub last: Moment,
    /// Connections, in all that is stored.
    pub count: u64,
    /// The newest sessions that sent it.
    pub sessions: Vec<SessionLine>,
}

/// Returns the list of groups.
///
/// # Errors
/// The store does not answer.
pub fn list(reader: &Reader, filter: &Filter) -> Result<PayloadsPage> {
    let ask = Ask::new(reader, filter)?;
    let tally = ask.tally(Kind::Group)?;
    let mut groups = Vec::new();
    let (top, total) = tally.ranked(filter.limit, 0);
    for (key, connections) in top {
        let Key::Number(id) = key else { continue };
        groups.extend(group_line(reader, id, connections)?);
    }
    Ok(PayloadsPage { total, distinct: ask.tally(Kind::Payload)?.distinct(), groups })
}

fn group_line(reader: &Reader, id: i64, connections: u64) -> Result<Option<GroupLine>> {
    reader
        .catalog()
        .prepare_cached("SELECT value, label, first_us, last_us, source FROM facts WHERE kind = ? AND id = ?")
        .and_then(|mut statement| {
            let read = |row: &Row<'_>| {
                Ok(GroupLine {
                    group: row.get(0)?,
                    template: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
                    connections,
                    first: Moment(row.get(2)?),
                    last: Moment(row.get(3)?),
                    source: key::read_address(row.get_ref(4)?),
                })
            };
            statement.query_row((Kind::Group as u8, id), read).optional()
        })
        .map_err(|source| reader.failed(source))
}

/// Returns everything about one group.
///
/// # Errors
/// There is no such group, or the store does not answer.
pub fn group(reader: &Reader, filter: &Filter, group: &str) -> Result<GroupPage> {
    let unknown = || Error::NotFound(format!("group {group}"));
    let id = fact_id(reader, Kind::Group, group.as_bytes())?.ok_or_else(unknown)?;
    let ask = Ask::new(reader, filter)?;
    let key = Key::Number(id);
    let scope = Scope::of(Kind::Group, &key);
    let examined = Examined::of(&ask, &scope, EXAMINED)?;
    let connections =
        if ask.has_query() { ask.series_of(&scope, "s.n")?.0 } else { ask.series(Kind::Group, Some(key))? };
    let count = connections.points.iter().sum();
    Ok(GroupPage {
        group: group_line(reader, id, count)?.ok_or_else(unknown)?,
        connections,
        is_exact: examined.is_exact,
        variants: ask.named(Kind::Payload, examined.top(Kind::Payload, LINES))?,
        sources: ask.named(Kind::Source, examined.top(Kind::Source, LINES))?,
        ports: ask.named(Kind::Port, examined.top(Kind::Port, LINES))?,
        sessions: line::latest(&ask, &scope, filter.limit)?.0,
    })
}

/// Facts of a payload in the catalog.
struct Known {
    id: i64,
    group: String,
    first: Moment,
    last: Moment,
    count: u64,
}

fn known(reader: &Reader, sha256: &str) -> Result<Known> {
    let unknown = || Error::NotFound(format!("payload {}", sha256.chars().take(64).collect::<String>()));
    let mut hash = [0_u8; 32];
    hex::decode_to_slice(sha256, &mut hash).map_err(|_| unknown())?;
    let sql = "SELECT p.id, (SELECT value FROM facts WHERE kind = 4 AND id = p.grp), p.first_us, p.last_us, p.n
               FROM facts p WHERE p.hash = ? AND p.kind = 3";
    let found = reader.catalog().prepare_cached(sql).and_then(|mut statement| {
        let read = |row: &Row<'_>| {
            Ok(Known {
                id: row.get(0)?,
                group: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
                first: Moment(row.get(2)?),
                last: Moment(row.get(3)?),
                count: unsigned(row, 4)?,
            })
        };
        statement.query_row([reader.salt().hash(Kind::Payload, &hash)], read).optional()
    });
    found.map_err(|source| reader.failed(source))?.ok_or_else(unknown)
}

/// The bytes of a payload: of a record that has them, or the begin that is kept for search. Whether they are all that was
/// kept, and the newest sessions.
fn kept(reader: &Reader, known: &Known) -> Result<(Vec<u8>, bool, u64, Vec<SessionLine>)> {
    let mut everything = Filter::last_day(Moment::now());
    everything.all();
    let ask = Ask::new(reader, &everything)?;
    let scope = Scope::of(Kind::Payload, &Key::Number(known.id));
    let sessions = line::latest(&ask, &scope, LINES)?.0;
    let size = sessions.first().map_or(0, |session| session.bytes_in);
    if let Some(session) = sessions.first() {
        let (day, id) = line::read_session_id(&session.id)?;
        if let Ok(record) = super::record::read(reader, day, id)?
            && let Some(bytes) = super::record::payload(&record)
        {
            let is_whole = bytes.len() as u64 >= size.min(bytes.len() as u64 + 1);
            return Ok((bytes, is_whole, size, sessions));
        }
        let head = reader.in_day(day, |connection| {
            let head =
                connection.query_row("SELECT head FROM payloads WHERE id = ?", [known.id], |row| row.get(0)).optional();
            head.map_err(|source| reader.failed(source))
        })?;
        let bytes: Vec<u8> = head.flatten().unwrap_or_default();
        let is_whole = bytes.len() as u64 >= size;
        return Ok((bytes, is_whole, size, sessions));
    }
    Ok((Vec::new(), false, 0, sessions))
}

/// Returns everything about one payload.
///
/// # Errors
/// There is no such payload, or the store does not answer.
pub fn one(reader: &Reader, sha256: &str) -> Result<PayloadPage> {
    let known = known(reader, sha256)?;
    let (bytes, is_whole, size, sessions) = kept(reader, &known)?;
    let shown = bytes.get(..SHOWN).unwrap_or(&bytes);
    Ok(PayloadPage {
        sha256: sha256.to_ascii_lowercase(),
        group: known.group,
        size,
        hex: hex::encode(shown),
        text: String::from_utf8_lossy(shown).into_owned(),
        is_shortened: !is_whole || shown.len() < bytes.len(),
        first: known.first,
        last: known.last,
        count: known.count,
        sessions,
    })
}

/// Bytes of a payload that a page shows.
pub(super) const SHOWN: usize = 65_536;

/// Returns a name for the file, and the bytes.
///
/// # Errors
/// There is no such payload, or the store does not answer.
pub fn bytes(reader: &Reader, sha256: &str) -> Result<(String, Vec<u8>)> {
    let known = known(reader, sha256)?;
    let (bytes, ..) = kept(reader, &known)?;
    Ok((sha256.to_ascii_lowercase(), bytes))
}
