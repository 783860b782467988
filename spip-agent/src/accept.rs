//! The accept loop: it never ends before the agent does.
//!
//! What the kernel may answer is one of three things: a connection, an error of one connection (it is counted and the
//! next one is tried), or a shortage. In a shortage the loop makes room by ending the session that has been idle for
//! longest, and tries again a little later, as nothing announces that there is room.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{SockAddr, SockAddrStorage};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::deadline::Watch;
use crate::limits::Limits;
use crate::metrics::TALLY;
use crate::origin;
use crate::record::Moment;
use crate::registry::{self, Registry};
use crate::rejections::Rejections;
use crate::session::{self, Engine, Guard};

/// Connections taken in one go before sessions get their turn.
const BATCH: usize = 64;

/// As many connections at once mean load. Then the next batch is left to gather for a moment: more of its sessions
/// have all their bytes when they are accepted, and cost neither a wait nor a wake-up.
const BUSY_BATCH: usize = 4;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// How long the loop waits in a shortage before it tries again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// What the accept loops of all workers share.
pub struct Door {
    /// What sessions that are admitted now share.
    engine: watch::Sender<Arc<Engine>>,
    /// The open sessions of each worker.
    pub registries: Vec<Registry>,
    /// Who is admitted.
    pub limits: Limits,
    /// Who was not.
    pub rejections: Rejections,
    /// Accepts that failed because of the connection itself.
    accept_errors: AtomicU64,
    /// Accepts that failed because something had run out.
    shortages: AtomicU64,
}

/// Accepts that failed, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Because of the connection itself.
    pub errors: u64,
    /// Because something had run out.
    pub shortages: u64,
}

impl Door {
    /// For so many workers.
    #[must_use]
    pub fn new(engine: Engine, limits: Limits, workers: usize) -> Self {
        Self {
            engine: watch::Sender::new(Arc::new(engine)),
            registries: (0..workers).map(|_| Registry::default()).collect(),
            limits,
            rejections: Rejections::default(),
            accept_errors: AtomicU64::new(0),
            shortages: AtomicU64::new(0),
        }
    }

    /// What sessions that are admitted now share.
    #[must_use]
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.borrow())
    }

    /// Has sessions that are admitted from now on share `engine`; the others keep what they have.
    pub fn change(&self, engine: Engine) {
        self.engine.send_replace(Arc::new(engine));
    }

    /// Accepts that failed.
    pub fn faults(&self) -> Faults {
        Faults { errors: self.accept_errors.load(Ordering::Relaxed), shortages: self.shortages.load(Ordering::Relaxed) }
    }
}

/// Accepts from `listener` until `stop` says so; then takes what the kernel had already completed, as records.
///
/// # Errors
/// The listener itself is broken, which no later attempt can mend.
pub async fn run(
    listener: OwnedFd,
    door: &Arc<Door>,
    registry: &Registry,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    // SAFETY: an owned descriptor stays open and the same until the AsyncFd, which nobody takes it from, is dropped.
    let listener = unsafe { AsyncFd::register(listener) }?;
    let mut engine = Current::new(door);
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            ready = listener.readable() => {
                let mut ready = ready?;
                match accept_batch(listener.get_ref(), door, engine.now(), registry)? {
                    Batch::Empty { accepted } => {
                        ready.clear_ready();
                        if accepted >= BUSY_BATCH {
                            tokio::time::sleep(BUSY_PAUSE).await;
                        }
                        continue;
                    }
                    Batch::More => drop(ready),
                    Batch::Shortage => {
                        drop(ready);
                        tokio::time::sleep(SHORTAGE_PAUSE).await;
                        continue;
                    }
                }
            }
        }
        tokio::task::yield_now().await;
    }
    // Connections that were complete before the stop are owed a record as well.
    while let Batch::More = accept_batch(listener.get_ref(), door, engine.now(), registry)? {}
    Ok(())
}

/// The engine as one worker knows it: whether there is a new one costs a look at one number.
struct Current {
    receiver: watch::Receiver<Arc<Engine>>,
    engine: Arc<Engine>,
}

