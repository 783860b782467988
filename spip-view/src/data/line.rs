//! Sessions in a list: from rows of the store to [`SessionLine`].

use std::collections::HashMap;

use rusqlite::Row;

use super::ask::{Ask, Scope, unsigned};
use super::names::name;
use super::tally::Key;
use super::{LINE_TAGS, SessionLine, SessionTag, is_shown};
use crate::moment::{Day, Moment};
use crate::row::Kind;
use crate::store::{Error, Reader, Result, key};

/// Columns that a line is made of.
const COLUMNS: &str = "s.id, s.source, s.source_port, s.destination, s.port, s.flags, s.protocol, s.bytes_in, s.duration_us, \
     s.close_reason, s.n, s.sensor, s.path, s.ssh_client, (SELECT head FROM payloads WHERE id = s.payload), \
     s.country, (SELECT group_concat(fact) FROM marks WHERE session = s.id AND kind = 20)";

/// Characters of a summary.
const SUMMARY: usize = 120;

/// Returns the address of a session's page, behind `/sessions/`.
pub(crate) fn session_id(day: Day, id: i64) -> String {
    format!("{day}-{id:x}")
}

/// Reads what [`session_id`] wrote.
pub(super) fn read_session_id(text: &str) -> Result<(Day, i64)> {
    let parts = text.split_at_checked(10).and_then(|(day, id)| Some((Day::parse(day)?, id.strip_prefix('-')?)));
    parts
        .and_then(|(day, id)| Some((day, i64::from_str_radix(id, 16).ok()?)))
        .ok_or_else(|| Error::NotFound(format!("session {text}")))
}

/// The newest sessions of a scope. Returns the lines, and where the list goes on.
pub(super) fn latest(ask: &Ask<'_>, scope: &Scope, limit: usize) -> Result<(Vec<SessionLine>, Option<String>)> {
    let mut lines = Vec::new();
    let mut names = Names::new(ask.reader);
    let mut error = None;
    ask.each(scope, COLUMNS, &format!("ORDER BY s.id DESC LIMIT {}", limit + 1), |day, row| {
        match names.line(day, row) {
            Ok(line) => lines.push(line?),
            Err(failure) => error = Some(failure),
        }
        Ok(error.is_none() && lines.len() <= limit)
    })?;
    if let Some(error) = error {
        return Err(error);
    }
    let next = (lines.len() > limit).then(|| lines.get(limit.saturating_sub(1)).map(|line| line.id.clone())).flatten();
    lines.truncate(limit);
    Ok((lines, next))
}

/// The sessions of a scope next behind one, oldest first.
pub(super) fn earliest_behind(
    ask: &Ask<'_>,
    scope: &Scope,
    behind: (Day, i64),
    limit: usize,
) -> Result<Vec<SessionLine>> {
    let mut lines = Vec::new();
    let mut names = Names::new(ask.reader);
    let mut error = None;
    // Days come newest first: the nearest are the last `limit` of all that were found.
    ask.each(scope, COLUMNS, "ORDER BY s.id DESC", |day, row| {
        if (day, row.get::<_, i64>(0)?) <= behind {
            return Ok(false);
        }
        match names.line(day, row) {
            Ok(line) => lines.push(line?),
            Err(failure) => error = Some(failure),
        }
        if lines.len() > limit {
            lines.remove(0);
        }
        Ok(error.is_none())
    })?;
    if let Some(error) = error {
        return Err(error);
    }
    lines.reverse();
    Ok(lines)
}

/// Returns when the newest session or scan of the store began.
pub(crate) fn newest(reader: &Reader) -> Option<Moment> {
    let days = reader.days(Moment(i64::MIN), Moment(i64::MAX));
    days.iter().rev().find_map(|day| {
        let newest = reader.in_day(*day, |connection| {
            let sql =
                "SELECT max((SELECT coalesce(max(id), -1) FROM session_rows), (SELECT coalesce(max(id), -1) FROM scans))";
            connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|source| reader.failed(source))
        });
        newest.ok().flatten().filter(|id| *id >= 0).map(|id| key::accepted(*day, id))
    })
}

