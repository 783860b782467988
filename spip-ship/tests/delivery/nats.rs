//! Into NATS JetStream.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{
    Nats, Place, append, assert_each_once, compress, follow, free_port, once, peer, records, rotate, run, sink_at,
    wait_for,
};

#[test]
fn what_is_there_is_shipped_once_and_a_lost_state_ships_nothing_again() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    let config = place.configure(&server.sink());
    append(&place.log(), "{\"timestamp\":1,\"level\":\"INFO\",\"message\":\"ready\",\"record_type\":\"log\"}\n");
    append(&place.log(), &records("sensor.7", "r1", 1..501));
    compress(&rotate(&place.log(), 1));
    append(&place.log(), &records("sensor.7", "r2", 1..101));
    append(&place.log(), "{\"half");
    once(&config);
    let messages = server.messages();
    assert!(messages.iter().all(|message| message.subject == "spip.records.sensor%2E7"));
    assert!(messages.iter().all(|message| message.lines.ends_with('\n')));
    assert!(messages[0].headers.contains("Spip-Sensor: sensor.7") && messages[0].headers.contains("Spip-Run: r1"));
    for _ in 0..2 {
        assert_each_once(&server.stored(), "r1", 1..501);
        assert_each_once(&server.stored(), "r2", 1..101);
        let lines: usize = server.messages().iter().map(|message| message.lines.lines().count()).sum();
        assert_eq!(lines, 601, "the half line is not there, the system message is");
        fs::remove_dir_all(place.path("state")).expect("a state");
        let text = once(&config);
        assert!(text.contains("goes on behind its last message"), "{text}");
    }
    // The half line becomes a whole one, and is shipped then.
    append(&place.log(), "\":1}\n");
    append(&place.log(), &records("sensor.7", "r2", 101..103));
    once(&config);
    assert_each_once(&server.stored(), "r2", 1..103);
}

#[test]
fn a_shipper_that_is_killed_at_any_moment_ships_each_line_once() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let mut server = Nats::start(&program, &place, "");
    let config = place.configure(&server.sink());
    let mut last = 1;
    for round in 0..16_u32 {
        append(&place.log(), &records("s", "r", last..last + 400));
        last += 400;
        let mut shipper = follow(&config);
        thread::sleep(Duration::from_millis(40 + 37 * u64::from(round % 7)));
        append(&place.log(), &records("s", "r", last..last + 100));
        last += 100;
        if round % 3 == 0 {
            let closed = rotate(&place.log(), round);
            if round % 2 == 0 {
                compress(&closed);
            }
        }
        if round % 5 == 4 {
            server.kill();
            shipper.kill();
            server.run();
        }
        if round % 4 == 1 {
            let _ = fs::remove_file(place.path("state/nats.state"));
        }
        if round % 6 == 5 {
            assert!(shipper.terminate().success(), "a stop is no failure");
        }
        shipper.kill();
    }
    once(&config);
    assert_each_once(&server.stored(), "r", 1..last);
}

#[test]
fn a_state_that_is_many_batches_old_ships_nothing_again() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    let config = place.configure(&server.sink());
    let mut shipper = follow(&config);
    wait_for("the state of the start", || place.path("state/nats.state").exists().then_some(()));
    // As on a full disk: the state stays as it is, and many messages are stored behind it.
    let blocked = place.path("state/nats.state.new");
    fs::create_dir(&blocked).expect("the state is there");
    append(&place.log(), &records("s", "r", 1..401));
    let has = |seq| server.stored_or_nothing().contains_key(&("s".to_owned(), "r".to_owned(), seq)).then_some(());
    wait_for("everything is stored", || has(400));
    shipper.kill();
    fs::remove_dir(&blocked).expect("still there");
    assert!(server.messages().len() > 3, "more than one batch is behind the state");
    append(&place.log(), &records("s", "r", 401..501));
    once(&config);
    assert_each_once(&server.stored(), "r", 1..501);
}

#[test]
fn an_acknowledgement_that_is_lost_behind_the_stored_message_makes_nothing_double() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    let cutter = Cutter::start((Ipv4Addr::LOCALHOST, server.port).into());
    let config = place.configure(&(sink_at(cutter.port) + "ack_timeout_seconds = 1\n"));
    append(&place.log(), &records("s", "r", 1..201));
    let shipper = follow(&config);
    let has = |seq| server.stored_or_nothing().contains_key(&("s".to_owned(), "r".to_owned(), seq)).then_some(());
    for round in 0..4 {
        wait_for("everything before is stored", || has(200 + round * 100));
        // Its acknowledgement is on its way.
        thread::sleep(Duration::from_millis(200));
        // What the shipper sends arrives; what the server answers does not.
        cutter.swallow.store(true, Ordering::Relaxed);
        append(&place.log(), &records("s", "r", 201 + round * 100..301 + round * 100));
        wait_for("the server stored behind the cut", || has(201 + round * 100));
        cutter.swallow.store(false, Ordering::Relaxed);
        cutter.cut();
    }
    drop(shipper);
    once(&place.configure(&server.sink()));
    assert_each_once(&server.stored(), "r", 1..601);
}

