//! The file of one day while it is written: one transaction from commit to commit, roll-ups counted in memory, records
//! collected into compressed blocks.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Statement, params_from_iter};

use super::rollup::Rollup;
use super::{prepare, schema};
use crate::row::Kind;

/// Bytes of a block of records before it is compressed: a session is opened by decompressing one, in a millisecond.
const BLOCK_BYTES: usize = 256 * 1024;

/// Level of Zstandard: 1 takes half of the time of 3, for a tenth more bytes.
const LEVEL: i32 = 1;

/// Makes the file of a new day under another name: readers find it with its tables, or not at all.
fn create(path: &Path) -> rusqlite::Result<()> {
    let new = path.with_extension("new");
    // What a killed process left there.
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = new.as_os_str().to_owned();
        name.push(end);
        let _ = std::fs::remove_file(name);
    }
    let connection = Connection::open(&new)?;
    prepare(&connection, schema::DAY)?;
    connection.close().map_err(|(_, error)| error)?;
    std::fs::rename(&new, path).map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))
}

/// Columns of `session_rows` in the order in which [`DayFile::session`] takes them, behind the key.
pub(super) const COLUMNS: &[&str] = &[
    "profile",
    "n",
    "flags",
    "source",
    "source_port",
    "destination",
    "port",
    "sensor",
    "duration_us",
    "bytes_in",
    "bytes_out",
    "uuid",
    "close_reason",
    "refused_by",
    "country",
    "network",
    "scanner",
    "block",
    "line",
];

/// The file of a day.
pub(super) struct DayFile {
    connection: Connection,
    absorbed: HashMap<i64, u64>,
    changed: HashSet<i64>,
    /// What is counted since the last commit.
    pub(super) rollup: Rollup,
    block: i64,
    lines: Vec<u8>,
    count: i64,
    /// The newest place in a log that has a block.
    noted: Option<(i64, Arc<str>)>,
    is_open: bool,
    insert: String,
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl DayFile {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        if !path.exists() {
            create(path)?;
        }
        let connection = Connection::open(path)?;
        let version = prepare(&connection, schema::DAY)?;
        if version != schema::VERSION {
            return Err(rusqlite::Error::InvalidParameterName(format!("version {version}")));
        }
        connection.execute_batch("PRAGMA cache_size = -4096;")?;
        connection.set_prepared_statement_cache_capacity(32);
        let mut absorbed = HashMap::new();
        {
            let mut statement = connection.prepare("SELECT log, lines FROM absorbed")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                absorbed.insert(row.get(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0));
            }
        }
        let block: i64 = connection.query_row("SELECT coalesce(max(id), 0) + 1 FROM blocks", [], |row| row.get(0))?;
        let marks = vec!["?"; COLUMNS.len() + 1].join(", ");
        Ok(Self {
            connection,
            absorbed,
            changed: HashSet::new(),
            rollup: Rollup::default(),
            block,
            lines: Vec::new(),
            count: 0,
            noted: None,
            is_open: false,
            insert: format!("INSERT OR IGNORE INTO session_rows (id, {}) VALUES ({marks})", COLUMNS.join(", ")),
            compressor: zstd::bulk::Compressor::new(LEVEL).ok(),
        })
    }

    /// Reports whether the day has taken this line already, and remembers that it has now.
    pub(super) fn has_absorbed(&mut self, log: i64, line: u64) -> rusqlite::Result<bool> {
        let absorbed = self.absorbed.entry(log).or_default();
        if line <= *absorbed {
            return Ok(true);
        }
        *absorbed = line;
        self.changed.insert(log);
        self.begin()?;
        Ok(false)
    }

    /// Returns the greatest line that the day has of a log.
    pub(super) fn absorbed(&self, log: i64) -> u64 {
        self.absorbed.get(&log).copied().unwrap_or(0)
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        if !self.is_open {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            self.is_open = true;
        }
        Ok(())
    }

    /// Adds a session under the key `id`, or a free one behind it. Returns its key.
    pub(super) fn session(&mut self, id: i64, columns: &[Value]) -> rusqlite::Result<i64> {
        add(&mut *self.connection.prepare_cached(&self.insert)?, id, columns)
    }

    pub(super) fn credential(&self, session: i64, ordinal: usize, credential: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO tries (session, ordinal, credential) VALUES (?, ?, ?)")?
            .execute((session, i64::try_from(ordinal).unwrap_or(i64::MAX), credential))?;
        Ok(())
    }

    /// Adds a tag, a vulnerability or an indicator to a session.
    pub(super) fn mark(&self, session: i64, kind: Kind, fact: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT OR IGNORE INTO marks (session, kind, fact) VALUES (?, ?, ?)")?
            .execute((session, kind as u8, fact))?;
        Ok(())
    }

    /// Adds a scan under the key `id`, or a free one behind it.
    pub(super) fn scan(&self, id: i64, values: &[Value]) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(
            "INSERT OR IGNORE INTO scans (id, n, undecided, flags, source, sensor, duration_us, ports, port_count, destinations,
             destination_count, tool, syn, country, network, scanner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        add(&mut statement, id, values).map(drop)
    }

    /// Keeps a record. Returns its block and its line there.
    pub(super) fn record(&mut self, line: &[u8]) -> rusqlite::Result<(i64, i64)> {
        let place = (self.block, self.count);
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        self.count += 1;
        if self.lines.len() >= BLOCK_BYTES {
            self.save_block()?;
            self.block += 1;
            self.count = 0;
            self.lines.clear();
        }
        Ok(place)
    }

    /// Notes a place in a log. Returns its block.
    pub(super) fn place(&mut self, place: &Arc<str>) -> rusqlite::Result<i64> {
        if let Some((block, known)) = &self.noted
            && Arc::ptr_eq(known, place)
        {
            return Ok(*block);
        }
        let block = self.block;
        self.connection
            .prepare_cached("INSERT INTO blocks (id, lines) VALUES (?, ?)")?
            .execute((block, place.as_ref()))?;
        self.block += 1;
        self.noted = Some((block, Arc::clone(place)));
        Ok(block)
    }

    /// A block that is not full is written again, with more lines, until it is.
    fn save_block(&mut self) -> rusqlite::Result<()> {
        let compressed = self.compressor.as_mut().and_then(|compressor| compressor.compress(&self.lines).ok());
        let Some(compressed) = compressed else {
            return Ok(());
        };
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO blocks (id, lines) VALUES (?, ?)")?
            .execute((self.block, compressed))?;
        Ok(())
    }

    /// Ends the transaction: the rows, their roll-ups, and how far each log is absorbed.
    pub(super) fn commit(&mut self) -> rusqlite::Result<()> {
        if !self.is_open {
            return Ok(());
        }
        if self.count > 0 {
            self.save_block()?;
        }
        self.rollup.write(&self.connection)?;
        {
            let mut statement =
                self.connection.prepare_cached("INSERT OR REPLACE INTO absorbed (log, lines) VALUES (?, ?)")?;
            for log in self.changed.drain() {
                let lines = self.absorbed.get(&log).copied().unwrap_or(0);
                statement.execute((log, i64::try_from(lines).unwrap_or(i64::MAX)))?;
            }
        }
        self.connection.execute_batch("COMMIT")?;
        self.is_open = false;
        Ok(())
    }

    /// Prepares a day that is not written for a while: one file, and statistics for the planner are not needed.
    pub(super) fn close(self) -> rusqlite::Result<()> {
        let state: Option<String> = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
            .optional()?
            .map(|busy| busy.to_string());
        drop(state);
        Ok(())
    }
}

