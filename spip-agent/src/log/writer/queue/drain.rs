//! The writer's side of the queue: when it is woken, what it takes, and how the queue ends.
//!
//! A buffer that grew by a burst is made small again when the writer has caught up.

use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Batch, Queue, Shared, WriterState};

/// Upper bound of an empty buffer's capacity, in bytes.
const KEPT_BYTES: usize = 256 * 1024;

/// Interval at which the end of the log checks for callers that were let in and have not appended yet.
const STRAGGLER_PAUSE: Duration = Duration::from_millis(2);

/// Reasons for which the writer was woken.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::log::writer) struct Wake {
    /// The file is to be opened anew.
    pub(in crate::log::writer) reopen: bool,
    /// Nothing will come after this batch.
    pub(in crate::log::writer) last: bool,
}

/// Reasons for which a pause between two attempts ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log::writer) enum Pause {
    /// Try again.
    Over,
    /// The file is to be opened anew; try again.
    Reopen,
    /// The deadline of the end has passed.
    GiveUp,
}

impl Shared {
    /// Waits for lines, at most `gather` after the first one came, and swaps them into the empty `batch`. Without lines
    /// it returns at `tick`, or when it is asked to reopen or to end.
    pub(in crate::log::writer) fn next_batch(
        &self,
        batch: &mut Batch,
        gather: Duration,
        tick: Option<Instant>,
    ) -> Wake {
        let mut queue = self.lock();
        if queue.next.bytes.is_empty() {
            // All caught up: a buffer that a burst has left behind goes back.
            queue.next.bytes.shrink_to(KEPT_BYTES);
            batch.bytes.shrink_to(KEPT_BYTES);
        }
        while !queue.reopen {
            if let Some(deadline) = queue.finish {
                // A caller holds room, or was just let in, and is about to append: that is worth a moment.
                let all_in = self.room.available_permits() == self.capacity as usize;
                if all_in || !queue.next.bytes.is_empty() || Instant::now() >= deadline {
                    break;
                }
                queue = self.wait(queue, Some(STRAGGLER_PAUSE));
                continue;
            }
            let (state, until) = if queue.next.bytes.is_empty() {
                (WriterState::Idle, tick)
            } else if queue.next.bytes.len() >= self.large {
                break;
            } else {
                let since = queue.since.unwrap_or_else(Instant::now);
                (WriterState::Gathering, Some(since + gather))
            };
            let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
            if wait.is_some_and(|wait| wait.is_zero()) {
                break;
            }
            queue.writer = state;
            queue = self.wait(queue, wait);
        }
        queue.writer = WriterState::Busy;
        let reopen = mem::take(&mut queue.reopen);
        mem::swap(&mut queue.next, batch);
        queue.since = None;
        queue.in_flight = batch.bytes.len();
        let last = queue.finish.is_some() && batch.bytes.is_empty();
        if last {
            // Those who still wait for room, or come later, are told so.
            queue.ended = true;
            self.room.close();
        }
        Wake { reopen, last }
    }

    /// Takes note that `batch` is written, and lets as many waiters in as there is room for now.
    pub(in crate::log::writer) fn written(&self, batch: &mut Batch) {
        let mut queue = self.lock();
        queue.in_flight = 0;
        queue.reserved -= batch.reserved;
        drop(queue);
        self.room.add_permits(batch.charged);
        let used = batch.bytes.len();
        batch.bytes.clear();
        if used < batch.bytes.capacity() / 4 {
            batch.bytes.shrink_to(KEPT_BYTES.max(2 * used));
        }
        batch.written = 0;
        batch.charged = 0;
        batch.reserved = 0;
    }

    /// Waits before the next attempt to write.
    pub(in crate::log::writer) fn pause(&self, retry: Duration) -> Pause {
        let end = Instant::now() + retry;
        let mut queue = self.lock();
        loop {
            if mem::take(&mut queue.reopen) {
                return Pause::Reopen;
            }
            let now = Instant::now();
            let until = queue.finish.map_or(end, |deadline| deadline.min(end));
            if queue.finish.is_some_and(|deadline| deadline <= now) {
                return Pause::GiveUp;
            }
            if until <= now {
                return Pause::Over;
            }
            queue = self.wait(queue, Some(until - now));
        }
    }

    /// Nothing can be written any more: waiters are released, and what waits is given up.
    pub(in crate::log::writer) fn fail(&self) {
        self.abandon_queue();
        self.counters.failed.store(true, Relaxed);
        self.failed.notify_waiters();
    }

    /// Ends the queue and counts the lines in it and in flight as abandoned. Returns how many there were.
    pub(in crate::log::writer) fn abandon_queue(&self) -> u64 {
        let mut queue = self.lock();
        if mem::replace(&mut queue.ended, true) && queue.next.bytes.is_empty() && queue.in_flight == 0 {
            return 0;
        }
        self.room.close();
        let unwritten = queue.accepted.saturating_sub(self.counters.lines.load(Relaxed));
        // Counted once, also when it is asked again.
        queue.accepted -= unwritten;
        queue.next = Batch::default();
        queue.in_flight = 0;
        drop(queue);
        self.counters.abandoned.fetch_add(unwritten, Relaxed);
        unwritten
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, wait: Option<Duration>) -> MutexGuard<'a, Queue> {
        match wait {
            Some(wait) => self.work.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0,
            None => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Returns the bytes that both buffers have taken from the allocator.
    #[cfg(test)]
    pub(in crate::log::writer) fn capacity_of_next(&self) -> usize {
        self.lock().next.bytes.capacity()
    }
}
