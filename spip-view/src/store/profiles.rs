//! Profiles: what sessions have in common, as one row of the catalog.
//!
//! A client that comes again sends the same and is recognised by the same, so fifteen numbers of facts become one. Profiles
//! that came lately are in memory under 128 bits of a seeded hash, at most twice [`MAX_CACHED`] of them. One that has left
//! the memory gets another row when it comes again: a search for the old one would need an index that is larger than the
//! rows it saves.

use std::collections::HashMap;
use std::hash::BuildHasher as _;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::schema::PROFILE;
use crate::row::Kind;

/// Profiles of a generation in memory: about 3 MB.
const MAX_CACHED: usize = 50_000;

#[derive(Debug, Default)]
pub(super) struct Profiles {
    seeds: [foldhash::quality::RandomState; 2],
    /// Profiles that came lately, and those of the generation before.
    known: HashMap<u128, i64, foldhash::fast::RandomState>,
    older: HashMap<u128, i64, foldhash::fast::RandomState>,
}

impl Profiles {
    /// Returns the number of the profile that these facts make; nothing where none of them is part of one.
    pub(super) fn number(&mut self, catalog: &Connection, facts: &[(Kind, i64)]) -> rusqlite::Result<Option<i64>> {
        let mut numbers = [0; PROFILE.len()];
        for (number, kind) in numbers.iter_mut().zip(PROFILE) {
            *number = facts.iter().find(|(own, _)| *own == kind).map_or(0, |(_, id)| *id);
        }
        // Facts are counted from 1.
        if numbers == [0; PROFILE.len()] {
            return Ok(None);
        }
        let [high, low] = self.seeds.each_ref().map(|seed| u128::from(seed.hash_one(numbers)));
        let name = high << 64 | low;
        if let Some(id) = self.known.get(&name) {
            return Ok(Some(*id));
        }
        let id = match self.older.remove(&name) {
            Some(id) => id,
            None => insert(catalog, numbers)?,
        };
        if self.known.len() >= MAX_CACHED {
            self.older = std::mem::take(&mut self.known);
        }
        self.known.insert(name, id);
        Ok(Some(id))
    }

    /// Forgets what may not be in the catalog, after a transaction that failed or after rows were removed.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

fn insert(catalog: &Connection, numbers: [i64; PROFILE.len()]) -> rusqlite::Result<i64> {
    let mut statement = catalog
        .prepare_cached(concat!(
            "INSERT INTO profiles (payload, payload_group, campaign, path, protocol, syn, user_agent, http_fingerprint, host,",
            " ssh_client, hassh, ja4, ja3, server_name, tool) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        ))?;
    let values = numbers.into_iter().map(|number| if number == 0 { Value::Null } else { Value::Integer(number) });
    statement.insert(params_from_iter(values))
}

/// Returns what sources of one campaign share: the group of the payload and at least one fingerprint, as numbers of facts in
/// the order of [`Kind::SHARED`]. One mark alone joins half of the internet.
pub(super) fn campaign(facts: &[(Kind, i64)]) -> Option<String> {
    let of = |kind: Kind| facts.iter().find(|(own, _)| *own == kind).map(|(_, id)| *id);
    of(Kind::Payload)?;
    let shared = Kind::SHARED.map(of);
    shared.iter().skip(1).any(Option::is_some).then(|| serde_json::to_string(&shared).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::Scratch;
    use crate::moment::Moment;

    #[test]
    fn the_same_facts_have_one_row_and_none_have_none() {
        let catalog = Connection::open_in_memory().unwrap();
        catalog.execute_batch(crate::store::schema::CATALOG).unwrap();
        let mut profiles = Profiles::default();
        let facts = [(Kind::Port, 22), (Kind::Payload, 7), (Kind::Syn, 2), (Kind::Tag, 1)];
        let first = profiles.number(&catalog, &facts).unwrap();
        assert!(first.is_some());
        assert_eq!(profiles.number(&catalog, &facts).unwrap(), first);
        assert_ne!(profiles.number(&catalog, &facts[..2]).unwrap(), first);
        assert_eq!(profiles.number(&catalog, &facts[..1]).unwrap(), None);
        let row = catalog.query_row("SELECT payload, syn, path FROM profiles WHERE id = ?", [first], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?))
        });
        assert_eq!(row.unwrap(), (7, 2, None));
    }

    #[test]
    fn statements_read_rows_by_key_and_profiles_only_where_named() {
        let scratch = Scratch::new();
        scratch.write(&[], 1);
        let day = Moment(1_767_225_600_000_000).day();
        let writer =
            super::super::dayfile::DayFile::open(&scratch.directory.join("days").join(format!("{day}.sqlite")));
        drop(writer.unwrap());
        let reader = scratch.reader();
        for (sql, has_profile) in [
            ("SELECT sum(s.n) FROM sessions s WHERE s.id >= 1 AND s.id < 9 AND s.protocol IS (SELECT 1)", true),
            ("SELECT s.payload, s.n FROM sessions s WHERE s.id >= 1 AND s.id < 9 ORDER BY s.id DESC LIMIT 5", true),
            (
                "SELECT m.fact, s.path FROM sessions s JOIN marks m ON m.session = s.id WHERE s.id >= 1 AND s.id < 9",
                true,
            ),
            ("SELECT s.path FROM tries t JOIN sessions s ON s.id = t.session WHERE t.credential = 1", true),
            ("SELECT s.source, sum(s.n) FROM sessions s WHERE s.id >= 1 AND s.id < 9 GROUP BY 1", false),
        ] {
            let sql = sql.replace("sessions s", &super::super::schema::narrowest("sessions s", &[sql]));
            let plan = reader.in_day(day, |connection| {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                let lines = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
                Ok(lines.map(Result::unwrap).collect::<Vec<_>>().join("\n"))
            });
            let plan = plan.unwrap().unwrap();
            let is_by_key = |table: &str| plan.contains(&format!("SEARCH {table} USING INTEGER PRIMARY KEY"));
            // The view names its tables, a statement on the rows alone names them itself.
            assert!(is_by_key(if has_profile { "r" } else { "s" }), "{sql}:\n{plan}");
            assert_eq!(is_by_key("p"), has_profile, "{sql}:\n{plan}");
            for copy in ["MATERIALIZE", "CO-ROUTINE", "AUTOMATIC"] {
                assert!(!plan.contains(copy), "{sql}:\n{plan}");
            }
        }
    }
}
