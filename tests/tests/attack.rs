//! Attacks on a sensor, one after the other; the sensor goes on, and every connection is recorded.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use spip_tests::{CROWD_V4, CROWD_V6, Net, SENSOR_V4, SENSOR_V6, half_close, payload, read_to_end, reset, tiny_window};

#[test]
fn dripping_bytes_does_not_prolong_a_session_beyond_its_limit() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net
        .agent()
        .set("first_byte_timeout_seconds", 1)
        .set("read_timeout_seconds", 1)
        .set("session_timeout_seconds", 3)
        .start();
    let mut stream = net.connect(23);
    let dripping = std::thread::spawn(move || {
        // The pace of the drip is what the attack is; it ends when the sensor has had enough.
        while stream.write_all(b".").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let record = agent.expect_one(json!({"destination_port": 23, "close_reason": "session_timeout"}));
    dripping.join().expect("the client ends");
    let duration = record["duration_ms"].as_u64().expect("a duration");
    assert!((3000..5000).contains(&duration), "{record}");
    assert!(payload(&record).len() > 10 && payload(&record).iter().all(|byte| *byte == b'.'), "{record}");
}

#[test]
fn silence_and_one_byte_then_silence_end_in_time() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("first_byte_timeout_seconds", 1).set("read_timeout_seconds", 2).start();
    let _silent = net.connect(1);
    let mut one = net.connect(2);
    one.write_all(b"x").expect("the sensor takes bytes");
    // The first byte of a TLS record: a sensor that waits for the rest waits for ever.
    let mut tls = net.connect(3);
    tls.write_all(b"\x16").expect("the sensor takes bytes");

    let bounds = |record: serde_json::Value, from, to| {
        let duration = record["duration_ms"].as_u64().expect("a duration");
        assert!((from..to).contains(&duration), "{record}");
    };
    let silent = agent.expect_one(json!({"destination_port": 1, "close_reason": "first_byte_timeout", "bytes_in": 0}));
    bounds(silent, 1000, 3000);
    let one = agent.expect_one(json!({"destination_port": 2, "close_reason": "idle_timeout", "payload": "x"}));
    bounds(one, 2000, 4000);
    let tls = agent.expect_one(json!({"destination_port": 3, "payload_hex": "16"}));
    bounds(tls, 1000, 4000);
}

#[test]
fn handshakes_that_break_off_leave_their_bytes_and_end_in_time() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("first_byte_timeout_seconds", 2).start();
    let begun = &broken_hello()[..100];
    net.client.deliver((SENSOR_V4, 8443), begun);
    let mut held = net.connect(9443);
    held.write_all(begun).expect("the sensor takes bytes");

    agent.expect_one(json!({"destination_port": 8443, "payload_hex": hex::encode(begun)}));
    let held = agent.expect_one(json!({
        "destination_port": 9443, "close_reason": "first_byte_timeout", "payload_hex": hex::encode(begun),
    }));
    let duration = held["duration_ms"].as_u64().expect("a duration");
    assert!((2000..4000).contains(&duration), "{held}");
    assert_eq!(agent.stop().log.connections(json!({})), 2);
}

#[test]
fn a_broken_client_hello_is_a_tls_error_with_its_bytes() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let mut stream = net.connect(443);
    stream.write_all(&broken_hello()).expect("the sensor takes bytes");
    agent.expect_one(json!({
        "destination_port": 443, "is_tls": true, "close_reason": "tls_error",
        "tls_client_hello_hex": hex::encode(broken_hello()),
    }));
}

#[test]
fn a_record_does_not_tell_whether_the_client_or_the_accept_was_faster() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let hello = broken_hello();
    let kinds: [&[u8]; 5] = [b"", b"plain", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &hello[..100], &hello];
    // Everything is there, the end too, when the connection is accepted.
    agent.pause();
    for (bytes, port) in kinds.iter().zip(1000..) {
        let mut stream = net.connect(port);
        stream.write_all(bytes).expect("the kernel takes bytes");
    }
    agent.signal(Signal::SIGCONT);
    // The bytes come after the accept, the end after the bytes.
    for (bytes, port) in kinds.iter().zip(2000..) {
        let mut stream = net.connect(port);
        agent.wait_all_read();
        stream.write_all(bytes).expect("the sensor takes bytes");
        agent.wait_all_read();
        if bytes.starts_with(b"GET") {
            // Closing on an answer that was not read would be a reset.
            let length = stream.read(&mut [0; 4096]).expect("the sensor answers");
            assert!(length > 0);
        }
    }
    for (bytes, port) in kinds.iter().zip(1000..) {
        let early = agent.expect_one(json!({"destination_port": port}));
        let late = agent.expect_one(json!({"destination_port": port + 1000}));
        for key in ["payload_hex", "bytes_in", "is_tls", "tls_client_hello_hex", "tls_error", "close_reason"] {
            assert_eq!(early[key], late[key], "{key} of {:.20}", bytes.escape_ascii().to_string());
        }
    }
}

