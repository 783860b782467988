//! The accept loop: it never ends before the agent does.
//!
//! What the kernel may answer is one of three things: a connection, an error of one connection (it is counted and the
//! next one is tried), or a shortage. In a shortage the loop makes room by ending the session that has been idle for
//! longest, and tries again a little later, as nothing announces that there is room.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::kernel::ebpf::Origins;
use crate::kernel::origin::{self, Peer};
use crate::process::counters::TALLY;
use crate::process::shutdown::{Deadline, Stop, Stopped};
use crate::session::deadline::Timer;
use crate::session::limits::Limits;
use crate::session::open_sessions::{self, OpenSessions};
use crate::session::record::Moment;
use crate::session::rejections::Rejections;
use crate::session::{self, Engine, Guard};
use spip_record::Limit;

/// Connections taken in one go before sessions get their turn.
const BATCH: usize = 64;

/// As many connections at once mean load. Then the next batch is left to gather for a moment: more of its sessions
/// have all their bytes when they are accepted, and cost neither a wait nor a wake-up.
const BUSY_BATCH: usize = 4;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Pause of the loop in a shortage before it tries again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// Time within which a processor is done with a packet that it was given.
const LAST_PACKET: Duration = Duration::from_millis(10);

/// State that the accept loops of all workers share.
pub struct Intake {
    /// Settings of sessions admitted from now on.
    engine: watch::Sender<Arc<Engine>>,
    /// The open sessions of each worker.
    pub sessions_by_worker: Vec<OpenSessions>,
    /// Limits of admission.
    pub limits: Limits,
    /// Refused connections.
    pub rejections: Rejections,
    /// Accepts that failed because of the connection itself.
    accept_errors: AtomicU64,
    /// Accepts that failed because something had run out.
    shortages: AtomicU64,
    /// Handle that starts the shutdown.
    stop: Stop,
}

/// Accepts that failed, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Because of the connection itself.
    pub errors: u64,
    /// Because something had run out.
    pub shortages: u64,
}

impl Intake {
    /// For so many workers.
    #[must_use]
    pub fn new(engine: Engine, limits: Limits, workers: usize) -> Self {
        Self {
            sessions_by_worker: OpenSessions::for_workers(workers),
            limits,
            rejections: engine.rejections.clone(),
            engine: watch::Sender::new(Arc::new(engine)),
            accept_errors: AtomicU64::new(0),
            shortages: AtomicU64::new(0),
            stop: Stop::default(),
        }
    }

    /// Returns the settings of sessions admitted now.
    #[must_use]
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.borrow())
    }

    /// Has sessions that are admitted from now on share `engine`; the others keep what they have.
    pub fn change(&self, engine: Engine) {
        self.engine.send_replace(Arc::new(engine));
    }

    /// Starts the shutdown and returns its deadline. Later calls return the same deadline.
    pub fn stop(&self) -> Deadline {
        let drain = self.engine.borrow().timeouts.drain;
        self.stop.ask(drain)
    }

    /// Returns a handle that waits for the shutdown.
    #[must_use]
    pub fn stopped(&self) -> Stopped {
        self.stop.stopped()
    }

    /// Accepts that failed.
    pub fn faults(&self) -> Faults {
        Faults { errors: self.accept_errors.load(Ordering::Relaxed), shortages: self.shortages.load(Ordering::Relaxed) }
    }
}

/// Accepts from `listener` until the agent stops. Then it has the kernel complete no further handshake, and takes all that
/// were completed, as records: what is in the queue when the socket is closed is lost. Nothing of that with `leaves_queue`:
/// the socket and its queue outlive this agent, and the next one serves better who comes now.
///
/// # Errors
/// The listener itself is broken, which no later attempt can fix.
pub async fn run(listener: OwnedFd, intake: &Arc<Intake>, open: &OpenSessions, leaves_queue: bool) -> io::Result<()> {
    // SAFETY: an owned descriptor stays open and the same until the AsyncFd, which keeps it, is dropped.
    let listener = unsafe { AsyncFd::register(listener) }?;
    let mut engine = Current::new(intake);
    let mut stopped = intake.stopped();
    let deadline = loop {
        tokio::select! {
            biased;
            deadline = stopped.asked() => break deadline,
            ready = listener.readable() => {
                let mut ready = ready?;
                let batch = accept_batch(listener.get_ref(), intake, engine.now(), open)?;
                match batch.then {
                    Then::Wait => {
                        ready.clear_ready();
                        if batch.accepted >= BUSY_BATCH {
                            tokio::time::sleep(BUSY_PAUSE).await;
                        }
                    }
                    Then::GoOn => tokio::task::yield_now().await,
                    Then::Pause => tokio::time::sleep(SHORTAGE_PAUSE).await,
                }
            }
        }
    };
    if leaves_queue {
        return Ok(());
    }
    // Where the kernel goes on completing handshakes, a flood may fill the queue for ever.
    let is_closed = engine.now().origins.as_ref().is_some_and(Origins::close_listeners);
    let owed = if is_closed { usize::MAX } else { waiting(listener.get_ref()) };
    let batch = || accept_batch(listener.get_ref(), intake, engine.now(), open);
    take_owed(owed, deadline.sessions(), batch).await
}

