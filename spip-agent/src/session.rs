//! One connection from accept to record, top to bottom.
//!
//! A [`Guard`] is made at accept and consumed by the one record. Dropped unconsumed, because its task panicked or was
//! cancelled, it still writes one, with the reason `aborted`. Nothing is ever sent to the client before its bytes are
//! safe in the session, and nothing that is recorded depends on it.

pub mod accept;
pub mod budget;
pub mod capture;
pub mod deadline;
mod exchange;
mod finish;
pub mod first_sources;
mod handshake;
pub mod ledger;
pub mod limits;
pub mod open_sessions;
pub mod payload;
mod proxied;
pub mod record;
pub mod rejections;

use std::future::poll_fn;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::config::{Network, Timeouts};
use crate::kernel::ebpf::Origins;
use crate::kernel::origin::{self, Peer};
use crate::log::payload_files::PayloadStore;
use crate::log::sensor::Sensor;
use crate::log::writer::Log;
use crate::respond::{Conversation, Responder};
use crate::session::budget::Budget;
use crate::session::deadline::Timer;
use crate::session::first_sources::FirstSources;
use crate::session::ledger::Ledger;
use crate::session::limits::{Permit, Source};
use crate::session::payload::Payload;
use crate::session::record::{Moment, Session};
use crate::session::rejections::Rejections;
use crate::tls::{Facts, Failure, Handshake, Meter, Tls, TlsServer};
use capture::End;
pub use finish::Unwritten;
use handshake::{Hello, decrypt};
use spip_protocol::client_hello::{Detection, Detector, MAX_RAW_BYTES};
use spip_record::{CloseReason, Limit};

/// State that all sessions share.
pub struct Engine {
    /// Names the sensor in its records.
    pub sensor: Sensor,
    /// Log of the records.
    pub log: Log,
    /// Answers TLS, unless it is turned off.
    pub tls: Option<Arc<TlsServer>>,
    /// Observations of the kernel side, where it is attached.
    pub origins: Option<Origins>,
    /// Replies to clients, unless they are turned off.
    pub responder: Option<Arc<Responder>>,
    /// Store of payloads in files of their own, if configured.
    pub payloads: Option<PayloadStore>,
    /// Accounts of the log that each source may take.
    pub ledger: Ledger,
    /// Connections that summaries stand for.
    pub rejections: Rejections,
    /// Verdict whether a gateway hides the clients.
    pub first_sources: FirstSources,
    /// Bounds in time.
    pub timeouts: Timeouts,
    /// Load balancers and address translation in front of the machine.
    pub network: Arc<Network>,
    /// Bytes kept of one connection.
    pub payload_limit: usize,
    /// Memory that all sessions may hold beyond what each is guaranteed.
    pub memory: Budget,
}

/// A connection that was accepted and admitted: it owes a record.
pub struct Guard {
    engine: Arc<Engine>,
    session: Session,
    detector: Detector,
    /// Looks at what follows an agreement on TLS.
    later: Option<Box<handshake::Later>>,
    /// State of the PROXY header that may precede everything else.
    proxy: proxied::State,
    /// Limit that the client named by a load balancer exceeds.
    refused: Option<Limit>,
    cookie: Option<NonZeroU64>,
    /// Held until the record is written: sessions that wait for the log count as open.
    permit: Permit,
    /// Counts what the library for TLS was fed, where there is TLS.
    meter: Option<Meter>,
    /// [`Guard::end`] has come to its end: what it told holds, however long the record waits.
    ended: bool,
    recorded: bool,
    counted: bool,
}

impl Guard {
    /// Creates the guard of the accepted connection on `socket` from `peer`.
    #[must_use]
    pub fn new(engine: &Arc<Engine>, socket: &OwnedFd, peer: Peer, accepted: Moment, permit: Permit) -> Self {
        let found = origin::find(socket, peer, engine.origins.as_ref());
        Self {
            session: Session {
                id: Uuid::new_v4(),
                accepted,
                duration: Duration::ZERO,
                origin: found.origin,
                payload: Payload::new(engine.payload_limit, engine.memory.clone()),
                tls: Tls::NotTls,
                bytes_out: 0,
                stored: None,
                talk: None,
                close_reason: CloseReason::Aborted,
                repeated: None,
                proxy: None,
            },
            engine: Arc::clone(engine),
            detector: Detector::default(),
            later: None,
            proxy: proxied::State::default(),
            refused: None,
            cookie: found.cookie.and_then(NonZeroU64::new),
            permit,
            meter: None,
            ended: false,
            recorded: false,
            counted: false,
        }
    }

