//! The log under operators, full disks and kills: no line torn, no record lost that had time to be written.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use spip_tests::{LISTENER, Log, Net, PATIENCE, SENSOR_V4, eventually, half_close, read_log, read_to_end};

/// Time of records that a kill may lose: they wait this long at most before they are written.
const FLUSHED_WITHIN: Duration = Duration::from_millis(200);

/// Opens `count` connections that say `bytes` and end; they stay until they are dropped.
fn speak(net: &Net, count: u16, bytes: &[u8]) -> Vec<TcpStream> {
    let mut streams = open(net, count);
    for stream in &mut streams {
        stream.write_all(bytes).expect("the sensor takes bytes");
        half_close(stream);
    }
    streams
}

/// The same, where the sensor has no room for all: a refused client may be cut off before it has spoken.
fn try_to_speak(net: &Net, count: u16, bytes: &[u8]) -> Vec<TcpStream> {
    let mut streams = open(net, count);
    for stream in &mut streams {
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    }
    streams
}

fn open(net: &Net, count: u16) -> Vec<TcpStream> {
    let streams = net.client.connect_all((0..count).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    assert_eq!(streams.len(), usize::from(count));
    streams
}

#[test]
fn a_full_disk_holds_records_back_until_there_is_room() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let disk = net.small_disk(1024 * 1024);
    let path = disk.join("spip.jsonl");
    let agent = net.agent().log_to(&path).set("log_queue_bytes", 65_536).start();
    let filler = disk.join("filler");
    // Fills the disk to its last byte: copying ends with an error.
    let _ = net.sensor.shell(&format!("dd if=/dev/zero of={} bs=4096 2>/dev/null || true", filler.display()));

    let streams = speak(&net, 300, &[b'A'; 500]);
    agent.wait_all_read();
    eventually("the agent says that the disk is full", || (!agent.stderr().trim().is_empty()).then_some(()));
    // It still accepts.
    let more = speak(&net, 20, b"later");
    agent.wait_all_read();

    fs::remove_file(filler).expect("the filler is ours");
    agent.expect_count(300, json!({"bytes_in": 500}));
    agent.expect_count(20, json!({"payload": "later"}));
    drop((streams, more));
    let ended = agent.stop();
    let complaints = ended.stderr.lines().filter(|line| line.contains("wait")).count();
    assert_eq!(complaints, 1, "said more than once, or not: {}", ended.stderr);
    let log = read_log(&path);
    log.expect_whole();
    log.expect_count(320, json!({}));
    log.expect_sequence();
}

#[test]
fn a_second_stop_signal_ends_it_at_once() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let disk = net.small_disk(256 * 1024);
    let path = disk.join("spip.jsonl");
    let agent = net.agent().log_to(&path).set("drain_timeout_seconds", 60).start();
    let _ = net.sensor.shell(&format!("dd if=/dev/zero of={}/filler bs=4096 2>/dev/null || true", disk.display()));
    let _streams = speak(&net, 10, &[b'A'; 2000]);
    eventually("the agent says that the disk is full", || (!agent.stderr().trim().is_empty()).then_some(()));
    agent.signal(Signal::SIGTERM);
    // The first one closes the door and waits for the disk; new connections are refused.
    eventually("the listener is closed", || {
        net.client.connect_all([(None, (SENSOR_V4, LISTENER).into())].into_iter()).is_empty().then_some(())
    });
    let asked = Instant::now();
    agent.signal(Signal::SIGTERM);
    let ended = agent.wait();
    assert!(
        !ended.status.success() && asked.elapsed() < Duration::from_secs(5),
        "{} {:?}",
        ended.status,
        asked.elapsed()
    );
}

#[test]
fn one_stop_signal_on_a_full_disk_ends_it_within_the_drain_limit_and_what_is_lost_is_counted() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let disk = net.small_disk(256 * 1024);
    let agent = net
        .agent()
        .log_to(&disk.join("spip.jsonl"))
        .set("log_queue_bytes", 65_536)
        .set("max_sessions_per_source", 100)
        .set("rejected_interval_seconds", 1)
        .set("drain_timeout_seconds", 3)
        .start();
    let _ = net.sensor.shell(&format!("dd if=/dev/zero of={}/filler bs=4096 2>/dev/null || true", disk.display()));
    // More than the queue holds, so that sessions wait for the log, and more than may wait, so that refusals do, too:
    // their record is longer than the others, and will find no room where no other has.
    let streams = net.client.connect_all((0..400).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    assert_eq!(streams.len(), 400);
    drop(streams);
    agent.wait_all_read();
    eventually("the agent says that the disk is full", || (!agent.stderr().trim().is_empty()).then_some(()));
    agent.signal(Signal::SIGTERM);
    let ended = agent.wait();
    assert!(ended.status.success(), "{} {}", ended.status, ended.stderr);
    assert!(ended.stderr.contains("records could not be written before the drain limit"), "{}", ended.stderr);
}

