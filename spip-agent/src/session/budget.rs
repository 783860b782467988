//! Memory that sessions may hold over what each of them is guaranteed: payload, TLS buffers, replies that wait.
//!
//! A session asks before it holds more. When less than an eighth is left the largest holders are ended
//! ([`crate::session::open_sessions::end_largest`]) until a quarter is; the last eighth is what arrives meanwhile.
//! Where even that is gone, a session keeps what it has and the rest of its bytes is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use tokio::sync::Notify;

/// Memory is scarce when less than this part of the budget is left …
const SCARCE: isize = 8;
/// … and no longer when this part of it is.
const RELIEVED: isize = 4;

/// Bytes that sessions may still take; clones share them.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: AtomicIsize,
    /// Below zero while more is taken than a total that was lowered allows.
    left: AtomicIsize,
    scarce: Notify,
}

impl Budget {
    /// Creates a budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let bytes = signed(bytes);
        let (total, left) = (AtomicIsize::new(bytes), AtomicIsize::new(bytes));
        Self(Arc::new(Shared { total, left, scarce: Notify::new() }))
    }

    /// Takes `bytes`, or nothing when fewer are left.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        let bytes = signed(bytes);
        let take = |left: isize| (left >= bytes).then(|| left - bytes);
        let taken = self.0.left.try_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.map_or(true, |left| self.is_scarce(left - bytes)) {
            self.0.scarce.notify_one();
        }
        taken.is_ok()
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: usize) {
        self.0.left.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    /// Makes it a budget of `bytes`, with what is taken of it taken. One caller at a time.
    pub fn resize(&self, bytes: usize) {
        let bytes = signed(bytes);
        let before = self.0.total.swap(bytes, Ordering::Relaxed);
        let left = self.0.left.fetch_add(bytes - before, Ordering::Relaxed) + bytes - before;
        if self.is_scarce(left) {
            self.0.scarce.notify_one();
        }
    }

    /// Waits until a session found the budget scarce. One waiter at a time.
    pub async fn scarce(&self) {
        self.0.scarce.notified().await;
    }

    /// Returns the bytes that have to come back: 0 unless the budget is scarce.
    #[must_use]
    pub fn wanted(&self) -> usize {
        let left = self.0.left.load(Ordering::Relaxed);
        if !self.is_scarce(left) {
            return 0;
        }
        usize::try_from(self.0.total.load(Ordering::Relaxed) / RELIEVED - left).unwrap_or(0)
    }

    fn is_scarce(&self, left: isize) -> bool {
        left < self.0.total.load(Ordering::Relaxed) / SCARCE
    }

    /// Returns the bytes that are left.
    #[must_use]
    pub fn left(&self) -> usize {
        usize::try_from(self.0.left.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Returns the bytes that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        let taken = self.0.total.load(Ordering::Relaxed) - self.0.left.load(Ordering::Relaxed);
        usize::try_from(taken).unwrap_or(0)
    }
}

fn signed(bytes: usize) -> isize {
    // No machine has more.
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_given() {
        let budget = Budget::new(10);
        assert!(budget.take(6));
        assert!(!budget.take(5));
        budget.give(6);
        assert_eq!(budget.left(), 10);
    }

    #[test]
    fn a_budget_that_shrinks_below_what_is_taken_gives_nothing_until_that_is_back() {
        let budget = Budget::new(10);
        assert!(budget.take(8));
        budget.resize(5);
        assert_eq!((budget.left(), budget.taken()), (0, 8));
        assert!(!budget.take(1));
        budget.give(8);
        assert_eq!((budget.left(), budget.taken()), (5, 0));
        budget.resize(20);
        assert_eq!(budget.left(), 20);
    }

    #[test]
    fn the_last_eighth_asks_for_a_quarter() {
        let is_asked = |budget: &Budget| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
            runtime.block_on(async { tokio::time::timeout(std::time::Duration::ZERO, budget.scarce()).await.is_ok() })
        };
        let budget = Budget::new(800);
        assert!(budget.take(700));
        assert_eq!((budget.wanted(), is_asked(&budget)), (0, false));
        assert!(budget.take(1));
        assert_eq!((budget.wanted(), is_asked(&budget)), (101, true));
        budget.give(101);
        assert_eq!(budget.wanted(), 0);
        assert!(!budget.take(300));
        assert!(is_asked(&budget), "a request that was refused asks as well");
        budget.resize(600);
        assert!(is_asked(&budget), "so does a budget that shrinks");
    }
}
