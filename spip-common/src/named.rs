//! Counters by name, for printing. Taken apart completely: a counter that is added must be named here.

use crate::{Counters, SteerCounters};

impl Counters {
    /// Each counter with its name, as in maps.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 20] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_stands_under_its_own_name() {
        let counters = Counters { syns: 7, untold_steps: 9, ..Counters::default() };
        let named = counters.named();
        assert_eq!((named[0], named[19]), (("syns", 7), ("untold_steps", 9)));
        assert!(named[1..19].iter().all(|(_, count)| *count == 0));
        let steered = SteerCounters { steered: 7, missed: 9, ..SteerCounters::default() }.named();
        assert_eq!((steered[0], steered[6]), (("steered", 7), ("missed", 9)));
        for names in [&named[..], &steered[..]] {
            for (at, (name, _)) in names.iter().enumerate() {
                assert!(!name.is_empty() && names.iter().position(|(other, _)| other == name) == Some(at), "{name}");
            }
        }
    }
}
