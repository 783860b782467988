//! Budget of the log for scan records, in bytes a day.
//!
//! A SYN costs its sender 60 bytes and may have any source, and a source costs a record. So the records of scans have
//! an allowance, which refills over a day. While it lasts each source of an interval has a record of its own; then only
//! those that sent most have one, [`LEAST_SOURCES`] at least, and the others are counted together.

use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Sources of an interval that have a record of their own whatever was written before: 65 MB a day at one interval a minute.
const LEAST_SOURCES: usize = 64;

/// Size of a record of one source: 591 bytes in the flat format for one port, more in the others.
const RECORD_BYTES: f64 = 700.0;

/// Bytes that are left of a day's allowance.
#[derive(Debug)]
pub(super) struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    /// Creates the whole allowance of a day, in bytes.
    pub(super) fn new(day_bytes: u64, now: Instant) -> Self {
        Self { left: day_bytes as f64, at: now }
    }

    /// Returns how many sources may have a record of their own at `now`, where a day has `day_bytes`.
    pub(super) fn sources(&mut self, day_bytes: u64, now: Instant) -> usize {
        let day = day_bytes as f64;
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + elapsed * day / DAY.as_secs_f64()).min(day);
        self.at = now;
        ((self.left / RECORD_BYTES).max(0.0) as usize).max(LEAST_SOURCES)
    }

    /// Takes `bytes` that were written.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.left -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_allowed_again_a_day_later_and_no_more() {
        let start = Instant::now();
        let mut allowance = Allowance::new(700_000, start);
        assert_eq!(allowance.sources(700_000, start), 1_000);
        allowance.spend(700_000);
        assert_eq!(allowance.sources(700_000, start), LEAST_SOURCES);
        assert_eq!(allowance.sources(700_000, start + DAY / 2), 500);
        assert_eq!(allowance.sources(700_000, start + 10 * DAY), 1_000);
        allowance.spend(1_400_000);
        assert_eq!(allowance.sources(700_000, start + 11 * DAY), LEAST_SOURCES, "a debt is paid first");
    }
}
