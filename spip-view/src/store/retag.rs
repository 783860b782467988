//! Works out again what stored sessions mean, with the data and rules of now.
//!
//! A day is one transaction: its sessions and scans get their places and marks, and its roll-ups are made again from the
//! rows. Ports of scans stay as they are in the roll-ups, because rows keep the first of their ranges only; these are
//! counted with the class that the source had when they were written.

use std::collections::BTreeMap;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};
use spip_record::enrichment::Enrichment;

use super::facts::Appearance;
use super::rollup::{Key, Place, Rollup};
use super::rows::{self, Rows};
use super::{Error, Result, Writer, key, prepare, schema};
use crate::meaning::{self, Class};
use crate::moment::{Day, HOUR};
use crate::row::Kind;

/// Sessions that are read at once.
const CHUNK: i64 = 2_000;

/// Result for the sessions of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retagged {
    /// Sessions whose record was looked at.
    pub sessions: u64,
    /// Sessions whose record cannot be read any more: they stay as they are.
    pub unread: u64,
}

/// Questions about the meaning of a day's records.
pub trait Meanings {
    /// Returns what a session means; nothing when its record cannot be read.
    fn session(&mut self, day: Day, id: i64) -> Option<Enrichment>;
    /// Returns what is known of the source of a scan.
    fn scan(&mut self, source: std::net::IpAddr) -> Enrichment;
}

struct Session {
    id: i64,
    source: Value,
    port: u16,
    n: u64,
}