    /// Returns the source of the connection.
    #[must_use]
    pub fn source(&self) -> Source {
        self.permit.source()
    }

    /// Charges for all that the session holds now.
    ///
    /// # Errors
    /// There is no memory left for it, and the session has to end.
    fn account(&mut self, timer: &Timer) -> Result<(), CloseReason> {
        let tls = self.meter.as_ref().map_or(0, Meter::held);
        let replies = self.session.talk.as_ref().map_or(0, |talk| talk.held());
        let later = self.later.as_ref().map_or(0, |later| later.held());
        let charged = self.session.payload.charge_others(tls + replies + later);
        timer.hold(self.session.payload.held());
        if charged { Ok(()) } else { Err(CloseReason::Rejected(Limit::Memory)) }
    }

    /// Reads and answers what is there already, without waiting; the reason when the connection has ended.
    ///
    /// Most short sessions are complete when they are accepted: they never meet the reactor.
    #[must_use]
    pub fn serve_now(&mut self, socket: &OwnedFd) -> Option<CloseReason> {
        let reason = self.read_now(socket)?;
        if self.session.payload.is_opening() {
            // A header in front may name a client that a limit refuses.
            let _verdict = self.detect();
        }
        if let Some(limit) = self.refused {
            return Some(CloseReason::Rejected(limit));
        }
        if reason == CloseReason::ClientClosed {
            self.answer_now(socket);
        }
        Some(reason)
    }

