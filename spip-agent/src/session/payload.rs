//! Payload of one client: kept up to a limit per connection and a budget over all of them, counted beyond.
//!
//! Memory is taken as bytes arrive, never ahead of them: a connection that says nothing owns no buffer.
//!
//! The first [`GUARANTEED_BYTES`] of each session are outside of the budget, so no other session can take them. What a
//! session holds beside its payload (TLS buffers, replies that wait) is charged through its payload, to the same
//! budget.
//!
//! A payload begins in its opening: until it is clear what the first bytes are, as many are kept as the longest
//! ClientHello needs, whatever the limit. Settled as payload they are cut to the limit; taken away as a hello they
//! still count against the budget for as long as the session lasts.

use std::time::Instant;

use crate::process::clock;
use crate::session::budget::Budget;
use spip_protocol::client_hello::MAX_RAW_BYTES;

/// Smallest allocation for a payload; most first packets of scanners fit.
const FIRST_CAPACITY_BYTES: usize = 256;

/// Bytes of each session that do not count against the budget. `max_sessions` is reckoned with them
/// ([`crate::confine::memory::SESSION_BYTES`]).
pub const GUARANTEED_BYTES: usize = 2 * 1024;

/// The bytes of one connection.
#[derive(Debug)]
pub struct Payload {
    kept: Vec<u8>,
    received: u64,
    first_byte: Option<Instant>,
    limit: usize,
    is_opening: bool,
    starved: bool,
    budget: Budget,
    /// Bytes of the opening that the session holds elsewhere.
    lent: usize,
    /// Bytes that the session holds for TLS and replies.
    others: usize,
    /// Bytes taken from the budget.
    charged: usize,
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
            starved: false,
            budget,
            lent: 0,
            others: 0,
            charged: 0,
        }
    }

    /// Takes the next bytes from the wire: keeps what fits, counts all. From the first byte that was not kept on
    /// nothing is kept any more, so that the kept bytes are one piece.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.first_byte.is_none() && !bytes.is_empty() {
            self.first_byte = Some(clock::now());
        }
        let already_cut = self.truncated();
        self.received += bytes.len() as u64;
        if already_cut {
            return;
        }
        let wanted = bytes.len().min(self.limit_now().saturating_sub(self.kept.len()));
        let mut kept = wanted;
        if !self.reserve(wanted) {
            self.starved = true;
            // What is guaranteed costs the budget nothing.
            kept = wanted.min(GUARANTEED_BYTES.saturating_sub(self.held_elsewhere() + self.kept.len()));
            self.kept.reserve_exact(kept);
        }
        self.kept.extend_from_slice(&bytes[..kept]);
    }

    /// Counts bytes that arrived and were thrown away unread.
    pub fn count(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Makes room for so many bytes more, unless the budget has none.
    fn reserve(&mut self, additional: usize) -> bool {
        let needed = self.kept.len() + additional;
        let capacity = self.kept.capacity();
        if needed <= capacity {
            return true;
        }
        let limit = self.limit_now();
        let grown = needed.max((capacity * 2).min(limit)).max(FIRST_CAPACITY_BYTES.min(limit));
        if !self.charge(grown + self.held_elsewhere()) {
            return false;
        }
        self.kept.reserve_exact(grown - self.kept.len());
        // The allocator may round up; the budget follows what was asked for, so give and take stay equal.
        if self.kept.capacity() > grown && !self.charge(self.held()) {
            self.kept.shrink_to(grown);
        }
        true
    }

    /// Charges the budget for a session that holds `held` bytes; false, and nothing changed, where it has too little.
    fn charge(&mut self, held: usize) -> bool {
        let counted = held.saturating_sub(GUARANTEED_BYTES);
        if counted > self.charged && !self.budget.take(counted - self.charged) {
            return false;
        }
        self.budget.give(self.charged.saturating_sub(counted));
        self.charged = counted;
        true
    }

    /// Charges for what the session holds now beside its payload; false, and nothing changed, where the budget has too
    /// little.
    #[must_use]
    pub fn charge_others(&mut self, bytes: usize) -> bool {
        if bytes == self.others {
            return true;
        }
        let charged = self.charge(self.kept.capacity() + self.lent + bytes);
        if charged {
            self.others = bytes;
        }
        charged
    }

    /// Returns the bytes that the session holds: its payload, and what was charged beside it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.kept.capacity() + self.held_elsewhere()
    }

    fn held_elsewhere(&self) -> usize {
        self.lent + self.others
    }

    fn limit_now(&self) -> usize {
        if self.is_opening { self.limit.max(MAX_RAW_BYTES) } else { self.limit }
    }

    /// Reports whether the first bytes may still turn out to be anything.
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

    /// Takes out the bytes from `at` on, which are an envelope around the payload that is yet to come. Their memory is given
    /// back when the session ends.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Vec<u8> {
        let envelope = self.kept.split_off(at.min(self.kept.len()));
        self.received -= envelope.len() as u64;
        // A hello is short, and what of it the budget has no room for is not owed.
        if self.charge(self.held() + envelope.capacity()) {
            self.lent += envelope.capacity();
        }
        envelope
    }

    /// Takes `count` bytes from the front, which are no payload. The first byte of the client stays the first.
    #[must_use]
    pub fn skip(&mut self, count: usize) -> Vec<u8> {
        let taken: Vec<u8> = self.kept.drain(..count.min(self.kept.len())).collect();
        self.received -= taken.len() as u64;
        taken
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

    /// Returns the time of the first byte, that of an envelope too.
    #[must_use]
    pub fn first_byte(&self) -> Option<Instant> {
        self.first_byte
    }

    /// Reports whether bytes were received that are not kept.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.received > self.kept.len() as u64
    }

    /// Reports whether no further byte will be kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kept.len() >= self.limit_now() || self.starved
    }

    /// Reports whether the budget cut this payload short, and not its own limit.
    #[must_use]
    pub fn starved(&self) -> bool {
        self.starved
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.budget.give(self.charged);
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
        assert!(budget.left() <= (1 << 20) - 10_000 + GUARANTEED_BYTES);
        payload.push(b"inside");
        assert_eq!((payload.kept(), payload.received()), (&b"inside"[..], 6));
        assert!(payload.held() >= 10_000 && budget.taken() >= 10_000 - GUARANTEED_BYTES, "{payload:?}");
        drop(payload);
        assert_eq!(budget.left(), 1 << 20);
    }

    #[test]
    fn a_hello_behind_payload_is_no_payload_and_its_memory_is_given_back() {
        for hello in [500, 10_000] {
            let budget = Budget::new(1 << 20);
            let mut payload = settled(65_536, budget.clone());
            payload.push(b"STARTTLS\r\n");
            payload.push(&vec![1; hello]);
            assert_eq!(payload.split_off(10), vec![1; hello]);
            assert_eq!((payload.kept(), payload.received()), (&b"STARTTLS\r\n"[..], 10));
            assert!(budget.taken() >= (payload.held() - GUARANTEED_BYTES.min(payload.held())), "it counts meanwhile");
            payload.push(b"inside");
            assert_eq!((payload.kept(), payload.received()), (&b"STARTTLS\r\ninside"[..], 16));
            assert!(!payload.truncated());
            drop(payload);
            assert_eq!(budget.left(), 1 << 20, "{hello}");
        }
        let empty = Budget::new(0);
        let mut payload = settled(65_536, empty.clone());
        payload.push(&[1; GUARANTEED_BYTES]);
        assert_eq!(payload.split_off(10).len(), GUARANTEED_BYTES - 10, "it is not owed");
        drop(payload);
        assert_eq!(empty.left(), 0);
    }

    #[test]
    fn bytes_beyond_the_limit_are_counted_and_not_kept() {
        let budget = Budget::new(1_000);
        let mut payload = settled(4, budget);
        payload.push(b"abc");
        payload.push(b"def");
        assert_eq!(payload.kept(), b"abcd");
        assert_eq!(payload.received(), 6);
        assert!(payload.truncated() && payload.is_full() && !payload.starved());
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
        payload.push(&[1; 2_200]);
        payload.push(&[2; 5_000]);
        payload.push(&[3; 10]);
        assert_eq!(payload.kept(), [1; 2_200]);
        assert_eq!(payload.received(), 7_210);
        assert!(payload.starved());
        drop(payload);
        assert_eq!(budget.left(), 300);
    }

    #[test]
    fn nothing_is_kept_behind_a_gap_when_the_budget_has_room_again() {
        let budget = Budget::new(300);
        let mut payload = settled(10_000, budget.clone());
        payload.push(&[1; 2_200]);
        payload.push(&[2; 5_000]);
        budget.resize(1 << 20);
        payload.push(&[3; 10]);
        assert_eq!((payload.kept(), payload.received()), (&[1; 2_200][..], 7_210));
    }

    #[test]
    fn every_session_has_its_guaranteed_bytes_where_nothing_is_left() {
        let budget = Budget::new(0);
        let mut payload = settled(10_000, budget.clone());
        for _ in 0..GUARANTEED_BYTES {
            payload.push(b"x");
        }
        assert_eq!(payload.kept().len(), GUARANTEED_BYTES);
        assert!(!payload.starved());
        payload.push(b"y");
        assert!(payload.starved());
        assert_eq!(payload.kept().len(), GUARANTEED_BYTES);
        let mut payload = settled(10_000, budget);
        payload.push(&[1; 9_000]);
        assert_eq!(payload.kept(), [1; GUARANTEED_BYTES]);
        assert!(payload.starved());
    }

    #[test]
    fn what_a_session_holds_beside_its_payload_is_charged_and_given_back() {
        let budget = Budget::new(10_000);
        let mut payload = settled(65_536, budget.clone());
        assert!(payload.charge_others(GUARANTEED_BYTES));
        assert_eq!(budget.left(), 10_000);
        payload.push(&[1; 256]);
        assert_eq!(budget.left(), 10_000 - 256);
        assert!(payload.charge_others(GUARANTEED_BYTES + 5_000));
        assert_eq!((budget.left(), payload.held()), (10_000 - 5_256, GUARANTEED_BYTES + 5_256));
        assert!(!payload.charge_others(GUARANTEED_BYTES + 10_000), "more than there is");
        assert!(payload.charge_others(0));
        assert_eq!(budget.left(), 10_000);
        drop(payload);
        assert_eq!(budget.left(), 10_000);
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
        let payload = Payload::new(65_536, Budget::new(10));
        assert_eq!(payload.held(), 0);
    }

    #[test]
    fn what_the_budget_refuses_to_others_is_not_held() {
        let budget = Budget::new(1_000);
        let mut payload = settled(100, budget.clone());
        assert!(payload.charge_others(GUARANTEED_BYTES + 1_000));
        assert_eq!((payload.held(), budget.left()), (GUARANTEED_BYTES + 1_000, 0));
        assert!(!payload.charge_others(GUARANTEED_BYTES + 1_001));
        assert_eq!((payload.held(), budget.left()), (GUARANTEED_BYTES + 1_000, 0));
        assert!(payload.charge_others(0));
        assert_eq!((payload.held(), budget.left()), (0, 1_000));
    }
}
