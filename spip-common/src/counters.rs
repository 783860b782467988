//! Counters of the kernel side, one set per CPU, so that counting needs no lock and no atomic operation.
//!
//! An LRU map evicts in silence, so evictions are not counted but follow: `stored + inserted - removed` minus what is
//! in the map (see [`Counters::evicted`]).

/// The counters. Each only grows, from the loading of the programs on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Initial SYNs that the observer saw, each retransmission and each copy included.
    pub syns: u64,
    /// SYNs that made a new entry in SYNS.
    pub stored: u64,
    /// SYNs that took the place of one that arrived nowhere, or that is too old for a retransmission.
    pub renewed: u64,
    /// SYNs that were seen before, on the same interface: retransmissions.
    pub retransmitted: u64,
    /// SYNs that were seen before on another interface: the ports of a bridge, of a bond, or a VLAN.
    pub copies: u64,
    /// SYNs whose source and sequence number belong to an entry with another destination or port.
    pub ambiguous: u64,
    /// SYNs whose checksum is wrong, under a key of one whose checksum is right: they change nothing.
    pub wrong: u64,
    /// First fragments that may hide a SYN: no SYN with their source and sequence number is believed.
    pub cut: u64,
    /// Packets that end too early or contradict themselves.
    pub malformed: u64,
    /// Entries that the kernel refused to store.
    pub failed: u64,
    /// Connections that the listener accepted.
    pub passive: u64,
    /// … for which the SYN was found, and the origin written.
    pub joined: u64,
    /// … for which there was no SYN.
    pub not_found: u64,
    /// … whose origin is written but cannot be trusted.
    pub doubtful: u64,
    /// Connections of this machine's own clients whose entry was corrected with what the client asked for.
    pub local: u64,
    /// Entries for local clients that were made without an observer.
    pub inserted: u64,
    /// Entries of SYNS that were removed when they were joined.
    pub removed: u64,
    /// SYNs that were told to the agent, for scans.
    pub told: u64,
    /// SYNs that could not be told, because the ring buffer had no room for them.
    pub untold: u64,
    /// Steps of connections that could not be told.
    pub untold_steps: u64,
}

impl Counters {
    /// Adds another CPU's counters.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            syns: self.syns.wrapping_add(other.syns),
            stored: self.stored.wrapping_add(other.stored),
            renewed: self.renewed.wrapping_add(other.renewed),
            retransmitted: self.retransmitted.wrapping_add(other.retransmitted),
            copies: self.copies.wrapping_add(other.copies),
            ambiguous: self.ambiguous.wrapping_add(other.ambiguous),
            wrong: self.wrong.wrapping_add(other.wrong),
            cut: self.cut.wrapping_add(other.cut),
            malformed: self.malformed.wrapping_add(other.malformed),
            failed: self.failed.wrapping_add(other.failed),
            passive: self.passive.wrapping_add(other.passive),
            joined: self.joined.wrapping_add(other.joined),
            not_found: self.not_found.wrapping_add(other.not_found),
            doubtful: self.doubtful.wrapping_add(other.doubtful),
            local: self.local.wrapping_add(other.local),
            inserted: self.inserted.wrapping_add(other.inserted),
            removed: self.removed.wrapping_add(other.removed),
            told: self.told.wrapping_add(other.told),
            untold: self.untold.wrapping_add(other.untold),
            untold_steps: self.untold_steps.wrapping_add(other.untold_steps),
        }
    }

    /// Entries of SYNS that the kernel evicted for newer ones, given how many are in the map now.
    ///
    /// Exact while nothing moves; off by what happened between reading counters and counting entries otherwise.
    #[must_use]
    pub fn evicted(&self, present: u64) -> u64 {
        self.stored.saturating_add(self.inserted).saturating_sub(self.removed).saturating_sub(present)
    }
}

// SAFETY: `repr(C)`, only u64 fields: any bytes are a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_and_is_neither_removed_nor_present_was_evicted() {
        let one = Counters { stored: 60, removed: 10, ..Counters::default() };
        let other = Counters { stored: 40, inserted: 5, ..Counters::default() };
        assert_eq!(one.plus(&other).evicted(75), 20);
    }

    #[test]
    fn entries_that_come_while_counting_are_not_evictions_below_zero() {
        assert_eq!(Counters::default().evicted(3), 0);
    }
}