/// Takes the connections that were complete before the stop, `owed` of them or all, batch by batch: they are owed a record
/// as well. A flood behind them is not waited for, as it may never leave the queue empty, and nothing goes on beyond
/// `until`.
async fn take_owed(mut owed: usize, until: Instant, mut batch: impl FnMut() -> io::Result<Batch>) -> io::Result<()> {
    let mut was_empty = false;
    while Instant::now() < until {
        let batch = batch()?;
        owed = owed.saturating_sub(batch.accepted);
        let is_empty = batch.then == Then::Wait;
        match batch.then {
            Then::Wait if was_empty => break,
            // Another processor may be completing the last handshake that it was given.
            Then::Wait => tokio::time::sleep(LAST_PACKET).await,
            Then::GoOn if owed == 0 => break,
            Then::GoOn => tokio::task::yield_now().await,
            Then::Pause => tokio::time::sleep(SHORTAGE_PAUSE).await,
        }
        was_empty = is_empty;
    }
    Ok(())
}

/// The engine as one worker knows it: whether there is a new one costs a look at one number.
struct Current {
    receiver: watch::Receiver<Arc<Engine>>,
    engine: Arc<Engine>,
}

impl Current {
    fn new(intake: &Intake) -> Self {
        let receiver = intake.engine.subscribe();
        Self { engine: intake.engine(), receiver }
    }

    fn now(&mut self) -> &Arc<Engine> {
        if self.receiver.has_changed().unwrap_or(false) {
            self.engine = Arc::clone(&self.receiver.borrow_and_update());
        }
        &self.engine
    }
}

/// Result of accepting in one go.
#[derive(Debug, PartialEq, Eq)]
struct Batch {
    /// Connections that were taken.
    accepted: usize,
    then: Then,
}

/// Next action after a batch.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// Nothing waits any more.
    Wait,
    /// More may wait.
    GoOn,
    /// Something has run out, or is wrong for longer than one connection: the next attempt would fail like the last.
    Pause,
}

fn accept_batch(
    listener: &OwnedFd,
    intake: &Arc<Intake>,
    engine: &Arc<Engine>,
    open: &OpenSessions,
) -> io::Result<Batch> {
    let admit = |(socket, peer)| admit(socket, peer, intake, engine, open);
    take_batch(intake, || accept(listener).map(admit), || waiting(listener))
}