/// The limit of descriptors where they are short.
const DESCRIPTORS: usize = 64;

#[test]
fn sessions_that_wait_for_the_log_leave_it_the_descriptor_that_it_needs() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let [directory, elsewhere] = ["log", "elsewhere"].map(|name| net.path().join(name));
    fs::create_dir(&directory).expect("the test's directory is its own");
    let path = directory.join("spip.jsonl");
    let agent = net
        .agent()
        .log_to(&path)
        .descriptors(DESCRIPTORS as u64)
        .set("max_sessions", 1000)
        .set("log_queue_bytes", 65_536)
        .set("first_byte_timeout_seconds", 120)
        .set("rejected_interval_seconds", 1)
        .start();
    fs::rename(&directory, &elsewhere).expect("the test's directory is its own");
    let mut streams = Vec::new();
    // Each write is an occasion to notice.
    eventually("the agent says that the log is gone", || {
        streams.extend(try_to_speak(&net, 5, &[b'A'; 2000]));
        (!agent.stderr().trim().is_empty()).then_some(())
    });
    // The queue is filled, sessions wait, and others take whatever descriptor is left: there are not enough for all of
    // them, so that some are let go of.
    streams.extend(try_to_speak(&net, 60, &[b'A'; 2000]));
    let mut idle = Vec::new();
    let mut more = |count| {
        let of_one_port = |_| (None, SocketAddr::new(SENSOR_V4, 2000));
        idle.extend(net.client.connect_all((0..count).map(of_one_port)));
    };
    more(90);
    // Not until all are accepted: sessions that have ended keep their descriptors until their records are handed over, and
    // when such sessions have all of them, the others wait in the backlog until the log is there.
    eventually("descriptors are short", || (agent.open_descriptors() >= DESCRIPTORS - 2).then_some(()));
    fs::rename(&elsewhere, &directory).expect("the test's directory is its own");
    // Newcomers keep descriptors short until the log has its own.
    eventually("the log is written again", || {
        more(5);
        agent.stderr().contains("the log is written again").then_some(())
    });
    net.client.deliver((SENSOR_V4, 80), b"still there?");
    let count = streams.len() + idle.len() + 1;
    drop((streams, idle));
    let _ = agent.stop();
    let log = read_log(&path);
    log.expect_whole();
    log.expect_one(json!({"payload": "still there?"}));
    assert_eq!(log.connections(json!({})), count as u64);
    assert!(log.connections(json!({"close_reason": "rejected", "limit": "descriptors"})) > 0);
    log.expect_sequence();
}

#[test]
fn what_waits_for_the_log_costs_memory_for_its_payload_and_not_for_its_lines() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let disk = net.small_disk(256 * 1024);
    let agent = net.agent().log_to(&disk.join("spip.jsonl")).set("log_queue_bytes", 65_536).start();
    let _ = net.sensor.shell(&format!("dd if=/dev/zero of={}/filler bs=4096 2>/dev/null || true", disk.display()));
    let before = agent.resident_bytes();
    // Eight bytes of line for each byte of payload: 12 MiB of these are 100 MiB of those.
    let streams = speak(&net, 200, &[1; 65_536]);
    agent.wait_all_read();
    eventually("the agent says that the disk is full", || (!agent.stderr().trim().is_empty()).then_some(()));
    let grown = agent.resident_bytes().saturating_sub(before);
    assert!(grown < 48 * 1024 * 1024, "grown by {grown} bytes");
    fs::remove_file(disk.join("filler")).expect("the filler is ours");
    drop(streams);
    let _ = agent.kill();
}

