//! Target of the lines: a file that is opened for appending, or standard output.
//!
//! A line in a file is whole even though the file may have several writers, any of which can be killed, and a disk can
//! be full in the middle of a line:
//!
//! - Each write(2) begins at the start of a line and holds whole lines, and the kernel appends it in one piece.
//! - A write that the disk takes only in part leaves a part of a line. It is continued with the next attempt, if the
//!   file has not grown in between. If it has, another agent has already ended our part with a line feed, and the whole
//!   line is written again. The part is never cut off again, not at the end of the process either: programs that
//!   follow the file take a shrinking file for a new one, and would read everything twice.
//! - Before each write, a file that does not end where our last write ended is looked at: if its last byte is not a
//!   line feed, an agent was killed or ran out of disk there, and the part is ended first.
//! - Look, end and write happen under an advisory lock (flock), which agents take for the time of a write. A program
//!   that holds it for long is not waited for: then only the kernel's appending protects, which is enough while no one is
//!   killed.
//!
//! The name is looked at once a second while lines are written: a file that was renamed or removed is replaced by a new
//! one. Names that lead to a device or a pipe are written to like standard output, but opened again when they fail.

mod opened;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::queue::{Batch, Counters};
use super::rotation::{self, Archive, ClosedFiles};
use super::{Error, Pace, Reopened};
use crate::config::{self, Fsync};
use crate::process::walk::Place;
use opened::Opened;

/// Checks that the file of this name could be written to: opens it, and makes it when it is not there.
pub(super) fn try_path(key: &'static str, path: &Path) -> Result<(), Error> {
    Opened::path(key, path, None).map(drop)
}

/// The same without making it.
pub(super) fn look(key: &'static str, path: &Path) -> Result<(), Error> {
    opened::look(key, path)
}

/// Target of the writes.
#[derive(Debug)]
pub(super) enum Target {
    /// A file, by an absolute name.
    Path(PathBuf),
    /// Standard output.
    Output(OwnedFd),
}

impl Target {
    /// The file of this name. A symbolic link stands for what it leads to, so that rotation renames the file and not
    /// the link.
    pub(super) fn file(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let link = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink());
        // A link that is not to be followed is refused when the file is opened.
        let resolved = if link { Place::of(&path).ok() } else { None };
        Target::Path(resolved.map_or(path, |place| place.path().to_owned()))
    }
}

/// Reasons why a batch is not written, or not wholly.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may work later; the text says what is wrong with what.
    Fault(String),
    /// The reader of standard output is gone.
    Closed(String),
}

/// The open log.
#[derive(Debug)]
pub(super) struct Sink {
    /// Key of the configuration that names the file.
    key: &'static str,
    target: Target,
    opened: Option<Opened>,
    /// Descriptors that are given up when none is left for the file: sessions, which wait for the log, may have all others.
    spares: Vec<OwnedFd>,
    /// Time at which the name was last compared with the open file.
    looked: Instant,
    lock_again: Instant,
    rotate_bytes: u64,
    rotate_age: Option<Duration>,
    rotate_again: Instant,
    last_closed: Option<Timestamp>,
    closed_files: Option<ClosedFiles>,
    fsync: Fsync,
    pace: Pace,
    counters: Arc<Counters>,
}

impl Sink {
    pub(super) fn open(
        key: &'static str,
        config: &config::Log,
        target: Target,
        pace: Pace,
        counters: Arc<Counters>,
    ) -> Result<Self, Error> {
        let now = Instant::now();
        let mut spares = Vec::with_capacity(SPARES);
        keep_spares(&mut spares);
        let opened = match &target {
            Target::Path(path) => Opened::path(key, path, config.rotate_age)?,
            Target::Output(output) => Opened::output(output).map_err(Error::Output)?,
        };
        Ok(Sink {
            key,
            target,
            opened: Some(opened),
            spares,
            looked: now,
            lock_again: now,
            rotate_bytes: config.rotate_bytes,
            rotate_age: config.rotate_age,
            rotate_again: now,
            last_closed: None,
            closed_files: None,
            fsync: config.fsync,
            pace,
            counters,
        })
    }

    pub(super) fn announce_closed_files(&mut self, closed_files: ClosedFiles) {
        // Once for what an earlier process has left.
        closed_files.one_more();
        self.closed_files = Some(closed_files);
    }

