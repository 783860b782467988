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
pub mod ledger;
pub mod limits;
pub mod open_sessions;
pub mod payload;
mod proxied;
pub mod record;
pub mod rejections;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::config::{Network, Timeouts};
use crate::kernel::ebpf::Origins;
use crate::kernel::origin;
use crate::log::payload_files::PayloadStore;
use crate::log::sensor::Sensor;
use crate::log::writer::Log;
use crate::process::clock;
use crate::process::counters::TALLY;
use crate::respond::{Conversation, Responder};
use crate::session::budget::Budget;
use crate::session::deadline::{Step, Timer};
use crate::session::ledger::{Ledger, SHORT_BYTES, Share};
use crate::session::limits::{Permit, Source};
use crate::session::payload::Payload;
use crate::session::record::{Moment, Session, Stored};
use crate::session::rejections::Rejections;
use crate::tls::{Facts, Failure, Handshake, Meter, Rejected, Replay, Tls, TlsServer};
use capture::End;
use spip_protocol::client_hello::{ClientHello, Detection, Detector, MAX_RAW_BYTES, handshake_message};
use spip_record::{CloseReason, Limit};

/// A line buffer that grew beyond this for one large payload is not kept.
const LINE_KEPT_BYTES: usize = 64 * 1024;

/// Size that a line may always have: the keys, and facts that repeat little.
const LINE_BYTES: usize = 2560;
/// The first bytes of a client may cost eight times as many in the log, which is what control characters take as text
/// and digits; later ones four times, which is printable text, its digits, and some facts.
const FIRST_BYTES: usize = 256;

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

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
    later: Option<Box<Detector>>,
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

