//! Cuts batches out of the log of an agent.
//!
//! A batch has lines of one sensor and one run, because its headers name both; lines without a name, which are system
//! messages, go with the records around them. Before the first record the sensor is not known: system messages wait for it,
//! because a message under a wrong name could not be taken back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spip_record::log::{Batch as Read, Content, Options, Position, Reader, Step};
use spip_record::read::Identity;

use super::{Behind, Next, Source};
use crate::batch::{At, Batch, MAX_LINES, Part, Place, Reject};
use crate::config::Limits;
use crate::line;

/// Bytes of a refused line that are kept: enough to see what it was.
const REJECT_BYTES: usize = 64 * 1024;

/// Lines that are no records and are taken into one batch.
const MAX_REJECTS: usize = 1_000;

/// The longest record that an agent writes is far shorter.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Looks for new lines at least this often.
const POLL: Duration = Duration::from_millis(500);

/// The log of an agent.
pub struct LogSource {
    path: PathBuf,
    options: Options,
    reader: Reader,
    /// Lines that were read and are not handed out.
    held: Option<Box<Read>>,
    /// The position before `held`.
    base: Position,
    /// Lines of `held` that were handed out or passed over.
    index: usize,
    total: u64,
    /// The configured name; subjects do not follow the records then.
    fixed_name: Option<String>,
    /// The name of the last record.
    name: Option<String>,
    notices: Vec<String>,
    is_once: bool,
}

/// A batch that is being filled.
#[derive(Default)]
struct Filling {
    part: Part,
    /// Set once a line has named sensor and run.
    is_named: bool,
    rejects: Vec<Reject>,
    lines: u64,
    since: Option<Instant>,
}

impl Filling {
    /// Reports whether a line of `identity` belongs into this batch.
    fn takes(&self, sensor: Option<&str>, identity: &Identity<'_>) -> bool {
        let (Some(sensor), true) = (sensor, self.is_named) else { return true };
        self.part.sensor == sensor && self.part.run == identity.run.as_deref().unwrap_or_default()
    }

    fn push(&mut self, line: &[u8], sensor: Option<&str>, identity: &Identity<'_>) {
        if let Some(sensor) = sensor {
            if !self.is_named {
                self.part.sensor = sensor.to_owned();
                self.part.run = identity.run.as_deref().unwrap_or_default().to_owned();
                self.is_named = true;
            }
            self.part.first_seq = self.part.first_seq.or(identity.seq);
            self.part.last_seq = identity.seq.or(self.part.last_seq);
        }
        self.part.bytes.extend_from_slice(line);
        self.part.bytes.push(b'\n');
        self.part.count += 1;
    }

    fn is_full(&self, limits: Limits) -> bool {
        self.part.bytes.len() >= limits.bytes || self.rejects.len() >= MAX_REJECTS || self.lines >= MAX_LINES
    }
}

impl LogSource {
    /// Opens the log at `path`. With `once` it ends where the log ends.
    #[must_use]
    pub fn open(path: &Path, fixed_name: Option<String>, is_once: bool) -> Self {
        // Followed also when it is read once: a last line without its line feed stays for the next time.
        let linger = if is_once { Duration::ZERO } else { Options::default().linger };
        let options = Options { max_line_bytes: MAX_LINE_BYTES, linger, ..Options::default() };
        let reader = Reader::open(path, options, None);
        let mut notices = Vec::new();
        if path.try_exists().is_ok_and(|is_there| !is_there) {
            notices.push(format!("there is no log {} yet: is log the log_file of the agent?", path.display()));
        }
        Self {
            path: path.to_owned(),
            options,
            reader,
            held: None,
            base: Position::default(),
            index: 0,
            total: 0,
            name: fixed_name.clone(),
            fixed_name,
            notices,
            is_once,
        }
    }

    fn here(&self) -> Place {
        let at = if self.base == Position::default() && self.index == 0 {
            At::Beginning
        } else {
            At::Log { position: Box::new(self.base.clone()), skip: self.index as u64 }
        };
        Place { total: self.total, at }
    }

    /// Takes lines of `held` until it is used up or the batch is complete, and reports whether it is complete.
    fn take(&mut self, filling: &mut Filling, limits: Limits, exact: Option<u64>) -> bool {
        let Some(held) = self.held.take() else { return false };
        let mut is_complete = false;
        for line in held.lines().skip(self.index) {
            let reject = |reason: String, line: &[u8]| Reject {
                sensor: self.name.clone().unwrap_or_default(),
                reason,
                line: line.get(..REJECT_BYTES).unwrap_or(line).to_vec(),
            };
            match line.content {
                Content::Whole(bytes) => match line::identity(bytes) {
                    Ok(identity) => {
                        let sensor = match &self.fixed_name {
                            Some(fixed) => identity.name.is_some().then_some(fixed.as_str()),
                            None => identity.name.as_deref().filter(|name| !name.is_empty()),
                        };
                        let fits = filling.takes(sensor, &identity)
                            && (filling.part.count == 0 || filling.part.bytes.len() + bytes.len() < limits.bytes);
                        if exact.is_none() && !fits {
                            is_complete = true;
                            break;
                        }
                        filling.push(bytes, sensor, &identity);
                        if let Some(sensor) = sensor
                            && self.name.as_deref() != Some(sensor)
                        {
                            self.name = Some(sensor.to_owned());
                        }
                    }
                    Err(reason) => filling.rejects.push(reject(reason, bytes)),
                },
                Content::Torn(bytes) => {
                    filling.rejects.push(reject("the file ends within this line".to_owned(), bytes));
                }
                Content::TooLong(length) => {
                    filling
                        .rejects
                        .push(reject(format!("a line of {length} bytes is longer than a record can be"), b""));
                }
            }
            self.index += 1;
            self.total += 1;
            filling.lines += 1;
            filling.since.get_or_insert_with(Instant::now);
            is_complete = match exact {
                Some(lines) => filling.lines >= lines,
                None => filling.is_full(limits),
            };
            if is_complete {
                break;
            }
        }
        if self.index < held.len() {
            self.held = Some(held);
        } else {
            self.base = held.position().clone();
            self.index = 0;
        }
        is_complete
    }

