//! Sessions that are answered, in memory and in virtual time: a bound of minutes passes as soon as both sides wait.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::kernel::addr::Destination;
use crate::respond::persona::tests::persona;
use crate::session::open_sessions::TICK;
use crate::tls::Replay;

/// A session to come: its configuration, and the port that its client asks for.
struct Stage {
    bench: Bench,
    port: u16,
    /// Bytes that fit between the two sides.
    window: usize,
}

impl Stage {
    /// A sensor that answers, with these lines in its configuration.
    fn to(port: u16, lines: &str) -> Self {
        let bench = Bench::configured(&format!("talk-{}", Uuid::new_v4()), None, lines);
        let config = Config::from_str(&format!("ip = \"::\"\nport = 1\n{lines}\n"), std::path::Path::new("/x"));
        let respond = config.expect("a valid configuration").config.respond;
        let responder = Responder { persona: persona(), ports: respond.ports, banner_after: respond.banner_after };
        bench.answer(responder);
        Self { bench, port, window: 1 << 20 }
    }

    fn window(self, bytes: usize) -> Self {
        Self { window: bytes, ..self }
    }

    /// Runs the session until it has ended, and `client` beside it; returns the record.
    fn record(self, client: impl AsyncFnOnce(DuplexStream)) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let engine = self.bench.intake.engine();
        runtime.expect("runtime").block_on(async {
            let (_peer, mut guard, _socket) = self.bench.connect(b"");
            guard.session.origin.destination = Destination::new(([127, 0, 0, 1], self.port).into());
            let open = &self.bench.intake.sessions_by_worker[0];
            let mut timer = Timer::new(open, guard.source(), &engine.timeouts, guard.session.accepted.steady);
            let (theirs, mut ours) = tokio::io::duplex(self.window);
            let session = async {
                let mut rest = None;
                let exchange = poll_fn(|context| guard.poll_exchange(&mut ours, &mut timer, &mut rest, context)).await;
                let Raw::Ended(end) = exchange else { panic!("no client here sends a hello") };
                Box::new(guard).finish(end.reason, timer).await;
                drop(ours);
            };
            tokio::select! {
                () = open.keep_time() => {}
                _ = async { tokio::join!(session, client(theirs)) } => {}
            }
        });
        let mut records = self.bench.records();
        assert_eq!(records.len(), 1, "one record");
        records.remove(0)
    }
}

/// Returns the duration of a session by its record.
fn lasted(record: &Value) -> Duration {
    Duration::from_micros(record["duration_us"].as_u64().expect("a number"))
}

/// Asserts that the session ended for `reason`, at `time` or at the next look at deadlines.
fn assert_ended(record: &Value, reason: &str, time: Duration) {
    assert_eq!(record["close_reason"], reason, "{record}");
    // The runtime's timer counts milliseconds, and rounds up.
    let most = time + TICK + Duration::from_millis(5);
    assert!((time..=most).contains(&lasted(record)), "{:?} instead of {time:?}", lasted(record));
}

