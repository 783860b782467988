//! *Credentials*: names and secrets by protocol, and what one source tried in which order.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Serialize;

use super::ask::{Ask, Scope};
use super::line::Names;
use super::names::name;
use super::sources::{EXAMINED, LINES};
use super::tally::Key;
use super::{Count, Top, session_id};
use crate::filter::Filter;
use crate::moment::{Day, Moment};
use crate::row::Kind;
use crate::store::{Reader, Result, key};

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct CredentialsPage {
    /// Number of different triples of protocol, user and secret.
    pub total: Count,
    /// Pairs, most tries first.
    pub pairs: Vec<Pair>,
    /// Names, most tries first.
    pub users: Vec<Top>,
    /// Secrets, most tries first.
    pub secrets: Vec<Top>,
    /// Protocols, most tries first.
    pub protocols: Vec<Top>,
    /// Attempts of the most active sources, in order.
    pub sequences: Vec<Sequence>,
}

/// A name and a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The protocol.
    pub protocol: String,
    /// The name.
    pub user: Option<String>,
    /// The secret.
    pub secret: Option<String>,
    /// Tries.
    pub count: u64,
}

/// Attempts of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sequence {
    /// The source.
    pub source: IpAddr,
    /// Number of attempts in the range.
    pub count: u64,
    /// The first of them, in order.
    pub attempts: Vec<Attempt>,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Time of the attempt.
    pub time: Moment,
    /// The session.
    pub session: String,
    /// The protocol.
    pub protocol: String,
    /// The name.
    pub user: Option<String>,
    /// The secret.
    pub secret: Option<String>,
}

/// Sources whose attempts are shown.
const SEQUENCES: usize = 10;

/// Attempts of each.
const ATTEMPTS: usize = 40;

/// A credential that a session tried.
struct Tried {
    day: Day,
    session: i64,
    credential: i64,
}

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<CredentialsPage> {
    let ask = Ask::new(reader, filter)?;
    let tally = ask.tally(Kind::Credential)?;
    let mut pairs = Vec::new();
    let (ranked, total) = tally.ranked(filter.limit, 0);
    for (key, count) in ranked {
        let (text, _) = name(reader, Kind::Credential, &key)?;
        pairs.extend(key::read_credential(text.as_bytes()).map(|(protocol, credential)| Pair {
            protocol,
            user: credential.user,
            secret: credential.secret,
            count,
        }));
    }
    // Names and secrets of the most frequent triples: of so many that what is left out cannot be among the first.
    let (mut users, mut secrets, mut protocols) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (key, count) in tally.top(EXAMINED, 0) {
        let (text, _) = name(reader, Kind::Credential, &key)?;
        let Some((protocol, credential)) = key::read_credential(text.as_bytes()) else { continue };
        *protocols.entry(protocol).or_insert(0) += count;
        for (text, counted) in [(credential.user, &mut users), (credential.secret, &mut secrets)] {
            if let Some(text) = text {
                *counted.entry(text).or_insert(0) += count;
            }
        }
    }
    Ok(CredentialsPage {
        total,
        pairs,
        users: top(users, LINES),
        secrets: top(secrets, LINES),
        protocols: top(protocols, LINES),
        sequences: sequences(&ask)?,
    })
}

fn top(counted: HashMap<String, u64>, limit: usize) -> Vec<Top> {
    let mut list: Vec<Top> = counted.into_iter().map(|(value, count)| Top { value, label: None, count }).collect();
    list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    list.truncate(limit);
    list
}

/// Returns the attempts of the sources with most of them, among the newest sessions with credentials.
fn sequences(ask: &Ask<'_>) -> Result<Vec<Sequence>> {
    let mut found: HashMap<Key, (u64, Vec<Tried>)> = HashMap::new();
    let mut left = EXAMINED;
    let tables = "tries t JOIN sessions s ON s.id = t.session";
    let columns = "s.source, s.id, t.credential";
    ask.each_in(tables, &Scope::all(), columns, "ORDER BY t.session DESC, t.ordinal DESC", |day, row| {
        left = left.saturating_sub(1);
        let (count, attempts) = found.entry(Key::read(row.get_ref(0)?)).or_default();
        *count += 1;
        if attempts.len() < ATTEMPTS {
            attempts.push(Tried { day, session: row.get(1)?, credential: row.get(2)? });
        }
        Ok(left > 0)
    })?;
    let mut list: Vec<_> = found.into_iter().collect();
    list.sort_unstable_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(&b.0)));
    list.truncate(SEQUENCES);
    list.into_iter()
        .map(|(source, (count, attempts))| {
            let source = key::read_address((&source.value()).into());
            Ok(Sequence { source, count, attempts: in_order(ask.reader, attempts)? })
        })
        .collect()
}

/// The newest attempts of some sessions, which come newest first, in the order in which they came.
pub(super) fn attempts(reader: &Reader, sessions: &[(Day, i64)], limit: usize) -> Result<Vec<Attempt>> {
    let mut found = Vec::new();
    for of_day in sessions.chunk_by(|(day, _), (other, _)| day == other) {
        let Some((day, _)) = of_day.first() else { continue };
        reader.in_day(*day, |connection| {
            let read = |session: i64, found: &mut Vec<Tried>| {
                let sql = "SELECT credential FROM tries WHERE session = ? ORDER BY ordinal DESC";
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query([session])?;
                while let Some(row) = rows.next()? {
                    found.push(Tried { day: *day, session, credential: row.get(0)? });
                }
                Ok(())
            };
            for (_, session) in of_day {
                if found.len() < limit {
                    read(*session, &mut found).map_err(|source| reader.failed(source))?;
                }
            }
            Ok(())
        })?;
    }
    found.truncate(limit);
    in_order(reader, found)
}

/// Names credentials, and turns them from the newest first into the order in which they came.
fn in_order(reader: &Reader, found: Vec<Tried>) -> Result<Vec<Attempt>> {
    let mut names = Names::new(reader);
    let mut attempts = Vec::new();
    for Tried { day, session, credential } in found.into_iter().rev() {
        let text = names.of(Kind::Credential, credential)?;
        attempts.extend(key::read_credential(text.as_bytes()).map(|(protocol, credential)| Attempt {
            time: key::accepted(day, session),
            session: session_id(day, session),
            protocol,
            user: credential.user,
            secret: credential.secret,
        }));
    }
    Ok(attempts)
}