/// A record header of TLS 1.0 that announces a whole ClientHello, and then nothing that is one.
fn broken_hello() -> Vec<u8> {
    let mut bytes = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    bytes.resize(517, 0xff);
    bytes
}

#[test]
fn a_flood_from_one_address_is_recorded_whole() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (index, stream) in net
        .client
        .connect_all((0..3000).map(|number| (None, SocketAddr::new(SENSOR_V4, 1 + number))))
        .into_iter()
        .enumerate()
    {
        match index % 3 {
            0 => reset(stream),
            1 => half_close(&stream),
            _ => drop(stream),
        }
    }
    agent.wait_all_read();
    agent.wait_open(0);
    let log = agent.stop().log;
    assert_eq!(log.connections(json!({})), 3000);
    log.expect_sequence();
}

#[test]
fn a_flood_from_two_thousand_addresses_is_recorded_with_each_of_them() {
    let sources = (1..=2000).map(|number| Ipv4Addr::from_bits(CROWD_V4.to_bits() + number * 7).into());
    flood(sources.collect(), SENSOR_V4);
}

#[test]
fn a_flood_from_two_thousand_ipv6_networks_is_recorded_with_each_of_them() {
    let sources = (1..=2000u128).map(|number| Ipv6Addr::from_bits(CROWD_V6.to_bits() | number << 64 | 1).into());
    flood(sources.collect(), SENSOR_V6);
}

/// Connects once from each of two thousand sources; fewer are remembered than come, and each has its record.
fn flood(sources: Vec<IpAddr>, sensor: IpAddr) {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.add_crowd();
    let agent = net.agent().set("max_sources", 100).start();
    let pairs = sources.iter().map(|source| (Some(SocketAddr::new(*source, 0)), SocketAddr::new(sensor, 80)));
    let streams = net.client.connect_all(pairs);
    assert_eq!(streams.len(), 2000);
    drop(streams);
    agent.expect_count(2000, json!({"destination_port": 80, "close_reason": "client_closed"}));
    let log = agent.stop().log;
    for source in sources {
        log.expect_one(json!({"source_ip": source}));
    }
}

#[test]
fn five_hundred_resets_without_a_byte_are_five_hundred_records() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for number in 0..500 {
        reset(net.connect(3000 + number));
    }
    agent.expect_count(500, json!({"close_reason": "client_reset", "bytes_in": 0}));
    let log = agent.stop().log;
    for number in 0..500 {
        log.expect_one(json!({"destination_port": 3000 + number}));
    }
}

#[test]
fn clients_that_close_their_half_and_stay_do_not_hold_a_session() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let mut streams = net.client.connect_all((0..300).map(|number| (None, SocketAddr::new(SENSOR_V4, 1 + number))));
    for stream in &mut streams {
        stream.write_all(b"half").expect("the sensor takes bytes");
        half_close(stream);
    }
    agent.expect_count(300, json!({"payload": "half", "close_reason": "client_closed"}));
    // The sensor has closed its half too.
    streams.iter_mut().for_each(|stream| drop(read_to_end(stream)));
}

#[test]
fn clients_that_never_read_are_recorded_and_do_not_hold_a_session() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("read_timeout_seconds", 1).set("write_timeout_seconds", 1).start();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
    let streams: Vec<_> = (0..50)
        .map(|number| {
            let mut stream = tiny_window(&net.client, (SENSOR_V4, 8000 + number));
            stream.write_all(&request).expect("the sensor takes bytes");
            stream
        })
        .collect();
    for record in agent.expect_count(50, json!({"bytes_in": request.len()})) {
        assert_eq!(payload(&record), request, "{record}");
        let reason = record["close_reason"].as_str().expect("a reason");
        assert!(["server_closed", "idle_timeout", "write_timeout"].contains(&reason), "{record}");
        assert!(record["bytes_out"].as_u64().is_some_and(|bytes| bytes > 0), "{record}");
    }
    // While all of them are still there.
    agent.wait_open(0);
    drop(streams);
}

