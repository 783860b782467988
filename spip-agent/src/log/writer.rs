//! The writer of the log: queue, batch, file, rotation.
//!
//! Sessions hand finished lines to one bounded queue in memory; one thread writes them in large appends. What is
//! decided here:
//!
//! - **No record is dropped to save time.** While the queue is full, [`Log::record`] waits, in the order in which the
//!   callers came. A disk that is full, a directory that is gone or a right that was lost fills the queue and nothing
//!   else; the writer tries again each second and goes on by itself.
//! - **No session pays a system call for a record.** A line is copied under a short lock; the writer is woken once when
//!   the first line of a batch arrives and once when the batch is large. It is written at most 200 ms after it was
//!   handed over, so that is what a kill can cost.
//! - **The order of `seq` is the order of the file.** The number is given under the lock that orders the lines, from 1
//!   on, for each start of the process. A number that is missing is a record that had to be abandoned: it was taken
//!   for it.
//! - **A line is never torn.** Each write holds whole lines and goes to a file that is open for appending, so several
//!   agents may share one; `sink` says what happens when the disk takes only a part.
//!
//! Not decided here: what a record looks like. The encoder delivers a JSON object without its closing brace.

mod hold;
mod queue;
mod rotation;
mod run;
mod sink;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config;
use crate::process::critical;
use crate::process::stderr;
use queue::Shared;
use sink::{Sink, Target};
use spip_record::{Format, Tail};

/// Stack of the writer's threads, in bytes. They call shallow code only.
const STACK_BYTES: usize = 512 * 1024;

/// A write that takes longer is not slow, it hangs: on a file server that does not answer, or on a pipe without a
/// reader. No error will come of it, and sessions wait as they do for a full disk.
pub const STALLED: Duration = Duration::from_secs(10);

/// Reasons why the log cannot be opened or its thread not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened for appending.
    #[error("cannot open {key} {}: {cause}; {remedy}", path.display())]
    Open {
        /// Key of the configuration that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Error of the system.
        cause: io::Error,
        /// Remedy for the operator.
        remedy: &'static str,
    },
    /// The name belongs to something that cannot be appended to.
    #[error("cannot append to {key} {}: it is {kind}; name a file", path.display())]
    NotAFile {
        /// Key of the configuration that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Kind of file.
        kind: &'static str,
    },
    /// Standard output cannot be used.
    #[error("cannot write to standard output: {0}; set log_file")]
    Output(io::Error),
    /// The thread cannot be started.
    #[error("cannot start the thread of the log: {0}; raise the limit of processes (ulimit -u)")]
    Thread(io::Error),
}

/// Statistics of the log since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that wait in memory, those of a batch that cannot be written included.
    pub queued_bytes: u64,
    /// Lines written: records and system messages.
    pub lines: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Files that were closed by rotation.
    pub rotations: u64,
    /// Closed files that are kept beyond `log_keep_files`, because a reader needs them.
    pub held_files: u64,
    /// Closed files that were removed although a reader needed them.
    pub unread_removed: u64,
    /// Number of times that an error stopped writing; retries are not counted.
    pub write_failures: u64,
    /// Records that were given up: the queue was full and its caller could not wait, or the log had ended.
    pub abandoned: u64,
    /// System messages that found the queue full.
    pub messages_dropped: u64,
    /// Number of times that the file was forced to the disk.
    pub syncs: u64,
    /// Set while nothing can be written: because of an error, or for so long that it counts as one ([`STALLED`]).
    pub faulty: bool,
    /// Set while an error is the reason.
    pub failing: bool,
    /// Time since the last write while lines wait.
    pub waiting: Duration,
}

/// Summary at the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Lines written since the start of the process.
    pub lines: u64,
    /// Bytes written since the start of the process.
    pub bytes: u64,
    /// Records given up since the start, those included that could not be written before the deadline.
    pub abandoned: u64,
    /// Set when every line that waited at the end is written.
    pub complete: bool,
}

/// Handle at which lines are handed over. A clone is another handle of the same log.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
    /// Key of the configuration that names the file.
    key: &'static str,
    /// End of the records of this handle.
    tail: Tail,
}

impl Log {
    /// Hands over a record: a JSON object without its closing brace. The log adds `seq` and ends the line.
    ///
    /// Waits while the queue is full, first come, first served. Cancel-safe: a call that is dropped while it waits has
    /// handed over nothing. After the log has ended the record is counted as abandoned.
    ///
    /// Every session's future contains this one: it is handed on as it is, so that it is not wrapped in a second one.
    pub fn record<'a>(&'a self, open_line: &'a [u8]) -> impl Future<Output = ()> + Send + 'a {
        self.shared.record(open_line, self.tail)
    }

