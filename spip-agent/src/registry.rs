//! The open sessions of one worker, so that they can be told to end: all of them when the agent stops, the one that
//! has been idle for longest when descriptors run out.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use atomic_waker::AtomicWaker;
use slab::Slab;

use crate::limits::Limit;
use crate::record::CloseReason;

/// The open sessions; clones share them.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    started: Instant,
    sessions: Mutex<Slab<Arc<Handle>>>,
}

/// What a session and those who may end it share.
#[derive(Default)]
struct Handle {
    order: AtomicU8,
    /// Milliseconds from the registry's start to the session's last activity.
    active_ms: AtomicU64,
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
        Self(Arc::new(Shared { started: Instant::now(), sessions: Mutex::default() }))
    }
}

impl Registry {
    /// Enters a session that is active now.
    #[must_use]
    pub fn enter(&self) -> Registered {
        let handle = Arc::new(Handle::default());
        let key = self.sessions().insert(Arc::clone(&handle));
        let registered = Registered { registry: self.clone(), key, handle };
        registered.touch();
        registered
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
        for (_, handle) in self.sessions().iter() {
            handle.order(SHUT_DOWN);
        }
    }

    /// Tells the session that has been idle for longest to end; false when there is none.
    ///
    /// It looks at every session, which is right for something that happens only when descriptors have run out.
    #[must_use]
    pub fn make_room(&self) -> bool {
        let sessions = self.sessions();
        let staying = sessions.iter().filter(|(_, handle)| handle.order.load(Ordering::Relaxed) == GO_ON);
        let oldest = staying.min_by_key(|(_, handle)| handle.active_ms.load(Ordering::Relaxed));
        oldest.map(|(_, handle)| handle.order(MAKE_ROOM)).is_some()
    }

    fn sessions(&self) -> MutexGuard<'_, Slab<Arc<Handle>>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// Notes that the client did something.
    pub fn touch(&self) {
        let active = self.registry.0.started.elapsed().as_millis();
        self.handle.active_ms.store(u64::try_from(active).unwrap_or(u64::MAX), Ordering::Relaxed);
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
    use std::task::Waker;
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    fn ordered(session: &Registered) -> Poll<CloseReason> {
        session.poll_ordered(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_session_that_was_idle_for_longest_makes_room() {
        let registry = Registry::default();
        let first = registry.enter();
        let second = registry.enter();
        sleep(Duration::from_millis(5));
        first.touch();
        assert!(registry.make_room());
        assert!(ordered(&first).is_pending());
        assert_eq!(ordered(&second), Poll::Ready(CloseReason::Rejected(Limit::Descriptors)));
        assert!(registry.make_room(), "the other one is next");
        assert!(!registry.make_room(), "nobody is asked twice");
    }

    #[test]
    fn a_stop_reaches_every_session() {
        let registry = Registry::default();
        let sessions: Vec<_> = (0..10).map(|_| registry.enter()).collect();
        registry.shut_down();
        assert!(sessions.iter().all(|session| ordered(session) == Poll::Ready(CloseReason::Shutdown)));
        drop(sessions);
        assert!(registry.is_empty());
    }
}
