//! The open sessions of one worker: whom to tell when all of them have to end, or the one that has been idle for
//! longest, and whom to wake when a deadline has passed.
//!
//! Deadlines are looked at every [`TICK`], in one pass over a dense table: a timer of the runtime for each session
//! would cost more memory and time than the session's own waiting. A session that moves its deadline forward only
//! notes it in its handle; the table learns of it when the old one has passed.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use slab::Slab;
use tokio::sync::Notify;

use crate::limits::Limit;
use crate::record::CloseReason;

/// How often deadlines are looked at: none is noticed later than this.
pub const TICK: Duration = Duration::from_millis(50);

/// The open sessions; clones share them.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    started: Instant,
    sessions: Mutex<Slab<Entry>>,
    entered: Notify,
}

struct Entry {
    handle: Arc<Handle>,
    /// Never later than the deadline in the handle.
    due: u64,
}

/// What a session and those who may end it share. Times are microseconds from the registry's start.
struct Handle {
    order: AtomicU8,
    /// The session's last activity.
    active: AtomicU64,
    /// When the session is to be woken.
    due: AtomicU64,
    waker: AtomicWaker,
}

const GO_ON: u8 = 0;
const MAKE_ROOM: u8 = 1;
const SHUT_DOWN: u8 = 2;

/// A session's place in the registry; dropping it leaves.
pub struct Registered {
    registry: Registry,
    key: usize,
    handle: Arc<Handle>,
}

impl Default for Registry {
    fn default() -> Self {
        Self(Arc::new(Shared { started: Instant::now(), sessions: Mutex::default(), entered: Notify::new() }))
    }
}

impl Registry {
    /// Enters a session that is active now, and is to be woken at `due`.
    #[must_use]
    pub fn enter(&self, due: Instant) -> Registered {
        let due = self.micros(due);
        let handle = Arc::new(Handle {
            order: AtomicU8::new(GO_ON),
            active: AtomicU64::new(self.micros(Instant::now())),
            due: AtomicU64::new(due),
            waker: AtomicWaker::new(),
        });
        let mut sessions = self.sessions();
        if sessions.is_empty() {
            self.0.entered.notify_one();
        }
        let key = sessions.insert(Entry { handle: Arc::clone(&handle), due });
        Registered { registry: self.clone(), key, handle }
    }

    /// Wakes sessions whose deadline has passed, for as long as it is polled.
    pub async fn keep_time(&self) {
        loop {
            if self.is_empty() {
                self.0.entered.notified().await;
            }
            tokio::time::sleep(TICK).await;
            self.wake_due(Instant::now());
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

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions().len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells every session to end, because the agent stops.
    pub fn shut_down(&self) {
        for (_, entry) in self.sessions().iter() {
            entry.handle.order(SHUT_DOWN);
        }
    }

    /// The session that has been idle for longest, and since when, among those that were not told to end.
    fn idlest(&self) -> Option<(Instant, Arc<Handle>)> {
        let sessions = self.sessions();
        let handles = sessions.iter().map(|(_, entry)| &entry.handle);
        let staying = handles.filter(|handle| handle.order.load(Ordering::Relaxed) == GO_ON);
        let (active, handle) =
            staying.map(|handle| (handle.active.load(Ordering::Relaxed), handle)).min_by_key(|(active, _)| *active)?;
        Some((self.0.started + Duration::from_micros(active), Arc::clone(handle)))
    }

    fn sessions(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the session of all registries that has been idle for longest to end; false when there is none.
///
/// It looks at every session, which is right for something that happens only when a limit is reached.
#[must_use]
pub fn make_room(registries: &[Registry]) -> bool {
    let idlest = registries.iter().filter_map(Registry::idlest).min_by_key(|(active, _)| *active);
    idlest.map(|(_, handle)| handle.order(MAKE_ROOM)).is_some()
}

impl Handle {
    fn order(&self, order: u8) {
        self.order.fetch_max(order, Ordering::Release);
        self.waker.wake();
    }

    fn reason(&self) -> Option<CloseReason> {
        match self.order.load(Ordering::Acquire) {
            GO_ON => None,
            MAKE_ROOM => Some(CloseReason::Rejected(Limit::Descriptors)),
            _ => Some(CloseReason::Shutdown),
        }
    }
}

impl Registered {
    /// Notes that the client did something at `now`.
    pub fn touch(&self, now: Instant) {
        self.handle.active.store(self.registry.micros(now), Ordering::Relaxed);
    }

    /// When the client did something last, in microseconds from the registry's start.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.handle.active.load(Ordering::Relaxed)
    }

    /// An instant out of microseconds from the registry's start.
    #[must_use]
    pub fn instant(&self, micros: u64) -> Instant {
        self.registry.0.started + Duration::from_micros(micros)
    }

    /// An instant in microseconds from the registry's start.
    #[must_use]
    pub fn micros(&self, at: Instant) -> u64 {
        self.registry.micros(at)
    }

    /// Has the session woken at `due` microseconds, or up to a [`TICK`] later, and no more at the time that was set
    /// before.
    pub fn wake_at(&self, due: u64) {
        if due < self.handle.due.swap(due, Ordering::Relaxed)
            && let Some(entry) = self.registry.sessions().get_mut(self.key)
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
        let mut sessions = self.registry.sessions();
        sessions.try_remove(self.key);
        if sessions.is_empty() && sessions.capacity() > 1_024 {
            sessions.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};
    use std::thread::sleep;

    use super::*;

    fn ordered(session: &Registered) -> Poll<CloseReason> {
        session.poll_ordered(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_session_that_was_idle_for_longest_makes_room() {
        let registries = [Registry::default(), Registry::default()];
        let first = registries[0].enter(Instant::now());
        let second = registries[1].enter(Instant::now());
        sleep(Duration::from_millis(5));
        first.touch(Instant::now());
        assert!(make_room(&registries));
        assert!(ordered(&first).is_pending());
        assert_eq!(ordered(&second), Poll::Ready(CloseReason::Rejected(Limit::Descriptors)));
        assert!(make_room(&registries), "the other one is next");
        assert!(!make_room(&registries), "nobody is asked twice");
    }

    #[test]
    fn a_stop_reaches_every_session() {
        let registry = Registry::default();
        let sessions: Vec<_> = (0..10).map(|_| registry.enter(Instant::now())).collect();
        registry.shut_down();
        assert!(sessions.iter().all(|session| ordered(session) == Poll::Ready(CloseReason::Shutdown)));
        drop(sessions);
        assert!(registry.is_empty());
    }
    /// Counts how often it is woken.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_session_is_woken_at_its_deadline_and_not_at_one_that_was_moved() {
        let registry = Registry::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let session = registry.enter(start + second);
        let bell = Arc::new(Bell::default());
        let rings_at = |at: Duration| {
            assert!(session.poll_ordered(&mut Context::from_waker(&Arc::clone(&bell).into())).is_pending());
            registry.wake_due(start + at);
            bell.0.swap(0, Ordering::Relaxed)
        };
        assert_eq!((rings_at(second / 2), rings_at(second)), (0, 1));
        session.wake_at(session.micros(start + second * 4));
        assert_eq!((rings_at(second * 2), rings_at(second * 4)), (0, 1));
        session.wake_at(session.micros(start + second * 3));
        assert_eq!(rings_at(second * 3), 1, "a deadline can come nearer");
    }
}
