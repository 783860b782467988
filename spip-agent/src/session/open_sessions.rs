//! The open sessions of one worker: whom to tell when all of them have to end, the one that has been idle for longest,
//! or the one that holds most memory, and whom to wake when a deadline has passed.
//!
//! Deadlines are looked at every [`TICK`], in one pass over a dense table: a timer of the runtime for each session
//! would cost more memory and time than the session's own waiting. A session that moves its deadline forward only
//! notes it in its handle; the table learns of it when the old one has passed.

use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use slab::Slab;
use tokio::sync::Notify;

use spip_record::{CloseReason, Limit};

use crate::process::clock;
use crate::session::limits::Source;
use crate::session::payload::GUARANTEED_BYTES;

/// Interval at which deadlines are checked: none is noticed later than this.
pub const TICK: Duration = Duration::from_millis(50);

/// A look at all sessions tells this part of them to make room at least, so that a newcomer costs a look at as many
/// sessions at most, and …
const LOOKED_AT_FOR_ONE: usize = 64;
/// … this part of them at most, so that those who stay are worth serving.
const LET_GO_AT_ONCE: usize = 4;

/// The open sessions; clones share them.
#[derive(Clone)]
pub struct OpenSessions(Arc<Shared>);

struct Shared {
    started: Instant,
    /// Makes numbers of sources that no client can foresee; the same for all workers.
    hasher: RandomState,
    sessions: Mutex<Slab<Entry>>,
    entered: Notify,
    /// Sessions that were told to make room and are still here.
    leaving: AtomicUsize,
}

struct Entry {
    handle: Arc<Handle>,
    /// Never later than the deadline in the handle.
    due: u64,
}

/// State that a session shares with the code that may end it. Times are microseconds since `OpenSessions` was created.
struct Handle {
    order: AtomicU8,
    /// Number that stands for the source of the session.
    source: u32,
    /// The memory that the session holds, in bytes; a session never holds 4 GiB.
    held: AtomicU32,
    /// The session's last activity.
    active: AtomicU64,
    /// Time at which the session is to be woken.
    due: AtomicU64,
    waker: AtomicWaker,
}

const GO_ON: u8 = 0;
/// Descriptors are short.
const MAKE_ROOM: u8 = 1;
/// The bound on all sessions is reached.
const MAKE_PLACE: u8 = 2;
/// Memory is short.
const MAKE_MEMORY: u8 = 3;
const SHUT_DOWN: u8 = 4;
/// It is not open any more.
const GONE: u8 = 5;

/// A session's place among the open ones; dropping it leaves.
pub struct Registered {
    open: OpenSessions,
    key: usize,
    handle: Arc<Handle>,
}

impl Default for OpenSessions {
    fn default() -> Self {
        Self::new(RandomState::new())
    }
}

impl OpenSessions {
    /// Creates the open sessions of each of `workers` workers. What they say of sources can be compared.
    #[must_use]
    pub fn for_workers(workers: usize) -> Vec<Self> {
        let hasher = RandomState::new();
        (0..workers).map(|_| Self::new(hasher.clone())).collect()
    }

    fn new(hasher: RandomState) -> Self {
        Self(Arc::new(Shared {
            started: clock::now(),
            hasher,
            sessions: Mutex::default(),
            entered: Notify::new(),
            leaving: AtomicUsize::new(0),
        }))
    }

    /// Enters a session of `source` that is active now, and is to be woken at `due`.
    #[must_use]
    pub fn enter(&self, source: Source, due: Instant) -> Registered {
        let due = self.micros(due);
        let handle = Arc::new(Handle {
            order: AtomicU8::new(GO_ON),
            // The upper half does as well: a number that two sources share lumps these two.
            source: (self.0.hasher.hash_one(source) >> 32) as u32,
            held: AtomicU32::new(0),
            active: AtomicU64::new(self.micros(clock::now())),
            due: AtomicU64::new(due),
            waker: AtomicWaker::new(),
        });
        let mut sessions = self.sessions();
        if sessions.is_empty() {
            self.0.entered.notify_one();
        }
        let key = sessions.insert(Entry { handle: Arc::clone(&handle), due });
        Registered { open: self.clone(), key, handle }
    }

