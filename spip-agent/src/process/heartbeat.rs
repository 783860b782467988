//! Heartbeat of the workers: each one's runtime beats once an interval, and nothing else can do it for it. The
//! writer of the log beats with each write.
//!
//! A worker that is stuck in one session, or in a system call, misses its beat, and with it everything that this worker
//! should accept or time out. Who asks (the watchdog, `/healthz`) never asks the worker itself: it looks at when the
//! last beat was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Unless the watchdog wants to hear more often.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The beats of all workers; clones share them.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// Milliseconds from the start to the last beat of each worker.
    last: Vec<AtomicU64>,
}

impl Default for Heartbeat {
    /// Of one.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Heartbeat {
    /// Of so many workers, all of which are taken to be alive now.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self(Arc::new(Shared { started: Instant::now(), last: (0..workers).map(|_| AtomicU64::new(0)).collect() }))
    }

    /// The worker of that number is alive now.
    pub fn beat(&self, worker: usize) {
        if let Some(last) = self.0.last.get(worker) {
            last.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Beats for the worker whose runtime polls this, every `interval`.
    pub async fn keep(&self, worker: usize, interval: Duration) {
        loop {
            self.beat(worker);
            tokio::time::sleep(interval).await;
        }
    }

    /// Returns the age of the oldest of all workers' last beats.
    #[must_use]
    pub fn oldest(&self) -> Duration {
        self.oldest_at(self.now())
    }

    fn oldest_at(&self, now: u64) -> Duration {
        let last = self.0.last.iter().map(|last| last.load(Ordering::Relaxed)).min().unwrap_or(now);
        Duration::from_millis(now.saturating_sub(last))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_without_a_beat_is_enough() {
        let heartbeat = Heartbeat::new(2);
        assert_eq!(heartbeat.oldest_at(20), Duration::from_millis(20), "both were alive at the start");
        std::thread::sleep(Duration::from_millis(2));
        heartbeat.beat(0);
        assert_eq!(heartbeat.oldest_at(20), Duration::from_millis(20), "one of them has not beaten since");
        heartbeat.beat(1);
        assert!(heartbeat.oldest_at(20) < Duration::from_millis(20));
        assert!(heartbeat.oldest_at(1_000_000) > heartbeat.oldest_at(999_000));
    }
}