#[test]
fn clients_that_send_without_end_are_cut_and_cost_bounded_memory() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let limit = 64 * 1024;
    net.add_crowd();
    let agent = net
        .agent()
        .set("payload_memory_bytes", 4 * limit)
        .set("respond", "off")
        .set("first_byte_timeout_seconds", 120)
        .set("session_timeout_seconds", 120)
        .start();
    let before = agent.resident_bytes();
    let block = vec![b'A'; 1024 * 1024];
    let mut streams = net.client.connect_all((1..=200).map(|host| (Some(crowd(host)), SocketAddr::new(SENSOR_V4, 80))));
    assert_eq!(streams.len(), 200);
    std::thread::scope(|scope| {
        for some in streams.chunks_mut(20) {
            let block = &block;
            scope.spawn(move || {
                for stream in some {
                    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout above zero");
                    // Ends with an error as soon as the sensor has had enough.
                    while stream.write_all(block).is_ok() {}
                }
            });
        }
    });
    drop(streams);
    let records = agent.expect_count(200, json!({"destination_port": 80}));
    for record in &records {
        // One that has reached its own limit may be told to make room before it ends by itself.
        let kept = payload(record).len();
        assert!(kept == limit || record["limit"] == "payload_memory_bytes", "{kept} kept, limit {}", record["limit"]);
        assert!((2_048..=limit).contains(&kept), "{kept} kept");
    }
    let grown = agent.resident_bytes().saturating_sub(before);
    assert!(grown < 48 * 1024 * 1024, "grown by {grown} bytes");
}

/// Each from an address of its own.
fn crowd(host: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(CROWD_V4.to_bits() + host).into(), 0)
}

#[test]
fn sources_that_fill_the_memory_for_payloads_give_way_to_others() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.add_crowd();
    let agent = net
        .agent()
        .set("payload_memory_bytes", 1024 * 1024)
        .set("respond", "off")
        .set("first_byte_timeout_seconds", 120)
        .set("read_timeout_seconds", 120)
        .start();
    // Below the limit of each, above the memory together; they stay, from six sources.
    let greedy = vec![b'A'; 60_000];
    let holders = (0..60).map(|number| (Some(crowd(1 + number % 6)), SocketAddr::new(SENSOR_V4, 1 + number as u16)));
    let mut streams = net.client.connect_all(holders);
    for stream in &mut streams {
        // One that was told to make room may be gone by now.
        let _ = stream.write_all(&greedy);
    }
    agent.wait_all_read();
    for size in [100, 2_000, 60_000] {
        let modest = vec![b'B'; size];
        let mut other = net.client.connect((SENSOR_V6, 80));
        other.write_all(&modest).expect("the sensor takes bytes");
        half_close(&other);
        let record = agent.expect_one(json!({"destination_ip": SENSOR_V6, "bytes_in": size, "limit": null}));
        assert_eq!(payload(&record), modest);
    }
    drop(streams);
    let records = agent.expect_count(60, json!({"destination_ip": SENSOR_V4}));
    let (made_way, stayed): (Vec<_>, Vec<_>) = records.iter().partition(|record| record["close_reason"] == "rejected");
    assert!(made_way.iter().all(|record| record["limit"] == "payload_memory_bytes"));
    assert!((1..=16).contains(&stayed.iter().filter(|record| payload(record).len() > 2_048).count()));
    assert!(records.iter().all(|record| payload(record).len() >= 2_048), "what is guaranteed");
}