/// Names of facts that were looked up already.
pub(super) struct Names<'r> {
    reader: &'r Reader,
    known: HashMap<(Kind, i64), (String, Option<String>)>,
}

impl<'r> Names<'r> {
    pub(super) fn new(reader: &'r Reader) -> Self {
        Self { reader, known: HashMap::new() }
    }

    pub(super) fn of(&mut self, kind: Kind, id: i64) -> Result<String> {
        self.both(kind, id).map(|(value, _)| value)
    }

    /// Returns the value of a fact, and what to show where that is another text.
    fn both(&mut self, kind: Kind, id: i64) -> Result<(String, Option<String>)> {
        if let Some(known) = self.known.get(&(kind, id)) {
            return Ok(known.clone());
        }
        let named = name(self.reader, kind, &Key::Number(id))?;
        self.known.insert((kind, id), named.clone());
        Ok(named)
    }

    fn optional(&mut self, kind: Kind, id: Option<i64>) -> Result<Option<String>> {
        id.map(|id| self.of(kind, id)).transpose()
    }

    /// Makes a line of a row with [`COLUMNS`].
    pub(super) fn line(&mut self, day: Day, row: &Row<'_>) -> Result<rusqlite::Result<SessionLine>> {
        let columns = (|| {
            let flags: i64 = row.get(5)?;
            let facts: [i64; 3] = [row.get(3)?, row.get(9)?, row.get(11)?];
            let optional: [Option<i64>; 4] = [row.get(6)?, row.get(12)?, row.get(13)?, row.get(15)?];
            let tags: Option<String> = row.get(16)?;
            Ok((row.get::<_, i64>(0)?, flags, facts, optional, row.get::<_, Option<Vec<u8>>>(14)?, tags))
        })();
        let (id, flags, [destination, close_reason, sensor], optional, head, marked) = match columns {
            Ok(columns) => columns,
            Err(error) => return Ok(Err(error)),
        };
        let [protocol, path, ssh_client, country] = optional;
        let mut tags = Vec::new();
        for tag in marked.iter().flat_map(|list| list.split(',')).filter_map(|id| id.parse().ok()).take(LINE_TAGS) {
            let (id, name) = self.both(Kind::Tag, tag)?;
            tags.push(SessionTag { id, name: name.unwrap_or_default() });
        }
        let country = self.optional(Kind::Country, country)?;
        let destination = self.of(Kind::Destination, destination)?.parse().unwrap_or([0; 4].into());
        let summary = match (self.optional(Kind::Path, path)?, self.optional(Kind::SshClient, ssh_client)?) {
            (Some(path), _) => Some(path),
            (_, Some(client)) => Some(client),
            _ => head.map(|head| summary(&head)).filter(|text| !text.is_empty()),
        };
        let (sensor, close_reason) = (self.of(Kind::Sensor, sensor)?, self.of(Kind::CloseReason, close_reason)?);
        let protocol = self.optional(Kind::Protocol, protocol)?;
        Ok((|| {
            Ok(SessionLine {
                id: session_id(day, id),
                time: key::accepted(day, id),
                sensor,
                source: key::read_address(row.get_ref(1)?),
                source_port: row.get(2)?,
                destination,
                port: row.get(4)?,
                transport: if flags & key::UDP == 0 { "tcp" } else { "udp" },
                is_tls: flags & key::TLS != 0,
                protocol,
                bytes_in: unsigned(row, 7)?,
                duration_us: unsigned(row, 8)?,
                close_reason,
                count: unsigned(row, 10)?,
                country,
                tags,
                summary,
            })
        })())
    }
}

/// The printable begin of a payload: what is not shown is a full stop.
pub(crate) fn summary(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload.get(..SUMMARY * 4).unwrap_or(payload));
    let shown = text.chars().take(SUMMARY).map(|c| match c {
        '\r' | '\n' | '\t' => ' ',
        c if is_shown(c) => c,
        _ => '.',
    });
    shown.collect::<String>().trim().to_owned()
}
