//! Follows a log over its files. Which file comes next is decided here; see `locate` for how one is found again.

mod lag;
mod locate;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::batch::{Batch, Notice, Span};
use super::cursor::{Cursor, Filled};
use super::directory::{self, Entry, Order};
use super::position::{Mark, Place, Position};
use super::source::is_damage;
use super::wait::Changes;
use super::{Error, MAX_LINE_BYTES, Step};

pub use lag::Lag;

/// Upper bound of looks for another file at once, while files are renamed during the read.
const ATTEMPTS: usize = 16;

/// Start of a reader without a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first line of the oldest file.
    #[default]
    Oldest,
    /// At the end of the current file: only what is logged from now on.
    End,
}

/// Options of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Start without a position.
    pub start: Start,
    /// Waits for more at the end when set; otherwise the end of the current file is [`Step::End`].
    pub follow: bool,
    /// Length in bytes of the longest line that is handed out.
    pub max_line_bytes: usize,
    /// Time for which a renamed file is still read: a writer that has not noticed the rename may still append to it.
    /// The agent looks once a second.
    pub linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { start: Start::Oldest, follow: true, max_line_bytes: MAX_LINE_BYTES, linger: Duration::from_secs(2) }
    }
}

/// Reads a log as one stream. Blocking, but never for longer than a read from the disk, except in [`Reader::wait`].
#[derive(Debug)]
pub struct Reader {
    log: PathBuf,
    options: Options,
    state: State,
    done: Option<Mark>,
    through: Option<String>,
    notices: Vec<Notice>,
    /// Closed files that are still to be read, by the time in their name: path and size.
    unread: BTreeMap<String, (PathBuf, u64)>,
    /// Files among which there was none to go on with.
    vain: Option<Vec<Entry>>,
    changes: Changes,
}

#[derive(Debug)]
enum State {
    /// Nothing is read yet, and there is no position.
    Begin,
    /// In a file that has to be found.
    At {
        place: Place,
        truncated: bool,
    },
    /// Behind a file, and before one that is not known yet.
    Between,
    Reading(Box<Reading>),
    /// Everything is read, and nothing is waited for.
    Over(Place),
}

#[derive(Debug)]
struct Reading {
    cursor: Cursor,
    /// A compressed file that is read to its end, or as far as it can be.
    ended: bool,
    /// Since when nothing has come although the file is not the current one.
    quiet: Option<Instant>,
}

impl State {
    fn reading(cursor: Cursor) -> Self {
        Self::Reading(Box::new(Reading { cursor, ended: false, quiet: None }))
    }
}

/// Next action at the end of a file.
enum AtEnd {
    /// There is more in it.
    Again,
    /// More may come.
    Stay,
    /// It is read; another one follows, or none.
    Finish(Option<Box<Cursor>>),
}

impl Reader {
    /// Makes a reader of the log at `log` that goes on at `position`, or begins where the options say. The file need not be
    /// there. A symbolic link stands for what it leads to now.
    #[must_use]
    pub fn open(log: &Path, options: Options, position: Option<&Position>) -> Self {
        let is_link = fs::symlink_metadata(log).is_ok_and(|metadata| metadata.is_symlink());
        let resolved = if is_link { fs::canonicalize(log).ok() } else { None };
        let mut reader = Self {
            log: resolved.unwrap_or_else(|| log.to_owned()),
            options,
            state: State::Begin,
            done: None,
            through: None,
            notices: Vec::new(),
            unread: BTreeMap::new(),
            vain: None,
            changes: Changes::default(),
        };
        if let Some(position) = position {
            reader.seek(position);
        }
        reader
    }

    /// Goes on at `position`, for example to send again what was not acknowledged.
    pub fn seek(&mut self, position: &Position) {
        self.state = match &position.file {
            Some(place) => State::At { place: place.clone(), truncated: false },
            None if *position == Position::default() => State::Begin,
            None => State::Between,
        };
        self.done.clone_from(&position.done);
        self.through.clone_from(&position.through);
        self.notices.clear();
        self.unread.clear();
        self.vain = None;
    }

    /// Returns the position behind everything that was handed out.
    #[must_use]
    pub fn position(&mut self) -> Position {
        let file = match &mut self.state {
            State::Reading(reading) => Some(reading.cursor.place()),
            State::At { place, .. } | State::Over(place) => Some(place.clone()),
            State::Begin | State::Between => None,
        };
        Position { file: file.filter(|place| place.offset > 0), done: self.done.clone(), through: self.through.clone() }
    }

