//! Packets that are to hide a scan, or to make a connection look like one.

use super::*;

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