    /// Reads what is there already, without waiting; the reason when the connection has ended.
    fn read_now(&mut self, socket: &impl AsRawFd) -> Option<CloseReason> {
        while !self.session.payload.is_full() && !self.has_hello() {
            match receive(socket, &mut self.session.payload) {
                // A hello is answered, or refused, in one place only: the end of the stream can be read again there.
                Ok(0) if self.engine.tls.is_some() && self.detect().is_tls() => return None,
                Ok(0) => return Some(CloseReason::ClientClosed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(capture::reason_of(&error)),
            }
        }
        None
    }

    /// Reports whether a ClientHello can be answered: its sender waits, and more bytes seldom come before.
    fn has_hello(&mut self) -> bool {
        self.engine.tls.is_some()
            && self.session.payload.is_opening()
            && matches!(self.detect(), Detection::ClientHello { .. })
    }

    /// Classifies the first bytes received so far.
    fn detect(&mut self) -> Detection {
        if self.awaits_proxy() {
            return Detection::Undecided;
        }
        self.detector.advance(self.session.payload.kept())
    }

    /// Looks at what the client speaks, as far as it came; something only where that is a ClientHello.
    fn open(&mut self) -> Option<Raw> {
        let verdict = self.detect();
        let payload = &mut self.session.payload;
        if verdict.needs_more() && !payload.is_full() {
            return None;
        }
        if let (Detection::ClientHello { length }, true) = (verdict, self.engine.tls.is_some()) {
            return Some(Raw::Hello(Hello { raw: payload.take_envelope(), length, packets: None }));
        }
        self.settle(verdict);
        if verdict.is_tls() {
            // A client that wants TLS and gets none gets no reply in clear.
            self.talk().mute();
        }
        // A hello that cannot be answered. Where none is answered, the client says when it has waited long enough.
        if self.engine.tls.is_some() && matches!(verdict, Detection::Sslv2 { .. } | Detection::Oversized { .. }) {
            self.talk().give_up();
        }
        None
    }

    /// Looks for the ClientHello of a client that agreed with the sensor on TLS; something only where it is whole.
    fn upgrade(&mut self) -> Option<Raw> {
        let (from, framing) = self.session.talk.as_ref()?.awaits_hello()?;
        let payload = &mut self.session.payload;
        let bytes = payload.kept().get(from..).filter(|bytes| !bytes.is_empty())?;
        match self.later.get_or_insert_with(|| Box::new(handshake::Later::new(framing))).advance(bytes) {
            Detection::ClientHello { length } => {
                let envelope = payload.split_off(from);
                let later = self.later.take()?;
                return Some(Raw::Hello(later.into_hello(envelope, length)));
            }
            verdict if verdict.needs_more() && !payload.is_full() => return None,
            _ => {}
        }
        self.later = None;
        self.talk().go_on_in_clear();
        None
    }

    /// The talk with the client, begun where there was none.
    fn talk(&mut self) -> &mut Conversation {
        let session = &mut self.session;
        let port = session.origin.destination.port();
        session.talk.get_or_insert_with(|| Box::new(Conversation::new(port, *session.id.as_bytes())))
    }

    /// Ends the opening of a connection on which no handshake takes place: all of its bytes are payload, and what they
    /// hold of a ClientHello is kept beside them.
    fn settle(&mut self, verdict: Detection) {
        let payload = &mut self.session.payload;
        let handshake = match Failure::of_detection(verdict) {
            Some(failure) => Handshake::Failed(failure),
            None if self.engine.tls.is_none() => Handshake::Off,
            // A whole hello, and its sender left before it was answered.
            None => Handshake::Failed(Failure::Closed),
        };
        let hello = match verdict {
            Detection::Undecided | Detection::NotTls => None,
            Detection::ClientHello { length } | Detection::Sslv2 { length, .. } => payload.kept().get(..length),
            Detection::Partial | Detection::Oversized { .. } | Detection::Malformed(_) => {
                Some(&payload.kept()[..payload.kept().len().min(MAX_RAW_BYTES)])
            }
        };
        if let Some(hello) = hello {
            self.session.tls = Tls::Recognised(Box::new(Facts::new(hello, handshake)));
        }
        if matches!(verdict, Detection::ClientHello { .. }) && self.engine.tls.is_some() {
            // As after a handshake that failed: the hello is in its own place, and nothing was decrypted.
            drop(payload.take_envelope());
        } else {
            payload.settle();
        }
    }
}

/// Conducts the connection on `stream` to its end.
///
/// Its future is most of what a waiting session costs, so it holds little more than what it is given: the guard is
/// boxed, and so is everything that only some sessions need.
pub async fn run(mut guard: Box<Guard>, stream: OwnedFd, mut timer: Timer) {
    // Under load the client's bytes come while others are accepted; then the reactor is not needed.
    tokio::task::yield_now().await;
    if let Some(reason) = guard.serve_now(&stream) {
        return guard.finish(reason, timer).await;
    }
    // The reactor may take no more descriptors.
    let Ok(mut stream) = TcpStream::from_std(stream.into()) else {
        return guard.finish(CloseReason::Aborted, timer).await;
    };
    let mut rest = None;
    match poll_fn(|context| guard.poll_exchange(&mut stream, &mut timer, &mut rest, context)).await {
        // Record first: the client learns of the end, by the drop of the stream, when its bytes are safe.
        Raw::Ended(end) => {
            // The reactor may not have told us yet of what has arrived. Behind the end of the stream nothing can.
            if end.reason != CloseReason::ClientClosed {
                let _ = guard.read_now(&stream);
            }
            if matches!(end.reason, CloseReason::Rejected(_)) {
                // Its descriptor is needed, and the log may take long.
                drop(stream);
            }
            guard.finish(end.reason, timer).await;
        }
        Raw::Hello(hello) => Box::pin(decrypt(guard, hello, stream, timer)).await,
    }
}

/// Result of reading without TLS.
enum Raw {
    /// The end of the session.
    Ended(End),
    /// A whole ClientHello, and perhaps bytes behind it.
    Hello(Hello),
}

impl Raw {
    /// Chooses the close reason of a connection that went on in clear after its handshake failed with `failed`: a
    /// client that leaves then leaves because of the failure; any other end has its own reason.
    fn reason_after(&self, failed: CloseReason) -> CloseReason {
        match self {
            Self::Ended(End { reason: CloseReason::ClientClosed | CloseReason::ClientReset, .. }) | Self::Hello(_) => {
                failed
            }
            Self::Ended(end) => end.reason,
        }
    }
}

/// Receives from a socket that is not with the reactor yet.
fn receive(socket: &impl AsRawFd, payload: &mut Payload) -> io::Result<usize> {
    capture::with_scratch(|scratch| {
        let length = recv(socket.as_raw_fd(), scratch, MsgFlags::MSG_DONTWAIT)?;
        payload.push(&scratch[..length]);
        Ok(length)
    })
}

#[cfg(test)]
pub(crate) mod tests;
