//! Half-open scans: what never becomes a connection leaves a record of its source, and nothing else does.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use spip_tests::{
    Agent, CLIENT_V4, CLIENT_V6, CROWD_V4, LISTENER, Launch, Log, Net, RawSyn, SENSOR_V4, SENSOR_V6, eventually,
    half_close, read_to_end,
};

/// The port from which scanners of one kind send everything.
const ONE_PORT: u16 = 40_000;

/// An agent that sums up one source in one record, and writes it when it is stopped.
fn watching(net: &Net) -> Launch<'_> {
    net.agent().set("ebpf", "required").set("scan_timeout_seconds", 1).set("scan_interval_seconds", 3600)
}

/// A SYN from the client's fixed port.
fn syn(port: u16) -> RawSyn {
    RawSyn::new((CLIENT_V4, ONE_PORT), (SENSOR_V4, port))
}

/// Returns the status of the running agent.
fn status(net: &Net) -> Value {
    let mut report = String::new();
    let status = UnixStream::connect(net.path().join("run/status.sock"));
    status.and_then(|mut status| status.read_to_string(&mut report)).expect("the agent answers");
    serde_json::from_str(&report).expect("JSON")
}

/// Waits until it is decided of `count` SYNs that this has become of them.
fn wait_decided(net: &Net, became: &str, count: u64) {
    eventually(became, || (status(net)["agent"]["scans"][became] == count).then_some(()));
}

/// Returns the agent's final counts of the SYNs that it saw; they add up.
fn counts(log: &Log) -> Value {
    let message = log.messages().find(|line| line.value["message"] == "what has become of SYNs");
    let counts = message.expect("the agent says what has become of SYNs").value.clone();
    let number = |key: &str| counts[key].as_u64().unwrap_or_else(|| panic!("no {key} in {counts}"));
    let became = ["joined", "half_open", "refused", "evicted", "ignored", "contradicted"].map(number);
    assert_eq!(number("seen"), became.iter().sum::<u64>(), "{counts}");
    counts
}

/// Asserts what has become of SYNs: seen, joined, half-open, ignored; none was evicted.
#[track_caller]
fn assert_counts(log: &Log, [seen, joined, half_open, ignored]: [u64; 4]) {
    let counts = counts(log);
    let expected = json!({
        "seen": seen, "joined": joined, "half_open": half_open, "ignored": ignored, "evicted": 0,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&counts[key], value, "{key} in {counts}");
    }
}

/// Stops the agent and returns the one scan that it saw, by one source.
fn the_scan(agent: Agent) -> (Value, Log) {
    let log = agent.stop().log;
    let record = log.expect_one(json!({"record_type": "scan"})).clone();
    log.expect_sequence();
    (record, log)
}

#[test]
fn a_scan_by_nmap_is_one_record_with_its_ports() {
    let Some(net) = Net::new() else { return };
    if !Command::new("nmap").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: needs nmap");
    }
    net.redirect();
    let agent = watching(&net).start();
    let shown = net.client.shell(&format!("nmap -sS -Pn -n --max-retries 0 -p 1-1000 {SENSOR_V4}"));
    assert!(shown.contains("Nmap done"), "{shown}");

    let (record, log) = the_scan(agent);

    assert_eq!(record["source_ip"], json!(CLIENT_V4));
    assert_eq!(record["destination_ports"], json!(["1-1000"]));
    assert_eq!((&record["destination_port_count"], &record["count"]), (&json!(1000), &json!(1000)));
    assert_eq!((&record["destination_ips"], &record["destination_ip_count"]), (&json!([SENSOR_V4]), &json!(1)));
    assert_eq!(record["syn"]["options"], json!([2]), "nmap sends a maximum segment size and nothing else: {record}");
    assert_counts(&log, [1000, 0, 1000, 0]);
}

#[test]
fn retransmitted_syns_count_once_and_a_rewritten_source_port_does_not_matter() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = watching(&net).start();
    // From one port to many at once: address translation has to give all but one another source port.
    for _ in 0..3 {
        net.client.send_syns((1..=500).map(syn));
    }
    let (record, log) = the_scan(agent);
    assert_eq!((&record["destination_ports"], &record["count"]), (&json!(["1-500"]), &json!(500)));
    assert_eq!((&record["source_port_min"], &record["source_port_max"]), (&json!(ONE_PORT), &json!(ONE_PORT)));
    assert_counts(&log, [500, 0, 500, 0]);
}

