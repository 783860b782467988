//! Sessions with a client and a log each, without the rest of the agent, that end as the test wants it.

mod giving_back;
mod talk;
mod tls;

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream as StdStream};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::config::Config;
use crate::log::writer::{self, Writer, WriterThread};
use crate::session::accept::Intake;
use crate::session::first_sources::FirstSources;
use crate::session::limits::{Bound, BoundFrom, Limits};
use crate::session::record::tests::UNREADABLE;
use spip_protocol::client_hello::sample::vectors;
use spip_record::Limit;

/// Bytes of a client that make the session's task panic, once it waits for more.
const TRIGGER: &[u8] = b"test: panic";

pub(super) fn panic_if_asked(payload: &Payload) {
    assert_ne!(payload.kept(), TRIGGER, "asked for by the test");
}

/// Parts of a session, with a log that is written when the test asks for its records.
pub(crate) struct Bench {
    directory: PathBuf,
    pub(crate) intake: Arc<Intake>,
    writer: Option<Writer>,
    thread: Option<WriterThread>,
}

impl Bench {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, None)
    }

    /// The same with TLS answered.
    fn with(name: &str, tls: Option<Arc<TlsServer>>) -> Self {
        Self::configured(name, tls, "")
    }

    /// The same with these lines in the configuration.
    fn configured(name: &str, tls: Option<Arc<TlsServer>>, lines: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("spip-{name}-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        let file = directory.join("log");
        let text = format!(
            "ip = \"127.0.0.1\"\nport = 1\nname = \"test\"\nlog_file = \"{}\"\nlog_queue_bytes = 65536\n{lines}\n",
            file.display()
        );
        let config = Config::from_str(&text, &file).expect("a valid configuration").config;
        let (log, writer) = writer::open(&config.log).expect("the log opens");
        let engine = Engine {
            sensor: Sensor {
                name: "test".to_owned(),
                run: "0123456789ab",
                community_id_seed: 0,
                format: spip_record::Format::Flat,
                max_line_bytes: 1 << 24,
                public: config.network.public.clone(),
            },
            log,
            tls,
            origins: None,
            responder: None,
            payloads: None,
            ledger: Ledger::of(&config.log),
            rejections: Rejections::default(),
            first_sources: FirstSources::hidden_by(Vec::new()),
            timeouts: config.timeouts,
            network: Arc::new(config.network.clone()),
            payload_limit: 1024,
            memory: Budget::new(1 << 20),
        };
        let intake = Arc::new(Intake::new(
            engine,
            Limits::new(&config.limits, Bound { sessions: 10, from: BoundFrom::Descriptors }),
            1,
        ));
        Self { directory, intake, writer: Some(writer), thread: None }
    }

    /// Has sessions that begin from now on answered.
    fn answer(&self, responder: Responder) {
        let before = self.intake.engine();
        self.intake.change(Engine {
            sensor: before.sensor.clone(),
            log: before.log.clone(),
            tls: before.tls.clone(),
            origins: None,
            responder: Some(Arc::new(responder)),
            payloads: None,
            ledger: before.ledger.clone(),
            rejections: before.rejections.clone(),
            first_sources: before.first_sources.clone(),
            timeouts: before.timeouts,
            network: Arc::clone(&before.network),
            payload_limit: before.payload_limit,
            memory: before.memory.clone(),
        });
    }

    /// All records, once the log has ended.
    pub(crate) fn records(mut self) -> Vec<Value> {
        self.write();
        let thread = self.thread.take().expect("started");
        assert!(thread.finish(Instant::now() + Duration::from_secs(60)).complete);
        let text = fs::read_to_string(self.directory.join("log")).expect("the log is there");
        fs::remove_dir_all(&self.directory).expect("the directory goes");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Has the log written from now on.
    pub(crate) fn write(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.thread = Some(writer.spawn().expect("the writer starts"));
        }
    }

    /// A client, and the session that it has.
    pub(crate) fn connect(&self, bytes: &[u8]) -> (StdStream, Guard, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut client = StdStream::connect(listener.local_addr().expect("an address")).expect("connected");
        client.write_all(bytes).expect("sent");
        let (socket, peer) = listener.accept().expect("accepted");
        socket.set_nonblocking(true).expect("non-blocking");
        let (socket, accepted) = (OwnedFd::from(socket), Moment::now());
        let permit = self.intake.limits.admit(peer.ip(), accepted.steady, |_, _| false).expect("admitted");
        let guard = Guard::new(&self.intake.engine(), &socket, peer.into(), accepted, permit);
        (client, guard, socket)
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
}

/// Ends of a session.
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
    record_with(None, bytes, fate)
}

