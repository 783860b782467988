//! *Session*: one conversation as it went, and the record of it.

use std::fmt::Write as _;

use rusqlite::types::{Value, ValueRef};
use serde::Serialize;
use spip_record::enrichment::Tag;
use spip_record::turn::Turn;
use spip_record::{Entry, read};

use super::ask::{Ask, Scope, unsigned};
use super::examined::Examined;
use super::tally::Key;
use super::{Fact, SessionLine, Top, line, record};
use crate::filter::Filter;
use crate::moment::{DAY, Moment};
use crate::row::Kind;
use crate::store::{Error, Reader, Result, key};

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct SessionPage {
    /// Facts of the session in the store.
    pub session: SessionLine,
    /// The UUID.
    pub session_id: String,
    /// The end.
    pub ended: Moment,
    /// From the accept to the first byte, microseconds.
    pub first_byte_us: Option<u64>,
    /// Bytes sent to the client.
    pub bytes_out: u64,
    /// Source of the destination.
    pub destination_source: String,
    /// Community ID.
    pub community_id: String,
    /// Fingerprints, what it asked for, and where its source is.
    pub facts: Vec<Fact>,
    /// Rules that matched.
    pub tags: Vec<Tag>,
    /// URLs, hosts and hashes that the payload names.
    pub indicators: Vec<Top>,
    /// Names and secrets in clear.
    pub credentials: Vec<super::credentials::Attempt>,
    /// The conversation: who said what when. One turn of the client where the sensor said nothing.
    pub turns: Vec<TurnPart>,
    /// The kept bytes, or the first of them, as hexadecimal digits.
    pub payload_hex: String,
    /// The same as text.
    pub payload_text: String,
    /// SHA-256 of the payload, where there is one.
    pub sha256: Option<String>,
    /// Set when bytes came that are not here.
    pub is_truncated: bool,
    /// The request as a command of curl, where it is HTTP.
    pub curl: Option<String>,
    /// The conversation as a dump that text2pcap of Wireshark takes, with direction and time: bytes of the client only.
    pub dump: Option<String>,
    /// The record as it was logged.
    pub record: Option<String>,
    /// Reason why the record cannot be read any more.
    pub missing: Option<String>,
    /// The sessions of the same source around it, oldest first.
    pub neighbours: Vec<SessionLine>,
}

/// Bytes that one side sent before the other answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TurnPart {
    /// `client` or `server`.
    pub from: String,
    /// Offset of its first byte among those of this side.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// From the accept, milliseconds.
    pub ms: u64,
    /// The bytes, where they are the client's and in the record: hexadecimal digits.
    pub hex: Option<String>,
    /// The same as text.
    pub text: Option<String>,
}

/// Sessions of the same source before and behind it.
const NEIGHBOURS: i64 = 5;

/// Bytes of a packet in a dump.
const SEGMENT: usize = 1_460;

/// Tags and indicators that are shown.
const MARKS: usize = 64;

/// Bytes that are shown.
const SHOWN: usize = 65_536;

/// Returns everything about one session.
///
/// # Errors
/// There is no such session, or the store does not answer.
pub fn page(reader: &Reader, session: &str) -> Result<SessionPage> {
    let (day, id) = line::read_session_id(session)?;
    let unknown = || Error::NotFound(format!("session {session}"));
    let mut everything = Filter::last_day(Moment::now());
    (everything.from, everything.to) = (day.start(), day.end());
    let ask = Ask::new(reader, &everything)?;
    let own = Scope { sql: "s.id = ?".to_owned(), parameters: vec![Value::Integer(id)], ..Scope::all() };
    let own = line::latest(&ask, &own, 1)?.0.into_iter().next().ok_or_else(unknown)?;
    let record = record::read(reader, day, id)?;
    let parsed = record.as_ref().ok().and_then(|line| match read::line(line) {
        Ok(read::Line::Session(entry)) => Some(entry),
        _ => None,
    });
    let uuid = reader.in_day(day, |connection| {
        let uuid = connection.query_row("SELECT uuid, bytes_out FROM session_rows WHERE id = ?", [id], |row| {
            Ok((row.get::<_, i64>(0)?, unsigned(row, 1)?))
        });
        uuid.map_err(|source| reader.failed(source))
    })?;
    let (uuid, bytes_out) = uuid.ok_or_else(unknown)?;
    let examined = Examined::of(
        &ask,
        &Scope { sql: "s.id = ?".to_owned(), parameters: vec![Value::Integer(id)], ..Scope::all() },
        1,
    )?;
    let kinds: Vec<Kind> = [Kind::Path, Kind::Host, Kind::ServerName]
        .iter()
        .chain(Kind::FINGERPRINTS)
        .chain(Kind::PLACES)
        .copied()
        .collect();
    let payload = parsed.as_ref().map_or(&[][..], |entry| &entry.payload);
    let shown = payload.get(..SHOWN).unwrap_or(payload);
    let only = Scope { sql: "s.id = ?".to_owned(), parameters: vec![Value::Integer(id)], ..Scope::all() };
    let mut tags = Vec::new();
    for tag in super::tags::marks(&ask, &only, Kind::Tag, MARKS)? {
        tags.extend(super::tags::rule(reader, &tag.value)?);
    }
    Ok(SessionPage {
        tags,
        indicators: super::tags::marks(&ask, &only, Kind::Indicator, MARKS)?,
        session_id: parsed.as_ref().map_or_else(|| format!("{uuid:012x}…"), |entry| entry.session_id.to_string()),
        ended: Moment(own.time.0.saturating_add(i64::try_from(own.duration_us).unwrap_or(i64::MAX))),
        first_byte_us: parsed.as_ref().and_then(|entry| entry.first_byte_us),
        bytes_out,
        destination_source: parsed.as_ref().map_or_else(String::new, |entry| entry.destination_source.to_string()),
        community_id: parsed.as_ref().map_or_else(String::new, |entry| entry.community_id.to_string()),
        facts: examined.facts(reader, &kinds)?,
        credentials: super::credentials::attempts(reader, &examined.tried, 16)?,
        turns: parsed.as_ref().map_or_else(Vec::new, |entry| turns(entry)),
        payload_hex: hex::encode(shown),
        payload_text: String::from_utf8_lossy(shown).into_owned(),
        sha256: parsed.as_ref().and_then(|entry| entry.payload_sha256).map(hex::encode),
        is_truncated: parsed.as_ref().is_some_and(|entry| entry.payload_truncated) || shown.len() < payload.len(),
        dump: parsed.as_ref().and_then(|entry| dump(entry, own.time)),
        curl: parsed.as_ref().and_then(|entry| curl(entry)),
        missing: record.as_ref().err().cloned(),
        record: record.ok().map(|line| String::from_utf8_lossy(&line).into_owned()),
        neighbours: neighbours(reader, &own)?,
        session: own,
    })
}

