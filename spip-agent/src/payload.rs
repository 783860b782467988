//! What one client sent: kept up to a limit per connection and a budget over all of them, counted beyond.
//!
//! Memory is taken as bytes arrive, never ahead of them: a connection that says nothing owns no buffer.
//!
//! Nor may one source have the whole budget: what its connections keep beyond their first bytes is bounded by its share.
//!
//! A payload begins in its opening: until it is clear what the first bytes are, as many are kept as the longest
//! ClientHello needs, whatever the limit. Settled as payload they are cut to the limit; taken away as a hello they
//! still count against the budget for as long as the session lasts.

use std::time::Instant;

use crate::budget::Budget;
use crate::limits::Permit;
use spip_protocol::client_hello::MAX_RAW_BYTES;

/// Smallest allocation for a payload; most first packets of scanners fit.
const FIRST_CAPACITY_BYTES: usize = 256;

/// What no source has to account for: so short are most payloads, and as many of them as one source may have at once
/// leave the budget to the others.
const UNSHARED_BYTES: usize = 4 * 1024;

/// The bytes of one connection.
#[derive(Debug)]
pub struct Payload {
    kept: Vec<u8>,
    received: u64,
    first_byte: Option<Instant>,
    limit: usize,
    is_opening: bool,
    budget: Budget,
    /// Taken from the budget for bytes that went elsewhere in the session.
    lent: usize,
    /// The right to the session, where it has one.
    permit: Option<Permit>,
    starved: Option<Starved>,
}

/// What cut a payload short that had not reached its own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starved {
    /// The budget over all connections.
    All,
    /// The share of its source.
    Source,
}

impl Starved {
    /// The name in records, as those of other limits.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "payload_memory_bytes",
            Self::Source => "payload_memory_share",
        }
    }
}

impl Payload {
    /// Nothing yet; at most `limit` bytes will be kept, while `budget` lasts.
    #[must_use]
    pub fn new(limit: usize, budget: Budget) -> Self {
        Self {
            kept: Vec::new(),
            received: 0,
            first_byte: None,
            limit,
            is_opening: true,
            budget,
            lent: 0,
            permit: None,
            starved: None,
        }
    }

