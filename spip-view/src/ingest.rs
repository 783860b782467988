//! From logs to the store: reads lines in batches, turns records into rows, commits each batch with the position behind
//! it. Runs on a thread of its own and asks nobody.
//!
//! A line that is no record of `spip/1` is counted with its reason. A log in another format is recognised by its first
//! lines, and the remedy is named.

mod entry;
pub mod follow;
pub mod normalise;

use spip_record::log::{Batch, Content, Notice};
use spip_record::read;

use crate::row::{Row, ScanRow};
use crate::store::{LogState, Result, Taken, Writer};

/// A record that was taken, for the live stream.
#[derive(Clone, Debug)]
pub enum Arrived {
    /// A session: its key as the pages name it, and what it is.
    Session(String, Box<Row>),
    /// A scan.
    Scan(Box<ScanRow>),
}

/// One log on its way into the store.
#[derive(Debug)]
pub struct Log {
    /// State of the log in the catalog.
    pub state: LogState,
    /// Records in it that were taken.
    pub records: u64,
    /// Records that were there already.
    pub duplicates: u64,
    /// Records that are older than what is kept.
    pub expired: u64,
    /// Set once a message has reported that the log has another format.
    is_format_named: bool,
}

impl Log {
    /// Creates a log of which the catalog knows this.
    #[must_use]
    pub fn new(state: LogState) -> Self {
        Self { state, records: 0, duplicates: 0, expired: 0, is_format_named: false }
    }

    /// Takes the lines of a batch. `arrived` hears of each record.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn take(&mut self, batch: &Batch, writer: &mut Writer, arrived: &mut dyn FnMut(Arrived)) -> Result<()> {
        self.skip(batch, 0, writer, arrived)
    }

    /// Takes the lines of a batch behind the first `passed`.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn skip(
        &mut self,
        batch: &Batch,
        passed: usize,
        writer: &mut Writer,
        arrived: &mut dyn FnMut(Arrived),
    ) -> Result<()> {
        for notice in batch.notices() {
            self.notice(notice, writer)?;
        }
        for line in batch.lines().skip(passed) {
            self.content(line.content, writer, arrived)?;
        }
        Ok(())
    }

    /// Takes one line.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn content(
        &mut self,
        content: Content<'_>,
        writer: &mut Writer,
        arrived: &mut dyn FnMut(Arrived),
    ) -> Result<()> {
        self.state.lines += 1;
        match content {
            Content::Whole(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => {}
            Content::Whole(bytes) => self.line(bytes, writer, arrived)?,
            Content::Torn(bytes) if read::any(bytes).is_ok() => self.line(bytes, writer, arrived)?,
            Content::Torn(_) => self.foreign("the line has no end: the agent was killed while it wrote"),
            Content::TooLong(_) => self.state.overlong += 1,
        }
        Ok(())
    }

    fn line(&mut self, bytes: &[u8], writer: &mut Writer, arrived: &mut dyn FnMut(Arrived)) -> Result<()> {
        let (log, number) = (self.state.id, self.state.lines);
        let taken = match read::line(bytes) {
            Ok(read::Line::Session(entry)) => {
                let row = entry::row(&entry);
                let taken = writer.session(log, number, &row, bytes)?;
                if let Taken::Stored(day, id) = taken {
                    arrived(Arrived::Session(crate::data::session_id(day, id), Box::new(row)));
                }
                taken
            }
            Ok(read::Line::Scan(scan)) => {
                let row = entry::scan(&scan);
                let taken = writer.scan(log, number, &row)?;
                if matches!(taken, Taken::Stored(..)) {
                    arrived(Arrived::Scan(Box::new(row)));
                }
                taken
            }
            Ok(read::Line::Other(kind)) => {
                match entry::message(bytes) {
                    Some(row) if kind == "log" => writer.message(log, &row)?,
                    _ => self.foreign(&format!("a record of the type {kind:?}, which this version does not know")),
                }
                return Ok(());
            }
            Err(error) => {
                self.name_format(bytes, writer)?;
                self.foreign(&error.to_string());
                return Ok(());
            }
        };
        match taken {
            Taken::Stored(..) => self.records += 1,
            Taken::Duplicate => self.duplicates += 1,
            Taken::Expired => self.expired += 1,
        }
        Ok(())
    }

    fn foreign(&mut self, reason: &str) {
        self.state.foreign += 1;
        self.state.foreign_reason = Some(crate::store::cut(reason).to_owned());
    }

    /// Says once how to read a log in another format.
    fn name_format(&mut self, bytes: &[u8], writer: &mut Writer) -> Result<()> {
        let has = |key: &[u8]| bytes.windows(key.len()).any(|window| window == key);
        let format = match (has(b"\"ecs.version\"") || has(b"\"@timestamp\""), has(b"\"event_type\"")) {
            (true, _) => "ecs",
            (_, true) => "eve",
            _ => return Ok(()),
        };
        if std::mem::replace(&mut self.is_format_named, true) {
            return Ok(());
        }
        writer.event(&format!(
            "a log has lines in the format {format}, and spip-view reads flat: set log_format = \"flat\" in the agent's \
             configuration; `spip-agent convert --to {format}` makes {format} of it"
        ))
    }

    fn notice(&mut self, notice: &Notice, writer: &mut Writer) -> Result<()> {
        if matches!(notice, Notice::Lost { .. } | Notice::Truncated { .. } | Notice::Unreadable { .. }) {
            self.state.lost_files += 1;
        }
        // Lines are counted from the begin of the log; where some are missing or come again, days must not pass over others.
        self.state.lines = self.state.lines.max(writer.absorbed(self.state.id)?);
        writer.event(&notice.to_string())
    }
}
