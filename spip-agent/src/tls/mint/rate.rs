//! A token bucket.

use std::time::{Duration, Instant};

/// A bucket of tokens that fills steadily.
#[derive(Debug)]
pub(super) struct Rate {
    /// The time that one token takes to come.
    interval: Duration,
    /// The time that an empty bucket takes to fill.
    capacity: Duration,
    /// Time at which the bucket would be empty if it were never filled again; at most `capacity` ago.
    empty_at: Instant,
}

impl Rate {
    /// A full bucket.
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second;
        let capacity = interval * burst;
        Self { interval, capacity, empty_at: now.checked_sub(capacity).unwrap_or(now) }
    }

    /// Takes one token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let oldest = now.checked_sub(self.capacity).unwrap_or(now);
        let next = self.empty_at.max(oldest) + self.interval;
        let granted = next <= now;
        if granted {
            self.empty_at = next;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Instant::now() + Duration::from_secs(3600);
        let mut rate = Rate::new(10, 5, start);
        assert_eq!((0..100).filter(|_| rate.take(start)).count(), 5);
        let later = start + Duration::from_millis(1000);
        assert_eq!((0..100).filter(|_| rate.take(later)).count(), 5);
        let granted = (0..1000).filter(|step| rate.take(later + Duration::from_millis(*step * 10))).count();
        assert!((99..=100).contains(&granted), "{granted} in ten seconds");
    }
}
