//! One connection from accept to record, top to bottom.
//!
//! A [`Guard`] is made at accept and consumed by the one record. Dropped unconsumed, because its task panicked or was
//! cancelled, it still writes one, with the reason `aborted`. Nothing is ever sent to the client before its bytes are
//! safe in the session, and nothing that is recorded depends on it.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::budget::Budget;
use crate::capture;
use crate::config::Timeouts;
use crate::deadline::{Step, Watch};
use crate::ebpf::Origins;
use crate::limits::Permit;
use crate::origin;
use crate::payload::Payload;
use crate::record::{CloseReason, Moment, Sensor, Session, flat};
use crate::registry::Registered;
use crate::writer::Log;

/// A line buffer that grew beyond this for one large payload is not kept.
const LINE_KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What all sessions share.
pub struct Engine {
    /// Names the sensor in its records.
    pub sensor: Sensor,
    /// Where records go.
    pub log: Log,
    /// What the kernel side saw, where it is attached.
    pub origins: Option<Origins>,
    /// Bounds in time.
    pub timeouts: Timeouts,
    /// Bytes kept of one connection.
    pub payload_limit: usize,
    /// Bytes kept of all connections.
    pub payload_budget: Budget,
}

/// A connection that was accepted and admitted: it owes a record.
pub struct Guard {
    engine: Arc<Engine>,
    session: Session,
    cookie: Option<u64>,
    recorded: bool,
    /// Held until the record is written: sessions that wait for the log count as open.
    _permit: Permit,
}

impl Guard {
    /// Takes responsibility for the connection on `socket` from `peer`.
    #[must_use]
    pub fn new(engine: &Arc<Engine>, socket: &OwnedFd, peer: SocketAddr, accepted: Moment, permit: Permit) -> Self {
        let found = origin::find(socket, peer, engine.origins.as_ref());
        Self {
            session: Session {
                id: Uuid::new_v4(),
                accepted,
                duration: Duration::ZERO,
                origin: found.origin,
                payload: Payload::new(engine.payload_limit, engine.payload_budget.clone()),
                bytes_out: 0,
                close_reason: CloseReason::Aborted,
                repeated: None,
            },
            engine: Arc::clone(engine),
            cookie: found.cookie,
            recorded: false,
            _permit: permit,
        }
    }

    /// Reads what is there already, without waiting; the reason when the connection has ended.
    ///
    /// Most short sessions are complete when they are accepted: they never meet the reactor.
    #[must_use]
    pub fn read_now(&mut self, socket: &OwnedFd) -> Option<CloseReason> {
        while !self.session.payload.is_full() {
            match receive(socket, &mut self.session.payload) {
                Ok(0) => return Some(CloseReason::ClientClosed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(capture::reason_of(&error)),
            }
        }
        None
    }

    /// Writes the record when the log has room for it; otherwise gives the guard back.
    ///
    /// # Errors
    /// The guard, when the log is full.
    pub fn try_finish(mut self, reason: CloseReason) -> Result<(), Self> {
        self.end(reason);
        self.recorded = self.with_line(|log, line| log.try_record(line));
        if self.recorded { Ok(()) } else { Err(self) }
    }

    /// Writes the record, waiting for the log where it is full.
    pub async fn finish(self, reason: CloseReason) {
        if let Err(mut guard) = self.try_finish(reason) {
            let line = guard.with_line(|_, line| line.to_vec());
            guard.engine.log.record(&line).await;
            guard.recorded = true;
        }
    }

    /// What only the end of the session can tell.
    fn end(&mut self, reason: CloseReason) {
        let session = &mut self.session;
        session.close_reason = reason;
        session.duration = session.accepted.steady.elapsed();
        if let (Some(origins), Some(cookie)) = (&self.engine.origins, self.cookie) {
            origin::retry(&mut session.origin, cookie, origins);
            // The kernel side drops the entry of a socket that is closed in order; of others only we know the end.
            if reason != CloseReason::ClientClosed {
                origins.forget(cookie);
            }
            self.cookie = None;
        }
    }

    fn with_line<T>(&self, write: impl FnOnce(&Log, &[u8]) -> T) -> T {
        LINE.with_borrow_mut(|line| {
            line.clear();
            flat::encode(&self.session, &self.engine.sensor, line);
            let written = write(&self.engine.log, line);
            line.shrink_to(LINE_KEPT_BYTES);
            written
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.recorded {
            let reason = self.session.close_reason;
            self.end(reason);
            self.with_line(|log, line| log.record_now(line));
        }
    }
}

/// Conducts the connection on `stream` to its end.
pub async fn run(mut guard: Guard, stream: OwnedFd, registered: Registered) {
    let mut watch = Watch::new(registered, guard.engine.timeouts, guard.session.accepted.steady);
    let reason = match TcpStream::from_std(stream.into()) {
        Ok(mut stream) => {
            let reason = conduct(&mut guard, &mut stream, &mut watch).await;
            // Record first: the client learns of the end only when its bytes are safe.
            guard.finish(reason).await;
            return;
        }
        // The reactor takes no more descriptors.
        Err(_) => CloseReason::Aborted,
    };
    guard.finish(reason).await;
}

async fn conduct(guard: &mut Guard, stream: &mut TcpStream, watch: &mut Watch) -> CloseReason {
    let payload = &mut guard.session.payload;
    if payload.kept().is_empty()
        && let Err(reason) = capture::more(stream, payload, watch, Step::Opening).await
    {
        return reason;
    }
    capture::to_end(stream, payload, watch).await
}

/// Receives from a socket that is not with the reactor yet.
fn receive(socket: &OwnedFd, payload: &mut Payload) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    capture::with_scratch(|scratch| {
        let length = recv(socket.as_raw_fd(), scratch, MsgFlags::MSG_DONTWAIT)?;
        payload.push(&scratch[..length]);
        Ok(length)
    })
}
