//! The queue between sessions and writer: one buffer that is filled while the other one is written.
//!
//! Room is counted in bytes by a semaphore, which serves its waiters in order and wakes only those for whom there is
//! room: ten thousand waiting sessions cost what ten thousand cost, not its square. The lines themselves are copied
//! under a mutex that is held no longer than for that copy. The batch that is being written counts as queued until
//! it is written, so both buffers together stay within the bound, give or take the reserve.
//!
//! `drain` is the writer's side of it.

mod drain;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, SemaphorePermit, TryAcquireError};

use super::{Reopened, STALLED, Stats};
use crate::config;
use crate::process::heartbeat::Heartbeat;
pub(super) use drain::Pause;
use spip_record::Tail;

/// A batch of this size is written without waiting for more, in bytes: large enough that the system call is nothing
/// beside the copy, small enough to stay in the cache.
const LARGE_BATCH_BYTES: usize = 256 * 1024;

/// The reserve of those who cannot wait is at least this large, in bytes.
const MINIMUM_RESERVE_BYTES: usize = 1024 * 1024;

/// Counters that readers of the statistics load without the lock.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) lines: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) rotations: AtomicU64,
    pub(super) held_files: AtomicU64,
    pub(super) unread_removed: AtomicU64,
    pub(super) write_failures: AtomicU64,
    pub(super) abandoned: AtomicU64,
    pub(super) messages_dropped: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) failed: AtomicBool,
    pub(super) faulty: AtomicBool,
    /// Beats with each write, and with the first line after none was waiting.
    pub(super) writes: Heartbeat,
}

/// The queue, shared by all handles and the writer.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// The writer waits here.
    work: Condvar,
    /// Free bytes.
    room: Semaphore,
    capacity: u32,
    reserve: usize,
    large: usize,
    pub(super) counters: Arc<Counters>,
    failed: Notify,
}

/// Room that is taken for one record.
#[derive(Debug)]
pub(super) struct Room<'a> {
    shared: &'a Shared,
    permit: SemaphorePermit<'a>,
    charge: u32,
}

impl Room<'_> {
    pub(super) fn record(self, open_line: &[u8], tail: Tail) {
        self.permit.forget();
        self.shared.append_record(open_line, tail, self.charge as usize, 0);
    }
}

#[derive(Debug)]
struct Queue {
    /// Lines that wait for the writer.
    next: Batch,
    /// Time at which the first line of `next` came.
    since: Option<Instant>,
    /// The last number that was given to a record.
    seq: u64,
    /// Lines accepted so far.
    accepted: u64,
    /// Bytes of the batch that the writer has.
    in_flight: usize,
    /// Bytes of the reserve in use, those in flight included.
    reserved: usize,
    writer: WriterState,
    reopen: bool,
    /// Callers that wait for the result.
    reopeners: Vec<SyncSender<Reopened>>,
    /// Settings to open the file with, when they are different.
    change: Option<Box<config::Log>>,
    /// File that is written to, now or with the next batch; `None` for standard output.
    file: Option<PathBuf>,
    /// Reason why nothing can be written.
    fault: Option<String>,
    finish: Option<Instant>,
    ended: bool,
}

/// State of the writer, which determines how to wake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriterState {
    /// The first line.
    Idle,
    /// A large batch.
    Gathering,
    /// Nothing: it writes, or is woken already.
    Busy,
}

/// Lines on their way to the file.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Whole lines.
    pub(super) bytes: Vec<u8>,
    /// Number of bytes that are written.
    pub(super) written: usize,
    /// Permits that are given back when it is written.
    charged: usize,
    /// Bytes of the reserve that are given back when it is written.
    reserved: usize,
}

impl Batch {
    /// Reports whether the written bytes end with a line.
    pub(super) fn at_line_start(&self) -> bool {
        self.written == 0 || self.bytes.get(self.written - 1) == Some(&b'\n')
    }

    /// Goes back to the start of the line of which a part is written.
    pub(super) fn restart_line(&mut self) {
        let written = self.bytes.get(..self.written).unwrap_or_default();
        self.written = written.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    }
}