/// The same with TLS answered.
fn record_with_tls(bytes: &[u8], fate: Fate) -> Value {
    record_with(Some(Arc::new(TlsServer::new(None, false).expect("a server"))), bytes, fate)
}

fn record_with(tls: Option<Arc<TlsServer>>, bytes: &[u8], fate: Fate) -> Value {
    let bench = Bench::with(&format!("session-{}", Uuid::new_v4()), tls);
    let (mut client, guard, socket) = bench.connect(bytes);
    block_on(async {
        let open = &bench.intake.sessions_by_worker[0];
        let timer = Timer::new(open, guard.source(), &bench.intake.engine().timeouts, Instant::now());
        let task = tokio::spawn(run(Box::new(guard), socket, timer));
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
                open.shut_down(None);
                task.await.expect("the session ends in order");
            }
        }
    });
    assert_eq!(bench.intake.limits.open(), 0, "the place is given back");
    drop(client);
    let mut records = bench.records();
    assert_eq!(records.len(), 1, "one record");
    records.remove(0)
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

#[test]
fn a_session_whose_bytes_cannot_be_read_leaves_them_in_its_record_however_it_ends() {
    for fate in [Fate::ShutDown(b""), Fate::Cancelled] {
        let record = record_of(UNREADABLE, fate);
        assert_eq!(record["close_reason"], "aborted");
        assert_eq!((&record["payload"], &record["protocol"]), (&"test: unreadable".into(), &Value::Null));
    }
}

#[test]
fn a_handshake_that_the_sensor_cuts_short_is_nobodys_fault() {
    let hello = &vectors()[4].stream;
    for (fate, reason) in [(Fate::Cancelled, "aborted"), (Fate::ShutDown(b""), "shutdown")] {
        let record = record_with_tls(hello, fate);
        assert_eq!(record["close_reason"], reason);
        assert_eq!(record["tls_error"], "cut short by the sensor");
        assert_eq!(record["tls_client_hello_hex"], hex::encode(hello));
    }
}

#[test]
fn a_session_that_waits_for_the_log_takes_nobodys_turn_to_make_room() {
    let mut bench = Bench::new("session-waits");
    let log = bench.intake.engine().log.clone();
    while log.try_record(br#"{"filler":1"#) {}
    let (_client, guard, socket) = bench.connect(b"waits");
    block_on(async {
        let open = &bench.intake.sessions_by_worker[0].clone();
        let timer = Timer::new(open, guard.source(), &bench.intake.engine().timeouts, Instant::now());
        let task = tokio::spawn(run(Box::new(guard), socket, timer));
        tokio::task::yield_now().await;
        assert_eq!(open.len(), 1);
        open.shut_down(None);
        while !open.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!task.is_finished(), "the log is full");
        assert_eq!(bench.intake.limits.open(), 1, "it has its place until its record is handed over");
        assert_eq!(
            crate::session::open_sessions::make_room(&bench.intake.sessions_by_worker, 1, Limit::Descriptors),
            0
        );
        bench.write();
        task.await.expect("there is room");
    });
    assert_eq!(bench.intake.limits.open(), 0);
    let records = bench.records();
    assert_eq!(records.iter().filter(|record| record["payload"] == "waits").count(), 1);
}

