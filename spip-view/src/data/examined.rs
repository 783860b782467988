//! Sessions of one thing looked at one by one, the newest ones: what its page lists besides what roll-ups know.

use std::collections::{BTreeMap, HashMap};

use super::ask::{Ask, Scope, unsigned};
use super::names::name;
use super::sources::PortStep;
use super::tally::{Key, Tally};
use super::{Fact, Totals};
use crate::moment::{Day, Moment};
use crate::row::Kind;
use crate::store::{Reader, Result, key};

/// Facts that are counted, by the columns of a session.
const KINDS: &[Kind] = &[
    Kind::Source,
    Kind::Port,
    Kind::Protocol,
    Kind::Payload,
    Kind::Group,
    Kind::Path,
    Kind::UserAgent,
    Kind::Ja4,
    Kind::Ja3,
    Kind::Hassh,
    Kind::SshClient,
    Kind::HttpFingerprint,
    Kind::Syn,
    Kind::Tool,
    Kind::Host,
    Kind::ServerName,
    Kind::Country,
    Kind::Network,
    Kind::Scanner,
];

/// Columns before these.
const OTHERS: usize = 5;

/// Sessions with credentials that are noted.
const TRIED: usize = 200;

/// Values of a kind that are listed.
const VALUES: usize = 10;

/// Facts of the examined sessions.
pub(super) struct Examined {
    /// Set when these are all sessions of the range.
    pub(super) is_exact: bool,
    tallies: HashMap<Kind, Tally>,
    /// Ports with the first time, connections and protocols.
    ports: BTreeMap<i64, (Moment, u64, Vec<i64>)>,
    /// Totals of the examined sessions.
    pub(super) totals: Totals,
    /// Sessions with credentials, the newest first.
    pub(super) tried: Vec<(Day, i64)>,
}

impl Examined {
    /// Looks at the newest `limit` sessions of a scope.
    pub(super) fn of(ask: &Ask<'_>, scope: &Scope, limit: usize) -> Result<Self> {
        let mut examined = Self {
            is_exact: true,
            tallies: HashMap::new(),
            ports: BTreeMap::new(),
            totals: Totals::default(),
            tried: Vec::new(),
        };
        let columns: Vec<String> = KINDS
            .iter()
            .map(|kind| match kind {
                Kind::Port => format!("s.port + (s.flags & {} <> 0) * {}", key::UDP, key::UDP_PORTS),
                kind => format!("s.{}", kind.column().unwrap_or("NULL")),
            })
            .collect();
        let columns = format!(
            "s.id, s.n, s.flags, s.bytes_in, (SELECT group_concat(kind || ' ' || fact) FROM marks WHERE session = s.id), {}",
            columns.join(", ")
        );
        let mut left = limit;
        let is_whole = ask.each(scope, &columns, &format!("ORDER BY s.id DESC LIMIT {limit}"), |day, row| {
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            examined.add(day, row)?;
            Ok(true)
        })?;
        examined.is_exact = is_whole && left > 0;
        Ok(examined)
    }

    fn add(&mut self, day: Day, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        let n = unsigned(row, 1)?;
        let time = key::accepted(day, row.get(0)?);
        let flags: i64 = row.get(2)?;
        self.totals.sessions += 1;
        self.totals.connections = self.totals.connections.saturating_add(n);
        self.totals.bytes_in = self.totals.bytes_in.saturating_add(unsigned(row, 3)?);
        if flags & key::REJECTED != 0 {
            self.totals.rejected = self.totals.rejected.saturating_add(n);
        }
        if flags & key::TRIED != 0 && self.tried.len() < TRIED {
            self.tried.push((day, row.get(0)?));
        }
        if let Some(marks) = row.get::<_, Option<String>>(4)? {
            for (kind, fact) in marks.split(',').filter_map(|mark| mark.split_once(' ')) {
                let kind = Kind::MARKS.iter().find(|own| kind.parse() == Ok(**own as u8));
                if let (Some(kind), Ok(fact)) = (kind, fact.parse()) {
                    self.tallies.entry(*kind).or_default().add(Key::Number(fact), n);
                }
            }
        }
        let mut port = None;
        let mut protocol = None;
        let mut count = |kind: Kind, value: rusqlite::types::ValueRef<'_>| {
            if value != rusqlite::types::ValueRef::Null {
                self.tallies.entry(kind).or_default().add(Key::read(value), n);
            }
        };
        for (index, kind) in KINDS.iter().enumerate() {
            let value = row.get_ref(index + OTHERS)?;
            match kind {
                Kind::Port => port = value.as_i64().ok(),
                Kind::Protocol => protocol = value.as_i64().ok(),
                _ => {}
            }
            count(*kind, value);
        }
        let Some(port) = port else {
            return Ok(());
        };
        let step = self.ports.entry(port).or_insert((time, 0, Vec::new()));
        step.0 = step.0.min(time);
        step.1 = step.1.saturating_add(n);
        if let Some(protocol) = protocol.filter(|protocol| step.2.len() < VALUES && !step.2.contains(protocol)) {
            step.2.push(protocol);
        }
        Ok(())
    }

    /// The most frequent values of a kind.
    pub(super) fn top(&self, kind: Kind, limit: usize) -> Vec<(Key, u64)> {
        self.tallies.get(&kind).map_or_else(Vec::new, |tally| tally.top(limit, 0))
    }

    /// The most frequent values of several kinds, by name.
    pub(super) fn facts(&self, reader: &Reader, kinds: &[Kind]) -> Result<Vec<Fact>> {
        let mut facts = Vec::new();
        for kind in kinds {
            for (key, count) in self.top(*kind, VALUES) {
                let (value, label) = name(reader, *kind, &key)?;
                facts.push(Fact { kind: *kind, value, label, count });
            }
        }
        Ok(facts)
    }

    /// Ports in the order in which they were first asked for.
    pub(super) fn port_steps(&self, reader: &Reader, limit: usize) -> Result<Vec<PortStep>> {
        let mut steps: Vec<_> = self.ports.iter().collect();
        steps.sort_by_key(|(_, (first, ..))| *first);
        let mut names = super::line::Names::new(reader);
        let mut list = Vec::new();
        for (port, (first, count, protocols)) in steps.into_iter().take(limit) {
            let protocols =
                protocols.iter().map(|protocol| names.of(Kind::Protocol, *protocol)).collect::<Result<_>>()?;
            list.push(PortStep { port: super::names::port_text(*port), first: *first, count: *count, protocols });
        }
        Ok(list)
    }

    /// The fingerprints that fewest connections in the store have: what they share says most.
    pub(super) fn rarest(&self, reader: &Reader, limit: usize) -> Result<Vec<(Kind, Key)>> {
        let mut list = Vec::new();
        for kind in Kind::FINGERPRINTS {
            for (key, _) in self.top(*kind, 2) {
                let Key::Number(id) = key else { continue };
                let n = reader
                    .catalog()
                    .prepare_cached("SELECT n FROM facts WHERE kind = ? AND id = ?")
                    .and_then(|mut statement| statement.query_row((*kind as u8, id), |row| unsigned(row, 0)))
                    .unwrap_or(u64::MAX);
                list.push((n, *kind, key));
            }
        }
        list.sort();
        list.truncate(limit);
        Ok(list.into_iter().map(|(_, kind, key)| (kind, key)).collect())
    }
}
