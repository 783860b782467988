//! Counters by name, for printing. Taken apart completely: a counter that is added must be named here.

use crate::{Counters, SteerCounters};

impl Counters {
    /// Each counter with its name, as in maps.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 21] {
        let Self {
            syns,
            stored,
            renewed,
            retransmitted,
            copies,
            ambiguous,
            wrong,
            cut,
            malformed,
            failed,
            passive,
            joined,
            not_found,
            doubtful,
            local,
            inserted,
            removed,
            closed,
            told,
            untold,
            untold_steps,
        } = *self;
        [
            ("syns", syns),
            ("stored", stored),
            ("renewed", renewed),
            ("retransmitted", retransmitted),
            ("copies", copies),
            ("ambiguous", ambiguous),
            ("wrong", wrong),
            ("cut", cut),
            ("malformed", malformed),
            ("failed", failed),
            ("passive", passive),
            ("joined", joined),
            ("not_found", not_found),
            ("doubtful", doubtful),
            ("local", local),
            ("inserted", inserted),
            ("removed", removed),
            ("closed", closed),
            ("told", told),
            ("untold", untold),
            ("untold_steps", untold_steps),
        ]
    }
}

impl SteerCounters {
    /// Each counter with its name, as in maps.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 7] {
        let Self { steered, excluded, loopback, elsewhere, other_link, chosen, missed } = *self;
        [
            ("steered", steered),
            ("excluded", excluded),
            ("loopback", loopback),
            ("elsewhere", elsewhere),
            ("other_link", other_link),
            ("chosen", chosen),
            ("missed", missed),
        ]
    }
}
