//! *Credentials*: names and secrets by protocol, and what one source tried in which order.

use std::collections::HashMap;
use std::net::IpAddr;

use rusqlite::types::ValueRef;
use serde::Serialize;

use super::ask::{Ask, Key, Scope, Tally, name};
use super::line::Names;
use super::sources::{EXAMINED, LINES};
use super::{Count, Top, session_id};
use crate::filter::Filter;
use crate::moment::Moment;
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

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<CredentialsPage> {
    let ask = Ask::new(reader, filter)?;
    let tally = ask.tally(Kind::Credential)?;
    let total = tally.distinct();
    let mut pairs = Vec::new();
    for (key, count) in tally.top(filter.limit, 0) {
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
    let mut tally = Tally::default();
    let mut left = EXAMINED;
    ask.each_in(
        "tries t JOIN sessions s ON s.id = t.session",
        &Scope::all(),
        "s.source",
        "ORDER BY t.session DESC",
        |_, row| {
            left = left.saturating_sub(1);
            tally.add(Key::read(row.get_ref(0)?), 1);
            Ok(left > 0)
        },
    )?;
    let mut list = Vec::new();
    for (source, count) in tally.top(SEQUENCES, 0) {
        let attempts = attempts(ask, &Scope::of(Kind::Source, &source), ATTEMPTS)?;
        list.push(Sequence { source: key::read_address(ValueRef::from(&source.value())), count, attempts });
    }
    Ok(list)
}

/// The newest attempts of a scope, in the order in which they came.
pub(super) fn attempts(ask: &Ask<'_>, scope: &Scope, limit: usize) -> Result<Vec<Attempt>> {
    let mut found = Vec::new();
    let behind = format!("ORDER BY s.id DESC, t.ordinal DESC LIMIT {limit}");
    ask.each_in("sessions s JOIN tries t ON t.session = s.id", scope, "s.id, t.credential", &behind, |day, row| {
        found.push((day, row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        Ok(found.len() < limit)
    })?;
    let mut names = Names::new(ask.reader);
    let mut attempts = Vec::new();
    for (day, id, credential) in found.into_iter().rev() {
        let text = names.of(Kind::Credential, credential)?;
        attempts.extend(key::read_credential(text.as_bytes()).map(|(protocol, credential)| Attempt {
            time: key::accepted(day, id),
            session: session_id(day, id),
            protocol,
            user: credential.user,
            secret: credential.secret,
        }));
    }
    Ok(attempts)
}
