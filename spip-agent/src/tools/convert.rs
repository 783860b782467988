//! A log in one format becomes the same log in another one: streaming, a line at a time, in bounded memory.
//!
//! Each record is read into the entry that the encoders of the running agent take, so what comes out is, byte for byte,
//! what would have been logged in that format. Only `max_line_bytes` of the configuration is not applied again.
//!
//! A file may have been touched by anybody, or be half of one: what is no record is named with file and line, left out
//! and counted, and the outcome says so. The first [`NAMED_LINES`] of a file are named, the others counted, so that a
//! file of the wrong kind does not flood the terminal. System messages are left out and are no mistake.

mod enrich;
mod output;
mod progress;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use spip_record::log::{Batch, Content, Files, Step};
use spip_record::read::{self, Line};
use spip_record::{Entry, Format, Tail, eve, json, zeek};

use enrich::Enrichment;
use output::Output;
use progress::Progress;

pub use enrich::Options as Enrich;
pub use spip_record::log::MAX_LINE_BYTES;

/// About how many bytes of lines are taken at once.
const BATCH_BYTES: usize = 256 * 1024;

/// Upper bound of lines that are named per file because they are no records.
pub const NAMED_LINES: u64 = 100;

/// The longest reason that is shown of one.
const REASON_BYTES: usize = 200;

/// Targets of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// The project's own format again, with what was added.
    Flat,
    /// Elastic Common Schema.
    Ecs,
    /// Suricata's EVE.
    Eve,
    /// Zeek's conn.log as JSON.
    Zeek,
    /// The indicators of all records as a STIX 2.1 bundle.
    Stix,
    /// Addresses of downloads, a line each.
    Urls,
    /// Hosts that payloads name, a line each.
    Hosts,
    /// SHA-256 of payloads that are kept in files, a line each.
    Hashes,
    /// Sources of attacks, a line each.
    Sources,
}

impl Target {
    /// The format of the log that it is; `None` for Zeek's and for exports.
    fn format(self) -> Option<Format> {
        match self {
            Self::Flat => Some(Format::Flat),
            Self::Ecs => Some(Format::Ecs),
            Self::Eve => Some(Format::Eve),
            Self::Zeek | Self::Stix | Self::Urls | Self::Hosts | Self::Hashes | Self::Sources => None,
        }
    }

    /// Appends the whole line that a line of the flat format becomes, its end included; false, and nothing, where that
    /// is left out.
    ///
    /// # Errors
    /// Why it is no record that can be converted.
    pub fn line(self, line: &[u8], out: &mut Vec<u8>) -> Result<bool, String> {
        self.line_and(line, out, |_| {})
    }

    /// As [`Target::line`], with `add` called for each session before it is written.
    fn line_and(self, line: &[u8], out: &mut Vec<u8>, add: impl FnOnce(&mut Entry<'_>)) -> Result<bool, String> {
        match (read::line(line).map_err(|error| reason(line, &error))?, self.format()) {
            (Line::Session(mut entry), _) => {
                add(&mut entry);
                encode(self, &entry, out);
            }
            (Line::Scan(scan), Some(format)) => {
                scan.encode(format, out);
                end(format, scan.seq, out);
            }
            (Line::Scan(_), None) => return Ok(false),
            (Line::Other(kind), _) if kind == "log" => return Ok(false),
            (Line::Other(kind), _) => return Err(format!("records of type {kind} have no form in this format")),
        }
        Ok(true)
    }
}

/// Describes why a line cannot be read: of another format, or of none.
fn reason(line: &[u8], error: &serde_json::Error) -> String {
    #[derive(serde::Deserialize)]
    struct Other {
        #[serde(rename = "@timestamp")]
        ecs: Option<serde::de::IgnoredAny>,
        #[serde(rename = "event_type")]
        eve: Option<serde::de::IgnoredAny>,
    }
    let format = match serde_json::from_slice(line) {
        Ok(Other { ecs: Some(_), .. }) => "ecs",
        Ok(Other { eve: Some(_), .. }) => "eve",
        _ => return error.to_string(),
    };
    format!("is in the format {format}, and only flat can be converted")
}

/// A request to convert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The format to write.
    pub to: Target,
    /// Target file; standard output when absent or `-`.
    pub output: Option<PathBuf>,
    /// Enrichment of the records.
    pub enrich: enrich::Options,
    /// Longest line that is read.
    pub max_line_bytes: usize,
    /// Files to read; standard input when there are none.
    pub files: Vec<PathBuf>,
}

/// Result of a conversion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records written.
    pub records: u64,
    /// System messages that were left out, and scans where the format knows connections only.
    pub messages: u64,
    /// Lines that were no records.
    pub bad_lines: u64,
    /// Files that could not be read to their end.
    pub bad_files: u64,
    /// Set when the reader of the output went away.
    pub cut: bool,
}

impl Outcome {
    /// Reports whether every record of every file was written.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.bad_lines == 0 && self.bad_files == 0 && !self.cut
    }
}

/// Reasons why nothing more can be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output cannot be made.
    #[error("cannot create {}: {cause}; name a file that does not exist, in a directory that may be written", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        cause: io::Error,
    },
    /// The data that is to be added cannot be used.
    #[error(transparent)]
    Enrich(#[from] spip_enrich::Error),
    /// The output takes no more.
    #[error("cannot write {name}: {cause}; what was written before is incomplete")]
    Write {
        /// The file, or standard output.
        name: String,
        /// Error of the system.
        cause: io::Error,
    },
}

