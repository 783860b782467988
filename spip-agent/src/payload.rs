//! What one client sent: kept up to a limit per connection and a budget over all of them, counted beyond.
//!
//! Memory is taken as bytes arrive, never ahead of them: a connection that says nothing owns no buffer.

use crate::budget::Budget;

/// Smallest allocation for a payload; most first packets of scanners fit.
const FIRST_CAPACITY_BYTES: usize = 256;

/// The bytes of one connection.
#[derive(Debug)]
pub struct Payload {
    kept: Vec<u8>,
    received: u64,
    limit: usize,
    budget: Budget,
    starved: bool,
}

impl Payload {
    /// Nothing yet; at most `limit` bytes will be kept, while `budget` lasts.
    #[must_use]
    pub fn new(limit: usize, budget: Budget) -> Self {
        Self { kept: Vec::new(), received: 0, limit, budget, starved: false }
    }

    /// Takes the next bytes from the wire: keeps what fits, counts all. From the first byte that was not kept on
    /// nothing is kept any more, so that the kept bytes are one piece.
    pub fn push(&mut self, bytes: &[u8]) {
        let already_cut = self.truncated();
        self.received += bytes.len() as u64;
        if already_cut {
            return;
        }
        let wanted = bytes.len().min(self.limit - self.kept.len());
        if self.reserve(wanted) {
            self.kept.extend_from_slice(&bytes[..wanted]);
        } else {
            self.starved = true;
        }
    }

    /// Counts bytes that arrived and were thrown away unread.
    pub fn count(&mut self, bytes: u64) {
        self.received += bytes;
    }

    fn reserve(&mut self, additional: usize) -> bool {
        let needed = self.kept.len() + additional;
        let capacity = self.kept.capacity();
        if needed <= capacity {
            return true;
        }
        let grown = needed.max((capacity * 2).min(self.limit)).max(FIRST_CAPACITY_BYTES.min(self.limit));
        if !self.budget.take(grown - capacity) {
            return false;
        }
        self.kept.reserve_exact(grown - self.kept.len());
        // The allocator may round up; the budget follows what was asked for, so give and take stay equal.
        let surplus = self.kept.capacity() - grown;
        if surplus > 0 && !self.budget.take(surplus) {
            self.kept.shrink_to(grown);
        }
        true
    }

    /// Takes the kept bytes away, as if nothing had been received: they turned out to be a protocol's envelope.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.received = 0;
        self.budget.give(self.kept.capacity());
        std::mem::take(&mut self.kept)
    }

    /// The kept bytes, in order, without a gap.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Bytes received, kept or not.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether bytes were received that are not kept.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.received > self.kept.len() as u64
    }

    /// Whether no further byte will be kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kept.len() >= self.limit || self.starved
    }

    /// Whether the budget over all connections cut this payload short, and not its own limit.
    #[must_use]
    pub fn starved(&self) -> bool {
        self.starved
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.budget.give(self.kept.capacity());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_limit_are_counted_and_not_kept() {
        let budget = Budget::new(1_000);
        let mut payload = Payload::new(4, budget);
        payload.push(b"abc");
        payload.push(b"def");
        assert_eq!(payload.kept(), b"abcd");
        assert_eq!(payload.received(), 6);
        assert!(payload.truncated() && payload.is_full() && !payload.starved());
    }

    #[test]
    fn a_payload_of_exactly_the_limit_is_whole() {
        let mut payload = Payload::new(4, Budget::new(1_000));
        payload.push(b"abcd");
        assert!(!payload.truncated() && payload.is_full());
    }

    #[test]
    fn an_empty_budget_keeps_the_count_and_one_piece() {
        let budget = Budget::new(300);
        let mut payload = Payload::new(10_000, budget.clone());
        payload.push(&[1; 200]);
        payload.push(&[2; 5_000]);
        payload.push(&[3; 10]);
        assert_eq!(payload.kept(), [1; 200]);
        assert_eq!(payload.received(), 5_210);
        assert!(payload.starved());
        drop(payload);
        assert_eq!(budget.left(), 300);
    }

    #[test]
    fn growth_returns_every_byte_of_the_budget() {
        let budget = Budget::new(1 << 20);
        let mut payload = Payload::new(65_536, budget.clone());
        for _ in 0..70_000 {
            payload.push(b"x");
        }
        assert_eq!(payload.kept().len(), 65_536);
        drop(payload);
        assert_eq!(budget.left(), 1 << 20);
    }

    #[test]
    fn a_silent_connection_owns_no_buffer() {
        let budget = Budget::new(10);
        let _payload = Payload::new(65_536, budget.clone());
        assert_eq!(budget.left(), 10);
    }
}
