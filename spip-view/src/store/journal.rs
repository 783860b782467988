//! What the catalog says of the logs: how far each is read, messages of the agents in them, and events of this program
//! for the page *Health*.

use rusqlite::{Connection, OptionalExtension as _};

use super::{Result, Writer};
use crate::moment::Moment;
use crate::row::MessageRow;

/// Messages of agents that are kept.
const MAX_MESSAGES: i64 = 10_000;

/// Events that are kept.
const MAX_EVENTS: i64 = 1_000;

/// A log as the catalog knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Its number.
    pub id: i64,
    /// Position at which to continue, as JSON; empty before the first line.
    pub position: String,
    /// Lines that were taken.
    pub lines: u64,
    /// Lines that are no record.
    pub foreign: u64,
    /// Reason why the newest of them is no record.
    pub foreign_reason: Option<String>,
    /// Lines that were too long.
    pub overlong: u64,
    /// Files that went before they were read.
    pub lost_files: u64,
    /// Bytes that are not read yet.
    pub behind_bytes: u64,
}

impl Writer {
    /// Returns what is known of a log, which is new when nothing is.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub fn log(&mut self, path: &str) -> Result<LogState> {
        let found = self
            .catalog
            .query_row(
                "SELECT id, position, lines, is_foreign, foreign_reason, overlong, lost_files FROM logs WHERE path = ?",
                [path],
                |row| {
                    let number = |index| row.get::<_, i64>(index).map(|number| u64::try_from(number).unwrap_or(0));
                    Ok(LogState {
                        id: row.get(0)?,
                        position: row.get(1)?,
                        lines: number(2)?,
                        foreign: number(3)?,
                        foreign_reason: row.get(4)?,
                        overlong: number(5)?,
                        lost_files: number(6)?,
                        behind_bytes: 0,
                    })
                },
            )
            .optional()
            .map_err(|source| self.failed(source))?;
        if let Some(found) = found {
            return Ok(found);
        }
        self.catalog
            .execute(
                "INSERT INTO logs (path, position, lines, is_foreign, overlong, lost_files, behind_bytes) VALUES (?, '', 0, 0, 0, 0, 0)",
                [path],
            )
            .map_err(|source| self.failed(source))?;
        Ok(LogState { id: self.catalog.last_insert_rowid(), ..LogState::default() })
    }

    /// Takes a message of an agent. Only warnings and errors are kept for long.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn message(&mut self, log: i64, row: &MessageRow) -> Result<()> {
        self.catalog
            .prepare_cached("INSERT INTO messages (time_us, level, target, message, log) VALUES (?, ?, ?, ?, ?)")
            .and_then(|mut statement| statement.execute((row.time.0, &row.level, &row.target, &row.message, log)))
            .map_err(|source| self.failed(source))?;
        Ok(())
    }

    /// Notes what this program did, for the page *Health*.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn event(&mut self, text: &str) -> Result<()> {
        log::warn!("{text}");
        self.catalog
            .execute("INSERT INTO events (time_us, text) VALUES (?, ?)", (Moment::now().0, text))
            .map_err(|source| self.failed(source))?;
        Ok(())
    }

    /// Notes what this program did, and commits it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note(&mut self, text: &str) -> Result<()> {
        self.event(text)?;
        self.commit(&[])
    }
}

/// Writes how far the logs are read, and drops the oldest messages and events.
pub(super) fn flush(catalog: &Connection, logs: &[&LogState]) -> rusqlite::Result<()> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for log in logs {
        catalog.execute(
            "UPDATE logs SET position = ?, lines = ?, is_foreign = ?, foreign_reason = ?, overlong = ?, lost_files = ?,
             behind_bytes = ?, last_read_us = ? WHERE id = ?",
            (
                &log.position,
                signed(log.lines),
                signed(log.foreign),
                &log.foreign_reason,
                signed(log.overlong),
                signed(log.lost_files),
                signed(log.behind_bytes),
                Moment::now().0,
                log.id,
            ),
        )?;
    }
    catalog.execute("DELETE FROM messages WHERE id <= (SELECT max(id) FROM messages) - ?", [MAX_MESSAGES])?;
    catalog.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", [MAX_EVENTS])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::Scratch;

    #[test]
    fn the_newest_messages_and_events_are_kept() {
        let scratch = Scratch::new();
        let mut writer = Writer::open(&scratch.store, true).unwrap();
        let log = writer.log("test.json").unwrap();
        for number in 1..=MAX_MESSAGES + 3 {
            let text = |name: &str| format!("{name} {number}");
            let row = MessageRow {
                time: Moment(number),
                level: "warn".to_owned(),
                target: "t".to_owned(),
                message: text("message"),
            };
            writer.message(log.id, &row).unwrap();
            if number <= MAX_EVENTS + 3 {
                writer.event(&text("event")).unwrap();
            }
        }
        writer.commit(&[&log]).unwrap();
        let catalog = Connection::open(scratch.directory.join("catalog.sqlite")).unwrap();
        for (table, column, most) in [("messages", "message", MAX_MESSAGES), ("events", "text", MAX_EVENTS)] {
            let sql = format!(
                "SELECT count(*), min(id), (SELECT {column} FROM {table} ORDER BY id DESC LIMIT 1) FROM {table}"
            );
            let found: (i64, i64, String) =
                catalog.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
            assert_eq!((found.0, found.1), (most, 4), "{table}");
            assert!(found.2.ends_with(&format!(" {}", most + 3)), "{table}: {}", found.2);
        }
    }
}