/// Converts all files. What is wrong with them goes to standard error as it is found.
///
/// # Errors
/// The output cannot be written.
pub fn run(request: &Request) -> Result<Outcome, Error> {
    let enrichment = Enrichment::open(request.to, &request.enrich)?;
    let output = Output::create(request.output.as_deref())?;
    let mut files = Files::new(request.files.clone(), request.max_line_bytes);
    let mut conversion = Conversion {
        to: request.to,
        output,
        enrichment,
        outcome: Outcome::default(),
        progress: Progress::start(&request.files),
        line: Vec::new(),
        unnamed: None,
    };
    while let Step::Batch(batch) = files.next_batch(BATCH_BYTES) {
        match conversion.batch(&batch, request.max_line_bytes) {
            Ok(()) => conversion.progress.show(files.raw_bytes(), &conversion.outcome),
            // The reader of the output has seen enough.
            Err(Error::Write { cause, .. }) if cause.kind() == io::ErrorKind::BrokenPipe => {
                conversion.outcome.cut = true;
                conversion.progress.clear();
                return Ok(conversion.outcome);
            }
            Err(error) => return Err(error),
        }
    }
    conversion.finish()
}

struct Conversion {
    to: Target,
    output: Output,
    enrichment: Enrichment,
    outcome: Outcome,
    progress: Progress,
    line: Vec<u8>,
    /// The file that is read, and how many of its lines are no records.
    unnamed: Option<(PathBuf, u64)>,
}

impl Conversion {
    fn batch(&mut self, batch: &Batch, limit: usize) -> Result<(), Error> {
        for notice in batch.notices() {
            self.outcome.bad_files += 1;
            self.say(&notice.to_string());
        }
        if self.unnamed.as_ref().is_some_and(|(path, _)| path != batch.path()) {
            self.say_unnamed();
        }
        for line in batch.lines() {
            let result = match line.content {
                Content::Whole(bytes) | Content::Torn(bytes) => self.line(bytes)?,
                Content::TooLong(_) => Err(format!("longer than {limit} bytes")),
            };
            if let Err(reason) = result {
                self.bad_line(batch.path(), line.number, &reason);
            }
        }
        Ok(())
    }

    /// Converts a line; the inner error is why it is none that can be.
    fn line(&mut self, line: &[u8]) -> Result<Result<(), String>, Error> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Ok(()));
        }
        self.line.clear();
        let enrichment = &mut self.enrichment;
        match self.to.line_and(line, &mut self.line, |entry| enrichment.add(entry)) {
            Ok(true) => {
                self.output.write(&self.line)?;
                self.outcome.records += 1;
            }
            Ok(false) => self.outcome.messages += 1,
            Err(reason) => return Ok(Err(reason)),
        }
        Ok(Ok(()))
    }

    fn bad_line(&mut self, path: &Path, number: u64, reason: &str) {
        self.outcome.bad_lines += 1;
        let (_, bad) = self.unnamed.get_or_insert_with(|| (path.to_owned(), 0));
        *bad += 1;
        if *bad <= NAMED_LINES {
            self.say(&format!("{}:{number}: {reason}; left out", path.display()));
        }
    }

    /// Says how many bad lines of the last file were not named.
    fn say_unnamed(&mut self) {
        if let Some((path, bad)) = self.unnamed.take()
            && bad > NAMED_LINES
        {
            self.say(&format!("{}: {} more lines are no records; left out", path.display(), bad - NAMED_LINES));
        }
    }

    /// Says something on standard error; nothing in it reaches the terminal unescaped.
    fn say(&mut self, text: &str) {
        self.progress.clear();
        let mut line = Vec::new();
        let shown = text.get(..text.floor_char_boundary(REASON_BYTES * 4)).unwrap_or_default();
        json::escaped(&mut line, shown);
        // A quote is no danger here, and easier to read as it is.
        let line = String::from_utf8_lossy(&line).replace("\\\"", "\"");
        // There is nowhere left to say that this failed.
        let _ = writeln!(io::stderr(), "{line}");
    }

    fn finish(mut self) -> Result<Outcome, Error> {
        self.say_unnamed();
        let finished = self.enrichment.finish(&mut self.output).and_then(|dropped| {
            if dropped > 0 {
                self.say(&format!("{dropped} indicators found no room and are left out: convert fewer files at once"));
            }
            self.output.finish()
        });
        match finished {
            Ok(()) => {}
            Err(Error::Write { cause, .. }) if cause.kind() == io::ErrorKind::BrokenPipe => self.outcome.cut = true,
            Err(error) => return Err(error),
        }
        self.progress.clear();
        let Outcome { records, messages, bad_lines, bad_files, .. } = self.outcome;
        if self.progress.is_shown() || !self.outcome.is_complete() {
            let text = format!(
                "{records} records converted; {messages} messages and scans, {bad_lines} lines and {bad_files} files left out"
            );
            self.say(&text);
        }
        Ok(self.outcome)
    }
}

/// Appends the whole line of `entry`, its end included.
fn encode(to: Target, entry: &Entry<'_>, out: &mut Vec<u8>) {
    match to.format() {
        Some(format) => {
            if format == Format::Eve {
                eve::encode_alerts(entry, out);
            }
            format.encode(entry, out);
            end(format, entry.seq, out);
        }
        None if to != Target::Zeek => {}
        None => {
            zeek::encode(entry, out);
            out.push(b'\n');
        }
    }
}

/// Ends a line as the log does.
fn end(format: Format, seq: Option<u64>, out: &mut Vec<u8>) {
    match seq {
        Some(seq) => out.extend_from_slice(format.tail().write(&mut [0; Tail::BYTES], seq)),
        None => {
            out.extend_from_slice(format.tail().end.as_bytes());
            out.push(b'\n');
        }
    }
}