    /// As [`Log::record`], but not beyond `end`: then as [`Log::record_now`].
    pub async fn record_until(&self, open_line: &[u8], end: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = self.record(open_line) => {}
            () = end => self.record_now(open_line),
        }
    }

    /// Waits, first come, first served, for the room that a record of `bytes` bytes takes, for those who keep it in
    /// another form meanwhile. Nothing when the log has ended: then the record is counted as abandoned.
    pub async fn room(&self, bytes: usize) -> Option<Room<'_>> {
        self.shared.room(bytes).await.map(|room| Room { room, tail: self.tail })
    }

    /// Hands over a record without ever waiting, for those who cannot: when the queue is full it goes into a reserve,
    /// and when that is full too it is abandoned and counted. Its `seq` is then missing in the file.
    pub fn record_now(&self, open_line: &[u8]) {
        self.shared.record_now(open_line, self.tail);
    }

    /// Hands over a record if there is room, and says whether it did. What was refused is not counted.
    #[must_use]
    pub fn try_record(&self, open_line: &[u8]) -> bool {
        self.shared.try_record(open_line, self.tail)
    }

    /// Hands over a system message, a JSON object without its closing brace; it gets no `seq`. Never waits: `false`
    /// says that there was no room, which is counted.
    pub fn message(&self, open_line: &[u8]) -> bool {
        self.shared.message(open_line)
    }

    /// Opens the file anew under its name, after what was handed over before was taken out of the queue: for SIGHUP,
    /// when something else has renamed the file. No effect on standard output.
    pub fn reopen(&self) -> Reopening {
        Reopening(self.shared.reopen())
    }

    /// Has the log go on as `config` says from its next batch on: another file, rotation or `fsync`. Standard output
    /// stays standard output, and the queue its size.
    ///
    /// # Errors
    /// The file cannot be opened; then nothing changes.
    pub fn change(&self, config: &config::Log) -> Result<(), Error> {
        self.can_change(config)?;
        self.shared.change(config);
        self.shared.name_file(config.file.as_deref());
        Ok(())
    }

    /// Returns the change that the thread has not taken over yet.
    #[cfg(test)]
    pub(crate) fn pending_change(&self) -> Option<config::Log> {
        self.shared.pending_change()
    }

    /// Checks that the log could continue as `config` says, before anything else changes.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn can_change(&self, config: &config::Log) -> Result<(), Error> {
        config.file.as_deref().map_or(Ok(()), |path| sink::try_path(self.key, path))
    }

    /// Checks that a log named by `key` could be opened under this name, without making it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn look(key: &'static str, path: &Path) -> Result<(), Error> {
        sink::look(key, path)
    }

    /// A handle for records in another format: what ends a record depends on it.
    #[must_use]
    pub fn in_format(&self, format: Format) -> Self {
        Self { shared: Arc::clone(&self.shared), key: self.key, tail: format.tail() }
    }

    /// The file that lines go to; nothing where it is standard output.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.shared.file()
    }

    /// Returns the statistics so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Returns the reason why nothing can be written at present, if so ([`Stats::faulty`]).
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let stats = self.stats();
        let stalled = || format!("lines have waited for {} s", stats.waiting.as_secs());
        self.shared.fault().or_else(|| stats.faulty.then(stalled))
    }

    /// Reports whether nothing can be written any more: the reader of standard output is gone.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.shared.counters.failed.load(Relaxed)
    }

    /// Waits until [`Log::failed`].
    pub async fn closed(&self) {
        self.shared.until_failed().await;
    }
}

/// Result of reopening the file, with the reason of a failure.
type Reopened = Result<(), String>;

/// The pending result of [`Log::reopen`].
#[derive(Debug)]
pub struct Reopening(mpsc::Receiver<Reopened>);

impl Reopening {
    /// Waits until the file is open again, at most so long: a disk may hang.
    ///
    /// # Errors
    /// Why it is not.
    pub fn wait(self, patience: Duration) -> Result<(), String> {
        match self.0.recv_timeout(patience) {
            Ok(reopened) => reopened,
            Err(RecvTimeoutError::Timeout) => Err(format!("its disk does not answer within {} s", patience.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Err("the log has ended".to_owned()),
        }
    }
}

/// Room for one record, which is given back if none comes.
#[derive(Debug)]
pub struct Room<'a> {
    room: queue::Room<'a>,
    tail: Tail,
}

impl Room<'_> {
    /// Hands over the record.
    pub fn record(self, open_line: &[u8]) {
        self.room.record(open_line, self.tail);
    }
}