#[test]
fn a_scan_behind_packets_that_the_kernel_throws_away_has_its_record_and_its_own_look() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    // Each with a sequence number of its own, and all with the same.
    for sequence in [None, Some(1_000_000)] {
        let numbered = |port| RawSyn { sequence: sequence.unwrap_or(u32::from(port)), ..syn(port) };
        let broken = |port| RawSyn { broken: true, ttl: 33, window: 9_999, ..numbered(port) };
        let agent = watching(&net).start();
        // The first ones wait for their decision, the others are decided, when their likes arrive.
        net.client.send_syns((201..=400).map(broken));
        wait_decided(&net, "ignored", 200);
        net.client.send_syns((1..=200).map(broken));
        net.client.send_syns((1..=400).map(numbered));
        let (record, log) = the_scan(agent);
        assert_eq!((&record["destination_ports"], &record["count"]), (&json!(["1-400"]), &json!(400)));
        if sequence.is_none() {
            assert_eq!((&record["syn"]["ttl"], &record["syn"]["window"]), (&json!(64), &json!(1024)), "{record}");
            assert_counts(&log, [600, 0, 400, 200]);
        }
    }
}

#[test]
fn a_session_behind_a_packet_that_the_kernel_throws_away_has_its_own_look() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    // The thrown away one waits for its decision as long as the client takes.
    let agent = watching(&net).set("scan_timeout_seconds", 60).start();
    let broken = RawSyn { broken: true, sequence: 777_000, ttl: 33, window: 9_999, ip_id: 54_321, ..syn(80) };
    net.client.send_syns([broken]);
    // TCP_REPAIR, TCP_REPAIR_QUEUE and TCP_QUEUE_SEQ of linux/tcp.h choose the sequence number of what follows.
    net.client.shell(&format!(
        "python3 -c 'import socket
s = socket.socket()
for option, value in (19, 1), (20, 2), (21, 777000), (19, 0): s.setsockopt(6, option, value)
s.bind((\"{CLIENT_V4}\", {ONE_PORT}))
s.connect((\"{SENSOR_V4}\", 80))
s.sendall(b\"hello\")'"
    ));
    let record = agent.expect_one(json!({"payload": "hello", "source_port": ONE_PORT, "destination_port": 80}));
    assert_eq!((&record["syn"]["ttl"], &record["destination_source"]), (&json!(64), &json!("ebpf")), "{record}");
    assert_ne!(record["syn"]["window"], 9_999, "{record}");
    assert_counts(&agent.stop().log, [1, 1, 0, 0]);
}

#[test]
fn one_sequence_number_for_all_ports_is_still_all_ports() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = watching(&net).start();
    // Address translation finds a free port for so many of one source port, but not for all 65,535.
    let all = || (1..=30_000).filter(|port| *port != LISTENER).map(|port| RawSyn { sequence: 1, ..syn(port) });
    // The ring holds 23,000 SYNs: more at once are lost where the agent does not get a processor in time.
    let mut sent = 0;
    for part in all().collect::<Vec<_>>().chunks(10_000) {
        sent += part.len();
        net.client.send_syns(part.to_vec());
        wait_decided(&net, "seen", sent as u64);
    }
    // Again, after it was decided what the first ones were.
    wait_decided(&net, "half_open", 29_999);
    net.client.send_syns(all().take(1000));
    let (record, log) = the_scan(agent);
    let ports = json!([format!("1-{}", LISTENER - 1), format!("{}-30000", LISTENER + 1)]);
    assert_eq!((&record["destination_ports"], &record["count"]), (&ports, &json!(29_999)));
    assert_counts(&log, [29_999, 0, 29_999, 0]);
}

#[test]
fn ports_of_other_services_and_ports_without_a_rule_are_left_out() {
    let Some(net) = Net::new() else { return };
    for program in ["iptables", "ip6tables"] {
        net.sensor.shell(&format!("{program} -w -t nat -A PREROUTING -p tcp -m multiport --dports 22,99 -j RETURN"));
    }
    net.redirect();
    let service = net.sensor.enter(|| TcpListener::bind((SENSOR_V4, 22)).expect("a free port"));
    // One port has a rule and a service behind it: the rule decides.
    let _covered = net.sensor.enter(|| TcpListener::bind((SENSOR_V4, 80)).expect("a free port"));
    let agent = watching(&net).start();
    for sequence in [None, Some(1_000_000)] {
        for port in [21, 22, 23, 80, 99] {
            let one = syn(port);
            net.client.send_syns([RawSyn { sequence: sequence.unwrap_or(one.sequence), ..one }]);
        }
    }
    let _session = net.client.connect((SENSOR_V4, 22));
    let _ = service.accept().expect("the service is there");

    let (record, log) = the_scan(agent);

    assert_eq!((&record["destination_ports"], &record["count"]), (&json!(["21", "23", "80"]), &json!(6)));
    assert_counts(&log, [11, 0, 6, 5]);
}

#[test]
fn connections_are_no_scans_whatever_their_ports() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = watching(&net).start();
    let from = SocketAddr::new(CLIENT_V4, ONE_PORT);
    let mut streams: Vec<_> = (1000..1100).map(|port| net.client.connect_from(from, (SENSOR_V4, port))).collect();
    streams.iter_mut().for_each(|stream| stream.write_all(b"hello").expect("the sensor takes bytes"));
    agent.wait_all_read();
    drop(streams);
    let records = agent.expect_count(100, json!({"payload": "hello"}));
    let p0f = records[0]["syn"]["p0f"].as_str().expect("a signature");
    assert!(p0f.starts_with("4:64+0:0:1460:mss*44,") && p0f.contains(":mss,sok,ts,nop,ws:df"), "{p0f}");
    assert!(records.iter().all(|record| record["syn"].get("tools").is_none()));
    // SYNs of this machine's own clients are no scan either.
    let _local = net.sensor.connect((SENSOR_V4, LISTENER));
    let log = agent.stop().log;
    log.expect_count(0, json!({"record_type": "scan"}));
    assert_counts(&log, [100, 100, 0, 0]);
}

#[test]
fn a_handshake_that_is_completed_after_the_timeout_is_a_scan_and_a_session_and_is_counted() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = watching(&net).start();
    let deaf = |change| net.client.shell(&format!("iptables -w {change} INPUT -p tcp --sport 80 -j DROP"));
    deaf("-A");
    std::thread::scope(|scope| {
        // The answer is sent again after one and three seconds.
        let late = scope.spawn(|| net.client.deliver((SENSOR_V4, 80), b"late"));
        wait_decided(&net, "half_open", 1);
        deaf("-D");
        late.join().expect("the client connects");
    });
    agent.expect_one(json!({"payload": "late", "destination_port": 80}));
    let (record, log) = the_scan(agent);
    assert_eq!((&record["destination_ports"], &record["count"]), (&json!(["80"]), &json!(1)));
    assert_counts(&log, [1, 0, 1, 0]);
    assert_eq!(counts(&log)["unmatched"], 1);
}

#[test]
fn an_interval_ends_while_the_agent_runs_and_each_source_has_its_own_record() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.add_crowd();
    let agent = watching(&net).set("scan_timeout_seconds", 0.2).set("scan_interval_seconds", 0.5).start();
    let source = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(CROWD_V4.to_bits() + number));
    net.client.send_syns((1..=20).map(|number| RawSyn { source: source(number), ..syn(80) }));
    for number in 1..=20 {
        let record = agent.expect_one(json!({
            "record_type": "scan", "source_ip": source(number), "count": 1, "destination_ports": ["80"],
            "tools": null, "undecided": null, "syn_variants": 1,
        }));
        assert_eq!(record["first_time"], record["last_time"]);
    }
    net.client.send_syns([RawSyn { source: source(1), sequence: 5, ..syn(81) }]);
    agent.expect_one(json!({"record_type": "scan", "source_ip": source(1), "destination_ports": ["81"]}));
    agent.stop().log.expect_sequence();
}