#[test]
fn a_full_stream_blocks_and_drops_nothing() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    let config = place.configure(&server.sink());
    append(&place.log(), &records("s", "r", 1..51));
    once(&config);
    server.update_stream(&serde_json::json!({ "max_msgs": 3 }));
    append(&place.log(), &records("s", "r", 51..301));
    let (succeeded, text) = run(&config, &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.contains("takes nothing more"), "{text}");
    server.update_stream(&serde_json::json!({ "max_msgs": -1 }));
    once(&config);
    assert_each_once(&server.stored(), "r", 1..301);
}

#[test]
fn a_line_that_fits_a_message_without_its_headers_only_goes_to_quarantine() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "max_payload: 65536");
    let long = |bytes: usize| {
        let line = records("s", "r", 2..3);
        line.replace("\"payload\":\"", &format!("\"payload\":\"{}", "x".repeat(bytes - line.len())))
    };
    append(&place.log(), &records("s", "r", 1..2));
    append(&place.log(), &long(65_500));
    append(&place.log(), &records("s", "r", 3..5));
    once(&place.configure(&(server.sink() + "compression = \"none\"\n")));
    let stored: Vec<_> = server.stored().into_keys().map(|(_, _, seq)| seq).collect();
    assert_eq!(stored, [1, 3, 4]);
    let quarantine = fs::read_to_string(place.path("state/nats.quarantine.jsonl")).expect("a quarantine");
    assert!(quarantine.lines().count() == 1 && quarantine.contains("max_payload (65536)"), "{:.300}", quarantine);
}

#[test]
fn a_second_shipper_under_the_same_name_is_noticed_and_neither_mixes_its_lines_in() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let (place, other) = (Place::new(), Place::new());
    let server = Nats::start(&program, &place, "");
    let (config, second) = (place.configure(&server.sink()), other.configure(&server.sink()));
    append(&place.log(), &records("s", "r1", 1..51));
    once(&config);
    append(&other.log(), &records("s", "r2", 1..51));
    once(&second);
    append(&place.log(), &records("s", "r1", 51..61));
    let (succeeded, text) = run(&config, &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.contains("give each sensor a name of its own"), "{text}");
    assert_each_once(&server.stored(), "r1", 1..51);
    assert_each_once(&server.stored(), "r2", 1..51);
}

#[test]
fn what_the_stream_lost_is_sent_again() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    let config = place.configure(&server.sink());
    append(&place.log(), &records("s", "r", 1..101));
    once(&config);
    server.delete_last();
    let text = once(&config);
    assert!(text.contains("lost"), "{text}");
    assert_each_once(&server.stored(), "r", 1..101);
}

#[test]
fn what_an_engine_lost_in_the_middle_is_found_and_sent_again_beside_a_running_shipper() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    let config = place.configure(&server.sink());
    append(&place.log(), &records("s", "r", 1..301));
    once(&config);
    let (whole, text) = run(&config, &["verify"]);
    assert!(whole && text.contains("everything is there, once"), "{text}");
    server.delete(3);
    server.delete(5);
    let (whole, text) = run(&config, &["verify", "--json"]);
    let verdict: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert!(!whole && verdict["complete"] == false);
    let missing = verdict["runs"][0]["missing"].as_u64().expect("a number");
    assert!(missing > 0 && verdict["runs"][0]["missing_ranges"].as_array().is_some_and(|ranges| ranges.len() == 2));
    let shipper = follow(&config);
    let (sent, text) = run(&config, &["replay", "--since", "2026-01-01T00:00:00Z"]);
    assert!(sent && text.contains(&format!("sent {missing} records again")), "{text}");
    append(&place.log(), &records("s", "r", 301..311));
    let has = |seq| server.stored().contains_key(&("s".to_owned(), "r".to_owned(), seq)).then_some(());
    wait_for("the shipper goes on", || has(310));
    drop(shipper);
    once(&config);
    assert_each_once(&server.stored(), "r", 1..311);
    let (_, text) = run(&config, &["status"]);
    assert!(text.contains("shipped 310 lines, 0 in quarantine") && text.contains("not delivered: 0 bytes"), "{text}");
}