    /// Returns the file that is being read.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.state {
            State::Reading(reading) => &reading.cursor.path,
            _ => &self.log,
        }
    }

    /// Returns the next lines: about `max_bytes` of them, or more if a single one is longer.
    ///
    /// # Errors
    /// The log cannot be read for now, for a reason that the operator has to remove. A file that is not there yet is none
    /// while the log is followed.
    pub fn next_batch(&mut self, max_bytes: usize) -> Result<Step, Error> {
        let max_bytes = max_bytes.max(1);
        for _ in 0..ATTEMPTS {
            let State::Reading(reading) = &mut self.state else {
                if self.take_up()? {
                    continue;
                }
                return Ok(self.nothing());
            };
            let filled = if reading.ended { Ok(Filled::End) } else { reading.cursor.fill(max_bytes) };
            let failed = |cause, cursor: &Cursor| Error::Read { path: cursor.path.to_path_buf(), cause };
            let filled = match filled {
                Ok(filled) => filled,
                // Whatever is wrong with the data stays wrong; what the system refuses may be mended.
                Err(cause) if !is_damage(&cause) => {
                    return Err(failed(cause, &reading.cursor));
                }
                Err(cause) => {
                    reading.ended = true;
                    self.notices.push(damaged(&mut reading.cursor, &cause));
                    Filled::End
                }
            };
            match reading.cursor.is_intact() {
                Ok(true) => {}
                Ok(false) => {
                    self.state = State::At { place: reading.cursor.place(), truncated: true };
                    continue;
                }
                Err(cause) => return Err(failed(cause, &reading.cursor)),
            }
            if filled == Filled::Some {
                reading.quiet = None;
                let taken = reading.cursor.take_lines();
                return Ok(Step::Batch(Box::new(self.batch(taken))));
            }
            match self.at_end()? {
                AtEnd::Again => {}
                AtEnd::Stay => return Ok(self.nothing()),
                AtEnd::Finish(next) => {
                    if let Some(batch) = self.finish(next) {
                        return Ok(Step::Batch(Box::new(batch)));
                    }
                }
            }
        }
        // Files come and go faster than they are looked at; the caller gets a turn.
        Ok(Step::Batch(Box::new(self.batch_of_nothing())))
    }

    /// Waits until the log changes, for `timeout` and for a second at most. May return without a change.
    pub fn wait(&mut self, timeout: Duration) {
        let linger = match &self.state {
            State::Reading(reading) => reading
                .quiet
                .map(|quiet| self.options.linger.saturating_sub(quiet.elapsed()).max(Duration::from_millis(1))),
            _ => None,
        };
        let timeout = linger.map_or(timeout, |linger| timeout.min(linger));
        self.changes.wait(directory::parent(&self.log), timeout);
    }

    /// Decides what becomes of a file that is read to its end for now.
    fn at_end(&mut self) -> Result<AtEnd, Error> {
        let State::Reading(reading) = &mut self.state else { return Ok(AtEnd::Again) };
        let cursor = &reading.cursor;
        let is_current = fs::symlink_metadata(&self.log)
            .is_ok_and(|metadata| metadata.dev() == cursor.source.device && metadata.ino() == cursor.source.inode);
        if is_current {
            reading.quiet = None;
            if self.options.follow && cursor.read_to() == 0 {
                // What it gets may be copied and truncated before it is looked at again: only the list shows that.
                self.state = State::Between;
            }
            return Ok(if self.options.follow { AtEnd::Stay } else { AtEnd::Finish(None) });
        }
        if cursor.source.is_plain() {
            // Asked after it was seen that the file is closed: everything until then is read, and for some time after that.
            let metadata = match cursor.source.metadata() {
                Some(Ok(metadata)) => metadata,
                Some(Err(cause)) => return Err(Error::Read { path: cursor.path.to_path_buf(), cause }),
                None => return Ok(AtEnd::Again),
            };
            if metadata.len() > cursor.read_to() {
                return Ok(AtEnd::Again);
            }
            let changed = metadata.modified().ok();
            let old = changed.and_then(|changed| SystemTime::now().duration_since(changed).ok());
            let quiet = reading.quiet.get_or_insert_with(Instant::now).elapsed();
            if self.options.follow && quiet.max(old.unwrap_or_default()) < self.options.linger {
                return Ok(AtEnd::Stay);
            }
        }
        let entries = directory::list(&self.log)?;
        let mark = reading.cursor.mark();
        let (own, next) = self.successor(&entries, Some(&mark));
        self.note_lost(&entries, next);
        let Some(entry) = next.and_then(|next| entries.get(next)) else {
            return Ok(if self.options.follow { AtEnd::Stay } else { AtEnd::Finish(None) });
        };
        let Some(cursor) = self.open_entry(entry)? else { return Ok(AtEnd::Again) };
        if let Some(entry) = own.and_then(|own| entries.get(own)) {
            self.remember(entry, mark);
        } else {
            let time = directory::time_in(&self.log, &mark.name).map(str::to_owned);
            self.through = time.max(self.through.take());
        }
        Ok(AtEnd::Finish(Some(Box::new(cursor))))
    }

    /// Ends a file and begins the next; returns what is left of it.
    fn finish(&mut self, next: Option<Box<Cursor>>) -> Option<Batch> {
        let State::Reading(reading) = &mut self.state else { return None };
        let taken = reading.cursor.take_rest();
        let place = reading.cursor.place();
        let batch = (!taken.1.is_empty()).then(|| self.batch(taken));
        self.state = next.map_or(State::Over(place), |next| State::reading(*next));
        batch
    }

    /// Keeps what is known of a file that is read to its end.
    fn remember(&mut self, entry: &Entry, mut mark: Mark) {
        if let Order::Closed(time) = &entry.order {
            self.through = Some(time.clone()).max(self.through.take());
        }
        if mark.head_bytes > 0 {
            mark.name = super::position::name(&entry.path);
            (mark.device, mark.inode) = (entry.device, entry.inode);
            self.done = Some(mark);
        }
    }

    /// Opens a file of the list; `None` when another one has its name by now.
    fn open_entry(&mut self, entry: &Entry) -> Result<Option<Cursor>, Error> {
        match Cursor::open(entry, self.options.max_line_bytes) {
            Ok(cursor) if entry.is(cursor.source.device, cursor.source.inode) => {
                if let Order::Closed(time) = &entry.order {
                    self.unread.remove(time);
                }
                Ok(Some(cursor))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::Open { path: entry.path.clone(), cause }),
        }
    }

    /// Tells of closed files that were to be read and are not there any more, and keeps the present ones, from `next` on.
    fn note_lost(&mut self, entries: &[Entry], next: Option<usize>) {
        let closed = |entry: &Entry| match &entry.order {
            Order::Closed(time) => Some((time.clone(), (entry.path.clone(), entry.size))),
            _ => None,
        };
        let present: BTreeMap<_, _> = entries.iter().filter_map(closed).collect();
        for (time, (path, size)) in std::mem::take(&mut self.unread) {
            if !present.contains_key(&time) && self.through.as_ref().is_none_or(|through| time > *through) {
                self.notices.push(Notice::Lost { path, read_bytes: 0, size_bytes: Some(size) });
            }
        }
        let unread = next.and_then(|next| entries.get(next..)).unwrap_or_default();
        self.unread = unread.iter().filter_map(closed).collect();
    }

    fn batch(&mut self, (bytes, spans, first): (Vec<u8>, Vec<Span>, u64)) -> Batch {
        Batch {
            path: self.path().into(),
            bytes,
            spans,
            first,
            position: self.position(),
            notices: std::mem::take(&mut self.notices),
        }
    }

    fn batch_of_nothing(&mut self) -> Batch {
        self.batch((Vec::new(), Vec::new(), 0))
    }

    fn nothing(&mut self) -> Step {
        if !self.notices.is_empty() {
            return Step::Batch(Box::new(self.batch_of_nothing()));
        }
        if self.options.follow { Step::Idle } else { Step::End }
    }
}

/// Gives up what cannot be read of a file.
pub(super) fn damaged(cursor: &mut Cursor, cause: &std::io::Error) -> Notice {
    cursor.drop_rest();
    Notice::Damaged {
        path: cursor.path.to_path_buf(),
        read_bytes: cursor.read_to(),
        lines: cursor.line(),
        reason: cause.to_string(),
    }
}
