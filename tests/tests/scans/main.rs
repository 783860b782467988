//! Half-open scans: what never becomes a connection leaves a record of its source, and nothing else does.

mod disguises;
mod floods;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
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

/// Waits until it is decided of `count` SYNs that this has become of them.
fn wait_decided(net: &Net, became: &str, count: u64) {
    eventually(became, || (net.status()["agent"]["scans"][became] == count).then_some(()));
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