/// Has `take` take connections until nothing waits, a batch is full, or it cannot go on.
fn take_batch(
    intake: &Intake,
    mut take: impl FnMut() -> Result<(), Errno>,
    waiting: impl Fn() -> usize,
) -> io::Result<Batch> {
    let mut accepted = 0;
    for _ in 0..BATCH {
        match take() {
            Ok(()) => accepted += 1,
            Err(Errno::EAGAIN) => return Ok(Batch { accepted, then: Then::Wait }),
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                intake.shortages.fetch_add(1, Ordering::Relaxed);
                open_sessions::make_room(&intake.sessions_by_worker, waiting().clamp(1, BATCH), Limit::Descriptors);
                return Ok(Batch { accepted, then: Then::Pause });
            }
            Err(error @ (Errno::EBADF | Errno::EFAULT | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP)) => {
                return Err(error.into());
            }
            // ECONNABORTED, EPERM by a firewall, and errors of the network that accept(2) passes on.
            Err(_) => {
                intake.accept_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    // Some errors take no connection off the queue, so that it is never empty.
    Ok(Batch { accepted, then: if accepted > 0 { Then::GoOn } else { Then::Pause } })
}

/// Connections that wait to be accepted, as far as the kernel says.
fn waiting(listener: &OwnedFd) -> usize {
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    let (descriptor, info_pointer) = (listener.as_raw_fd(), (&raw mut info).cast());
    // SAFETY: the structure is writable for the length that is given with it.
    let told =
        unsafe { libc::getsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_INFO, info_pointer, &raw mut length) };
    // Of a listening socket the kernel tells its queue in this place (Linux net/ipv4/tcp.c, tcp_get_info).
    if told == 0 { info.tcpi_unacked as usize } else { 0 }
}

fn admit(socket: OwnedFd, peer: Peer, intake: &Intake, engine: &Arc<Engine>, open: &OpenSessions) {
    let accepted = Moment::now();
    let make_room = |places, limit| open_sessions::make_room(&intake.sessions_by_worker, places, limit) >= places;
    let ip = peer.address.ip();
    let permit = if engine.network.believes(ip) {
        intake.limits.admit_balancer(ip, accepted.steady, make_room)
    } else {
        intake.limits.admit(ip, accepted.steady, make_room)
    };
    let permit = match permit {
        Ok(permit) => permit,
        Err(limit) => {
            let origin = || origin::find(&socket, peer, engine.origins.as_ref()).origin;
            let port = || origin::destination_port(&socket, peer.address, engine.origins.as_ref());
            intake.rejections.note(peer.address, limit, accepted, origin, port);
            TALLY.rejected(limit);
            if let Some(origins) = &engine.origins {
                origin::forget(&socket, origins);
            }
            return;
        }
    };
    let mut guard = Guard::new(engine, &socket, peer, accepted, permit);
    // No client's bytes may cost the worker. The guard that is left behind leaves its record.
    let served =
        panic::catch_unwind(AssertUnwindSafe(|| guard.serve_now(&socket).map(|reason| guard.try_finish(reason))));
    match served {
        Ok(None) => {
            let timer = Timer::new(open, guard.source(), &engine.timeouts, accepted.steady);
            tokio::spawn(session::run(Box::new(guard), socket, timer));
        }
        Ok(Some(Err(unwritten))) => {
            tokio::spawn(Box::new(guard).finish_later(unwritten));
        }
        Ok(Some(Ok(()))) | Err(_) => {}
    }
}

/// accept4(2), straight: the socket stays outside the reactor until it is known to need it. The client is asked for
/// afterwards: [`origin::peer`] says why.
fn accept(listener: &OwnedFd) -> Result<(OwnedFd, Peer), Errno> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (descriptor, none) = (listener.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: no address is asked for.
    let accepted = unsafe { libc::accept4(descriptor, none, std::ptr::null_mut(), flags) };
    let accepted = Errno::result(accepted)?;
    // SAFETY: accept4 returned this descriptor just now; no other code knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(accepted) };
    // The listener is bound to an Internet address, so every client has one, and nearly always the kernel tells it.
    let peer = origin::peer(&socket).ok_or(Errno::ECONNABORTED)?;
    Ok((socket, peer))
}

/// Ends the largest holders of memory whenever it is scarce, for as long as it is polled.
pub async fn keep_memory(intake: &Intake) {
    let budget = intake.engine().memory.clone();
    loop {
        budget.scarce().await;
        let wanted = budget.wanted();
        if wanted > 0 && open_sessions::end_largest(&intake.sessions_by_worker, wanted) == 0 {
            // Those that were told before have not left yet, or none can be told: every look costs one at all
            // sessions.
            tokio::time::sleep(open_sessions::TICK).await;
        }
    }
}

/// Writes the records of refused connections once an interval, until the agent stops; the last ones are left to the
/// caller.
pub async fn report_rejections(intake: &Intake, mut stopped: Stopped) {
    loop {
        let interval = intake.limits.config().rejected_interval;
        if tokio::time::timeout(interval, stopped.asked()).await.is_ok() {
            return;
        }
        record_rejections(intake, &stopped).await;
    }
}

/// Writes the records of the connections that were refused since the last time; those that the log does not take in
/// time when the agent stops are counted there.
pub async fn record_rejections(intake: &Intake, stopped: &Stopped) {
    let engine = intake.engine();
    let mut line = Vec::new();
    for session in intake.rejections.drain() {
        line.clear();
        let _ = engine.sensor.write(&session, usize::MAX, &mut line);
        engine.log.record_until(&line, stopped.clone().past(Deadline::summaries)).await;
    }
}

#[cfg(test)]
mod tests;
