//! The loop of the writer's thread: take a batch, write it, keep it while it cannot be written.
//!
//! An error is said once on standard error, because the log cannot take it, and so is the end of it; in between, the
//! attempts are silent.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Instant;

use super::Pace;
use super::queue::{Batch, Pause, Shared};
use super::rotation::ClosedFiles;
use super::sink::{Failure, Sink};
use crate::config::Fsync;
use crate::process::stderr;

/// The thread's own state.
#[derive(Debug)]
pub(super) struct Run {
    shared: Arc<Shared>,
    sink: Sink,
    batch: Batch,
    fsync: Fsync,
    synced: Instant,
    /// Since when nothing can be written.
    fault: Option<Instant>,
    pace: Pace,
}

/// Continues or ends the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl Run {
    pub(super) fn new(shared: Arc<Shared>, sink: Sink, fsync: Fsync, pace: Pace) -> Self {
        Run { shared, sink, batch: Batch::default(), fsync, synced: Instant::now(), fault: None, pace }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn announce_closed_files(&mut self, closed_files: ClosedFiles) {
        self.sink.announce_closed_files(closed_files);
    }

    /// Writes until the log is asked to end, or its reader is gone.
    pub(super) fn until_finished(mut self) {
        let _release = ReleaseOnPanic(Arc::clone(&self.shared));
        loop {
            let tick = self.next_tick();
            let wake = self.shared.next_batch(&mut self.batch, self.pace.gather, tick);
            if wake.reopen {
                self.reopen();
            }
            if !self.batch.bytes.is_empty() && self.write() == Next::End {
                break;
            }
            self.tick();
            if wake.last {
                break;
            }
        }
        if self.fsync != Fsync::Never {
            self.sync();
        }
    }

    /// Writes the batch, however often that takes.
    fn write(&mut self) -> Next {
        loop {
            let failure = self.sink.append(&mut self.batch);
            match failure {
                Ok(()) => {
                    self.shared.written(&mut self.batch);
                    self.recovered();
                    return Next::GoOn;
                }
                Err(Failure::Closed(text)) => {
                    self.shared.fail();
                    stderr::emergency(&format!("{text}; the agent ends"));
                    return Next::End;
                }
                Err(Failure::Fault(text)) => self.failed(&text),
            }
            match self.shared.pause(self.pace.retry) {
                Pause::Over => {}
                Pause::Reopen => self.reopen(),
                Pause::GiveUp => return Next::End,
            }
        }
    }

    fn reopen(&mut self) {
        let reopened = match self.shared.take_change() {
            Some(config) => {
                self.fsync = config.fsync;
                self.sink.change(&config)
            }
            None => self.sink.reopen(),
        };
        self.shared.reopened(&reopened);
    }

    fn failed(&mut self, text: &str) {
        if self.fault.is_none() {
            self.fault = Some(Instant::now());
            self.shared.set_fault(Some(text.to_owned()));
            self.shared.counters.write_failures.fetch_add(1, Relaxed);
            stderr::emergency(&format!(
                "{text}; records wait in memory, then connections wait, until it can be written again"
            ));
        }
    }

    fn recovered(&mut self) {
        let Some(since) = self.fault.take() else {
            return;
        };
        self.shared.set_fault(None);
        let seconds = since.elapsed().as_secs();
        stderr::to_stderr(log::Level::Info, &format!("the log is written again after {seconds} s"));
        log::warn!(
            target: "log",
            seconds,
            abandoned = self.shared.counters.abandoned.load(Relaxed);
            "the log could not be written for a while"
        );
    }

    /// Returns the time of the next work besides lines.
    fn next_tick(&self) -> Option<Instant> {
        let sync = (self.fsync == Fsync::Interval && self.sink.dirty()).then_some(self.synced + self.pace.sync);
        [sync, self.sink.aged()].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        if self.fsync == Fsync::Interval && self.sink.dirty() && self.synced.elapsed() >= self.pace.sync {
            self.sync();
            self.synced = Instant::now();
        }
        // A file that cannot be opened after it was rotated is opened with the next batch, which also tells the fault.
        let _ = self.sink.rotate_if_aged();
    }

    fn sync(&mut self) {
        if let Err(Failure::Fault(text) | Failure::Closed(text)) = self.sink.sync() {
            self.shared.counters.write_failures.fetch_add(1, Relaxed);
            stderr::emergency(&format!("{text}; what was written last may be lost"));
        }
    }
}

/// Lets sessions go if the thread ends by a programming error, instead of having them wait for ever.
struct ReleaseOnPanic(Arc<Shared>);

impl Drop for ReleaseOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
    }
}
