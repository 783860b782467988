//! Scans beside floods, behind a log that takes nothing, and with scans turned off.

use super::*;

/// SYNs from invented addresses, one from each.
const FLOOD: u32 = 130_000;
/// Of the flood, one SYN in so many is followed by one of a scanner.
const EACH: u32 = 200;

/// Floods an agent, and asserts that neither sessions nor a scan that goes on meanwhile are hidden by it. The SYNs go
/// to the ports that `port` makes of a number.
fn flood(net: &Net, launch: Launch<'_>, how: &str, port: fn(u32) -> u16) {
    net.add_crowd();
    // Nothing is decided before the end, and there is room for an eighth: the flood has to give way.
    let agent = launch.set("scan_timeout_seconds", 60).set("ebpf_syn_entries", FLOOD / 8).start();
    let before = agent.resident_bytes();
    let source = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(CROWD_V4.to_bits() + number));
    let scanner = source(FLOOD + 1);
    let packets = (1..=FLOOD).flat_map(|number| {
        let scan = (number % EACH == 0).then(|| RawSyn {
            source: scanner,
            source_port: 1_024 + u16::try_from(number / EACH).expect("650 of them"),
            sequence: number,
            ..syn(port(number / EACH))
        });
        [RawSyn { source: source(number), ..syn(port(number)) }].into_iter().chain(scan)
    });
    std::thread::scope(|scope| {
        scope.spawn(|| net.client.send_syns(packets));
        for number in 0..100 {
            net.client.deliver((SENSOR_V4, LISTENER), format!("session {number}").as_bytes());
        }
    });
    for number in 0..100 {
        agent.expect_one(json!({"payload": format!("session {number}"), "destination_source": how}));
    }
    let grown = agent.resident_bytes().saturating_sub(before);
    assert!(grown < 96 << 20, "grown by {grown} bytes");
    let report = net.status();

    let log = agent.stop().log;

    let counts = counts(&log);
    let sent = FLOOD + FLOOD / EACH + 100;
    assert_eq!((&counts["seen"], &counts["joined"]), (&json!(sent), &json!(100)), "{counts}");
    let scans = log.matching(&json!({"record_type": "scan"}));
    assert!(scans.len() <= 4097, "{} records", scans.len());
    let told = |key: &str| scans.iter().filter_map(|scan| scan[key].as_u64()).sum::<u64>();
    assert_eq!(told("count"), counts["half_open"].as_u64().expect("a number"), "{counts}");
    assert_eq!(told("undecided"), counts["evicted"].as_u64().expect("a number"), "{counts}");
    assert!(counts["evicted"].as_u64().is_some_and(|evicted| evicted > u64::from(FLOOD / 2)), "{counts}");
    // The flood has given way: of the scan only what the kernel could not hand over may be missing.
    let scan = log.expect_one(json!({"record_type": "scan", "source_ip": scanner}));
    let scanned = u64::from(FLOOD / EACH);
    let untold = |what: &str| report["kernel"][what].as_u64().expect("a number");
    let excused = untold("untold") + if untold("untold_steps") > 0 { scanned } else { 0 };
    let found = scan["count"].as_u64().expect("a number");
    assert!(found <= scanned && found + excused >= scanned, "{scan} without {excused}");
    log.expect_sequence();
}

#[test]
fn a_flood_from_invented_addresses_is_bounded_counted_and_hides_neither_session_nor_scan() {
    let Some(net) = Net::new() else { return };
    // Straight to the listener: connection tracking has limits of its own.
    flood(&net, watching(&net), "ebpf", |_| LISTENER);
}

#[test]
fn a_flood_of_every_port_that_is_steered_hides_neither_session_nor_scan() {
    let Some(net) = Net::new() else { return };
    let launch = watching(&net).set("ip", "127.0.0.1").set("steering", "sk_lookup");
    flood(&net, launch, "socket", |number| u16::try_from(number % 60_000 + 1).expect("a port"));
}

#[test]
fn without_room_for_all_scans_some_are_given_up_and_the_counts_still_add_up() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = watching(&net).set("ebpf_syn_entries", 64).start();
    net.client.send_syns((1..=5000).filter(|port| *port != LISTENER).map(syn));
    net.client.deliver((SENSOR_V4, 80), b"in between");
    agent.expect_one(json!({"payload": "in between", "destination_port": 80}));
    let log = agent.stop().log;
    let counts = counts(&log);
    assert_eq!((&counts["seen"], &counts["joined"]), (&json!(5001), &json!(1)), "{counts}");
    assert!(counts["evicted"].as_u64().is_some_and(|evicted| evicted >= 4000), "{counts}");
    log.expect_one(json!({"record_type": "scan", "source_ip": "0.0.0.0", "undecided": counts["evicted"], "syn": null}));
}

#[test]
fn scans_that_the_log_cannot_take_do_not_hold_the_stop() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.add_crowd();
    let disk = net.small_disk(64 * 1024);
    let agent = watching(&net)
        .log_to(&disk.join("spip.jsonl"))
        .set("log_queue_bytes", 65_536)
        .set("scan_timeout_seconds", 0.1)
        .set("scan_interval_seconds", 0.2)
        .set("drain_timeout_seconds", 1)
        .start();
    // The records of so many sources are ten times what disk and queue have room for.
    let source = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(CROWD_V4.to_bits() + number));
    net.client.send_syns((1..=3000).map(|number| RawSyn { source: source(number), ..syn(80) }));
    eventually("the agent says that the disk is full", || (!agent.stderr().trim().is_empty()).then_some(()));
    // It still accepts, and answers.
    let mut session = net.connect(80);
    session.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the sensor takes bytes");
    let length = std::io::Read::read(&mut session, &mut [0; 4096]).expect("the sensor answers");
    assert!(length > 0);

    let asked = Instant::now();
    agent.signal(Signal::SIGTERM);
    let ended = agent.wait();

    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
    assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
}

#[test]
fn with_scans_off_there_is_no_record_and_nobody_watches_the_listener() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "required").set("scans", false).start();
    net.client.send_syns((1..=100).map(syn));
    net.client.deliver((SENSOR_V4, 80), b"hello");
    agent.expect_one(json!({"payload": "hello", "destination_source": "ebpf", "syn": {"ttl": 64}}));
    let message = agent.wait_message(json!({"message": "eBPF is attached"}));
    assert_eq!(message["scans"], false, "{message}");
    let log = agent.stop().log;
    assert_eq!(log.records().count(), 1, "{}", log.text());
    assert!(log.messages().all(|line| line.value["target"] != "scans"));
}