#[test]
fn a_removed_log_file_is_made_again() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let path = net.path().join("spip.jsonl");
    let agent = net.agent().log_to(&path).start();
    drop(speak(&net, 5, b"before"));
    agent.expect_count(5, json!({"payload": "before"}));

    fs::remove_file(&path).expect("the log is there");
    agent.signal(Signal::SIGHUP);
    eventually("the log is made again", || path.exists().then_some(()));

    drop(speak(&net, 5, b"after"));
    agent.expect_count(5, json!({"payload": "after"}));
    let _ = agent.stop();
    read_log(&path).expect_count(5, json!({"payload": "after"}));
}

#[test]
fn a_removed_log_file_is_noticed_without_a_signal() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let path = net.path().join("spip.jsonl");
    let agent = net.agent().log_to(&path).start();
    fs::remove_file(&path).expect("the log is there");
    let mut number = 0;
    eventually("the log is made again", || {
        number += 1;
        net.client.deliver((SENSOR_V4, 80), format!("{number}").as_bytes());
        path.exists().then_some(())
    });
    net.client.deliver((SENSOR_V4, 81), b"the last");
    let _ = agent.stop();
    let log = read_log(&path);
    log.expect_whole();
    log.expect_one(json!({"payload": "the last"}));
}

#[test]
fn renaming_the_log_under_load_loses_and_doubles_nothing() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let path = net.path().join("spip.jsonl");
    let agent = net.agent().log_to(&path).start();
    let done = AtomicBool::new(false);
    let mut files = Vec::new();
    let delivered = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&net, &done, None));
        for number in 0..5 {
            let old = net.path().join(format!("spip.jsonl.{number}"));
            fs::rename(&path, &old).expect("the log is there");
            files.push(old);
            agent.signal(Signal::SIGHUP);
            eventually("the log is made again", || fs::metadata(&path).is_ok_and(|data| data.len() > 0).then_some(()));
        }
        done.store(true, Ordering::Relaxed);
        load.join().expect("the load ends").len()
    });
    let _ = agent.stop();
    files.push(path);
    let mut all = Log::default();
    for file in files {
        let part = read_log(&file);
        part.expect_whole();
        all.lines.extend(part.lines);
    }
    all.expect_count(delivered, json!({}));
    all.expect_sequence();
}

#[test]
fn rotation_by_size_keeps_every_record() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let directory = net.path().join("log");
    fs::create_dir(&directory).expect("the test's directory is its own");
    let agent = net
        .agent()
        .log_to(&directory.join("spip.jsonl"))
        .set("log_rotate_bytes", 50_000)
        .set("log_keep_files", 0)
        .start();
    drop(speak(&net, 400, &[b'A'; 300]));
    agent.wait_all_read();
    agent.wait_open(0);
    let _ = agent.stop();
    let mut all = Log::default();
    let files: Vec<_> = fs::read_dir(&directory).expect("it is there").flatten().map(|entry| entry.path()).collect();
    for file in &files {
        let part = read_log(file);
        part.expect_whole();
        all.lines.extend(part.lines);
    }
    assert!(files.len() > 5, "{files:?}");
    all.expect_count(400, json!({"bytes_in": 300}));
    all.expect_sequence();
}

#[test]
fn two_agents_that_append_to_one_file_tear_no_line() {
    let Some(net) = Net::new() else { return };
    let path = net.path().join("spip.jsonl");
    let ports = [20_001, 20_002];
    let agents = ports.map(|port| net.agent().set("port", port).log_to(&path).start());
    let text = vec![b'\x01'; 20_000];
    std::thread::scope(|scope| {
        for port in ports {
            let (net, text) = (&net, &text);
            scope.spawn(move || {
                for _ in 0..60 {
                    net.client.deliver((SENSOR_V4, port), text);
                }
            });
        }
    });
    for agent in agents {
        let _ = agent.stop();
    }
    let log = read_log(&path);
    log.expect_whole();
    for port in ports {
        log.expect_count(60, json!({"destination_port": port, "bytes_in": 20_000}));
    }
}

#[test]
fn a_reader_of_standard_output_that_goes_away_ends_the_agent() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    // The reader leaves after the first line; what is said of it goes to stderr.
    let agent = net.agent().within(r#"{ "$@"; echo "status $?" >&2; } | head -n 1"#).spawn();
    let deadline = Instant::now() + PATIENCE;
    while !agent.stderr().contains("status") {
        let _ = net.client.connect_all([(None, (SENSOR_V4, 80).into())].into_iter());
        assert!(Instant::now() < deadline, "the agent goes on: {}", agent.stderr());
    }
    let said = agent.stderr();
    assert!(!said.contains("status 0") && !said.contains("panicked") && said.lines().count() < 10, "{said}");
}