/// The log, open, but not yet written to: lines are collected until the thread is spawned.
#[derive(Debug)]
pub struct Writer {
    run: run::Run,
    archive: Option<rotation::Archive>,
}

/// Opens the log of the records. A file is created with mode 0640 and opened for appending.
///
/// # Errors
/// The file cannot be opened, or its name belongs to something else; the message names path and remedy.
pub fn open(config: &config::Log) -> Result<(Log, Writer), Error> {
    open_as("log_file", config)
}

/// The same of a log that another key of the configuration names.
///
/// # Errors
/// As [`open`].
pub fn open_as(key: &'static str, config: &config::Log) -> Result<(Log, Writer), Error> {
    let target = match &config.file {
        Some(path) => Target::file(path),
        None => Target::Output(io::stdout().as_fd().try_clone_to_owned().map_err(Error::Output)?),
    };
    open_with(key, config, target, &Pace::default())
}

/// Opens a log on an open descriptor, as if it were standard output.
///
/// # Errors
/// None at present; what is wrong with the descriptor shows when it is written to.
pub fn open_on(config: &config::Log, output: OwnedFd) -> Result<(Log, Writer), Error> {
    open_with("log_file", config, Target::Output(output), &Pace::default())
}

/// Intervals of the writer. Only tests change them.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Upper bound of the time that lines are collected before they are written. Half of the 200 ms that are promised:
    /// the rest is for a machine that is slow to wake the writer, and for the write.
    gather: Duration,
    /// Between two attempts to write what could not be written, and between two looks at whether the name of the file
    /// still leads to it.
    retry: Duration,
    /// Between two forced writes to the disk, for `fsync = "interval"`.
    sync: Duration,
    /// Between two attempts to rotate after one has failed.
    rotate_again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            gather: Duration::from_millis(100),
            retry: Duration::from_secs(1),
            sync: Duration::from_secs(1),
            rotate_again: Duration::from_secs(60),
        }
    }
}

fn open_with(key: &'static str, config: &config::Log, target: Target, pace: &Pace) -> Result<(Log, Writer), Error> {
    let shared = Arc::new(Shared::new(config.queue_bytes));
    shared.name_file(config.file.as_deref());
    let archive = rotation::Archive::new(config, &target, Arc::clone(&shared.counters));
    let sink = Sink::open(key, config, target, *pace, Arc::clone(&shared.counters))?;
    let run = run::Run::new(Arc::clone(&shared), sink, config.fsync, *pace);
    Ok((Log { shared, key, tail: config.format.tail() }, Writer { run, archive }))
}

impl Writer {
    /// Starts the thread that writes, and one that compresses and removes closed files if there can be any.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn spawn(self) -> Result<WriterThread, Error> {
        let Writer { mut run, archive } = self;
        let shared = Arc::clone(run.shared());
        let (ended, end) = mpsc::sync_channel(1);
        let stop = archive
            .map(|archive| {
                let (closed, stop) = archive.spawn(STACK_BYTES).map_err(Error::Thread)?;
                run.announce_closed_files(closed);
                Ok(stop)
            })
            .transpose()?;
        critical::spawn_with(thread::Builder::new().stack_size(STACK_BYTES), "spip-log", move || {
            run.until_finished();
            // There is no receiver when the process did not wait for the end.
            let _ = ended.send(());
        })
        .map_err(Error::Thread)?;
        Ok(WriterThread { shared, end, stop })
    }
}

/// The running thread of the log. Dropped without [`WriterThread::finish`], it goes on until the process ends.
#[derive(Debug)]
pub struct WriterThread {
    shared: Arc<Shared>,
    end: mpsc::Receiver<()>,
    stop: Option<rotation::Cancellation>,
}

impl WriterThread {
    /// Writes everything that was handed over, forces it to the disk unless `fsync` is `never`, and ends the log. What
    /// cannot be written before `deadline` is given up, counted, and named on standard error. Blocks the caller.
    #[must_use]
    pub fn finish(self, deadline: Instant) -> Summary {
        // A file that is being compressed is left for the next start.
        if let Some(stop) = &self.stop {
            stop.now();
        }
        self.shared.finish(deadline);
        // The thread ends by itself at the deadline, unless a write blocks it: then it is left behind.
        let patience = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(50);
        let _ = self.end.recv_timeout(patience);
        let unwritten = self.shared.abandon_queue();
        let stats = self.shared.stats();
        if unwritten > 0 {
            stderr::emergency(&format!("the log ended with {unwritten} lines that could not be written in time"));
        }
        Summary { lines: stats.lines, bytes: stats.bytes, abandoned: stats.abandoned, complete: unwritten == 0 }
    }
}
