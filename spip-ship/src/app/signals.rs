//! SIGTERM and SIGINT end the process, a second one at once; SIGHUP has it read its configuration again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use super::Error;
use crate::pause::Stop;

/// Signals that wait for [`Signals::watch`].
pub(super) struct Signals(SigSet);

/// Requests of the operator by signals.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    /// Ends the pipelines that run now.
    round: Mutex<Stop>,
    /// Set once the process ends.
    ended: Stop,
    reload: AtomicBool,
    end: AtomicBool,
}

impl Ask {
    /// Begins a round of pipelines, and returns what ends it.
    pub(super) fn begin(&self) -> Stop {
        let stop = Stop::default();
        *self.0.round.lock().unwrap_or_else(PoisonError::into_inner) = stop.clone();
        // What was asked for between two rounds ends this one.
        if self.0.end.load(Ordering::SeqCst) || self.0.reload.load(Ordering::SeqCst) {
            stop.now();
        }
        stop
    }

    /// Reports whether a reload was asked for, and no end.
    pub(super) fn take_reload(&self) -> bool {
        self.0.reload.swap(false, Ordering::SeqCst) && !self.0.end.load(Ordering::SeqCst)
    }

    /// Returns what is set once the process ends.
    pub(super) fn ended(&self) -> Stop {
        self.0.ended.clone()
    }

    /// Says that the process ends.
    pub(super) fn end(&self) {
        self.0.ended.now();
    }

    fn stop_round(&self) {
        self.0.round.lock().unwrap_or_else(PoisonError::into_inner).now();
    }
}

impl Signals {
    /// Blocks the signals in this thread and all that it makes.
    pub(super) fn block() -> Result<Self, Error> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block().map_err(|error| Error(format!("cannot block signals: {error}")))?;
        Ok(Self(signals))
    }

    /// Waits for the signals in a thread of its own.
    pub(super) fn watch(self, ask: Ask) -> Result<(), Error> {
        let watch = move || {
            while let Ok(signal) = self.0.wait() {
                if signal == Signal::SIGHUP {
                    ask.0.reload.store(true, Ordering::SeqCst);
                } else if ask.0.end.swap(true, Ordering::SeqCst) {
                    std::process::exit(1);
                }
                ask.stop_round();
            }
        };
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(watch);
        thread.map(|_| ()).map_err(|error| super::no_thread(&error))
    }
}
