//! Growing pauses between attempts, and sleeping that a shutdown ends.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause: an engine that is back is noticed within this time.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that double from 0.1 s to 30 s, each shortened by up to a quarter, so that a thousand sensors do not come back
/// at the same moment.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
    random: u64,
}

impl Default for Pauses {
    fn default() -> Self {
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { next: FIRST, random: seed.subsec_nanos().into() }
    }
}

impl Pauses {
    /// Returns the next pause: at least `wish`, if there is one, within [`LONGEST`].
    pub fn next(&mut self, wish: Option<Duration>) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        // Knuth's linear congruential generator: enough to scatter.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = u32::try_from(self.random >> 40 & 0xff).unwrap_or_default();
        let scattered = pause - pause * share / 1024;
        scattered.max(wish.unwrap_or_default()).min(LONGEST)
    }

    /// Starts again with the shortest pause.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// Says when the process has to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Starts the shutdown.
    pub fn now(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Reports whether the shutdown has started.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps for `time`, or until the shutdown. Reports whether the shutdown has started.
    pub fn sleep(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut is_set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_set {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            is_set = self.0.1.wait_timeout(is_set, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_start_again() {
        let mut pauses = Pauses::default();
        let first = pauses.next(None);
        assert!(first <= FIRST && first >= FIRST * 3 / 4, "{first:?}");
        let mut last = first;
        for _ in 0..20 {
            last = pauses.next(None);
            assert!(last <= LONGEST);
        }
        assert!(last >= LONGEST * 3 / 4, "{last:?}");
        // Shippers of a fleet that fail together do not come back together.
        let longest: std::collections::HashSet<_> = (0..20).map(|_| pauses.next(None)).collect();
        assert!(longest.len() > 10, "{longest:?}");
        pauses.reset();
        assert!(pauses.next(None) <= FIRST);
        assert_eq!(pauses.next(Some(Duration::from_secs(3_600))), LONGEST);
    }

    #[test]
    fn a_shutdown_ends_a_sleep() {
        let stop = Stop::default();
        let other = stop.clone();
        let sleeper = std::thread::spawn(move || other.sleep(Duration::from_secs(60)));
        stop.now();
        assert!(sleeper.join().expect("no panic"));
        assert!(!Stop::default().sleep(Duration::from_millis(1)));
    }
}
