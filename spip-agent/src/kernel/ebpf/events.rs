//! Reads what the programs tell of SYNs, in the order in which it happened, and how much they could not tell.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;

use aya::Pod;
use aya::maps::{MapData, PerCpuArray, RingBuf};
use spip_common::event::{KIND_JOINED, KIND_REACHED, KIND_SYN};
use spip_common::{Counters, Step, SynEvent};

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A SYN was seen.
    Syn(SynEvent),
    /// A SYN is at the listening socket.
    Reached(Step),
    /// A connection is established.
    Joined(Step),
}

impl Event {
    fn read(bytes: &[u8]) -> Option<Self> {
        match *bytes.first_chunk().map(|kind| u32::from_ne_bytes(*kind)).as_ref()? {
            KIND_SYN => pod(bytes).map(Self::Syn),
            KIND_REACHED => pod(bytes).map(Self::Reached),
            KIND_JOINED => pod(bytes).map(Self::Joined),
            _ => None,
        }
    }
}

/// Events lost since the programs were loaded, for lack of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// SYNs.
    pub syns: u64,
    /// Lost events about the fate of SYNs.
    pub steps: u64,
}

/// The events. There is one reader.
pub struct Events {
    ring: RingBuf<MapData>,
    counters: Arc<PerCpuArray<MapData, Counters>>,
    /// Losses of an earlier agent, whose counters are pinned.
    before: Lost,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>, counters: Arc<PerCpuArray<MapData, Counters>>) -> Self {
        let mut events = Self { ring, counters, before: Lost::default() };
        events.before = events.lost();
        events
    }

    /// Hands the next event to `take`; false when there is none.
    pub fn take_next(&mut self, take: impl FnOnce(Event)) -> bool {
        let Some(item) = self.ring.next() else {
            return false;
        };
        if let Some(event) = Event::read(&item) {
            take(event);
        }
        true
    }

    /// Returns the losses so far. A map that cannot be read, which the kernel has no reason for, counts as no loss.
    #[must_use]
    pub fn lost(&self) -> Lost {
        let counters = super::sum(&self.counters).unwrap_or_default();
        Lost {
            syns: counters.untold.saturating_sub(self.before.syns),
            steps: counters.untold_steps.saturating_sub(self.before.steps),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// A value from its bytes.
#[allow(unsafe_code)]
fn pod<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: there are as many bytes as the type has, and all of them are a valid value of it.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(kind: u32) -> Vec<u8> {
        [&kind.to_ne_bytes()[..], &[7; 44]].concat()
    }

    #[test]
    fn a_step_is_read_by_its_kind() {
        assert!(matches!(Event::read(&step(KIND_JOINED)), Some(Event::Joined(step)) if step.source == [7; 16]));
        assert!(matches!(Event::read(&step(KIND_REACHED)), Some(Event::Reached(_))));
    }

    #[test]
    fn what_has_another_kind_or_length_is_no_event() {
        assert_eq!(Event::read(&step(KIND_SYN)), None);
        assert_eq!(Event::read(&step(99)), None);
        for length in 0..48 {
            assert_eq!(Event::read(&step(KIND_JOINED)[..length]), None, "{length} bytes");
        }
    }
}