#[test]
fn no_server_wrong_password_and_a_foreign_stream_are_said_and_end_nothing() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    append(&place.log(), &records("s", "r", 1..3));
    let (succeeded, text) = run(&place.configure(&sink_at(free_port())), &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.contains("cannot connect to nats://127.0.0.1"), "{text}");
    let users =
        "authorization { users: [{ user: \"s\", password: \"right\", permissions: { publish: \"spip.records.s\" } }] }";
    let server = Nats::start(&program, &place, users);
    let secret = place.path("secret");
    let keys = format!("user = \"s\"\npassword_file = {secret:?}\n");
    fs::write(&secret, "wrong").expect("a file");
    let config = place.configure(&(server.sink() + &keys));
    let (succeeded, text) = run(&config, &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.contains("authorization violation"), "{text}");
    assert!(!text.contains("wrong\n") && !text.contains("right"), "a secret in a message: {text}");
    // A user that may publish and nothing else cannot even look: said with the permission that is missing.
    fs::write(&secret, "right\n").expect("a file");
    let (succeeded, text) = run(&config, &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.to_lowercase().contains("permissions violation"), "{text}");
}

#[test]
fn status_names_a_log_that_is_not_there_and_why_a_running_shipper_waits() {
    let place = Place::new();
    let config = place.configure(&sink_at(free_port()));
    let (_, text) = run(&config, &["status"]);
    assert!(text.contains("does not run") && text.contains("is log in the configuration the log_file"), "{text}");
    append(&place.log(), &records("s", "r", 1..3));
    let shipper = follow(&config);
    let status = || run(&config, &["status"]).1;
    let text = wait_for("status says why", || Some(status()).filter(|text| text.contains("waits since")));
    assert!(text.contains("cannot connect to nats://127.0.0.1") && !text.contains("there is no log"), "{text}");
    drop(shipper);
    assert!(!status().contains("waits"), "of a shipper that does not run");
}

#[test]
fn a_name_that_no_server_takes_blocks_nothing() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    append(&place.log(), &records("s", "r", 1..11));
    append(&place.log(), &records(&"n".repeat(5_000), "r", 11..12));
    append(&place.log(), &records("s", "r", 12..21));
    let text = once(&place.configure(&server.sink()));
    assert!(text.contains("its name has 5000 bytes"), "{text}");
    assert_eq!(server.stored().len(), 19);
}

#[test]
fn a_shipper_bounds_its_own_memory_by_the_size_of_its_batches() {
    let place = Place::new();
    append(&place.log(), &records("s", "r", 1..3));
    let config = place.configure(&sink_at(free_port()));
    let shipper = follow(&config);
    let limits = format!("/proc/{}/limits", shipper.0.id());
    let messages = || fs::read_to_string(config.with_extension("log")).unwrap_or_default();
    wait_for("it is confined and tries", || messages().contains("cannot connect").then_some(()));
    let limits = fs::read_to_string(limits).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max data size")).expect("a limit");
    // 384 MiB, and eight batches of 8 KiB. The source is a log.
    assert!(line.contains(" 402718720 "), "{line}");
}

/// Forwards connections to a server, and swallows or cuts what comes back.
pub(crate) struct Cutter {
    pub(crate) port: u16,
    swallow: Arc<AtomicBool>,
    cut: Arc<AtomicBool>,
}

impl Cutter {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (swallow, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (swallowing, cutting) = (Arc::clone(&swallow), Arc::clone(&cut));
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect_timeout(&server, Duration::from_secs(1)) else { continue };
                let never = Arc::new(AtomicBool::new(false));
                pass(&client, &server, never, Arc::clone(&cutting));
                pass(&server, &client, Arc::clone(&swallowing), Arc::clone(&cutting));
            }
        });
        Self { port, swallow, cut }
    }

    /// Swallows what the server says, from now on.
    pub(crate) fn hold(&self) {
        self.swallow.store(true, Ordering::Relaxed);
    }

    /// Ends all connections, and lets new ones pass.
    pub(crate) fn release(&self) {
        self.cut.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(150));
        self.swallow.store(false, Ordering::Relaxed);
        self.cut.store(false, Ordering::Relaxed);
    }

    /// Ends all connections.
    fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(150));
        self.cut.store(false, Ordering::Relaxed);
    }
}

fn pass(from: &TcpStream, to: &TcpStream, swallow: Arc<AtomicBool>, cut: Arc<AtomicBool>) {
    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    from.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        loop {
            if cut.load(Ordering::Relaxed) {
                break;
            }
            match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(_) if swallow.load(Ordering::Relaxed) => {}
                Ok(count) if to.write_all(&bytes[..count]).is_ok() => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                _ => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
