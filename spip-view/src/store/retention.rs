//! Keeps the store within its bounds: days and bytes that the operator allows, and room on the disk for everybody else.
//!
//! Days go as whole files, oldest first, never the newest. With them go facts and sources that no kept day has. When the
//! newest day alone is too large, nothing more is taken until the next one, and that is said.

use super::{Error, Result, Usage, Writer};
use crate::moment::Day;

/// Free bytes of the file system that the store leaves to others.
pub(super) const MIN_FREE_BYTES: u64 = 256 << 20;

/// Rows of the catalog that are removed in one transaction.
const STEP: i64 = 5_000;

impl Writer {
    /// Enforces the bounds. Everything that was taken has to be committed.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn retain(&mut self) -> Result<()> {
        let mut usage = self.store.usage()?;
        let mut dropped = Vec::new();
        while usage.days.len() > 1 && (usage.days.len() > usage.keep.days.max(1) as usize || is_too_large(&usage)) {
            let (day, bytes) = usage.days.remove(0);
            self.drop_day(day)?;
            usage.bytes = usage.bytes.saturating_sub(bytes);
            usage.free_bytes = usage.free_bytes.saturating_add(bytes);
            dropped.push(day);
        }
        let is_full = is_too_large(&usage);
        if is_full != self.is_full {
            self.is_full = is_full;
            if is_full {
                self.event(&format!(
                    "the store has {} of {} bytes and the disk {} free ({MIN_FREE_BYTES} are left to others): records are read and not kept \
                     until there is room; raise keep_bytes or free the disk",
                    usage.bytes, usage.keep.bytes, usage.free_bytes
                ))?;
            } else {
                self.event("there is room again: records are kept from now on")?;
            }
        }
        // A day that is older than all of a full store would be dropped at once.
        self.oldest =
            usage.days.first().map(|(day, _)| *day).filter(|_| usage.days.len() >= usage.keep.days.max(1) as usize);
        if let (Some(first), Some((oldest, _))) = (dropped.first(), usage.days.first()) {
            let oldest = *oldest;
            let last = dropped.last().unwrap_or(first);
            self.event(&format!(
                "dropped {first} to {last} to stay within {} days and {} bytes",
                usage.keep.days, usage.keep.bytes
            ))?;
            self.forget_before(oldest)?;
        }
        Ok(())
    }

    fn drop_day(&mut self, day: Day) -> Result<()> {
        self.days.remove(&day);
        let path = self.store.day(day);
        for end in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            match std::fs::remove_file(&name) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Io { path: name.into(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what no day from `oldest` on has, some at a time, so that readers and the log do not wait.
    fn forget_before(&mut self, oldest: Day) -> Result<()> {
        let before = oldest.start().0;
        for sql in [
            "DELETE FROM facts WHERE (kind, id) IN (SELECT kind, id FROM facts WHERE last_us < ?1 LIMIT ?2)",
            // A profile of a kept day has facts of that day. `?1` is bound for all of these statements.
            "DELETE FROM profiles WHERE id IN (SELECT p.id FROM profiles p WHERE ?1 IS NOT NULL AND
             ((p.payload IS NOT NULL AND NOT EXISTS (SELECT 1 FROM facts WHERE kind = 3 AND id = p.payload))
             OR (p.syn IS NOT NULL AND NOT EXISTS (SELECT 1 FROM facts WHERE kind = 12 AND id = p.syn))) LIMIT ?2)",
            "DELETE FROM sources WHERE source IN (SELECT source FROM sources WHERE last_us < ?1 LIMIT ?2)",
            "DELETE FROM runs WHERE (sensor, run, ordinal) IN (SELECT sensor, run, ordinal FROM runs WHERE last_us < ?1 LIMIT ?2)",
        ] {
            loop {
                let removed = self.catalog.execute(sql, (before, STEP)).map_err(|source| self.failed(source))?;
                self.catalog.execute_batch("COMMIT; BEGIN IMMEDIATE").map_err(|source| self.failed(source))?;
                if i64::try_from(removed).is_ok_and(|removed| removed < STEP) {
                    break;
                }
            }
        }
        self.facts.reset();
        self.profiles.reset();
        self.runs.reset();
        Ok(())
    }
}

fn is_too_large(usage: &Usage) -> bool {
    usage.bytes > usage.keep.bytes || usage.free_bytes < MIN_FREE_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::data::tests::{Scratch, rows};
    use crate::moment::{DAY, Moment};
    use crate::row::Row;
    use crate::store::{Keep, Store};

    /// Returns a session of a day that sent `payload` and came from a SYN of its own.
    fn session(day: i64, payload: &str) -> Row {
        let mut row = rows().new_tree(&mut TestRunner::deterministic()).unwrap().current();
        row.time = Moment(1_767_225_600_000_000 + day * DAY);
        row.payload = payload.as_bytes().to_vec();
        row.sha256 = Some([payload.as_bytes()[0]; 32]);
        row.facts = vec![(crate::row::Kind::Syn, payload.to_owned())];
        row
    }

    #[test]
    fn payloads_and_profiles_go_with_the_last_day_that_has_them() {
        let scratch = Scratch::new();
        scratch.write(&[session(0, "old"), session(0, "kept"), session(1, "kept"), session(2, "new")], 1);
        let count = |sql: &str| {
            let catalog = rusqlite::Connection::open(scratch.directory.join("catalog.sqlite")).unwrap();
            catalog.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(count("SELECT count(*) FROM payloads"), 3);
        let before = count("SELECT count(DISTINCT payload) FROM profiles");
        assert_eq!(before, 3);
        let store = Store::open(&scratch.directory, Keep { days: 2, bytes: u64::MAX }).unwrap();
        let mut writer = Writer::open(&store, true).unwrap();
        writer.retain().unwrap();
        writer.commit(&[]).unwrap();
        assert_eq!(store.days().unwrap().len(), 2);
        assert_eq!(count("SELECT count(*) FROM payloads WHERE head IN (CAST('kept' AS BLOB), CAST('new' AS BLOB))"), 2);
        assert_eq!(count("SELECT count(*) FROM payloads"), 2);
        assert_eq!(count("SELECT count(DISTINCT payload) FROM profiles"), 2);
        assert_eq!(
            count("SELECT count(*) FROM profiles WHERE payload NOT IN (SELECT id FROM facts WHERE kind = 3)"),
            0
        );
    }

    #[test]
    fn what_went_with_its_day_is_new_when_it_comes_again() {
        let scratch = Scratch::new();
        let store = Store::open(&scratch.directory, Keep { days: 2, bytes: u64::MAX }).unwrap();
        let mut writer = Writer::open(&store, true).unwrap();
        let mut log = writer.log("test.json").unwrap();
        let mut write = |writer: &mut Writer, row: &Row| {
            log.lines += 1;
            writer.session(log.id, log.lines, row, b"{}").unwrap();
            writer.commit(&[&log]).unwrap();
        };
        for day in 0..3 {
            write(&mut writer, &session(day, if day == 0 { "old" } else { "new" }));
        }
        writer.retain().unwrap();
        write(&mut writer, &session(2, "old"));
        let catalog = rusqlite::Connection::open(scratch.directory.join("catalog.sqlite")).unwrap();
        let found: (i64, i64) = catalog
            .query_row(
                "SELECT count(*), sum(f.n) FROM payloads p JOIN facts f ON f.kind = 3 AND f.id = p.id
                 WHERE p.head = CAST('old' AS BLOB)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(found, (1, i64::try_from(session(2, "old").count).unwrap()));
    }
}