#[test]
fn ipv6_scans_have_their_addresses_and_extension_headers_do_not_hide_them() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = watching(&net).start();
    let six = |port| RawSyn::new((CLIENT_V6, ONE_PORT), (SENSOR_V6, port));
    net.client.send_syns((1..=10).map(six));
    net.client.send_syns([RawSyn { ip_options: vec![1], ..six(11) }]);
    let (record, log) = the_scan(agent);
    assert_eq!((&record["source_ip"], &record["destination_ips"]), (&json!(CLIENT_V6), &json!([SENSOR_V6])));
    assert_eq!(record["destination_ports"], json!(["1-11"]));
    assert_eq!(record["syn"]["p0f"], "6:64+0:0:1460:1024,0:mss::0");
    assert_counts(&log, [11, 0, 11, 0]);
}

#[test]
fn a_prefix_that_is_asked_through_is_a_range_of_addresses() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.shell("ip route add local 203.0.113.0/24 dev lo && ip route add local 2001:db8:77::/48 dev lo");
    net.client.shell(&format!(
        "ip route add 203.0.113.0/24 via {SENSOR_V4} && ip route add 2001:db8:77::/48 via {SENSOR_V6}"
    ));
    let agent = watching(&net).start();
    net.client.send_syns(
        (0..=255_u8).map(|number| RawSyn {
            destination: Ipv4Addr::new(203, 0, 113, number.wrapping_mul(101)).into(),
            ..syn(23)
        }),
    );
    let six = |number: u16| Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, number);
    net.client.send_syns((1..=600).map(|number| RawSyn::new((CLIENT_V6, ONE_PORT), (six(number * 2), 23))));
    let log = agent.stop().log;
    log.expect_one(json!({
        "record_type": "scan", "source_ip": CLIENT_V4, "count": 256, "destination_ports": ["23"],
        "destination_ips": ["203.0.113.0-203.0.113.255"], "destination_ip_count": 256, "destinations_truncated": null,
    }));
    log.expect_one(json!({
        "record_type": "scan", "source_ip": CLIENT_V6, "count": 600,
        "destination_ip_count": 600, "destinations_truncated": true,
    }));
}

