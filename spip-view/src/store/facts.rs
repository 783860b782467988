//! Facts on their way into the catalog: found by hash, numbered when new, counted until the next commit.
//!
//! What was looked up stays in memory under 128 bits of a seeded hash, at most twice [`MAX_CACHED`] of them; what did not
//! come for longest goes first. New facts are in the catalog before any row names their number; how often they came follows with the position.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _};

use super::key::{self, Salt};
use crate::meaning::Class;
use crate::moment::Moment;
use crate::row::Kind;

/// Facts of a generation in memory: about 5 MB.
const MAX_CACHED: usize = 50_000;

/// Bytes of a fact's text; what is longer is cut.
pub(super) const MAX_TEXT: usize = 1_024;

/// The session of a first appearance.
pub(super) struct Appearance<'a> {
    pub(super) time: Moment,
    pub(super) source: &'a Value,
    pub(super) session: i64,
    pub(super) port: u16,
    pub(super) class: Class,
}

#[derive(Debug)]
struct Fact {
    kind: Kind,
    id: i64,
    /// The first time that the catalog has.
    known_us: i64,
    first_us: i64,
    last_us: i64,
    /// Connections since the last commit.
    n: u64,
    is_moved: bool,
}

type Generation = HashMap<u128, Fact, BuildHasherDefault<Halves>>;

/// Takes a hash for what it is.
#[derive(Default)]
struct Halves(u64);

impl Hasher for Halves {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, name: u128) {
        self.0 = name as u64;
    }
}

#[derive(Debug)]
pub(super) struct Facts {
    salt: Salt,
    seeds: [foldhash::quality::RandomState; 2],
    /// Values seen lately, and those of the generation before.
    known: Generation,
    older: Generation,
    next: HashMap<u8, i64>,
    dirty: Vec<u128>,
}