impl Writer {
    /// Begins to tag everything again: what is counted by the facts of tags and places begins at nothing.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub fn begin_retag(&mut self) -> Result<()> {
        self.days.clear();
        self.facts.reset();
        let kinds: Vec<String> = Kind::LOOKED_UP.iter().map(|kind| (*kind as u8).to_string()).collect();
        let sql = format!("UPDATE facts SET n = 0 WHERE kind IN ({})", kinds.join(", "));
        self.catalog.execute(&sql, []).map_err(|source| self.failed(source))?;
        self.commit(&[])
    }

    /// Tags the sessions and scans of a day again.
    ///
    /// # Errors
    /// The day or the catalog cannot be written.
    pub fn retag(&mut self, day: Day, meanings: &mut dyn Meanings) -> Result<Retagged> {
        let path = self.store.day(day);
        let failed = |source| Error::Sqlite { path: path.clone(), source };
        let connection = Connection::open(&path).map_err(failed)?;
        let version = prepare(&connection, schema::DAY).map_err(failed)?;
        if version != schema::VERSION {
            return Err(Error::Version { path: path.clone(), found: version });
        }
        // Not IMMEDIATE: that would lock the catalog, which only the writer writes.
        connection
            .execute("ATTACH ? AS catalog", [self.store.catalog().to_string_lossy()])
            .and_then(|_| connection.execute_batch(&schema::sessions("main", "catalog")))
            .and_then(|()| connection.execute_batch("BEGIN"))
            .map_err(failed)?;
        let mut done = Retagged::default();
        let mut after = i64::MIN;
        loop {
            let chunk = sessions(&connection, after).map_err(failed)?;
            let Some(last) = chunk.last() else { break };
            after = last.id;
            for session in &chunk {
                let Some(meaning) = meanings.session(day, session.id) else {
                    done.unread += 1;
                    continue;
                };
                done.sessions += 1;
                let facts = self.meant(day, session, &meaning)?;
                write(&connection, session.id, &meaning, &facts).map_err(failed)?;
            }
        }
        self.retag_scans(&connection, day, meanings)?;
        // Facts first: no row names a number that is not on the disk.
        self.commit(&[])?;
        roll_up(&connection).and_then(|()| connection.execute_batch("COMMIT")).map_err(failed)?;
        Ok(done)
    }

    /// Counts what a session means. Returns the numbers of the facts.
    fn meant(&mut self, day: Day, session: &Session, meaning: &Enrichment) -> Result<Vec<(Kind, i64)>> {
        let seen = Appearance {
            time: key::accepted(day, session.id),
            source: &session.source,
            session: session.id,
            port: session.port,
            class: Class::of(meaning),
        };
        let mut facts = Vec::new();
        for (kind, text) in meaning::places(meaning) {
            if let Some(text) = text {
                let label = meaning::label(kind, meaning);
                facts.push((kind, self.labelled(kind, &text, label, session.n, &seen)?));
            }
        }
        for mark in meaning::marks(meaning) {
            facts.push((mark.kind, self.labelled(mark.kind, &mark.value, mark.label, session.n, &seen)?));
        }
        self.keep_rules(meaning)?;
        Ok(facts)
    }

    fn retag_scans(&mut self, connection: &Connection, day: Day, meanings: &mut dyn Meanings) -> Result<()> {
        let path = self.store.day(day);
        let failed = |source| Error::Sqlite { path: path.clone(), source };
        // By source: a scanner has many records, and is looked up once.
        let mut scans: BTreeMap<Vec<u8>, Vec<i64>> = BTreeMap::new();
        let mut sources: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
        {
            let mut statement = connection.prepare("SELECT id, source FROM scans").map_err(failed)?;
            let mut rows = statement.query([]).map_err(failed)?;
            while let Some(row) = rows.next().map_err(failed)? {
                let source: Value = row.get(1).map_err(failed)?;
                let name = key::read_address(ValueRef::from(&source)).to_string().into_bytes();
                sources.entry(name.clone()).or_insert(source);
                scans.entry(name).or_default().push(row.get(0).map_err(failed)?);
            }
        }
        for (name, ids) in scans {
            let Some(source) = sources.get(&name) else { continue };
            let meaning = meanings.scan(key::read_address(ValueRef::from(source)));
            let Some(first) = ids.first() else { continue };
            let session = Session { id: *first, source: source.clone(), port: 0, n: 0 };
            let facts = self.meant(day, &session, &Enrichment { tags: Vec::new(), ..meaning.clone() })?;
            let sql = "UPDATE scans SET country = ?, network = ?, scanner = ?, flags = ? WHERE id = ?";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            for id in ids {
                let values = places(&facts).into_iter().chain([flags(&meaning), Value::Integer(id)]);
                statement.execute(params_from_iter(values)).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn sessions(connection: &Connection, after: i64) -> rusqlite::Result<Vec<Session>> {
    connection
        .prepare_cached("SELECT id, source, port, n FROM session_rows WHERE id > ? ORDER BY id LIMIT ?")?
        .query_map((after, CHUNK), |row| {
            let n: i64 = row.get(3)?;
            let n = u64::try_from(n).unwrap_or(0);
            Ok(Session { id: row.get(0)?, source: row.get(1)?, port: row.get(2)?, n })
        })?
        .collect()
}

fn flags(meaning: &Enrichment) -> Value {
    Value::Integer(match Class::of(meaning) {
        Class::Unknown => 0,
        Class::Listed => key::LISTED,
        Class::Claimed => key::CLAIMED,
    })
}

fn places(facts: &[(Kind, i64)]) -> Vec<Value> {
    let of = |kind: &Kind| facts.iter().find(|(own, _)| own == kind).map_or(Value::Null, |(_, id)| Value::Integer(*id));
    Kind::PLACES.iter().map(of).collect()
}

fn write(connection: &Connection, id: i64, meaning: &Enrichment, facts: &[(Kind, i64)]) -> rusqlite::Result<()> {
    let class = key::LISTED | key::CLAIMED;
    let values = places(facts).into_iter().chain([flags(meaning), Value::Integer(id)]);
    connection
        .prepare_cached(&format!(
            "UPDATE session_rows SET country = ?, network = ?, scanner = ?, flags = (flags & ~{class}) | ? WHERE id = ?"
        ))?
        .execute(params_from_iter(values))?;
    connection.prepare_cached("DELETE FROM marks WHERE session = ?")?.execute([id])?;
    for (kind, fact) in facts.iter().filter(|(kind, _)| Kind::MARKS.contains(kind)) {
        connection.prepare_cached("INSERT OR IGNORE INTO marks (session, kind, fact) VALUES (?, ?, ?)")?.execute((
            id,
            *kind as u8,
            fact,
        ))?;
    }
    Ok(())
}

/// Makes the roll-ups of a day again from its rows, as [`super::insert`] counts them one by one.
fn roll_up(connection: &Connection) -> rusqlite::Result<()> {
    let kept = format!("{}, {}", Kind::ScanPort as u8, Kind::ScanBlock as u8);
    connection.execute(&format!("DELETE FROM hourly WHERE kind NOT IN ({kept})"), [])?;
    for kind in Kind::NAMED.iter().map(|(kind, _)| *kind).chain(Kind::COUNTED.iter().copied()) {
        let Rows { key, n, tables, narrowing } = rows::of(kind);
        let sql = format!(
            "SELECT {key}, (s.id >> {}) / {HOUR}, s.sensor, s.flags & {}, sum({n})
             FROM {tables} WHERE {key} IS NOT NULL AND {narrowing} GROUP BY 1, 2, 3, 4",
            key::ORDINAL_BITS,
            key::LISTED | key::CLAIMED,
        );
        let mut rollup = Rollup::default();
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let class = match row.get::<_, i64>(3)? {
                key::LISTED => Class::Listed,
                key::CLAIMED => Class::Claimed,
                _ => Class::Unknown,
            };
            let place = Place { hour: row.get(1)?, sensor: row.get(2)?, class };
            let n: i64 = row.get(4)?;
            rollup.at(place).add(kind, Key::read(row.get_ref(0)?), u64::try_from(n).unwrap_or(0));
        }
        rollup.write(connection)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use spip_record::enrichment::Tag;

    use super::*;
    use crate::data::tests::{Scratch, rows};
    use crate::row::Row;

    /// Finds the same for every session, and nothing for a scan.
    struct Same(Enrichment);

    impl Meanings for Same {
        fn session(&mut self, _: Day, _: i64) -> Option<Enrichment> {
            Some(self.0.clone())
        }

        fn scan(&mut self, _: std::net::IpAddr) -> Enrichment {
            Enrichment::default()
        }
    }

    #[test]
    fn what_is_looked_up_again_is_counted_once() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let meaning = |tags: &[u64]| Enrichment {
            tags: tags.iter().map(|id| Tag { id: *id, name: format!("rule {id}"), ..Tag::default() }).collect(),
            ..Enrichment::default()
        };
        let day = crate::moment::Moment(1_767_225_600_000_000).day();
        let rows: Vec<Row> = (0..20)
            .map(|_| Row {
                time: day.start(),
                meaning: meaning(&[1, 2]),
                ..rows().new_tree(&mut runner).unwrap().current()
            })
            .collect();
        let connections = i64::try_from(rows.iter().map(|row| row.count).sum::<u64>()).unwrap();
        let scratch = Scratch::new();
        scratch.write(&rows, 7);
        let counted = || {
            let sql = "SELECT n FROM facts WHERE kind = ? AND n > 0 ORDER BY n";
            let reader = scratch.reader();
            let mut statement = reader.catalog().prepare(sql).unwrap();
            let counts = statement.query_map([Kind::Tag as u8], |row| row.get(0)).unwrap();
            counts.collect::<rusqlite::Result<Vec<i64>>>().unwrap()
        };
        assert_eq!(counted(), [connections; 2]);
        for tags in [&[1, 2][..], &[1, 2], &[2], &[]] {
            let mut writer = Writer::open(&scratch.store, true).unwrap();
            writer.begin_retag().unwrap();
            let done = writer.retag(day, &mut Same(meaning(tags))).unwrap();
            assert_eq!(done, Retagged { sessions: 20, unread: 0 });
            drop(writer);
            assert_eq!(counted(), vec![connections; tags.len()], "{tags:?}");
        }
    }
}
