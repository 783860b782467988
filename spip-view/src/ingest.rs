//! From logs to the store: reads lines in batches, turns records into rows, commits each batch with the position behind
//! it. Runs on a thread of its own.
//!
//! A line that is no record of `spip/1` is counted with its reason. A log in another format is recognised by its first
//! lines, and the remedy is named.

mod entry;
pub mod follow;
pub mod normalise;

use std::path::Path;
use std::sync::Arc;

use spip_enrich::Enricher;
use spip_record::enrichment::{Enrichment, Source};
use spip_record::log::{Batch, Content, Notice, Position};
use spip_record::{Entry, read};

use crate::moment::Day;
use crate::row::{Row, ScanRow};
use crate::store::{LogState, Result, Taken, Writer};

/// A record that was taken, for the live stream.
#[derive(Clone, Debug)]
pub enum Arrived {
    /// A session: its day and key there, and what it is.
    Session(Day, i64, Box<Row>),
    /// A scan.
    Scan(Box<ScanRow>),
}

/// A place in a log from which the lines behind it are found again by their number.
#[derive(Clone, Debug)]
pub(crate) struct Anchor {
    /// The log and the position in it, as JSON.
    place: Arc<str>,
    /// Lines since.
    lines: i64,
    bytes: usize,
}

impl Anchor {
    /// Lines and bytes after which another place is noted: what is read again to find one record.
    pub(crate) const MAX_LINES: i64 = 4_096;
    const MAX_BYTES: usize = 4 << 20;

    fn next(&mut self) -> (Arc<str>, i64) {
        self.lines += 1;
        (Arc::clone(&self.place), self.lines - 1)
    }
}

fn length(content: &Content<'_>) -> usize {
    match content {
        Content::Whole(bytes) | Content::Torn(bytes) => bytes.len(),
        Content::TooLong(_) => 0,
    }
}

/// Makes the row of a session, and works out what it means.
#[must_use]
pub(crate) fn session(entry: &Entry<'_>, enricher: Option<&mut Enricher>) -> Row {
    let own = entry.enrichment.as_deref();
    let meaning = match enricher {
        Some(enricher) => {
            let mut meaning = enricher.record(entry);
            // What the record says of its source stays where the data here does not know it: a hub may have better.
            if let Some(Source { country, city, asn, network, scanner, .. }) = own.map(|own| &own.source) {
                let source = &mut meaning.source;
                source.country = source.country.take().or_else(|| country.clone());
                source.city = source.city.take().or_else(|| city.clone());
                source.scanner = source.scanner.take().or_else(|| scanner.clone());
                if source.asn.is_none() {
                    (source.asn, source.network) = (*asn, network.clone());
                }
            }
            meaning
        }
        None => own.cloned().unwrap_or_default(),
    };
    entry::row(entry, meaning)
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
    /// Place in the log from which records are found again, unless they are kept.
    pub(crate) anchor: Option<Anchor>,
    /// Works out what records mean; without it they mean what they say themselves.
    enricher: Option<Enricher>,
}

impl Log {
    /// Creates a log of which the catalog knows this.
    #[must_use]
    pub fn new(state: LogState, enricher: Option<Enricher>) -> Self {
        Self { state, records: 0, duplicates: 0, expired: 0, is_format_named: false, anchor: None, enricher }
    }

    /// Takes the lines of a batch. `arrived` hears of each record.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn take(&mut self, batch: &Batch, writer: &mut Writer, arrived: &mut dyn FnMut(Arrived)) -> Result<()> {
        self.skip(batch, 0, writer, arrived)
    }

    /// Notes that the lines of `batch` are found again behind `before`, the position of the batch before it.
    pub(crate) fn anchor(&mut self, path: &Path, before: &str, batch: &Batch) {
        let is_spent = self.anchor.as_ref().is_none_or(|anchor| {
            anchor.lines >= Anchor::MAX_LINES || anchor.bytes >= Anchor::MAX_BYTES || !batch.notices().is_empty()
        });
        if is_spent {
            let position: Position = serde_json::from_str(before).unwrap_or_default();
            let place = serde_json::to_string(&(path, position)).unwrap_or_default();
            self.anchor = Some(Anchor { place: place.into(), lines: 0, bytes: 0 });
        }
        if let Some(anchor) = &mut self.anchor {
            anchor.bytes += batch.lines().map(|line| length(&line.content)).sum::<usize>();
        }
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
        writer.at(self.anchor.as_mut().map(Anchor::next));
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
                let row = session(&entry, self.enricher.as_mut());
                let taken = writer.session(log, number, &row, bytes)?;
                if let Taken::Stored(day, id) = taken {
                    arrived(Arrived::Session(day, id, Box::new(row)));
                }
                taken
            }
            Ok(read::Line::Scan(scan)) => {
                let source = self.enricher.as_ref().map(|enricher| enricher.source(scan.source));
                let meaning = Enrichment { source: source.unwrap_or_default(), ..Enrichment::default() };
                let row = entry::scan(&scan, meaning);
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
        // Lines are counted from the begin of the log; where some are missing or come again, days must not pass over
        // others.
        self.state.lines = self.state.lines.max(writer.absorbed(self.state.id)?);
        writer.event(&notice.to_string())
    }
}