impl Shared {
    pub(super) fn new(queue_bytes: usize) -> Self {
        let capacity = u32::try_from(queue_bytes.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX).max(1);
        Shared {
            queue: Mutex::new(Queue {
                next: Batch::default(),
                since: None,
                seq: 0,
                accepted: 0,
                in_flight: 0,
                reserved: 0,
                writer: WriterState::Busy,
                reopen: false,
                reopeners: Vec::new(),
                change: None,
                file: None,
                fault: None,
                finish: None,
                ended: false,
            }),
            work: Condvar::new(),
            room: Semaphore::new(capacity as usize),
            capacity,
            reserve: (queue_bytes / 2).max(MINIMUM_RESERVE_BYTES),
            large: (queue_bytes / 4).clamp(1, LARGE_BATCH_BYTES),
            counters: Arc::default(),
            failed: Notify::new(),
        }
    }

    pub(super) async fn record(&self, open_line: &[u8], tail: Tail) {
        if let Some(room) = self.room(open_line.len()).await {
            room.record(open_line, tail);
        }
    }

    pub(super) async fn room(&self, bytes: usize) -> Option<Room<'_>> {
        let charge = self.charge(bytes);
        let permit = match self.room.try_acquire_many(charge) {
            Err(TryAcquireError::NoPermits) => self.room.acquire_many(charge).await.ok(),
            other => other.ok(),
        };
        if permit.is_none() {
            self.abandon_one();
        }
        permit.map(|permit| Room { shared: self, permit, charge })
    }

    pub(super) fn try_record(&self, open_line: &[u8], tail: Tail) -> bool {
        let charge = self.charge(open_line.len());
        let Ok(permit) = self.room.try_acquire_many(charge) else {
            return false;
        };
        permit.forget();
        self.append_record(open_line, tail, charge as usize, 0)
    }

    pub(super) fn record_now(&self, open_line: &[u8], tail: Tail) {
        let charge = self.charge(open_line.len());
        match self.room.try_acquire_many(charge) {
            Ok(permit) => {
                permit.forget();
                self.append_record(open_line, tail, charge as usize, 0);
            }
            Err(TryAcquireError::Closed) => self.abandon_one(),
            Err(TryAcquireError::NoPermits) => {
                self.append_record(open_line, tail, 0, charge as usize);
            }
        }
    }

    pub(super) fn message(&self, open_line: &[u8]) -> bool {
        let charge = self.charge(open_line.len());
        let taken = self.room.try_acquire_many(charge).is_ok_and(|permit| {
            permit.forget();
            self.append(self.lock(), open_line, b"}\n", charge as usize, 0)
        });
        if !taken {
            self.counters.messages_dropped.fetch_add(1, Relaxed);
        }
        taken
    }

    pub(super) fn reopen(&self) -> Receiver<Reopened> {
        let (sender, reopened) = sync_channel(1);
        let mut queue = self.lock();
        queue.reopen = true;
        queue.reopeners.push(sender);
        self.wake(queue);
        reopened
    }

    /// Tells those who asked for it what came of opening the file anew.
    pub(super) fn reopened(&self, result: &Reopened) {
        let reopeners = std::mem::take(&mut self.lock().reopeners);
        for reopener in reopeners {
            // Who does not wait any more need not know.
            let _ = reopener.send(result.clone());
        }
    }

    pub(super) fn change(&self, config: &config::Log) {
        let mut queue = self.lock();
        queue.reopen = true;
        queue.change = Some(Box::new(config.clone()));
        self.wake(queue);
    }

    /// Notes which file is written to, for those who ask.
    pub(super) fn name_file(&self, path: Option<&Path>) {
        self.lock().file = path.map(Path::to_path_buf);
    }

    /// Notes why nothing can be written, or that it can again.
    pub(super) fn set_fault(&self, fault: Option<String>) {
        self.counters.faulty.store(fault.is_some(), Relaxed);
        self.lock().fault = fault;
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.lock().fault.clone()
    }

    pub(super) fn file(&self) -> Option<PathBuf> {
        self.lock().file.clone()
    }

    /// Returns the pending change.
    #[cfg(test)]
    pub(super) fn pending_change(&self) -> Option<config::Log> {
        self.lock().change.as_deref().cloned()
    }

    /// Takes the pending change, once.
    pub(super) fn take_change(&self) -> Option<Box<config::Log>> {
        self.lock().change.take()
    }

    /// Asks the writer to write what is there and to end.
    pub(super) fn finish(&self, deadline: Instant) {
        let mut queue = self.lock();
        queue.finish = Some(deadline);
        self.wake(queue);
    }

    pub(super) fn stats(&self) -> Stats {
        let queued_bytes = {
            let queue = self.lock();
            (queue.next.bytes.len() + queue.in_flight) as u64
        };
        let counters = &self.counters;
        let waiting = if queued_bytes == 0 { Duration::ZERO } else { counters.writes.oldest() };
        Stats {
            queued_bytes,
            lines: counters.lines.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            rotations: counters.rotations.load(Relaxed),
            held_files: counters.held_files.load(Relaxed),
            unread_removed: counters.unread_removed.load(Relaxed),
            write_failures: counters.write_failures.load(Relaxed),
            abandoned: counters.abandoned.load(Relaxed),
            messages_dropped: counters.messages_dropped.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            faulty: counters.faulty.load(Relaxed) || waiting >= STALLED,
            failing: counters.faulty.load(Relaxed),
            waiting,
        }
    }

    pub(super) async fn until_failed(&self) {
        loop {
            let mut notified = std::pin::pin!(self.failed.notified());
            // Registered before the flag is read: a failure in between is not missed.
            notified.as_mut().enable();
            if self.counters.failed.load(Relaxed) {
                return;
            }
            notified.await;
        }
    }

    /// Returns the room that a line takes. A line larger than the whole queue takes all of it.
    fn charge(&self, bytes: usize) -> u32 {
        u32::try_from(bytes + Tail::BYTES).unwrap_or(u32::MAX).min(self.capacity)
    }

    fn append_record(&self, open_line: &[u8], tail: Tail, charged: usize, reserved: usize) -> bool {
        let mut queue = self.lock();
        // Also of a record that has no place any more: the gap tells the reader that one is missing.
        queue.seq += 1;
        let mut space = [0; Tail::BYTES];
        let tail = tail.write(&mut space, queue.seq);
        let taken = self.append(queue, open_line, tail, charged, reserved);
        if !taken {
            self.abandon_one();
        }
        taken
    }

    /// Copies one line into the buffer and wakes the writer if it waits for that.
    fn append(
        &self,
        mut queue: MutexGuard<'_, Queue>,
        open_line: &[u8],
        tail: &[u8],
        charged: usize,
        reserved: usize,
    ) -> bool {
        debug_assert!(!open_line.contains(&b'\n'), "a record is one line");
        if queue.ended || (reserved > 0 && queue.reserved + reserved > self.reserve) {
            return false;
        }
        if queue.next.bytes.is_empty() {
            queue.since = Some(Instant::now());
            if queue.in_flight == 0 {
                self.counters.writes.beat(0);
            }
        }
        queue.next.bytes.extend_from_slice(open_line);
        queue.next.bytes.extend_from_slice(tail);
        queue.next.charged += charged;
        queue.next.reserved += reserved;
        queue.reserved += reserved;
        queue.accepted += 1;
        let awaited = match queue.writer {
            WriterState::Idle => true,
            WriterState::Gathering => queue.next.bytes.len() >= self.large,
            WriterState::Busy => false,
        };
        if awaited {
            self.wake(queue);
        }
        true
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.writer = WriterState::Busy;
        drop(queue);
        self.work.notify_one();
    }

    fn abandon_one(&self) {
        self.counters.abandoned.fetch_add(1, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic under the lock could only have left a line without its end; there is none to panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spip_record::Format;

    #[test]
    fn the_tail_holds_any_number() {
        for format in [Format::Flat, Format::Ecs, Format::Eve] {
            let Tail { key, end } = format.tail();
            for seq in [0, 1, 9, 10, 12_345, u64::MAX] {
                let mut space = [0; Tail::BYTES];
                let expected = format!(",\"{key}\":{seq}{end}\n");
                assert_eq!(format.tail().write(&mut space, seq), expected.as_bytes());
            }
        }
    }
}