/// Delivers numbered payloads one after the other until `done`, or until the sensor is gone; each with the time at
/// which the sensor had closed the connection.
fn load(net: &Net, done: &AtomicBool, from: Option<u32>) -> Vec<(u32, Instant)> {
    let mut delivered = Vec::new();
    net.client.enter(|| {
        for number in from.unwrap_or_default().. {
            if done.load(Ordering::Relaxed) {
                break;
            }
            let Ok(mut stream) = TcpStream::connect((SENSOR_V4, 80)) else {
                break;
            };
            let sent = stream.write_all(format!("number {number}.").as_bytes());
            if sent.is_err() || stream.shutdown(std::net::Shutdown::Write).is_err() {
                break;
            }
            // A kill resets; only an orderly end says that the sensor had everything.
            let mut rest = Vec::new();
            let ended = std::io::Read::read_to_end(&mut stream, &mut rest);
            if ended.is_err() {
                break;
            }
            delivered.push((number, Instant::now()));
        }
    });
    delivered
}

#[test]
fn twenty_kills_at_random_moments_tear_no_line_and_lose_no_record_that_had_time() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let path = net.path().join("spip.jsonl");
    let launch = net.agent().log_to(&path);
    let random = RandomState::new();
    let mut owed = Vec::new();
    for round in 0..20u32 {
        let agent = launch.clone().start();
        let done = AtomicBool::new(false);
        let runs = Duration::from_millis(100 + random.hash_one(round) % 500);
        std::thread::scope(|scope| {
            let loads: Vec<_> = (0..4)
                .map(|thread| {
                    let (net, done) = (&net, &done);
                    let first = round * 1_000_000 + thread * 100_000;
                    scope.spawn(move || load(net, done, Some(first)))
                })
                .collect();
            // The moment is what the test is about.
            std::thread::sleep(runs);
            let killed = Instant::now();
            let _ = agent.kill();
            done.store(true, Ordering::Relaxed);
            for load in loads {
                let delivered = load.join().expect("the load ends");
                let in_time = delivered.iter().filter(|(_, ended)| *ended + FLUSHED_WITHIN < killed);
                owed.extend(in_time.map(|(number, _)| *number));
            }
        });
    }
    let _ = launch.start().stop();

    let bytes = fs::read(&path).expect("the log is there");
    let text = String::from_utf8_lossy(&bytes);
    let mut torn = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.is_empty() && serde_json::from_str::<serde_json::Value>(line).is_err() {
            torn += 1;
            // What a kill has cut is followed by the first words of the next start, and by nothing of its own time.
            let next = lines.peek().copied().unwrap_or_default();
            assert!(next.contains(r#""record_type":"log""#), "torn in the middle: {line:?}, then {next:?}");
        }
    }
    assert!(torn <= 20, "{torn} torn lines after 20 kills");
    let log = read_log(&path);
    let mut written: Vec<u32> = log
        .sessions()
        .filter_map(|line| line.value["payload"].as_str()?.strip_prefix("number ")?.strip_suffix('.')?.parse().ok())
        .collect();
    written.sort_unstable();
    assert!(written.windows(2).all(|pair| pair[0] != pair[1]), "a connection was recorded twice");
    let lost: Vec<_> = owed.iter().filter(|number| written.binary_search(number).is_err()).collect();
    assert!(lost.is_empty(), "{} of {} records lost: {:?}", lost.len(), owed.len(), &lost[..lost.len().min(10)]);
    assert!(owed.len() > 200, "too little load to say anything: {}", owed.len());
}

#[test]
fn a_line_that_another_kill_has_cut_is_ended_before_the_next_is_written() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let path = net.path().join("spip.jsonl");
    fs::write(&path, "{\"timestamp\":1,\"payload\":\"cu").expect("the test's directory is its own");
    let agent = net.agent().log_to(&path).start();
    let mut stream = net.connect(80);
    stream.write_all(b"whole").expect("the sensor takes bytes");
    half_close(&stream);
    read_to_end(&mut stream);
    agent.expect_one(json!({"payload": "whole"}));
    let _ = agent.stop();
    let log = read_log(&path);
    assert_eq!(log.torn, ["{\"timestamp\":1,\"payload\":\"cu"]);
    log.expect_one(json!({"payload": "whole"}));
}
