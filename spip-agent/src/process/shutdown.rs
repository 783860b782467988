//! The end of the agent: the first request counts, and all of it is over at one instant.
//!
//! `drain_timeout_seconds` is promised for all of it, so whatever takes time then shares one [`Deadline`], counted from
//! the moment of the request. It is divided so that earlier stages cannot exhaust it: sessions first, then the
//! records that belong to no session, then the writer of the log.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Grace of a client that was active a moment ago: connections are complete before their first byte, and one that was
/// just accepted needs the time in which its payload arrives.
const GRACE: Duration = Duration::from_millis(250);

/// Deadlines of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    asked: Instant,
    drain: Duration,
}

impl Deadline {
    /// `drain` from `asked` on.
    #[must_use]
    pub fn new(asked: Instant, drain: Duration) -> Self {
        Self { asked, drain }
    }

    /// Returns the time since which a session must have been active to be waited for.
    #[must_use]
    pub fn idle_since(self) -> Option<Instant> {
        self.asked.checked_sub(self.grace_time())
    }

    /// Until then clients that did something a moment ago may go on.
    #[must_use]
    pub fn grace(self) -> Instant {
        self.asked + self.grace_time()
    }

    fn grace_time(self) -> Duration {
        GRACE.min(self.drain / 4)
    }

    /// Sessions have handed over their records, or are cut off.
    #[must_use]
    pub fn sessions(self) -> Instant {
        self.asked + self.drain * 8 / 10
    }

    /// So have refusals and scans.
    #[must_use]
    pub fn summaries(self) -> Instant {
        self.asked + self.drain * 9 / 10
    }

    /// The log is written, or given up.
    #[must_use]
    pub fn log(self) -> Instant {
        self.asked + self.drain
    }
}

/// Handle that starts the shutdown.
#[derive(Debug, Default)]
pub struct Stop(watch::Sender<Option<Deadline>>);

impl Stop {
    /// Asks for it: the deadline that holds, which is that of the first request.
    pub fn ask(&self, drain: Duration) -> Deadline {
        let mut holds = Deadline::new(Instant::now(), drain);
        self.0.send_if_modified(|deadline| {
            let is_first = deadline.is_none();
            holds = *deadline.get_or_insert(holds);
            is_first
        });
        holds
    }

    /// Returns a handle that waits for the shutdown.
    #[must_use]
    pub fn stopped(&self) -> Stopped {
        Stopped(self.0.subscribe())
    }
}

/// Handle that waits for the shutdown.
#[derive(Clone, Debug)]
pub struct Stopped(watch::Receiver<Option<Deadline>>);

impl Stopped {
    /// Waits until the stop is asked for; what holds then.
    pub async fn asked(&mut self) -> Deadline {
        match self.0.wait_for(Option::is_some).await.map(|deadline| *deadline) {
            Ok(Some(deadline)) => deadline,
            // No sender is left.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Waits until the stop has been asked for, and `which` of its times has come.
    pub async fn past(mut self, which: fn(Deadline) -> Instant) {
        let deadline = self.asked().await;
        tokio::time::sleep_until(which(deadline).into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_first_sets_the_deadline() {
        let stop = Stop::default();
        let first = stop.ask(Duration::from_secs(5));
        assert_eq!(stop.ask(Duration::from_secs(60)), first);
        assert_eq!(*stop.stopped().0.borrow(), Some(first));
    }

    #[test]
    fn everything_is_over_one_after_the_other_within_the_drain_limit() {
        let asked = Instant::now();
        for drain in [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(5), Duration::from_secs(3600)] {
            let deadline = Deadline::new(asked, drain);
            let order = [asked, deadline.grace(), deadline.sessions(), deadline.summaries(), deadline.log()];
            assert!(order.is_sorted(), "{order:?}");
            assert_eq!(deadline.log() - asked, drain);
            assert!(deadline.grace() - asked <= GRACE);
        }
    }
}