#[test]
fn a_telescope_that_is_asked_through_in_random_order_is_counted_to_the_last_address() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.shell("ip route add local 203.0.0.0/18 dev lo && ip route add local 2001:db8:77::/48 dev lo");
    net.client
        .shell(&format!("ip route add 203.0.0.0/18 via {SENSOR_V4} && ip route add 2001:db8:77::/48 via {SENSOR_V6}"));
    let agent = watching(&net).start();
    // Every second address, so that hardly two are neighbours before the end: 40,503 is odd.
    let address = |number: u32| Ipv4Addr::from_bits(0xcb00_0000 | (number * 40_503 % 8_192) << 1);
    net.client.send_syns((0..8_192).map(|number| RawSyn {
        destination: address(number).into(),
        sequence: number,
        ..syn(23)
    }));
    // Of a prefix without end what was kept is told, and that it is not all.
    let six = |number: u16| Ipv6Addr::new(0x2001, 0xdb8, 0x77, number, 1, 2, 3, 4);
    net.client.send_syns((1..=600).map(|number| RawSyn::new((CLIENT_V6, ONE_PORT), (six(number), 23))));
    let log = agent.stop().log;
    let record = log.expect_one(json!({
        "record_type": "scan", "source_ip": CLIENT_V4, "count": 8192, "destination_ip_count": 8192,
        "destinations_truncated": true,
    }));
    assert_eq!(record["destination_ips"].as_array().map(Vec::len), Some(256), "{record}");
    log.expect_one(json!({
        "record_type": "scan", "source_ip": CLIENT_V6, "count": 600,
        "destination_ip_count": 256, "destinations_truncated": true,
    }));
}

#[test]
fn ip_options_fragments_and_data_do_not_hide_a_scan() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = watching(&net).start();
    // Router alert (RFC 2113).
    net.client.send_syns([RawSyn { ip_options: vec![148, 4, 0, 0], ..syn(1) }]);
    net.client.send_syns([RawSyn { data: b"GET / HTTP/1.0\r\n\r\n".to_vec(), ..syn(2) }]);
    let fragmented = RawSyn { data: vec![b'x'; 24], ..syn(3) };
    net.client.send_raw(fragmented.fragments(24).into_iter());
    // The header itself in two fragments: not seen before it is whole, and harmless.
    net.client.send_raw(RawSyn { ip_id: 9, ..syn(4) }.fragments(16).into_iter());
    // No SYN at all, and SYNs with flags that make no sense.
    net.client.send_syns([RawSyn { flags: 0x10, ..syn(5) }, RawSyn { flags: 0x12, ..syn(6) }]);
    net.client.send_syns([RawSyn { flags: 0x04, ..syn(7) }, RawSyn { flags: 0x01, ..syn(8) }]);

    let (record, log) = the_scan(agent);

    assert_eq!((&record["destination_ports"], &record["count"]), (&json!(["1-3"]), &json!(3)));
    assert_eq!(record["syn"]["p0f"], "4:64+0:4:1460:1024,0:mss::0");
    assert_counts(&log, [3, 0, 3, 0]);
}

#[test]
fn with_syn_cookies_forced_on_connections_are_connections_and_scans_are_scans() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.sysctl("ipv4/tcp_syncookies", "2");
    let agent = watching(&net).start();
    for _ in 0..2 {
        net.client.send_syns((1..=50).map(syn));
    }
    for port in 1000..1020 {
        net.client.deliver((SENSOR_V4, port), b"cookie");
    }
    let records = agent.expect_count(20, json!({"payload": "cookie", "destination_source": "ebpf"}));
    assert!(records.iter().all(|record| record["syn"]["p0f"].is_string()));
    let (record, log) = the_scan(agent);
    assert_eq!((&record["destination_ports"], &record["count"]), (&json!(["1-50"]), &json!(50)));
    assert_counts(&log, [70, 20, 50, 0]);
}