    /// Of the session that has `permit`, which it holds from here on.
    #[must_use]
    pub fn of(mut self, permit: Permit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// Takes the next bytes from the wire: keeps what fits, counts all. From the first byte that was not kept on
    /// nothing is kept any more, so that the kept bytes are one piece.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.first_byte.is_none() && !bytes.is_empty() {
            self.first_byte = Some(Instant::now());
        }
        let already_cut = self.truncated();
        self.received += bytes.len() as u64;
        if already_cut {
            return;
        }
        let wanted = bytes.len().min(self.limit_now().saturating_sub(self.kept.len()));
        match self.reserve(wanted) {
            Ok(()) => self.kept.extend_from_slice(&bytes[..wanted]),
            Err(starved) => self.starved = Some(starved),
        }
    }

    /// Counts bytes that arrived and were thrown away unread.
    pub fn count(&mut self, bytes: u64) {
        self.received += bytes;
    }

    fn reserve(&mut self, additional: usize) -> Result<(), Starved> {
        let needed = self.kept.len() + additional;
        let capacity = self.kept.capacity();
        if needed <= capacity {
            return Ok(());
        }
        let limit = self.limit_now();
        let grown = needed.max((capacity * 2).min(limit)).max(FIRST_CAPACITY_BYTES.min(limit));
        let shared = (grown + self.lent).saturating_sub((capacity + self.lent).max(UNSHARED_BYTES));
        if shared > 0
            && let Some(permit) = &mut self.permit
            && !permit.take(shared)
        {
            return Err(Starved::Source);
        }
        if !self.budget.take(grown - capacity) {
            return Err(Starved::All);
        }
        self.kept.reserve_exact(grown - self.kept.len());
        // The allocator may round up; the budget follows what was asked for, so give and take stay equal.
        let surplus = self.kept.capacity() - grown;
        if surplus > 0 && !self.budget.take(surplus) {
            self.kept.shrink_to(grown);
        }
        Ok(())
    }

    fn limit_now(&self) -> usize {
        if self.is_opening { self.limit.max(MAX_RAW_BYTES) } else { self.limit }
    }

    /// Whether the first bytes may still turn out to be anything.
    #[must_use]
    pub fn is_opening(&self) -> bool {
        self.is_opening
    }

    /// Ends the opening: what was received is payload.
    pub fn settle(&mut self) {
        self.is_opening = false;
        self.kept.truncate(self.limit);
    }

    /// Ends the opening: what was received is an envelope around the payload that is yet to come. The bytes go
    /// elsewhere in the session; their memory is given back when it ends.
    #[must_use]
    pub fn take_envelope(&mut self) -> Vec<u8> {
        self.is_opening = false;
        self.received = 0;
        self.lent += self.kept.capacity();
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

    /// When the first byte was read, of an envelope too.
    #[must_use]
    pub fn first_byte(&self) -> Option<Instant> {
        self.first_byte
    }

    /// Whether bytes were received that are not kept.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.received > self.kept.len() as u64
    }

    /// Whether no further byte will be kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kept.len() >= self.limit_now() || self.starved.is_some()
    }

    /// What cut this payload short, where that was not its own limit.
    #[must_use]
    pub fn starved(&self) -> Option<Starved> {
        self.starved
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.budget.give(self.kept.capacity() + self.lent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(limit: usize, budget: Budget) -> Payload {
        let mut payload = Payload::new(limit, budget);
        payload.settle();
        payload
    }

    #[test]
    fn an_opening_keeps_a_whole_hello_and_is_cut_when_it_is_payload() {
        let budget = Budget::new(1 << 20);
        let mut payload = Payload::new(100, budget.clone());
        payload.push(&[1; 10_000]);
        assert_eq!(payload.kept().len(), 10_000);
        payload.settle();
        assert_eq!((payload.kept().len(), payload.received()), (100, 10_000));
        assert!(payload.truncated());
        drop(payload);
        assert_eq!(budget.left(), 1 << 20);
    }

    #[test]
    fn an_envelope_counts_until_the_session_ends() {
        let budget = Budget::new(1 << 20);
        let mut payload = Payload::new(100, budget.clone());
        payload.push(&[1; 10_000]);
        assert_eq!(payload.take_envelope(), [1; 10_000]);
        assert!(budget.left() <= (1 << 20) - 10_000);
        payload.push(b"inside");
        assert_eq!((payload.kept(), payload.received()), (&b"inside"[..], 6));
        drop(payload);
        assert_eq!(budget.left(), 1 << 20);
    }

    #[test]
    fn bytes_beyond_the_limit_are_counted_and_not_kept() {
        let budget = Budget::new(1_000);
        let mut payload = settled(4, budget);
        payload.push(b"abc");
        payload.push(b"def");
        assert_eq!(payload.kept(), b"abcd");
        assert_eq!(payload.received(), 6);
        assert!(payload.truncated() && payload.is_full() && payload.starved().is_none());
    }

    #[test]
    fn a_payload_of_exactly_the_limit_is_whole() {
        let mut payload = settled(4, Budget::new(1_000));
        payload.push(b"abcd");
        assert!(!payload.truncated() && payload.is_full());
    }

    #[test]
    fn an_empty_budget_keeps_the_count_and_one_piece() {
        let budget = Budget::new(300);
        let mut payload = settled(10_000, budget.clone());
        payload.push(&[1; 200]);
        payload.push(&[2; 5_000]);
        payload.push(&[3; 10]);
        assert_eq!(payload.kept(), [1; 200]);
        assert_eq!(payload.received(), 5_210);
        assert_eq!(payload.starved(), Some(Starved::All));
        drop(payload);
        assert_eq!(budget.left(), 300);
    }

    #[test]
    fn growth_returns_every_byte_of_the_budget() {
        let budget = Budget::new(1 << 20);
        let mut payload = settled(65_536, budget.clone());
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