#[test]
fn a_session_that_is_cut_off_while_it_waits_for_the_log_has_ended_when_it_ended() {
    let bench = Bench::new("session-waited");
    let log = bench.intake.engine().log.clone();
    while log.try_record(br#"{"filler":1"#) {}
    let began = Instant::now();
    let (client, guard, socket) = bench.connect(b"gone at once");
    drop(client);
    let ended = block_on(async {
        let open = &bench.intake.sessions_by_worker[0].clone();
        let timer = Timer::new(open, guard.source(), &bench.intake.engine().timeouts, Instant::now());
        let task = tokio::spawn(run(Box::new(guard), socket, timer));
        tokio::task::yield_now().await;
        while !open.is_empty() {
            tokio::task::yield_now().await;
        }
        let ended = began.elapsed();
        tokio::time::sleep(Duration::from_millis(50)).await;
        task.abort();
        assert!(task.await.expect_err("the log is full").is_cancelled());
        ended
    });
    let records = bench.records();
    let record = records.iter().find(|record| record["payload"] == "gone at once").expect("its record");
    assert_eq!(record["close_reason"], "client_closed");
    let duration = Duration::from_micros(record["duration_us"].as_u64().expect("a number"));
    assert!(duration <= ended, "{duration:?} instead of at most {ended:?}");
}

#[test]
fn with_tls_off_the_session_of_a_hello_that_nobody_could_answer_goes_on() {
    let ssl2 = [&b"\x80\x1c\x01\0\x02\0\x03\0\0\0\x10\x01\0\x80"[..], &[7; 16]].concat();
    for hello in [&ssl2[..], b"\x16\x03\x01\x40\0\x01\0\x3f\xfd"] {
        let record = record_of(hello, Fate::ShutDown(b" and more"));
        assert_eq!(record["close_reason"], "shutdown");
        assert_eq!(record["is_tls"], true);
        assert_eq!(record["payload_hex"], hex::encode([hello, b" and more"].concat()));
    }
}

/// The record of a client at 127.0.0.1 that sends `bytes`, where the PROXY protocol of `proxies` is believed.
fn record_behind(proxies: &str, bytes: &[u8]) -> Value {
    let lines = format!("proxy_protocol_from = {proxies}");
    let bench = Bench::configured(&format!("session-{}", Uuid::new_v4()), None, &lines);
    let (client, mut guard, socket) = bench.connect(bytes);
    client.shutdown(std::net::Shutdown::Write).expect("closed");
    let reason = loop {
        if let Some(reason) = guard.serve_now(&socket) {
            break reason;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(guard.try_finish(reason).is_ok(), "the log has room");
    drop(guard);
    let mut records = bench.records();
    records.remove(0)
}

#[test]
fn a_header_moves_addresses_only_where_its_sender_is_believed() {
    let bytes = b"PROXY TCP4 203.0.113.77 192.0.2.1 51234 80\r\nGET /inner HTTP/1.1\r\n\r\n";
    let believed = record_behind("[\"127.0.0.0/8\"]", bytes);
    assert_eq!((&believed["source_ip"], &believed["source_port"]), (&"203.0.113.77".into(), &51234.into()));
    assert_eq!((&believed["destination_ip"], &believed["destination_port"]), (&"192.0.2.1".into(), &80.into()));
    assert_eq!(
        (&believed["destination_source"], &believed["proxy"]["peer_ip"]),
        (&"proxy".into(), &"127.0.0.1".into())
    );
    let claimed = record_behind("[\"10.0.0.0/8\"]", bytes);
    assert_eq!((&claimed["source_ip"], &claimed["proxy"]["believed"]), (&"127.0.0.1".into(), &false.into()));
    assert_eq!(claimed["proxy"]["source_ip"], "203.0.113.77");
    for record in [believed, claimed] {
        assert_eq!((&record["http"]["target"], &record["bytes_in"]), (&"/inner".into(), &23.into()));
        assert_eq!(record["payload"], "GET /inner HTTP/1.1\r\n\r\n");
    }
}

#[test]
fn a_header_that_breaks_a_rule_moves_nothing_and_stays() {
    let bytes = b"PROXY TCP4 203.0.113.777 192.0.2.1 51234 80\r\nGET / HTTP/1.1\r\n\r\n";
    let record = record_behind("[\"127.0.0.0/8\"]", bytes);
    assert_eq!((&record["source_ip"], &record["proxy"]["believed"]), (&"127.0.0.1".into(), &false.into()));
    assert_eq!(record["bytes_in"], bytes.len());
}

#[test]
fn a_record_that_waits_for_the_log_is_booked_once() {
    let mut bench = Bench::new("booked-once");
    let log = bench.intake.engine().log.clone();
    while log.try_record(br#"{"filler":1"#) {}
    let (_client, mut guard, socket) = bench.connect(b"waits");
    assert_eq!(guard.serve_now(&socket), None);
    let (ledger, source) = (guard.engine.ledger.clone(), guard.permit.source());
    let unwritten = guard.try_finish(CloseReason::ClientClosed).expect_err("the log is full");
    let first = ledger.booked(source, Instant::now());
    assert!(first > 0.0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    runtime.block_on(async {
        let waits = tokio::spawn(Box::new(guard).finish_later(unwritten));
        bench.write();
        waits.await.expect("written");
    });
    let booked = ledger.booked(source, Instant::now());
    assert!(booked <= first, "{booked} bytes for a line of {first}");
    assert_eq!(bench.records().iter().filter(|record| record["payload"] == "waits").count(), 1);
}