#[test]
fn a_simultaneous_open_with_a_client_on_the_sensor_is_not_a_scan() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.client.shell("iptables -w -A INPUT -p tcp --dport 6666 -j DROP");
    let agent = watching(&net).start();
    let socket = net.sensor.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.bind(&SocketAddr::new(SENSOR_V4, 5555).into()).expect("a free port");
        socket.set_nonblocking(true).expect("an option");
        // There is no answer: it waits for one to its SYN.
        assert!(socket.connect(&SocketAddr::new(CLIENT_V4, 6666).into()).is_err());
        socket
    });
    net.client.send_syns([RawSyn::new((CLIENT_V4, 6666), (SENSOR_V4, 5555))]);
    eventually("the SYNs have crossed", || {
        let sockets = net.sensor.shell("ss -Htan sport = :5555");
        sockets.contains("SYN-RECV").then_some(())
    });
    drop(socket);
    let log = agent.stop().log;
    log.expect_count(0, json!({"record_type": "scan"}));
    assert_counts(&log, [1, 0, 0, 1]);
}

#[test]
fn a_port_that_is_used_again_in_time_wait_is_a_second_session() {
    let Some(net) = Net::new() else { return };
    // Without translation, so that it is the kernel's TCP that finds the old connection.
    let agent = watching(&net).set("first_byte_timeout_seconds", 0.3).start();
    let from = SocketAddr::new(CLIENT_V4, ONE_PORT);
    let mut first = net.client.connect_from(from, (SENSOR_V4, LISTENER));
    // The sensor ends it first, so it is the sensor that waits.
    read_to_end(&mut first);
    drop(first);
    eventually("the sensor waits for what may still come", || {
        net.sensor.shell(&format!("ss -Htan state time-wait sport = :{LISTENER}")).contains("40000").then_some(())
    });
    let mut second = net.client.connect_from(from, (SENSOR_V4, LISTENER));
    second.write_all(b"again").expect("the sensor takes bytes");
    half_close(&second);
    agent.expect_one(json!({"source_port": ONE_PORT, "payload": "again", "destination_source": "ebpf"}));
    let log = agent.stop().log;
    log.expect_count(0, json!({"record_type": "scan"}));
    log.expect_count(2, json!({"source_port": ONE_PORT}));
    assert_counts(&log, [2, 2, 0, 0]);
}

#[test]
fn tools_that_give_themselves_away_are_named() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.add_crowd();
    let agent = watching(&net).start();
    let IpAddr::V4(sensor) = SENSOR_V4 else { panic!("an IPv4 address") };
    let source = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(CROWD_V4.to_bits() + number));
    let tools = ["zmap", "masscan", "mirai", "stateless"];
    let as_sent_by = |tool: &str, syn: RawSyn| match tool {
        "zmap" => RawSyn { ip_id: 54_321, ..syn },
        "masscan" => {
            let mixed = sensor.to_bits() ^ u32::from(syn.port) ^ syn.sequence;
            RawSyn { ip_id: u16::try_from(mixed & 0xffff).expect("16 bits"), ..syn }
        }
        "mirai" => RawSyn { sequence: sensor.to_bits(), ip_id: 0xbeef, ..syn },
        _ => RawSyn { options: Vec::new(), ..syn },
    };
    for (tool, number) in tools.into_iter().zip(1..) {
        net.client.send_syns((1..=100).map(|port| as_sent_by(tool, RawSyn { source: source(number), ..syn(port) })));
    }
    net.client.send_syns((1..=100).map(|port| RawSyn { source: source(5), ..syn(port) }));
    let log = agent.stop().log;
    for (tool, number) in tools.into_iter().zip(1..) {
        let record = log.expect_one(json!({"record_type": "scan", "source_ip": source(number), "count": 100}));
        assert_eq!(record["destination_ports"], json!(["1-100"]), "{record}");
        assert_eq!(record["tools"][0], json!({"tool": tool, "count": 100}), "{record}");
        assert_eq!(record["syn"]["tools"][0], tool, "{record}");
    }
    log.expect_one(json!({"record_type": "scan", "source_ip": source(5), "tools": null, "syn": {"tools": null}}));
}

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
    let report = status(net);

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