    /// Wakes sessions whose deadline has passed, for as long as it is polled.
    pub async fn keep_time(&self) {
        loop {
            if self.is_empty() {
                self.0.entered.notified().await;
            }
            tokio::time::sleep(TICK).await;
            self.wake_due(clock::now());
        }
    }

    fn wake_due(&self, now: Instant) {
        let now = self.micros(now);
        for (_, entry) in self.sessions().iter_mut() {
            if entry.due <= now {
                entry.due = entry.handle.due.load(Ordering::Relaxed);
                if entry.due <= now {
                    entry.handle.waker.wake();
                }
            }
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.0.started).as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns the number of open sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions().len()
    }

    /// Reports whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells every session to end, because the agent stops; with an `idle_since` only those that did nothing since.
    pub fn shut_down(&self, idle_since: Option<Instant>) {
        let until = idle_since.map_or(u64::MAX, |since| self.micros(since));
        for (_, entry) in self.sessions().iter() {
            if idle_since.is_none() || entry.handle.active.load(Ordering::Relaxed) < until {
                entry.handle.order(SHUT_DOWN);
            }
        }
    }

    /// Adds to `idlest` those that have been idle for longest, so that it has `most` of all that were looked at.
    fn add_idlest(&self, idlest: &mut BinaryHeap<Idle>, most: usize) {
        for (_, Entry { handle, .. }) in self.sessions().iter() {
            if handle.order.load(Ordering::Relaxed) != GO_ON {
                continue;
            }
            let active = self.0.started + Duration::from_micros(handle.active.load(Ordering::Relaxed));
            let idle = |handle| Idle { active, open: self.clone(), handle: Arc::clone(handle) };
            if idlest.len() < most {
                idlest.push(idle(handle));
            } else if let Some(mut busiest) = idlest.peek_mut()
                && active < busiest.active
            {
                *busiest = idle(handle);
            }
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that may be told to make room. The busiest is the greatest.
struct Idle {
    active: Instant,
    open: OpenSessions,
    handle: Arc<Handle>,
}

impl Ord for Idle {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.active.cmp(&other.active)
    }
}

impl PartialOrd for Idle {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Idle {
    fn eq(&self, other: &Self) -> bool {
        self.active == other.active
    }
}

impl Eq for Idle {}

/// Sees to it that `places` sessions are about to leave because they were told to, those first that have been idle for
/// longest; how many are, which may be fewer.
///
/// It looks at every session only when too few are leaving, and then tells some in advance: a flood while all places
/// are taken must not cost a look at all of them for each newcomer.
pub fn make_room(sessions_by_worker: &[OpenSessions], places: usize, limit: Limit) -> usize {
    let leaving = || sessions_by_worker.iter().map(|open| open.0.leaving.load(Ordering::Relaxed)).sum::<usize>();
    let order = if limit == Limit::Descriptors { MAKE_ROOM } else { MAKE_PLACE };
    let missing = places.saturating_sub(leaving());
    if missing == 0 {
        return leaving();
    }
    let open = sessions_by_worker.iter().map(OpenSessions::len).sum::<usize>();
    let most = missing.min(open / LET_GO_AT_ONCE).max(open / LOOKED_AT_FOR_ONE).max(1);
    let mut idlest = BinaryHeap::with_capacity(most);
    for open in sessions_by_worker {
        open.add_idlest(&mut idlest, most);
    }
    for Idle { open, handle, .. } in idlest {
        // Before the order, so that a session that ends by it is counted.
        open.0.leaving.fetch_add(1, Ordering::Relaxed);
        if !handle.order(order) {
            open.0.leaving.fetch_sub(1, Ordering::Relaxed);
        }
    }
    leaving()
}

/// Tells the largest holders of memory to end, so that `wanted` bytes come back, those included that sessions hold
/// which leave already. Returns how many sessions it told.
///
/// The sources that hold most give way, each by its largest sessions, down to a level that is the same for all of them:
/// a source that holds less than that loses nothing.
pub fn end_largest(sessions_by_worker: &[OpenSessions], mut wanted: usize) -> usize {
    let mut sources: HashMap<u32, Vec<(u32, Arc<Handle>)>> = HashMap::new();
    for open in sessions_by_worker {
        for (_, Entry { handle, .. }) in open.sessions().iter() {
            let held = handle.held.load(Ordering::Relaxed);
            if handle.order.load(Ordering::Relaxed) != GO_ON {
                wanted = wanted.saturating_sub(held as usize);
            } else if held as usize > GUARANTEED_BYTES {
                sources.entry(handle.source).or_default().push((held, Arc::clone(handle)));
            }
        }
    }
    let counted = |held: u32| held as usize - GUARANTEED_BYTES;
    let mut holders: BinaryHeap<(usize, u32)> = sources
        .iter_mut()
        .map(|(&source, sessions)| {
            sessions.sort_unstable_by_key(|&(held, _)| held);
            (sessions.iter().map(|&(held, _)| counted(held)).sum(), source)
        })
        .collect();
    let mut told = 0;
    while wanted > 0
        && let Some((total, source)) = holders.pop()
        && let Some((held, handle)) = sources.get_mut(&source).and_then(Vec::pop)
    {
        told += usize::from(handle.order(MAKE_MEMORY));
        wanted = wanted.saturating_sub(counted(held));
        holders.push((total - counted(held), source));
    }
    told
}

impl Handle {
    /// Gives an order; the first one holds. Whether it was that.
    fn order(&self, order: u8) -> bool {
        let first = self.order.compare_exchange(GO_ON, order, Ordering::Release, Ordering::Relaxed).is_ok();
        if first {
            self.waker.wake();
        }
        first
    }

    fn reason(&self) -> Option<CloseReason> {
        match self.order.load(Ordering::Acquire) {
            GO_ON => None,
            MAKE_ROOM => Some(CloseReason::Rejected(Limit::Descriptors)),
            MAKE_PLACE => Some(CloseReason::Rejected(Limit::Sessions)),
            MAKE_MEMORY => Some(CloseReason::Rejected(Limit::Memory)),
            _ => Some(CloseReason::Shutdown),
        }
    }
}

impl Registered {
    /// Notes that the client did something at `now`.
    pub fn touch(&self, now: Instant) {
        self.handle.active.store(self.open.micros(now), Ordering::Relaxed);
    }

    /// Notes how much memory the session holds now, in bytes.
    pub fn hold(&self, bytes: usize) {
        self.handle.held.store(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Returns the time of the client's last activity, in microseconds since `OpenSessions` was created.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.handle.active.load(Ordering::Relaxed)
    }

    /// An instant out of microseconds since `OpenSessions` was created.
    #[must_use]
    pub fn instant(&self, micros: u64) -> Instant {
        self.open.0.started + Duration::from_micros(micros)
    }

    /// An instant in microseconds since `OpenSessions` was created.
    #[must_use]
    pub fn micros(&self, at: Instant) -> u64 {
        self.open.micros(at)
    }

    /// Has the session woken at `due` microseconds, or up to a [`TICK`] later, and no more at the time that was set
    /// before.
    pub fn wake_at(&self, due: u64) {
        if due < self.handle.due.swap(due, Ordering::Relaxed)
            && let Some(entry) = self.open.sessions().get_mut(self.key)
        {
            entry.due = due;
        }
    }

    /// Ready with the reason once the session was told to end.
    pub fn poll_ordered(&self, context: &mut Context<'_>) -> Poll<CloseReason> {
        if let Some(reason) = self.handle.reason() {
            return Poll::Ready(reason);
        }
        self.handle.waker.register(context.waker());
        // An order may have come between the look and the registration.
        self.handle.reason().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if matches!(self.handle.order.swap(GONE, Ordering::Relaxed), MAKE_ROOM | MAKE_PLACE) {
            self.open.0.leaving.fetch_sub(1, Ordering::Relaxed);
        }
        let mut sessions = self.open.sessions();
        sessions.try_remove(self.key);
        if sessions.is_empty() && sessions.capacity() > 1_024 {
            sessions.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests;