/// A value of a fact.
pub(super) enum FactValue<'a> {
    Text(&'a str),
    Hash(&'a [u8; 32]),
}

impl Facts {
    pub(super) fn new(salt: Salt) -> Self {
        Self {
            salt,
            seeds: Default::default(),
            known: Generation::default(),
            older: Generation::default(),
            next: HashMap::new(),
            dirty: Vec::new(),
        }
    }

    /// Returns the number of a fact, and counts it. `make` gives group and label of a new one.
    pub(super) fn number(
        &mut self,
        catalog: &Connection,
        kind: Kind,
        value: &FactValue<'_>,
        n: u64,
        seen: &Appearance<'_>,
        make: impl FnOnce() -> (Option<i64>, Option<String>),
    ) -> rusqlite::Result<i64> {
        let bytes = match value {
            FactValue::Text(text) => cut(text).as_bytes(),
            FactValue::Hash(hash) => hash.as_slice(),
        };
        let [high, low] = self.seeds.each_ref().map(|seed| u128::from(seed.hash_one((kind as u8, bytes))));
        let name = high << 64 | low;
        if !self.known.contains_key(&name) {
            let fact = match self.older.remove(&name) {
                Some(fact) => fact,
                None => {
                    let hash = self.salt.hash(kind, bytes);
                    match self.look_up(catalog, hash)? {
                        Some(fact) => fact,
                        None => self.insert(catalog, hash, kind, value, seen, make())?,
                    }
                }
            };
            self.known.insert(name, fact);
        }
        let Some(fact) = self.known.get_mut(&name) else {
            return Ok(0);
        };
        if fact.n == 0 && !fact.is_moved {
            self.dirty.push(name);
            fact.is_moved = true;
        }
        fact.n = fact.n.saturating_add(n);
        fact.first_us = fact.first_us.min(seen.time.0);
        fact.last_us = fact.last_us.max(seen.time.0);
        Ok(fact.id)
    }

    fn look_up(&self, catalog: &Connection, hash: i64) -> rusqlite::Result<Option<Fact>> {
        let mut statement = catalog.prepare_cached("SELECT kind, id, first_us, last_us FROM facts WHERE hash = ?")?;
        let found = statement
            .query_row([hash], |row| Ok((row.get::<_, u8>(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        Ok(found.and_then(|(kind, id, first_us, last_us)| {
            let kind = Kind::of_number(kind)?;
            Some(Fact { kind, id, known_us: first_us, first_us, last_us, n: 0, is_moved: false })
        }))
    }

    fn insert(
        &mut self,
        catalog: &Connection,
        hash: i64,
        kind: Kind,
        value: &FactValue<'_>,
        seen: &Appearance<'_>,
        (group, label): (Option<i64>, Option<String>),
    ) -> rusqlite::Result<Fact> {
        let next = match self.next.get(&(kind as u8)) {
            Some(next) => *next,
            None => {
                let most: Option<i64> =
                    catalog.query_row("SELECT max(id) FROM facts WHERE kind = ?", [kind as u8], |row| row.get(0))?;
                most.unwrap_or(0) + 1
            }
        };
        let value = match value {
            FactValue::Text(text) => Value::Text(cut(text).to_owned()),
            FactValue::Hash(hash) => Value::Blob(hash.to_vec()),
        };
        catalog
            .prepare_cached(
                "INSERT INTO facts (kind, id, hash, value, first_us, lasted_us, n, source, ordinal, port, grp, label, class)
                 VALUES (?, ?, ?, ?, ?, 0, 0, ?, ?, ?, ?, ?, ?)",
            )?
            .execute((
                kind as u8,
                next,
                hash,
                value,
                seen.time.0,
                seen.source,
                seen.session & key::ORDINAL,
                seen.port,
                group,
                label,
                seen.class as u8,
            ))?;
        self.next.insert(kind as u8, next + 1);
        let us = seen.time.0;
        Ok(Fact { kind, id: next, known_us: us, first_us: us, last_us: us, n: 0, is_moved: false })
    }

    /// Writes what was counted, in the transaction of the position.
    pub(super) fn flush(&mut self, catalog: &Connection) -> rusqlite::Result<()> {
        {
            // In the order of the table, so that neighbours share pages.
            let mut list: Vec<&Fact> = self.dirty.iter().filter_map(|name| self.known.get(name)).collect();
            list.sort_unstable_by_key(|fact| (fact.kind, fact.id));
            let mut moved = catalog.prepare_cached(
                "UPDATE facts SET n = n + ?3, lasted_us = max(lasted_us, ?4 - first_us) WHERE kind = ?1 AND id = ?2",
            )?;
            // The session is another one then, and not known here.
            let mut earlier = catalog.prepare_cached(
                "UPDATE facts SET lasted_us = lasted_us + first_us - ?3, first_us = ?3, ordinal = NULL
                 WHERE kind = ?1 AND id = ?2 AND first_us > ?3",
            )?;
            for fact in list {
                let n = i64::try_from(fact.n).unwrap_or(i64::MAX);
                moved.execute((fact.kind as u8, fact.id, n, fact.last_us))?;
                // Rare: an older log that is read later. The time is in an index.
                if fact.first_us < fact.known_us {
                    earlier.execute((fact.kind as u8, fact.id, fact.first_us))?;
                }
            }
        }
        for name in self.dirty.drain(..) {
            if let Some(fact) = self.known.get_mut(&name) {
                (fact.n, fact.is_moved, fact.known_us) = (0, false, fact.first_us);
            }
        }
        if self.known.len() > MAX_CACHED {
            self.older = std::mem::take(&mut self.known);
        }
        Ok(())
    }

    /// Forgets everything that is not in the catalog, after a transaction that failed.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.salt);
    }
}

/// Cuts a text at a character.
#[must_use]
pub fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::data::tests::{Scratch, rows};
    use crate::moment::{DAY, HOUR};
    use crate::row::Row;

    /// Returns a session at `us` that came from the SYN `syn`. Before 1970, too, times of a day count from its start.
    fn session(us: i64, syn: &str) -> Row {
        let mut row = rows().new_tree(&mut TestRunner::deterministic()).unwrap().current();
        (row.run, row.seq, row.time) = (None, None, Moment(us));
        row.facts = vec![(Kind::Syn, syn.to_owned())];
        row
    }

    /// Returns the first and last time of the fact `syn`, and the session of the first, as pages name it.
    fn stored(scratch: &Scratch, syn: &str) -> (i64, i64, Option<String>) {
        let sql = "SELECT first_us, last_us, session FROM facts WHERE kind = ? AND value = ?";
        let read = |row: &rusqlite::Row<'_>| {
            let (first, session): (i64, Option<i64>) = (row.get(0)?, row.get(2)?);
            let name = |id| crate::data::session_id(Moment(first).day(), id);
            Ok((first, row.get(1)?, session.map(name)))
        };
        scratch.reader().catalog().query_row(sql, (Kind::Syn as u8, syn), read).unwrap()
    }

    #[test]
    fn a_fact_has_the_times_and_the_session_of_its_appearances() {
        for start in [20_454 * DAY, -3 * DAY] {
            let scratch = Scratch::new();
            let (first, last) = (start + 23 * HOUR + 1, start + 50 * HOUR);
            let ids = scratch.write(&[session(first, "a"), session(last, "a"), session(last, "b")], 2);
            assert_eq!(stored(&scratch, "a"), (first, last, Some(ids[0].clone())));
            assert_eq!(stored(&scratch, "b"), (last, last, Some(ids[2].clone())));
        }
    }

    #[test]
    fn an_earlier_appearance_that_is_read_later_moves_the_first_time_only() {
        let scratch = Scratch::new();
        let start = 20_454 * DAY;
        scratch.write(&[session(start + 5 * HOUR, "a"), session(start + 9 * HOUR, "a")], 1);
        let mut writer = crate::store::Writer::open(&scratch.store, true).unwrap();
        let mut log = writer.log("older.json").unwrap();
        log.lines += 1;
        writer.session(log.id, log.lines, &session(start + HOUR, "a"), b"{}").unwrap();
        writer.commit(&[&log]).unwrap();
        assert_eq!(stored(&scratch, "a"), (start + HOUR, start + 9 * HOUR, None));
    }
}