    /// Writes what is left of `batch`.
    pub(super) fn append(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        if self.looked.elapsed() >= self.pace.retry {
            self.look();
        }
        self.rotate_if_aged()?;
        while batch.written < batch.bytes.len() {
            self.append_some(batch)?;
            self.rotate_if_large(batch)?;
        }
        if self.fsync == Fsync::Always {
            self.sync()?;
        }
        Ok(())
    }

    /// Opens the file anew under its name, or says why it cannot be.
    pub(super) fn reopen(&mut self) -> Reopened {
        let Target::Path(path) = &self.target else {
            return Ok(());
        };
        match open_path(self.key, path, self.rotate_age, &mut self.spares) {
            Ok(opened) => {
                self.replace(opened);
                Ok(())
            }
            Err(error) => {
                // The old file goes on if it still has the name; if not, the next attempt says what is wrong.
                self.look();
                Err(error.to_string())
            }
        }
    }

    /// Goes on as `config` says: under another name, or with another rotation. Opens the file anew in any case.
    pub(super) fn change(&mut self, config: &config::Log) -> Reopened {
        if let (Some(path), Target::Path(_)) = (&config.file, &self.target) {
            self.target = Target::file(path);
        }
        self.rotate_bytes = config.rotate_bytes;
        self.rotate_age = config.rotate_age;
        self.rotate_again = Instant::now();
        self.fsync = config.fsync;
        let reopened = self.reopen();
        if let (Some(closed_files), Some(archive)) =
            (&self.closed_files, Archive::new(config, &self.target, Arc::clone(&self.counters)))
        {
            closed_files.change(archive);
        }
        reopened
    }