impl Current {
    fn new(door: &Door) -> Self {
        let receiver = door.engine.subscribe();
        Self { engine: door.engine(), receiver }
    }

    fn now(&mut self) -> &Arc<Engine> {
        if self.receiver.has_changed().unwrap_or(false) {
            self.engine = Arc::clone(&self.receiver.borrow_and_update());
        }
        &self.engine
    }
}

enum Batch {
    /// Nothing waits any more, after so many connections.
    Empty { accepted: usize },
    /// More may wait.
    More,
    /// Something has run out.
    Shortage,
}

fn accept_batch(listener: &OwnedFd, door: &Arc<Door>, engine: &Arc<Engine>, registry: &Registry) -> io::Result<Batch> {
    for accepted in 0..BATCH {
        match accept(listener) {
            Ok((socket, peer)) => admit(socket, peer, door, engine, registry),
            Err(Errno::EAGAIN) => return Ok(Batch::Empty { accepted }),
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                door.shortages.fetch_add(1, Ordering::Relaxed);
                let _ = registry::make_room(&door.registries);
                return Ok(Batch::Shortage);
            }
            Err(error @ (Errno::EBADF | Errno::EFAULT | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP)) => {
                return Err(error.into());
            }
            // ECONNABORTED, EPERM by a firewall, and errors of the network that accept(2) passes on.
            Err(_) => {
                door.accept_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(Batch::More)
}

fn admit(socket: OwnedFd, peer: SocketAddr, door: &Door, engine: &Arc<Engine>, registry: &Registry) {
    let accepted = Moment::now();
    let make_room = || registry::make_room(&door.registries);
    let permit = match door.limits.admit(peer.ip(), accepted.steady, make_room) {
        Ok(permit) => permit,
        Err(limit) => {
            let origin = || origin::find(&socket, peer, engine.origins.as_ref()).origin;
            door.rejections.note(peer, limit, accepted, origin);
            TALLY.rejected(limit);
            return;
        }
    };
    let mut guard = Guard::new(engine, &socket, peer, accepted, permit);
    match guard.serve_now(&socket) {
        Some(reason) => {
            if !guard.try_finish(reason) {
                tokio::spawn(Box::new(guard).finish(reason));
            }
        }
        None => {
            let watch = Watch::new(registry, &engine.timeouts, accepted.steady);
            tokio::spawn(session::run(Box::new(guard), socket, watch));
        }
    }
}

/// accept4(2), straight: the socket stays outside the reactor until it is known to need it.
fn accept(listener: &OwnedFd) -> Result<(OwnedFd, SocketAddr), Errno> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let mut address = SockAddrStorage::zeroed();
    let mut length = address.size_of();
    let (descriptor, address_pointer) = (listener.as_raw_fd(), (&raw mut address).cast());
    // SAFETY: the address is writable for the length that is given with it, and large enough for every family.
    let accepted = unsafe { libc::accept4(descriptor, address_pointer, &raw mut length, flags) };
    let accepted = Errno::result(accepted)?;
    // SAFETY: accept4 returned this descriptor just now; nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(accepted) };
    // SAFETY: the kernel filled the address and said how long it is.
    let peer = unsafe { SockAddr::new(address, length) };
    // The listener is bound to an Internet address, so every peer has one.
    let peer = peer.as_socket().ok_or(Errno::EAFNOSUPPORT)?;
    Ok((socket, peer))
}

/// Writes the records of refused connections once an interval, until `stop`; the last ones are left to the caller.
pub async fn report_rejections(door: &Door, mut stop: watch::Receiver<bool>) {
    loop {
        let interval = door.limits.config().rejected_interval;
        let stopped = tokio::time::timeout(interval, stop.wait_for(|stop| *stop)).await.is_ok();
        record_rejections(door).await;
        if stopped {
            return;
        }
    }
}

/// Writes the records of the connections that were refused since the last time.
pub async fn record_rejections(door: &Door) {
    let engine = door.engine();
    let mut line = Vec::new();
    for session in door.rejections.drain() {
        line.clear();
        let _ = engine.sensor.write(&session, &mut line);
        engine.log.record(&line).await;
    }
}
