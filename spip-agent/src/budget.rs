//! Memory for payload bytes over all connections. A connection asks before it keeps bytes; when nothing is left its
//! bytes are counted and not kept, so that many connections together cannot fill the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

/// Bytes that may still be kept, shared by all connections.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: AtomicIsize,
    /// Below zero while more is kept than a total that was lowered allows.
    left: AtomicIsize,
}

impl Budget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let bytes = signed(bytes);
        Self(Arc::new(Shared { total: AtomicIsize::new(bytes), left: AtomicIsize::new(bytes) }))
    }

    /// Takes `bytes`, or nothing when fewer are left.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        let bytes = signed(bytes);
        let take = |left: isize| (left >= bytes).then(|| left - bytes);
        self.0.left.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: usize) {
        self.0.left.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    /// Makes it a budget of `bytes`, with what is taken of it taken. One caller at a time.
    pub fn resize(&self, bytes: usize) {
        let bytes = signed(bytes);
        let before = self.0.total.swap(bytes, Ordering::Relaxed);
        self.0.left.fetch_add(bytes - before, Ordering::Relaxed);
    }

    /// Bytes that are left.
    #[must_use]
    pub fn left(&self) -> usize {
        usize::try_from(self.0.left.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Bytes that are taken.
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
}