#[test]
fn a_source_that_fills_the_log_is_shortened_then_counted_and_others_are_not() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.add_crowd();
    let directory = net.path().join("log");
    std::fs::create_dir(&directory).expect("the test's directory is its own");
    // A room of 20 MB: a source has whole lines for a twentieth of it, and any for twice as much.
    let agent = net
        .agent()
        .log_to(&directory.join("spip.jsonl"))
        .set("log_rotate_bytes", 10_000_000)
        .set("log_keep_files", 1)
        .set("respond", "off")
        .set("rejected_interval_seconds", 1)
        .start();
    net.client.deliver(SocketAddr::new(SENSOR_V6, 80), b"evidence");
    agent.expect_one(json!({"payload": "evidence"}));
    let noise = vec![b'A'; 6_000];
    for _ in 0..600 {
        net.client.deliver((SENSOR_V4, 80), &noise);
    }
    agent.wait_open(0);
    net.client.deliver(SocketAddr::new(SENSOR_V6, 81), &noise);
    let late = agent.expect_one(json!({"destination_port": 81}));
    assert_eq!((payload(&late), &late["shortened"]), (noise.clone(), &json!(null)));
    let log = agent.stop().log;
    assert_eq!(log.connections(json!({"destination_port": 80})), 601, "each is counted");
    let records = log.matching(&json!({"destination_ip": SENSOR_V4}));
    let whole = records.iter().filter(|record| payload(record) == noise).count();
    let short = records.iter().filter(|record| record["shortened"].is_array()).count();
    let counted: u64 = log.connections(json!({"limit": "log_budget"}));
    assert!((30..60).contains(&whole) && (100..400).contains(&short) && counted > 200, "{whole} {short} {counted}");
    assert!(log.matching(&json!({"payload": "evidence"})).len() == 1, "what came before the flood is still there");
}

/// A way of making the agent hold memory for a connection that stays.
type Hold = fn(&mut std::net::TcpStream) -> std::io::Result<()>;

#[test]
fn every_kind_of_holder_stays_within_the_memory_for_sessions() {
    const BUDGET: u64 = 4 * 1024 * 1024;
    const HOLDERS: u32 = 1_000;
    /// Memory of the process beside sessions: threads, lines that are made and wait, the allocator's reserve.
    const BESIDE: u64 = 40 * 1024 * 1024;
    let kinds: [(&str, Hold); 5] = [
        ("payload", |stream| stream.write_all(&vec![b'A'; 60_000])),
        ("a ClientHello that never ends", |stream| {
            stream.write_all(b"\x16\x03\x01\x40\x00\x01\x00\xff\xff\x03\x03")?;
            stream.write_all(&vec![b'A'; 16_000])
        }),
        ("TLS that is idle", |stream| handshake(stream).map(drop)),
        ("part of a TLS record", |stream| {
            handshake(stream)?;
            stream.write_all(b"\x17\x03\x03\x40\x00")?;
            stream.write_all(&vec![b'A'; 16_000])
        }),
        ("requests whose answers are not read", |stream| {
            stream.write_all(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000))
        }),
    ];
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.add_crowd();
    for (name, hold) in kinds {
        let agent = net
            .agent()
            .set("payload_memory_bytes", BUDGET)
            .set("first_byte_timeout_seconds", 120)
            .set("read_timeout_seconds", 120)
            .set("write_timeout_seconds", 120)
            .set("log_queue_bytes", 1024 * 1024)
            .set("rate_limit_per_second", 0)
            .start();
        let before = agent.resident_bytes();
        let holders = (0..HOLDERS).map(|host| (Some(crowd(1 + host % 50)), SocketAddr::new(SENSOR_V4, 443)));
        let mut streams = net.client.connect_all(holders);
        std::thread::scope(|scope| {
            for some in streams.chunks_mut(100) {
                scope.spawn(move || {
                    for stream in some {
                        stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout above zero");
                        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout above zero");
                        // One that was told to make room may be gone by now.
                        let _ = hold(stream);
                    }
                });
            }
        });
        agent.wait_all_read();
        let grown = agent.resident_bytes().saturating_sub(before);
        let bound = BUDGET + u64::from(HOLDERS) * 8 * 1024 + BESIDE;
        assert!(grown < bound, "{name}: grown by {grown} bytes, and {bound} are promised");
        // A newcomer is served all the same.
        net.client.deliver((SENSOR_V4, 80), b"still there?");
        agent.expect_one(json!({"payload": "still there?", "payload_truncated": false}));
        drop(streams);
        assert_eq!(agent.stop().log.connections(json!({"destination_port": 443})), u64::from(HOLDERS), "{name}");
    }
}