    /// Forces to the disk what was written since the last time.
    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        let Some(opened) = self.opened.as_mut().filter(|opened| opened.dirty) else {
            return Ok(());
        };
        // After an error the kernel takes the data for clean: asking again would only hide that it is lost.
        opened.dirty = false;
        match opened.file.sync_data() {
            // Pipes, sockets and terminals have no disk.
            Err(error) if error.kind() != ErrorKind::InvalidInput => Err(self.failure(&error)),
            Err(_) => Ok(()),
            Ok(()) => {
                self.counters.syncs.fetch_add(1, Relaxed);
                Ok(())
            }
        }
    }

    /// Reports whether bytes were written since the file was last forced to the disk.
    pub(super) fn dirty(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.dirty)
    }

    /// Returns the time at which the file is to be rotated for its age.
    pub(super) fn aged(&self) -> Option<Instant> {
        let aged = self.opened.as_ref()?.aged?;
        Some(aged.max(self.rotate_again))
    }

    /// Rotates if the file has reached its age and holds something.
    pub(super) fn rotate_if_aged(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if self.aged().is_none_or(|aged| aged > now) {
            return Ok(());
        }
        let age = self.rotate_age;
        match self.opened.as_mut() {
            Some(opened) if opened.file.metadata().is_ok_and(|metadata| metadata.len() == 0) => {
                // Its age counts from the first line.
                opened.aged = age.map(|age| now + age);
                Ok(())
            }
            _ => self.rotate(),
        }
    }

    fn rotate_if_large(&mut self, batch: &Batch) -> Result<(), Failure> {
        let large = self.rotate_bytes > 0
            && self.opened.as_ref().is_some_and(|opened| opened.end.is_some_and(|end| end >= self.rotate_bytes))
            && batch.at_line_start()
            && Instant::now() >= self.rotate_again;
        if large { self.rotate() } else { Ok(()) }
    }

    /// Closes the file under a name of its own and opens a new one. If the name cannot be changed, the file goes on.
    fn rotate(&mut self) -> Result<(), Failure> {
        let Target::Path(path) = &self.target else {
            return Ok(());
        };
        let Some(opened) = &self.opened else {
            return Ok(());
        };
        let locked = opened::lock(&opened.file, &mut self.lock_again);
        // If not, another agent was faster, or the file was moved away.
        let renamed = opened.is_named(path).then(|| {
            let (name, time) = rotation::closed_name(path, Timestamp::now(), self.last_closed);
            rename(path, &name).map(|()| time)
        });
        if locked {
            opened::unlock(&opened.file);
        }
        let rotated = renamed.is_some();
        match renamed {
            Some(Ok(time)) => {
                self.last_closed = Some(time);
                self.counters.rotations.fetch_add(1, Relaxed);
            }
            Some(Err(error)) => {
                self.rotate_again = Instant::now() + self.pace.rotate_again;
                log::warn!(
                    target: "log",
                    path = path.display().to_string().as_str(),
                    error = error.to_string().as_str();
                    "the log file cannot be rotated and goes on; allow the agent to write to its directory"
                );
                return Ok(());
            }
            None => {}
        }
        self.close();
        if rotated && let Some(closed_files) = &self.closed_files {
            closed_files.one_more();
        }
        self.open_again()
    }

    /// Compares the name with the open file, and lets go of a file that does not have it any more.
    fn look(&mut self) {
        self.looked = Instant::now();
        let Target::Path(path) = &self.target else {
            return;
        };
        let lost = self.opened.as_ref().is_some_and(|opened| !opened.is_named(path));
        if lost {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.fsync != Fsync::Never {
            // The file is not ours any more; nothing better can be done about an error.
            let _ = self.sync();
        }
        self.opened = None;
    }

    fn replace(&mut self, opened: Opened) {
        self.close();
        self.opened = Some(opened);
        self.looked = Instant::now();
    }

    fn open_again(&mut self) -> Result<(), Failure> {
        if let Target::Path(path) = &self.target {
            let opened = open_path(self.key, path, self.rotate_age, &mut self.spares);
            let opened = opened.map_err(|error| Failure::Fault(error.to_string()))?;
            self.replace(opened);
        }
        Ok(())
    }

    /// One write.
    fn append_some(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        // What is written to a file without a name is lost.
        if self.opened.as_ref().is_none_or(Opened::is_removed) {
            self.opened = None;
            self.open_again()?;
        }
        let Some(opened) = self.opened.as_mut() else {
            return Err(self.failure(&ErrorKind::NotFound.into()));
        };
        let limit = (self.rotate_bytes > 0 && Instant::now() >= self.rotate_again).then_some(self.rotate_bytes);
        let before = batch.written;
        let result = opened.append(batch, limit, &mut self.lock_again);
        // A line that had to be begun again has no line feed before its end: no line is counted twice.
        let written = batch.bytes.get(before..batch.written).unwrap_or_default();
        let lines = memchr::memchr_iter(b'\n', written).count();
        self.counters.lines.fetch_add(lines as u64, Relaxed);
        self.counters.bytes.fetch_add(written.len() as u64, Relaxed);
        if !written.is_empty() {
            self.counters.writes.beat(0);
        }
        result.map_err(|error| self.failure(&error))
    }

    /// Classifies an error for the next attempt.
    fn failure(&mut self, error: &io::Error) -> Failure {
        let regular = self.opened.as_ref().is_some_and(|opened| opened.regular);
        match &self.target {
            Target::Path(path) => {
                let text = format!("cannot write to {} {}: {error}", self.key, path.display());
                if regular {
                    self.look();
                } else {
                    self.opened = None;
                }
                Failure::Fault(text)
            }
            Target::Output(_) => {
                let text = format!("cannot write to standard output: {error}");
                let passing = matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS));
                if regular || passing { Failure::Fault(text) } else { Failure::Closed(text) }
            }
        }
    }
}

/// Renames the log within its directory.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
    Place::named(from)?.rename(&name(from), &name(to))
}

/// Upper bound of descriptors that the walk to the file holds at once: a directory, a symbolic link in it, and the
/// directory where that begins ([`Place`]).
const SPARES: usize = 3;

/// Opens the file, with the spare descriptors where there is no other.
fn open_path(
    key: &'static str,
    path: &Path,
    rotate_age: Option<Duration>,
    spares: &mut Vec<OwnedFd>,
) -> Result<Opened, Error> {
    let none_left = |error: &Error| matches!(error, Error::Open { cause, .. } if matches!(cause.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)));
    let mut opened = Opened::path(key, path, rotate_age);
    // Looking takes none: they are not given up for a directory that is not there, because sessions could take them.
    let has_directory = path.parent().is_none_or(|parent| parent.as_os_str().is_empty() || parent.is_dir());
    if opened.as_ref().is_err_and(none_left) && has_directory && !spares.is_empty() {
        spares.clear();
        opened = Opened::path(key, path, rotate_age);
    }
    keep_spares(spares);
    opened
}

/// Takes as many spare descriptors as are missing and can be had. Any descriptor does, of which another copy stays open
/// anyway.
fn keep_spares(spares: &mut Vec<OwnedFd>) {
    while spares.len() < SPARES
        && let Ok(spare) = io::stderr().as_fd().try_clone_to_owned()
    {
        spares.push(spare);
    }
}