/// Reads until nothing comes for a while, and returns what came.
async fn read_all(client: &mut DuplexStream) -> String {
    let mut said = Vec::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_millis(100), client.read_buf(&mut said)).await {}
    String::from_utf8(said).expect("text")
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_client_of_tls_that_left_gets_no_greeting_in_clear_where_tls_is_off() {
    for (bytes, greeted) in [(&b"\x16\x03\x01\x40\0\x01\0\x3f\xfd"[..], false), (b"USER a\r\n", true)] {
        let Stage { bench, .. } = Stage::to(21, "");
        let (client, mut guard, socket) = bench.connect(bytes);
        guard.session.origin.destination = Destination::new(([127, 0, 0, 1], 21).into());
        client.shutdown(std::net::Shutdown::Write).expect("closed");
        let reason = loop {
            if let Some(reason) = guard.serve_now(&socket) {
                break reason;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(reason, spip_record::CloseReason::ClientClosed);
        let said = guard.session.talk.as_deref().map_or(0, crate::respond::Conversation::bytes_out);
        assert_eq!(said > 0, greeted, "{said} bytes");
        assert!(guard.try_finish(reason).is_ok(), "the log has room");
        drop(guard);
        assert_eq!(bench.records().len(), 1);
    }
}

#[test]
fn a_silent_client_is_greeted_after_its_time_and_up_to_a_quarter_later_and_has_the_time_of_an_answer() {
    let mut greeted_at = Duration::ZERO;
    let record = Stage::to(21, "banner_after_ms = 4000").record(async |mut client| {
        let began = tokio::time::Instant::now();
        assert_ne!(client.read_u8().await.expect("a greeting"), 0);
        greeted_at = began.elapsed();
        assert!(read_all(&mut client).await.contains("\r\n"));
        // It stays, and says nothing: longer than a first byte is waited for.
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    });
    let latest = 5 * SECOND + TICK + Duration::from_millis(5);
    assert!((4 * SECOND..=latest).contains(&greeted_at), "{greeted_at:?}");
    assert_ended(&record, "idle_timeout", 30 * SECOND);
    assert!(record["bytes_out"].as_u64().is_some_and(|bytes| bytes > 4), "{record}");
}

#[test]
fn the_time_of_a_greeting_is_another_in_each_session() {
    let bench = Bench::new("greets-after");
    let (_client, mut guard, _socket) = bench.connect(b"");
    let mut after = |id| {
        guard.session.id = Uuid::from_u128(id);
        guard.greets_after(4 * SECOND)
    };
    assert_eq!((after(0), after(u128::MAX)), (4 * SECOND, 5 * SECOND));
    assert_eq!(after(1 << 127).as_millis(), 4_500);
}

#[test]
fn a_client_that_nobody_greets_has_the_time_of_a_first_byte() {
    let record = Stage::to(9, "").record(async |mut client| {
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    });
    assert_ended(&record, "first_byte_timeout", 10 * SECOND);
    assert_eq!((&record["bytes_out"], &record["payload"]), (&0.into(), &"".into()));
}

#[test]
fn a_client_that_goes_on_talking_has_the_time_of_a_session_and_no_more() {
    let record = Stage::to(21, "").record(async |mut client| {
        while client.write_all(b"NOOP\r\n").await.is_ok() {
            let _ = tokio::time::timeout(20 * SECOND, client.read(&mut [0; 1_000])).await;
            tokio::time::sleep(20 * SECOND).await;
        }
    });
    assert_ended(&record, "session_timeout", 300 * SECOND);
}

#[test]
fn a_client_has_two_seconds_to_close_its_side_after_the_server_has_closed_its_own() {
    let mut closed_at = Duration::ZERO;
    let record = Stage::to(21, "").record(async |mut client| {
        let began = tokio::time::Instant::now();
        client.write_all(b"QUIT\r\n").await.expect("sent");
        let mut said = String::new();
        client.read_to_string(&mut said).await.expect("the server closes its side");
        closed_at = began.elapsed();
        assert!(said.contains("221 "), "{said}");
        // What it goes on to say is read, and wins no time.
        tokio::time::sleep(SECOND).await;
        client.write_all(b"NOOP\r\n").await.expect("the sensor still reads");
        tokio::time::sleep(5 * SECOND).await;
        assert!(client.write_all(b"NOOP\r\n").await.is_err(), "nobody reads this");
    });
    assert_ended(&record, "server_closed", closed_at + 2 * SECOND);
    assert_eq!(record["payload"], "QUIT\r\nNOOP\r\n");
}

#[test]
fn a_client_that_closes_its_side_first_is_answered_and_does_not_keep_the_session() {
    let record = Stage::to(80, "").record(async |mut client| {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("sent");
        client.shutdown().await.expect("closed");
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.expect("an answer");
        assert!(said.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&said));
    });
    assert_ended(&record, "client_closed", Duration::ZERO);
}

#[test]
fn a_slow_reader_has_a_new_write_time_out_with_each_byte_that_it_takes() {
    let lines = "read_timeout_seconds = 1000\nsession_timeout_seconds = 3000";
    let record = Stage::to(21, lines).window(8).record(async |mut client| {
        // More answers than fit, so that the last ones wait for the client.
        for _ in 0..8 {
            client.write_all(b"NOOP\r\n").await.expect("sent");
        }
        for _ in 0..5 {
            tokio::time::sleep(9 * SECOND).await;
            assert_eq!(client.read(&mut [0]).await.expect("the session goes on"), 1);
        }
        tokio::time::sleep(60 * SECOND).await;
    });
    assert_ended(&record, "write_timeout", 55 * SECOND);
}

#[test]
fn what_is_no_longer_kept_is_counted_for_a_second_at_most() {
    // 1,024 bytes are kept of each session on this bench.
    let record = Stage::to(9, "").record(async |mut client| {
        client.write_all(&[b'x'; 2_000]).await.expect("sent");
        while client.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert_ended(&record, "payload_limit", SECOND);
    assert_eq!(record["payload_truncated"], true);
    assert!((2_008..=2_011).contains(&record["bytes_in"].as_u64().expect("a number")), "{record}");
}

#[test]
fn a_pause_ends_the_counting_of_what_is_no_longer_kept() {
    let record = Stage::to(9, "").record(async |mut client| {
        client.write_all(&[b'x'; 2_000]).await.expect("sent");
        tokio::time::sleep(SECOND / 2).await;
        assert!(client.write_all(b"y").await.is_err(), "the session is over");
    });
    assert_ended(&record, "payload_limit", Duration::from_millis(200));
    assert_eq!(record["bytes_in"], 2_000);
}

#[test]
fn a_client_that_sends_without_end_is_counted_up_to_a_bound() {
    let record = Stage::to(9, "").record(async |mut client| {
        let chunk = vec![b'x'; 1 << 16];
        for _ in 0..1_000 {
            if client.write_all(&chunk).await.is_err() {
                return;
            }
        }
    });
    assert_ended(&record, "payload_limit", Duration::ZERO);
    let (counted, bound) = (record["bytes_in"].as_u64().expect("a number"), 16 << 20);
    assert!((bound..=bound + (1 << 17)).contains(&counted), "{counted}");
}

#[test]
fn a_stop_reaches_a_session_that_waits_for_its_client_to_read() {
    let stage = Stage::to(21, "").window(8);
    let open = stage.bench.intake.sessions_by_worker[0].clone();
    let record = stage.record(async |mut client| {
        client.write_all(b"NOOP\r\n").await.expect("sent");
        tokio::time::sleep(SECOND).await;
        open.shut_down(None);
        tokio::time::sleep(SECOND).await;
    });
    assert_ended(&record, "shutdown", SECOND);
}

#[test]
fn what_came_out_of_the_tls_library_is_not_held_by_it_any_more() {
    let Stage { bench, .. } = Stage::to(21, "");
    let engine = bench.intake.engine();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let (idle, held) = runtime.expect("runtime").block_on(async {
        let (_peer, mut guard, _socket) = bench.connect(b"");
        let open = &bench.intake.sessions_by_worker[0];
        let mut timer = Timer::new(open, guard.source(), &engine.timeouts, guard.session.accepted.steady);
        let (_, ours) = tokio::io::duplex(64);
        let mut stream = Replay::new(vec![b'x'; 10_000], 10_000, ours);
        let meter = stream.meter();
        guard.meter = Some(meter.clone());
        let (idle, mut rest) = (meter.held(), None);
        let exchange = poll_fn(|context| guard.poll_exchange(&mut stream, &mut timer, &mut rest, context)).await;
        let Raw::Ended(end) = exchange else { panic!("no client here sends a hello") };
        assert_eq!(guard.session.payload.received(), 10_000);
        Box::new(guard).finish(end.reason, timer).await;
        (idle, meter.held())
    });
    assert_eq!(held, idle);
    assert_eq!(bench.records().len(), 1);
}
