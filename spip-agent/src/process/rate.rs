//! How often something may happen: a [`Bucket`] of tokens for what clients do, a [`Window`] for what is said of it.

use std::time::Instant;

/// Events that a [`Window`] lets through within one second.
const PER_SECOND: u32 = 10;

/// Milliseconds that a [`Window`] looks at together.
const WINDOW_MS: u64 = 1000;

/// Rate and burst of a [`Bucket`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens a second, sustained.
    pub per_second: f64,
    /// Tokens of a full bucket.
    pub burst: f64,
}

/// A bucket of tokens that fills steadily. The rate is not kept in it: it may change while the bucket is in use, and is
/// the same for many.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: f64,
    /// Time at which it had these tokens.
    at: Instant,
}

impl Bucket {
    /// Returns a full bucket.
    #[must_use]
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, at: now }
    }

    /// Fills the bucket up to `now`, and reports whether there is a token.
    pub fn fill(&mut self, rate: Rate, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        let tokens = (self.tokens + elapsed * rate.per_second).min(rate.burst);
        if tokens < 1.0 {
            // Not kept: fractions that are added up one by one come to less than one token.
            return false;
        }
        (self.tokens, self.at) = (tokens, now);
        true
    }

    /// Takes a token, whether there is one or not.
    pub fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let granted = self.fill(rate, now);
        if granted {
            self.spend();
        }
        granted
    }
}

/// Lets the first ten events of a second through. Times are milliseconds of any clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    since_ms: u64,
    passed: u32,
}

impl Window {
    /// Returns the window that begins at `now_ms`.
    #[must_use]
    pub const fn beginning(now_ms: u64) -> Self {
        Self { since_ms: now_ms, passed: 0 }
    }

    /// Reports whether its second is over, or the clock was set back.
    #[must_use]
    pub fn is_over(self, now_ms: u64) -> bool {
        now_ms.abs_diff(self.since_ms) >= WINDOW_MS
    }

    /// Reports whether another event passes; begins the next window where this one is over.
    pub fn admits(&mut self, now_ms: u64) -> bool {
        if self.is_over(now_ms) {
            *self = Self::beginning(now_ms);
        }
        let admitted = self.passed < PER_SECOND;
        self.passed += u32::from(admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Instant::now();
        let rate = Rate { per_second: 10.0, burst: 5.0 };
        let mut bucket = Bucket::full(rate, start);
        assert_eq!((0..100).filter(|_| bucket.take(rate, start)).count(), 5);
        let later = start + Duration::from_millis(1000);
        assert_eq!((0..100).filter(|_| bucket.take(rate, later)).count(), 5);
        let granted = (0..1000).filter(|step| bucket.take(rate, later + Duration::from_millis(*step * 10))).count();
        assert!((99..=100).contains(&granted), "{granted} in ten seconds");
    }

    #[test]
    fn ten_pass_in_a_second_whatever_the_clock_does() {
        let mut window = Window::default();
        let passed = |window: &mut Window, times: std::ops::Range<u64>| times.filter(|ms| window.admits(*ms)).count();
        assert_eq!(passed(&mut window, 5_000..5_999), 10);
        assert_eq!(passed(&mut window, 6_000..6_100), 10, "the next second");
        assert_eq!(passed(&mut window, 100..200), 10, "the clock was set back");
    }
}