/// Runs an insertion that ignores a key that is taken, under the key `id` or a free one behind it. Returns the key. Steps
/// double, so that many rows of the same time, as a coarse clock gives, are added in a few tries each.
fn add(insert: &mut Statement<'_>, mut id: i64, columns: &[Value]) -> rusqlite::Result<i64> {
    let mut step = 1;
    loop {
        let key = Value::Integer(id);
        if insert.execute(params_from_iter(std::iter::once(&key).chain(columns)))? == 1 {
            return Ok(id);
        }
        id += step;
        step *= 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::TestRunner;

    use crate::data::tests::{Scratch, rows};
    use crate::moment::{DAY, Moment};
    use crate::row::Row;
    use crate::store::key;

    /// More than the ordinals of a microsecond: a clock that counts seconds gives so many sessions one time.
    #[test]
    fn sessions_of_one_microsecond_are_all_kept() {
        let scratch = Scratch::new();
        let start = Moment(20_454 * DAY);
        let mut row = rows().new_tree(&mut TestRunner::deterministic()).unwrap().current();
        (row.run, row.seq, row.time) = (None, None, start);
        let many = usize::try_from(3 * key::ORDINAL).unwrap();
        let rows: Vec<Row> = std::iter::repeat_n(row, many).collect();
        let ids: std::collections::HashSet<String> = scratch.write(&rows, many).into_iter().collect();
        assert_eq!(ids.len(), many);
        let ask = |sql: &str| {
            scratch.reader().in_day(start.day(), |day| Ok(day.query_row(sql, [], |row| row.get(0)).unwrap()))
        };
        let (count, last): (i64, i64) = (
            ask("SELECT count(*) FROM session_rows").unwrap().unwrap(),
            ask("SELECT max(id) FROM session_rows").unwrap().unwrap(),
        );
        assert_eq!(count, many as i64);
        assert!(key::accepted(start.day(), last).0 - start.0 < 100, "times stay true to a tenth of a millisecond");
    }
}