    fn finish(&mut self, mut filling: Filling, start: Place) -> Batch {
        if !filling.is_named {
            filling.part.sensor = self.name.clone().unwrap_or_else(host_name);
        }
        let parts = if filling.part.count == 0 { Vec::new() } else { vec![filling.part] };
        Batch { parts, rejects: filling.rejects, start, end: self.here() }
    }
}

/// Returns the name that an agent without a configured one takes.
fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

impl Source for LogSource {
    fn next(&mut self, limits: Limits, exact: Option<u64>, wait: Duration) -> Result<Next, String> {
        let start = self.here();
        let mut filling = Filling::default();
        let deadline = Instant::now() + wait;
        loop {
            if self.take(&mut filling, limits, exact) {
                return Ok(Next::Batch(self.finish(filling, start)));
            }
            let step = match self.reader.next_batch(limits.bytes) {
                Ok(step) => step,
                Err(error) => {
                    self.seek(&start)?;
                    return Err(error.to_string());
                }
            };
            match step {
                Step::Batch(read) => {
                    self.notices.extend(read.notices().iter().map(ToString::to_string));
                    if read.is_empty() {
                        self.base = read.position().clone();
                    } else {
                        self.held = Some(read);
                    }
                }
                Step::End | Step::Idle if self.is_once && filling.lines == 0 => return Ok(Next::End),
                Step::End | Step::Idle if self.is_once => return Ok(Next::Batch(self.finish(filling, start))),
                Step::End | Step::Idle => {
                    let now = Instant::now();
                    let Some(since) = filling.since else {
                        if now >= deadline {
                            return Ok(Next::Idle);
                        }
                        self.reader.wait(POLL.min(deadline - now));
                        continue;
                    };
                    // Lines that no record has named are worth nothing to anybody in a hurry.
                    let is_due = filling.is_named || filling.part.count == 0 || self.name.is_some();
                    let age = now - since;
                    if exact.is_none() && is_due && age >= limits.time {
                        return Ok(Next::Batch(self.finish(filling, start)));
                    }
                    if now >= deadline && (exact.is_some() || !is_due) {
                        // What was read stays in the log: it is read again when more has come.
                        self.seek(&start)?;
                        return Ok(Next::Idle);
                    }
                    self.reader.wait(POLL.min(limits.time.saturating_sub(age)).max(Duration::from_millis(1)));
                }
            }
        }
    }

    fn seek(&mut self, place: &Place) -> Result<(), String> {
        self.held = None;
        self.total = place.total;
        let (position, skip) = match &place.at {
            At::Beginning => (Position::default(), 0),
            At::Log { position, skip } => ((**position).clone(), *skip),
            At::Stream { .. } => return Err("this place is in a stream and the source is a log".to_owned()),
        };
        let position_or_none = (position != Position::default()).then_some(&position);
        self.reader = Reader::open(&self.path, self.options, position_or_none);
        self.base = position;
        self.index = 0;
        let mut left = skip;
        while left > 0 {
            match self.reader.next_batch(1 << 20).map_err(|error| error.to_string())? {
                Step::Batch(read) => {
                    self.notices.extend(read.notices().iter().map(ToString::to_string));
                    let lines = read.len() as u64;
                    if lines > left {
                        self.index = usize::try_from(left).unwrap_or(usize::MAX);
                        self.held = Some(read);
                        left = 0;
                    } else {
                        left -= lines;
                        self.base = read.position().clone();
                    }
                }
                Step::Idle | Step::End => {
                    self.notices.push(format!("{left} lines that were read before are no longer in the log"));
                    left = 0;
                }
            }
        }
        Ok(())
    }

    fn assume_sensor(&mut self, sensor: Option<&str>) {
        if self.name.is_none() {
            self.name = sensor.map(ToOwned::to_owned);
        }
    }

    fn behind(&mut self) -> Behind {
        let lag = self.reader.lag().unwrap_or_default();
        Behind { bytes: lag.bytes, files: lag.closed_files as u64, messages: 0 }
    }

    fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }
}

#[cfg(test)]
mod tests;
