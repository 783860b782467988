//! Connections and packets that come in unusual ways all the same have true records.

use super::*;

#[test]
fn with_syn_cookies_records_are_the_same() {
    let Some(net) = Net::new() else { return };
    net.sensor.sysctl("ipv4/tcp_syncookies", "2");
    let agent = steered(&net).start();
    for (to, port) in [(SENSOR_V4, 81), (SENSOR_V6, 82)] {
        let from = net.client.deliver((to, port), b"cookie");
        let record = agent.expect_one(json!({
            "payload": "cookie", "source_port": from.port(), "destination_port": port, "destination_source": "socket",
        }));
        assert_eq!(record["syn"]["options"], json!([2, 4, 8, 1, 3]), "{record}");
    }
}

#[test]
fn rules_that_were_left_in_place_do_not_hide_the_destination() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = steered(&net).set("ip", "0.0.0.0").start();
    // Who asks for the listener's own port is not translated, and told apart.
    for (port, source) in [(81, "ebpf"), (82, "ebpf"), (LISTENER, "socket")] {
        let from = net.client.deliver((SENSOR_V4, port), b"translated");
        agent.expect_one(json!({"source_port": from.port(), "destination_port": port, "destination_source": source}));
    }
}

#[test]
fn a_packet_that_belongs_to_no_connection_is_answered_as_by_an_open_port_and_leaves_no_record() {
    let Some(net) = Net::new() else { return };
    // A connection that its server forgets without a word: its next packet belongs to nothing.
    let agent = steered(&net).start();
    agent.pause();
    // Not accepted, so that the end of the process resets it, and the reset is lost.
    let mut stream = net.connect(81);
    stream.write_all(b"unread").expect("the sensor takes bytes");
    net.sensor.shell("iptables -w -A OUTPUT -p tcp -j DROP");
    let _ = agent.kill();
    net.sensor.shell("iptables -w -F OUTPUT");

    let agent = steered(&net).start();
    stream.write_all(b"stray").expect("the client knows of nothing");
    stream.set_read_timeout(Some(PATIENCE)).expect("above zero");
    let error = stream.read(&mut [0; 8]).expect_err("reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    net.client.deliver((SENSOR_V4, 82), b"marker");
    agent.expect_one(json!({"payload": "marker"}));
    agent.stop().log.expect_count(1, json!({}));
}

#[test]
fn a_client_may_come_back_from_the_same_port_at_once() {
    let Some(net) = Net::new() else { return };
    let agent = steered(&net).start();
    let from = SocketAddr::new(CLIENT_V4, ONE_PORT);
    for round in 0..5 {
        // The sensor closes last or first; either way its side may be in TIME_WAIT when the next SYN comes.
        let mut stream = net.client.connect_from(from, (SENSOR_V4, 81));
        stream.write_all(format!("round {round}").as_bytes()).expect("the sensor takes bytes");
        if round % 2 == 0 {
            half_close(&stream);
            read_to_end(&mut stream);
        }
        spip_tests::reset(stream);
        agent.expect_one(json!({
            "payload": format!("round {round}"), "source_port": ONE_PORT, "destination_port": 81,
            "destination_source": "socket",
        }));
    }
}

/// A full scan from one source port: every port is opened, told its own number, and closed.
#[test]
fn a_scan_of_all_ports_from_one_source_port_leaves_a_record_for_each() {
    const AT_ONCE: usize = 256;
    let Some(net) = Net::new() else { return };
    let agent = steered(&net).set("max_sessions_per_source", 100_000).start();
    let from = SocketAddr::new(CLIENT_V4, ONE_PORT);
    let ports: Vec<u16> = (1..=u16::MAX).collect();
    for ports in ports.chunks(AT_ONCE) {
        let mut streams =
            net.client.connect_all(ports.iter().map(|port| (Some(from), SocketAddr::new(SENSOR_V4, *port))));
        assert_eq!(streams.len(), ports.len(), "refused among {ports:?}");
        for (stream, port) in streams.iter_mut().zip(ports) {
            stream.write_all(format!("port {port}").as_bytes()).expect("the sensor takes bytes");
            half_close(stream);
        }
        streams.iter_mut().for_each(|stream| drop(read_to_end(stream)));
    }
    let log = agent.stop().log;
    log.expect_whole();
    let mut found = vec![0_u32; 65_536];
    for line in log.sessions() {
        let record = &line.value;
        let port = record["destination_port"].as_u64().expect("a port");
        assert_eq!(record["payload"], format!("port {port}"), "{record}");
        assert_eq!((&record["source_port"], &record["source_ip"]), (&json!(ONE_PORT), &json!(CLIENT_V4)), "{record}");
        assert_eq!(record["destination_source"], "socket", "{record}");
        found[usize::try_from(port).expect("a port")] += 1;
    }
    let wrong: Vec<_> = found.iter().enumerate().skip(1).filter(|(_, count)| **count != 1).take(10).collect();
    assert!(wrong.is_empty() && found[0] == 0, "not one record each: {wrong:?}");
}

#[test]
fn half_open_scans_of_steered_ports_are_recorded_and_excluded_services_are_left_out() {
    let Some(net) = Net::new() else { return };
    let _service = Service::start(&net, (ANY, 80));
    let agent = steered(&net)
        .set("exclude_ports", json!([25]))
        .set("scan_timeout_seconds", 1)
        .set("scan_interval_seconds", 3600)
        .start();
    let ports = [24, 25, 26, 80, 81];
    net.client.send_syns(ports.map(|port| RawSyn::new((CLIENT_V4, ONE_PORT), (SENSOR_V4, port))));
    net.client.deliver((SENSOR_V4, 82), b"completed");
    agent.expect_one(json!({"payload": "completed", "destination_source": "socket"}));
    let log = agent.stop().log;
    let scan = log.expect_one(json!({"record_type": "scan"}));
    assert_eq!(scan["destination_ports"], json!(["24", "26", "81"]), "{scan}");
    let counts = log.messages().find(|line| line.value["message"] == "what has become of SYNs");
    let counts = &counts.expect("the agent says what has become of SYNs").value;
    for (key, count) in [("seen", 6), ("joined", 1), ("half_open", 3), ("ignored", 2)] {
        assert_eq!(counts[key], count, "{key} in {counts}");
    }
}
