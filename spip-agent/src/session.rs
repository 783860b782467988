//! One connection from accept to record, top to bottom.
//!
//! A [`Guard`] is made at accept and consumed by the one record. Dropped unconsumed, because its task panicked or was
//! cancelled, it still writes one, with the reason `aborted`. Nothing is ever sent to the client before its bytes are
//! safe in the session, and nothing that is recorded depends on it.

mod exchange;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::budget::Budget;
use crate::capture::{self, End};
use crate::config::Timeouts;
use crate::deadline::{Step, Watch};
use crate::ebpf::Origins;
use crate::limits::Permit;
use crate::metrics::TALLY;
use crate::origin;
use crate::payload::Payload;
use crate::payload_store::PayloadStore;
use crate::protocol::client_hello::{ClientHello, Detection, Detector, handshake_message};
use crate::record::{CloseReason, Moment, Sensor, Session, Stored};
use crate::respond::{Conversation, Responder};
use crate::tls::{Facts, Failure, Handshake, Prefixed, Tls, TlsServer};
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
    /// Answers TLS, unless it is turned off.
    pub tls: Option<Arc<TlsServer>>,
    /// What the kernel side saw, where it is attached.
    pub origins: Option<Origins>,
    /// What is said to clients, unless that is turned off.
    pub responder: Option<Arc<Responder>>,
    /// Where payloads have files of their own, if they have.
    pub payloads: Option<PayloadStore>,
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
    detector: Detector,
    cookie: Option<u64>,
    recorded: bool,
    counted: bool,
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
                tls: Tls::NotTls,
                bytes_out: 0,
                stored: None,
                talk: None,
                close_reason: CloseReason::Aborted,
                repeated: None,
            },
            engine: Arc::clone(engine),
            detector: Detector::default(),
            cookie: found.cookie,
            recorded: false,
            counted: false,
            _permit: permit,
        }
    }

    /// Reads and answers what is there already, without waiting; the reason when the connection has ended.
    ///
    /// Most short sessions are complete when they are accepted: they never meet the reactor.
    #[must_use]
    pub fn serve_now(&mut self, socket: &OwnedFd) -> Option<CloseReason> {
        let reason = self.read_now(socket)?;
        if reason == CloseReason::ClientClosed {
            self.answer_now(socket);
        }
        Some(reason)
    }

    /// Reads what is there already, without waiting; the reason when the connection has ended.
    fn read_now(&mut self, socket: &impl AsRawFd) -> Option<CloseReason> {
        while !self.session.payload.is_full() {
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

    /// What the first bytes are, as far as they came.
    fn detect(&mut self) -> Detection {
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
            // Whoever wants TLS and gets none is not spoken to in clear.
            self.talk().mute();
        }
        // A hello that nobody can answer.
        let is_refused = matches!(verdict, Detection::Sslv2 { .. } | Detection::Oversized { .. });
        is_refused.then(|| Raw::Ended(CloseReason::TlsError.into()))
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
            Detection::Partial | Detection::Oversized { .. } | Detection::Malformed(_) => Some(payload.kept()),
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

    /// Writes the record when the log has room for it; false when it has none, and [`Guard::finish`] has to wait.
    #[must_use]
    pub fn try_finish(&mut self, reason: CloseReason) -> bool {
        self.end(reason);
        self.recorded = self.with_line(|log, line| log.try_record(line));
        self.recorded
    }

    /// Writes the record, waiting for the log where it is full.
    pub async fn finish(mut self: Box<Self>, reason: CloseReason) {
        if !self.try_finish(reason) {
            let line = self.with_line(|_, line| line.to_vec());
            Box::pin(self.engine.log.record(&line)).await;
            self.recorded = true;
        }
    }

    /// Writes the record of a handshake that failed.
    async fn fail(mut self: Box<Self>, failure: Failure, reason: CloseReason) {
        if let Some(facts) = self.session.tls.facts_mut() {
            facts.handshake = Handshake::Failed(failure);
        }
        self.finish(reason).await;
    }

    /// What only the end of the session can tell.
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
            origin::retry(&mut session.origin, cookie, origins);
            // The kernel side drops the entry of a socket that is closed in order; of others only we know the end.
            if reason != CloseReason::ClientClosed {
                origins.forget(cookie);
            }
            self.cookie = None;
        }
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

    fn with_line<T>(&mut self, write: impl FnOnce(&Log, &[u8]) -> T) -> T {
        LINE.with_borrow_mut(|line| {
            line.clear();
            let protocol = self.engine.sensor.write(&self.session, line);
            if !self.counted {
                TALLY.session(&self.session, protocol);
                self.counted = true;
            }
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
///
/// Its future is most of what a waiting session costs, so it holds little more than what it is given: the guard is
/// boxed, and so is everything that only some sessions need.
pub async fn run(mut guard: Box<Guard>, stream: OwnedFd, mut watch: Watch) {
    // Under load the client's bytes come while others are accepted; then the reactor is not needed.
    tokio::task::yield_now().await;
    if let Some(reason) = guard.serve_now(&stream) {
        return guard.finish(reason).await;
    }
    // The reactor may take no more descriptors.
    let Ok(mut stream) = TcpStream::from_std(stream.into()) else { return guard.finish(CloseReason::Aborted).await };
    let mut rest = None;
    match poll_fn(|context| guard.poll_exchange(&mut stream, &mut watch, &mut rest, context)).await {
        // Record first: the client learns of the end, by the drop of the stream, when its bytes are safe.
        Raw::Ended(end) => {
            // The reactor may not have told us yet of what has arrived.
            let _ = guard.read_now(&stream);
            guard.finish(end.reason).await;
        }
        Raw::Hello(hello) => Box::pin(decrypt(guard, hello, stream, watch)).await,
    }
}

/// What reading without TLS came to.
enum Raw {
    /// The end of the session.
    Ended(End),
    /// A whole ClientHello, and perhaps bytes behind it.
    Hello(Hello),
}

/// Raw bytes that begin with a ClientHello.
struct Hello {
    raw: Vec<u8>,
    length: usize,
}

/// Completes the handshake and captures what is inside.
async fn decrypt(mut guard: Box<Guard>, hello: Hello, stream: TcpStream, mut watch: Watch) {
    let engine = Arc::clone(&guard.engine);
    let Hello { raw, length } = hello;
    let facts = Facts::new(&raw[..length], Handshake::Failed(Failure::TimedOut));
    let handshake = engine.tls.as_ref().map(|server| {
        let message = handshake_message(&facts.client_hello);
        ClientHello::parse(&message).map(|hello| server.accept(&hello, Prefixed::new(raw, length, stream)))
    });
    // From here on the record has the hello, whatever happens.
    guard.session.tls = Tls::Recognised(Box::new(facts));
    let mut handshake = match handshake {
        Some(Ok(handshake)) => pin!(handshake),
        Some(Err(error)) => return guard.fail(Failure::from(error), CloseReason::TlsError).await,
        None => return guard.fail(Failure::Internal("no TLS server".to_owned()), CloseReason::Aborted).await,
    };
    let mut accepted = match watch.run(Step::Opening, |context| handshake.as_mut().poll(context)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(rejected)) => {
            let reason = match rejected.failure {
                Failure::Closed => CloseReason::ClientClosed,
                Failure::Broken(_) => CloseReason::ClientReset,
                _ => CloseReason::TlsError,
            };
            // Whoever goes on in clear has a payload all the same.
            let (clear, mut stream) = rejected.stream.into_clear();
            if !clear.is_empty() {
                guard.session.payload.push(&clear);
                watch.touch();
                guard.talk().mute();
                let mut rest = None;
                poll_fn(|context| guard.poll_exchange(&mut stream, &mut watch, &mut rest, context)).await;
            }
            return guard.fail(rejected.failure, reason).await;
        }
        Err(reason) => {
            let failure = match reason {
                CloseReason::FirstByteTimeout | CloseReason::SessionTimeout => Failure::TimedOut,
                _ => Failure::Internal("the sensor ended the session".to_owned()),
            };
            return guard.fail(failure, reason).await;
        }
    };
    watch.touch();
    let agreed = accepted.session.protocol.as_deref();
    let is_http = agreed.is_some_and(|name| name == "h2" || name.starts_with("http/"));
    if let Some(facts) = guard.session.tls.facts_mut() {
        facts.handshake = Handshake::Completed(accepted.session);
    }
    if guard.engine.responder.is_some() {
        let talk = guard.talk();
        talk.start_over();
        if is_http {
            talk.wait_for_client();
        }
    }
    let mut rest = None;
    let stream = &mut accepted.stream;
    let end = match poll_fn(|context| guard.poll_exchange(stream, &mut watch, &mut rest, context)).await {
        Raw::Ended(end) => end,
        Raw::Hello(_) => CloseReason::Aborted.into(),
    };
    if let (Some(facts), CloseReason::TlsError, Some(error)) = (guard.session.tls.facts_mut(), end.reason, &end.error) {
        facts.broken = Some(Failure::of_stream(error));
    }
    guard.finish(end.reason).await;
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
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;
    use crate::config::Config;
    use crate::limits::Limits;
    use crate::registry::Registry;
    use crate::writer;

    /// What a client sends to make the session's task panic, once it waits for more.
    const TRIGGER: &[u8] = b"test: panic";

    pub(super) fn panic_if_asked(payload: &Payload) {
        assert_ne!(payload.kept(), TRIGGER, "asked for by the test");
    }

    /// How a session is made to end.
    #[derive(Debug)]
    enum Fate {
        /// It panics by itself.
        Panic,
        /// Its task is cancelled.
        Cancelled,
        /// The agent stops, just after these bytes have arrived.
        ShutDown(&'static [u8]),
    }

    /// Runs one session whose client sends `bytes` and stays; gives back its record.
    fn record_of(bytes: &[u8], fate: Fate) -> Value {
        let directory = std::env::temp_dir().join(format!("spip-session-{}-{}", std::process::id(), bytes.len()));
        std::fs::create_dir(&directory).expect("a directory for the test");
        let file: PathBuf = directory.join("log");
        let text = format!("ip = \"127.0.0.1\"\nport = 1\nname = \"test\"\nlog_file = \"{}\"\n", file.display());
        let config = Config::from_str(&text, &file).expect("a valid configuration").config;
        let (log, log_writer) = writer::open(&config.log).expect("the log opens");
        let log_thread = log_writer.spawn().expect("the writer starts");
        let engine = Arc::new(Engine {
            sensor: Sensor {
                name: "test".to_owned(),
                community_id_seed: 0,
                format: crate::record::Format::Flat,
                max_line_bytes: 1 << 24,
            },
            log,
            tls: None,
            origins: None,
            responder: None,
            payloads: None,
            timeouts: config.timeouts,
            payload_limit: 1024,
            payload_budget: Budget::new(1 << 20),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut client = StdStream::connect(listener.local_addr().expect("an address")).expect("connected");
        client.write_all(bytes).expect("sent");
        let (socket, peer) = listener.accept().expect("accepted");
        socket.set_nonblocking(true).expect("non-blocking");
        let socket = OwnedFd::from(socket);
        let accepted = Moment::now();
        let limits = Limits::new(&config.limits, 10);
        let permit = limits.admit(peer.ip(), accepted.steady, || false).expect("admitted");
        let guard = Guard::new(&engine, &socket, peer, accepted, permit);

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let registry = Registry::default();
            let watch = Watch::new(&registry, &engine.timeouts, accepted.steady);
            let task = tokio::spawn(run(Box::new(guard), socket, watch));
            // Until it waits.
            tokio::time::sleep(Duration::from_millis(50)).await;
            match fate {
                Fate::Panic => assert!(task.await.expect_err("the task panics").is_panic()),
                Fate::Cancelled => {
                    task.abort();
                    assert!(task.await.expect_err("cut off").is_cancelled());
                }
                Fate::ShutDown(last) => {
                    // Neither lets the runtime look at its sockets in between.
                    client.write_all(last).expect("sent");
                    registry.shut_down();
                    task.await.expect("the session ends in order");
                }
            }
        });
        assert_eq!(limits.open(), 0, "the place is given back");
        drop(client);
        assert!(log_thread.finish(std::time::Instant::now() + Duration::from_secs(5)).complete);
        let text = std::fs::read_to_string(&file).expect("the log is there");
        std::fs::remove_dir_all(&directory).expect("the directory goes");
        let mut lines = text.lines();
        let record = serde_json::from_str(lines.next().expect("one record")).expect("JSON");
        assert_eq!(lines.next(), None, "one record");
        record
    }

    #[test]
    fn a_session_that_panics_leaves_its_record() {
        let record = record_of(TRIGGER, Fate::Panic);
        assert_eq!(record["close_reason"], "aborted");
        assert_eq!(record["payload"], "test: panic");
    }

    #[test]
    fn a_session_that_is_cancelled_leaves_its_record() {
        let record = record_of(b"half a request", Fate::Cancelled);
        assert_eq!(record["close_reason"], "aborted");
        assert_eq!(record["payload"], "half a request");
    }

    #[test]
    fn what_has_arrived_at_a_stop_is_in_the_record() {
        let record = record_of(b"first,", Fate::ShutDown(b" last"));
        assert_eq!(record["close_reason"], "shutdown");
        assert_eq!(record["payload"], "first, last");
    }
}
