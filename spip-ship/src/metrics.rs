//! Counters of each sink, shared between its thread and its readers.

pub mod server;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The counters of one sink.
#[derive(Debug)]
pub struct Counters {
    /// Name of the sink.
    pub name: String,
    /// Kind of the sink.
    pub kind: &'static str,
    /// Lines that were acknowledged.
    pub shipped: AtomicU64,
    /// Bytes of these lines.
    pub shipped_bytes: AtomicU64,
    /// Lines that the engine had already.
    pub duplicates: AtomicU64,
    /// Attempts that failed and were repeated.
    pub retries: AtomicU64,
    /// Lines that went to quarantine.
    pub quarantined: AtomicU64,
    /// Bytes of the source that are not delivered.
    pub lag_bytes: AtomicU64,
    /// Messages of the stream that are not delivered.
    pub lag_messages: AtomicU64,
    /// Closed files that are not delivered to their end.
    pub unshipped_files: AtomicU64,
    /// Set while the last attempt has failed.
    pub is_failing: AtomicBool,
    /// Time at which the source was last delivered to its end.
    caught_up: Mutex<Instant>,
    /// Error of the last attempt.
    trouble: Mutex<Option<String>>,
    /// Heartbeat of the sink's thread.
    beat: Mutex<Instant>,
}

impl Counters {
    /// Makes counters at zero.
    #[must_use]
    pub fn new(name: &str, kind: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            shipped: AtomicU64::new(0),
            shipped_bytes: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            lag_bytes: AtomicU64::new(0),
            lag_messages: AtomicU64::new(0),
            unshipped_files: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            caught_up: Mutex::new(Instant::now()),
            trouble: Mutex::new(None),
            beat: Mutex::new(Instant::now()),
        }
    }

    /// Shows that the sink's thread is alive.
    pub fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns how long ago the sink's thread showed that it is alive.
    pub fn silent_for(&self) -> Duration {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Notes that everything in the source is delivered.
    pub fn caught_up(&self) {
        *self.caught_up.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns the time since everything in the source was delivered.
    pub fn lag(&self) -> Duration {
        self.caught_up.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Notes what an attempt failed with, or that it did not.
    pub fn set_trouble(&self, trouble: Option<String>) {
        self.is_failing.store(trouble.is_some(), Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Returns what the last attempt failed with.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