/// The conversation: turns of both sides, with the client's bytes where the record has them.
fn turns(entry: &Entry<'_>) -> Vec<TurnPart> {
    let part = |from: &str, offset: u64, length: u64, ms: u64| {
        let bytes = (from == "client")
            .then(|| {
                let start = usize::try_from(offset).ok()?;
                let end = start.checked_add(usize::try_from(length).ok()?)?.min(entry.payload.len());
                entry.payload.get(start..end)
            })
            .flatten();
        let bytes = bytes.map(|bytes| bytes.get(..SHOWN).unwrap_or(bytes));
        TurnPart {
            from: from.to_owned(),
            offset,
            length,
            ms,
            hex: bytes.map(hex::encode),
            text: bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        }
    };
    if entry.turns.is_empty() && !entry.payload.is_empty() {
        return vec![part("client", 0, entry.payload.len() as u64, entry.first_byte_us.unwrap_or(0) / 1000)];
    }
    let side = |turn: &Turn| if turn.is_client { "client" } else { "server" };
    entry.turns.iter().map(|turn| part(side(turn), turn.offset, turn.length, turn.at_ms)).collect()
}

/// The client's turns in the form of text2pcap: direction and time, then lines of sixteen bytes behind their offset.
fn dump(entry: &Entry<'_>, accepted: Moment) -> Option<String> {
    let mut out = String::new();
    for turn in turns(entry) {
        let bytes = turn.hex.as_deref().and_then(|hex| hex::decode(hex).ok()).unwrap_or_default();
        let at = Moment(accepted.0.saturating_add(i64::try_from(turn.ms).unwrap_or(0).saturating_mul(1_000)));
        // A segment is no longer than this.
        for part in bytes.chunks(SEGMENT) {
            let _ = writeln!(out, "I {at}");
            for (index, line) in part.chunks(16).enumerate() {
                let digits: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                let _ = writeln!(out, "{:06x} {}", index * 16, digits.join(" "));
            }
            out.push('\n');
        }
    }
    (!out.is_empty()).then_some(out)
}

/// The request as a command line, every word quoted for a shell. The target is the sensor's address: running it asks
/// only the sensor.
fn curl(entry: &Entry<'_>) -> Option<String> {
    let http = entry.http.as_ref()?;
    let (method, target) = (http.method.as_deref()?, http.target.as_deref()?);
    let scheme = if entry.is_tls() { "https" } else { "http" };
    let path = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let mut words = vec!["curl".to_owned(), "--path-as-is".to_owned(), "--globoff".to_owned(), "-k".to_owned()];
    words.extend(["-X".to_owned(), quoted(method)]);
    for (name, value) in &http.headers {
        words.extend(["-H".to_owned(), quoted(&format!("{name}: {value}"))]);
    }
    let body =
        entry.payload.windows(4).position(|window| window == b"\r\n\r\n").and_then(|at| entry.payload.get(at + 4..));
    if let Some(body) = body.filter(|body| !body.is_empty()) {
        words.extend(["--data-binary".to_owned(), quoted(&String::from_utf8_lossy(body))]);
    }
    words.push(quoted(&format!("{scheme}://{}{path}", entry.destination)));
    Some(words.join(" "))
}

/// Quotes a word for a shell. What a terminal would act upon is written as an escape of `$'…'`.
fn quoted(word: &str) -> String {
    if word.chars().all(super::is_shown) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let mut out = String::from("$'");
    for c in word.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            c if super::is_shown(c) => out.push(c),
            c => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push_str(&format!("\\x{byte:02x}"));
                }
            }
        }
    }
    out.push('\'');
    out
}

/// The sessions of the same source around one, oldest first.
fn neighbours(reader: &Reader, own: &SessionLine) -> Result<Vec<SessionLine>> {
    let mut around = Filter::last_day(own.time);
    (around.from, around.to) = (Moment(own.time.0.saturating_sub(DAY)), Moment(own.time.0.saturating_add(DAY)));
    let key = Key::read(ValueRef::from(&key::address(own.source)));
    let scope = Scope::of(Kind::Source, &key);
    let (day, id) = line::read_session_id(&own.id)?;
    let limit = usize::try_from(NEIGHBOURS).unwrap_or(0);
    let mut before = line::latest(&Ask::new(reader, &around)?.before(day, id), &scope, limit)?.0;
    before.reverse();
    let mut after = line::earliest_behind(&Ask::new(reader, &around)?, &scope, (day, id), limit)?;
    before.push(own.clone());
    before.append(&mut after);
    Ok(before)
}