/// Completes a handshake on `stream`, and leaves it idle.
fn handshake(stream: &mut std::net::TcpStream) -> std::io::Result<()> {
    use spip_tests::tls;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = Arc::new(tls::client(provider, &[&rustls::version::TLS13]));
    let name = "example.com".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config, name).expect("a valid configuration");
    client.complete_io(stream).map(drop)
}

#[test]
fn out_of_descriptors_below_the_number_of_sessions_it_counts_the_shortage_and_names_it() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().descriptors(64).set("max_sessions", 1000).set("first_byte_timeout_seconds", 120).start();
    let idle = net.client.connect_all((0..90).map(|number| (None, SocketAddr::new(SENSOR_V4, 100 + number))));
    assert_eq!(idle.len(), 90);
    net.client.deliver((SENSOR_V4, 80), b"still there?");
    agent.expect_one(json!({"payload": "still there?", "close_reason": "client_closed"}));
    agent.wait_all_read();
    drop(idle);
    let log = agent.stop().log;
    assert_eq!(log.connections(json!({})), 91);
    assert!(log.connections(json!({"close_reason": "rejected", "limit": "descriptors"})) > 0);
    let told = log.messages().find(|line| line.value["shortages"].as_u64().is_some_and(|shortages| shortages > 0));
    assert!(told.is_some(), "{}", log.text());
    log.expect_sequence();
}

#[test]
fn ninety_idle_clients_at_sixty_four_descriptors_do_not_make_it_deaf() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().descriptors(64).start();
    let idle = net.client.connect_all((0..90).map(|number| (None, SocketAddr::new(SENSOR_V4, 100 + number))));
    assert_eq!(idle.len(), 90);
    // While they hold on, and after they are gone.
    for port in [1, 2, 3] {
        net.client.deliver((SENSOR_V4, port), b"still there?");
        agent.expect_one(json!({"destination_port": port, "payload": "still there?", "close_reason": "client_closed"}));
    }
    drop(idle);
    net.client.deliver((SENSOR_V4, 4), b"still there?");
    agent.expect_one(json!({"destination_port": 4, "payload": "still there?", "close_reason": "client_closed"}));
    let log = agent.stop().log;
    assert_eq!(log.connections(json!({})), 94);
    log.expect_sequence();
}

#[test]
fn addresses_of_the_unspecified_kind_are_not_in_a_record_of_a_real_client() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    // Reset before the sensor can ask the socket who is there.
    for number in 0..100 {
        let mut stream = net.connect(5000 + number);
        stream.write_all(b"x").expect("the sensor takes bytes");
        reset(stream);
    }
    for record in agent.expect_count(100, json!({"payload": "x"})) {
        let address: IpAddr = record["source_ip"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        assert!(!address.is_unspecified() && record["source_port"] != 0, "{record}");
        assert_eq!(record["destination_ip"], json!(SENSOR_V4));
    }
}

/// A request whose headers cost four bytes of log for each byte: control characters and quotes, in text and in digits.
fn dear_request() -> Vec<u8> {
    let mut request = b"GET /a HTTP/1.1\r\n".to_vec();
    for name in b'a'..b'h' {
        request.extend_from_slice(&[name, b':']);
        request.extend(b"\t\"".iter().cycle().take(1_800));
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

#[test]
fn a_source_costs_at_most_three_bytes_of_log_for_a_byte_on_the_wire_and_64_kib_a_minute() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("respond", "off").start();
    let request = dear_request();
    // Seven packets to open and close, two for what is sent, and one for each 1,460 bytes, with headers of 52 bytes.
    let wire = 300 * (request.len() + 52 * (9 + request.len() / 1460));
    let began = std::time::Instant::now();
    for _ in 0..300 {
        net.client.deliver((SENSOR_V4, 80), &request);
    }
    agent.expect_count(300, json!({"destination_port": 80}));
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let log = agent.stop().log;
    let lines: Vec<_> = log.lines.iter().filter(|line| line.value["destination_port"] == 80).collect();
    let all: usize = lines.iter().map(|line| line.text.len()).sum();
    let most = (3 * wire) as f64 + (1.0 + minutes) * f64::from(64 << 10) + f64::from(256 << 10);
    assert!((all as f64) < most, "{all} bytes of log for {wire}");
    let first = lines.first().expect("records").text.len();
    assert!(first as f64 > 3.5 * request.len() as f64, "{first}: this request is not dear");
}