/// A record that found no room in the log.
pub struct Unwritten {
    /// Length of its line in bytes.
    bytes: usize,
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
        let charged = self.session.payload.charge_others(tls + replies);
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
            return Some(Raw::Hello(Hello { raw: payload.take_envelope(), length }));
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
        let from = self.session.talk.as_ref()?.awaits_hello()?;
        let payload = &mut self.session.payload;
        let later = payload.kept().get(from..).filter(|later| !later.is_empty())?;
        match self.later.get_or_insert_default().advance(later) {
            Detection::ClientHello { length } => {
                self.later = None;
                return Some(Raw::Hello(Hello { raw: payload.split_off(from), length }));
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

    /// Writes the record when the log has room for it.
    ///
    /// # Errors
    /// It has none, and [`Guard::finish_later`] has to wait.
    pub fn try_finish(&mut self, reason: CloseReason) -> Result<(), Unwritten> {
        self.end(reason);
        if self.summarised() {
            return Ok(());
        }
        let (written, bytes) = self.with_line(|log, line| (log.try_record(line), line.len()));
        self.recorded = written;
        if written { Ok(()) } else { Err(Unwritten { bytes }) }
    }

    /// Writes the record, waiting for the log where it is full. What is left of the session by then is no candidate for
    /// making room: ending it would give nothing back.
    fn finish(mut self: Box<Self>, reason: CloseReason, timer: Timer) -> impl Future<Output = ()> + Send {
        drop(timer);
        async move {
            if let Err(unwritten) = self.try_finish(reason) {
                Box::pin(self.finish_later(unwritten)).await;
            }
        }
    }

    /// Writes the record once the log has room for it. The line is made again then: it is several times as long as the
    /// payload, which is all that a session that waits holds.
    pub async fn finish_later(mut self: Box<Self>, unwritten: Unwritten) {
        let log = self.engine.log.clone();
        if let Some(room) = log.room(unwritten.bytes).await {
            self.with_line(|_, line| room.record(line));
        }
        self.recorded = true;
    }

    /// Writes the record of a handshake that failed.
    fn fail(
        mut self: Box<Self>,
        failure: Failure,
        reason: CloseReason,
        timer: Timer,
    ) -> impl Future<Output = ()> + Send {
        if let Some(facts) = self.session.tls.facts_mut() {
            facts.handshake = Handshake::Failed(failure);
        }
        self.finish(reason, timer)
    }

    /// Completes the outcome with the facts known only at the end.
    fn end(&mut self, reason: CloseReason) {
        if self.session.payload.is_opening() {
            let verdict = self.detect();
            self.settle(verdict);
        }
        self.store_payload();
        let session = &mut self.session;
        session.bytes_out = session.talk.as_ref().map_or(0, |talk| talk.bytes_out());
        session.end(reason, Moment::now());
        if let (Some(origins), Some(cookie)) = (&self.engine.origins, self.cookie) {
            origin::retry(&mut session.origin, cookie.get(), origins);
            // The kernel side drops the entry of a socket that is closed in order; of others only we know the end.
            if reason != CloseReason::ClientClosed {
                origins.forget(cookie.get());
            }
            self.cookie = None;
        }
        self.ended = true;
    }

    /// Hands the payload over to the store, where there is one and the payload is long enough.
    fn store_payload(&mut self) {
        let kept = self.session.payload.kept();
        let Some(store) = self.engine.payloads.as_ref().filter(|store| store.keeps(kept.len())) else { return };
        let sha256 = Sha256::digest(kept).into();
        if store.store(sha256, kept) {
            self.session.stored = Some(Box::new(Stored { sha256, preview: store.preview(kept).len() }));
        }
    }

    /// Counts the session in a summary where its source has taken its part of the log; reports whether it did.
    fn summarised(&mut self) -> bool {
        let source = self.permit.source();
        if self.engine.ledger.share(source, clock::now()) != Share::Summary {
            return false;
        }
        let Session { origin, accepted, .. } = &self.session;
        let port = || origin.destination.port();
        self.engine.rejections.note(origin.client.socket(), Limit::LogBudget, *accepted, || origin.clone(), port);
        TALLY.rejected(Limit::LogBudget);
        self.recorded = true;
        true
    }

    fn with_line<T>(&mut self, write: impl FnOnce(&Log, &[u8]) -> T) -> T {
        LINE.with_borrow_mut(|line| {
            line.clear();
            let (source, now) = (self.permit.source(), clock::now());
            let due = line_bytes_due(&self.session);
            let most = if self.engine.ledger.share(source, now) == Share::Whole { due } else { due.min(SHORT_BYTES) };
            let sensor = &self.engine.sensor;
            let session = &mut self.session;
            let understood = panic::catch_unwind(AssertUnwindSafe(|| sensor.write(session, most, line)));
            let protocol = understood.unwrap_or_else(|_| {
                // The same bytes would do it again. They are recorded all the same, and not read.
                line.clear();
                session.close_reason = CloseReason::Aborted;
                sensor.write_unread(session, most, line);
                None
            });
            if !self.counted {
                TALLY.session(&self.session.counted(protocol));
                self.counted = true;
            }
            let written = write(&self.engine.log, line);
            self.engine.ledger.charge(source, line.len(), now);
            line.shrink_to(LINE_KEPT_BYTES);
            written
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.recorded {
            let reason = self.session.close_reason;
            // What made the session panic may do it again here.
            if !self.ended && panic::catch_unwind(AssertUnwindSafe(|| self.end(reason))).is_err() {
                self.session.end(CloseReason::Aborted, Moment::now());
            }
            if self.summarised() {
                return;
            }
            self.with_line(|log, line| log.record_now(line));
        }
    }
}

/// Returns how long a line may be for what its client sent: so that a byte on the wire costs a bounded number in the
/// log.
fn line_bytes_due(session: &Session) -> usize {
    let hello = session.tls.facts().map_or(0, |facts| facts.client_hello.len());
    let received = session.payload.kept().len() + hello;
    LINE_BYTES + 8 * received.min(FIRST_BYTES) + 4 * received.saturating_sub(FIRST_BYTES)
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
            // The reactor may not have told us yet of what has arrived.
            let _ = guard.read_now(&stream);
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

/// Raw bytes that begin with a ClientHello.
struct Hello {
    raw: Vec<u8>,
    length: usize,
}

/// Completes the handshake and captures what is inside.
async fn decrypt(mut guard: Box<Guard>, hello: Hello, stream: TcpStream, mut timer: Timer) {
    let engine = Arc::clone(&guard.engine);
    let Hello { raw, length } = hello;
    // From here on the record has the hello, whatever happens.
    guard.session.tls = Tls::Recognised(Box::new(Facts::new(&raw[..length], Handshake::Failed(Failure::CutShort))));
    // The library tries once to tell a client why it is refused, and the reactor must know by then that this can be
    // sent.
    if let Err(reason) = timer.run(Step::Opening, |context| stream.poll_write_ready(context)).await {
        return guard.fail(unfinished(reason), reason, timer).await;
    }
    let stream = Replay::new(raw, length, stream);
    guard.meter = Some(stream.meter());
    let Some((facts, server)) = guard.session.tls.facts().zip(engine.tls.as_ref()) else {
        return guard.fail(Failure::Internal("no TLS server".to_owned()), CloseReason::Aborted, timer).await;
    };
    let handshake = {
        let message = handshake_message(&facts.client_hello);
        match ClientHello::parse(&message) {
            Ok(hello) => Ok(server.accept(&hello, stream)),
            Err(error) => Err(Rejected { failure: Failure::from(error), stream }),
        }
    };
    let mut handshake = match handshake {
        Ok(handshake) => pin!(handshake),
        // It declares an end, and is no hello up to there: what follows it is kept all the same.
        Err(rejected) => return go_on_in_clear(guard, rejected, timer).await,
    };
    let accepted = poll_fn(|context| {
        let polled = timer.poll(Step::Opening, context, |context| handshake.as_mut().poll(context));
        match guard.account(&timer) {
            Err(reason) if polled.is_pending() => Poll::Ready(Err(reason)),
            _ => polled,
        }
    });
    let mut accepted = match accepted.await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(rejected)) => return go_on_in_clear(guard, rejected, timer).await,
        Err(reason) => return guard.fail(unfinished(reason), reason, timer).await,
    };
    timer.touch();
    let agreed = accepted.session.protocol.as_deref();
    let is_http = agreed.is_some_and(|name| name == "h2" || name.starts_with("http/"));
    if let Some(facts) = guard.session.tls.facts_mut() {
        facts.handshake = Handshake::Completed(accepted.session);
    }
    if guard.engine.responder.is_some() {
        let in_clear = guard.session.payload.received();
        let talk = guard.talk();
        if talk.agreed_on_tls() {
            talk.go_on_in_tls(in_clear);
        } else {
            talk.start_over();
            if is_http {
                talk.wait_for_client();
            }
        }
    }
    let mut rest = None;
    let stream = &mut accepted.stream;
    let end = match poll_fn(|context| guard.poll_exchange(stream, &mut timer, &mut rest, context)).await {
        Raw::Ended(end) => end,
        Raw::Hello(_) => CloseReason::Aborted.into(),
    };
    if let (Some(facts), CloseReason::TlsError, Some(error)) = (guard.session.tls.facts_mut(), end.reason, &end.error) {
        facts.broken = Some(Failure::of_stream(error));
    }
    guard.finish(end.reason, timer).await;
}

/// Returns the failure of a handshake that was under way when the session had to end for `reason`.
fn unfinished(reason: CloseReason) -> Failure {
    match reason {
        CloseReason::FirstByteTimeout | CloseReason::SessionTimeout => Failure::TimedOut,
        _ => Failure::CutShort,
    }
}

/// Ends the session of a client whose handshake failed. A client that goes on in clear has a payload all the same; the
/// sensor hangs up on others, and keeps what is on its way by then.
async fn go_on_in_clear(mut guard: Box<Guard>, rejected: Rejected<TcpStream>, mut timer: Timer) {
    let Rejected { failure, mut stream } = rejected;
    let mut reason = match failure {
        Failure::Closed => CloseReason::ClientClosed,
        Failure::Broken(_) => CloseReason::ClientReset,
        _ => CloseReason::TlsError,
    };
    let clear = stream.go_on_in_clear();
    let hangs_up = clear.is_empty();
    if reason == CloseReason::TlsError || !hangs_up {
        guard.session.payload.push(&clear);
        timer.touch();
        let talk = guard.talk();
        talk.mute();
        if hangs_up {
            talk.give_up();
        }
        let mut rest = None;
        let tail = poll_fn(|context| guard.poll_exchange(&mut stream, &mut timer, &mut rest, context)).await;
        reason = tail.reason_after(reason);
    }
    guard.fail(failure, reason, timer).await;
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
