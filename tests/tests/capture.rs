//! Contents of a record: the bytes as they were sent, the addresses that the client used, one record each.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use spip_tests::{
    CLIENT_V4, CLIENT_V6, CROWD_V4, LISTENER, Net, SENSOR_V4, SENSOR_V6, community_id, field_order, half_close,
    payload, read_to_end, reset,
};

/// The keys that every record begins with.
const FIRST: [&str; 9] = [
    "timestamp",
    "payload",
    "payload_hex",
    "source_ip",
    "source_port",
    "destination_ip",
    "destination_port",
    "session_id",
    "is_tls",
];

#[test]
fn every_byte_value_of_a_payload_is_recorded_as_it_was_sent() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let bytes: Vec<u8> = (0..=255).collect();

    let from = net.client.deliver((SENSOR_V4, 4444), &bytes);

    let record = agent.expect_one(json!({
        "source_ip": CLIENT_V4, "source_port": from.port(),
        "destination_ip": SENSOR_V4, "destination_port": 4444,
        "bytes_in": 256, "payload_truncated": false, "close_reason": "client_closed", "is_tls": false,
    }));
    assert_eq!(payload(&record), bytes);
    assert_eq!(record["payload"], String::from_utf8_lossy(&bytes).replace('\0', "␀"));
    assert_eq!(record["payload_sha256"], hex::encode(Sha256::digest(&bytes)));
}

#[test]
fn a_local_client_is_recorded_with_the_destination_that_it_asked_for() {
    let Some(net) = Net::new() else { return };
    net.redirect_local();
    let agent = net.agent().start();
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);

    let from = net.sensor.deliver((local, 8080), b"from here");

    agent.expect_one(json!({
        "payload": "from here", "source_ip": local, "source_port": from.port(),
        "destination_ip": local, "destination_port": 8080,
    }));
}

#[test]
fn a_local_ipv6_client_is_recorded_with_the_destination_that_it_asked_for() {
    let Some(net) = Net::new() else { return };
    net.redirect_local();
    let agent = net.agent().start();
    let local = IpAddr::V6(Ipv6Addr::LOCALHOST);

    let from = net.sensor.deliver((local, 8080), b"from here");

    agent.expect_one(json!({
        "payload": "from here", "source_ip": local, "source_port": from.port(),
        "destination_ip": local, "destination_port": 8080,
    }));
}

#[test]
fn each_of_five_well_known_ports_is_the_destination_of_its_own_record() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for port in [22, 80, 443, 3306, 5432] {
        let text = format!("to {port}");
        let from = net.client.deliver((SENSOR_V4, port), text.as_bytes());
        agent.expect_one(json!({
            "payload": text, "source_ip": CLIENT_V4, "source_port": from.port(),
            "destination_ip": SENSOR_V4, "destination_port": port,
        }));
    }
    agent.stop().log.expect_count(5, json!({}));
}

#[test]
fn an_ipv6_client_is_recorded_with_its_address_and_destination() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();

    let from = net.client.deliver((SENSOR_V6, 25), b"over ipv6");

    agent.expect_one(json!({
        "payload": "over ipv6", "source_ip": CLIENT_V6, "source_port": from.port(),
        "destination_ip": SENSOR_V6, "destination_port": 25,
    }));
}

#[test]
fn a_dual_stack_listener_writes_ipv4_clients_as_ipv4() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("ip", "::").start();
    net.client.deliver((SENSOR_V4, 25), b"four");
    net.client.deliver((SENSOR_V6, 25), b"six");
    agent.expect_one(json!({"payload": "four", "source_ip": CLIENT_V4, "destination_ip": SENSOR_V4}));
    agent.expect_one(json!({"payload": "six", "source_ip": CLIENT_V6, "destination_ip": SENSOR_V6}));
}

#[test]
fn an_ipv4_listener_records_ipv4_clients() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("ip", "0.0.0.0").start();
    net.client.deliver((SENSOR_V4, 25), b"four");
    agent.expect_one(json!({"payload": "four", "source_ip": CLIENT_V4, "destination_ip": SENSOR_V4}));
}

#[test]
fn a_client_that_finds_the_listeners_own_port_is_recorded_too() {
    let Some(net) = Net::new() else { return };
    let agent = net.agent().start();
    let from = net.client.deliver((SENSOR_V4, LISTENER), b"straight");
    agent.expect_one(json!({
        "payload": "straight", "source_ip": CLIENT_V4, "source_port": from.port(),
        "destination_ip": SENSOR_V4, "destination_port": LISTENER,
    }));
}

#[test]
fn a_client_that_says_nothing_leaves_a_record() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let from = net.client.deliver((SENSOR_V4, 23), b"");
    agent.expect_one(json!({
        "payload": "", "payload_hex": "", "bytes_in": 0, "source_port": from.port(), "destination_port": 23,
        "close_reason": "client_closed",
    }));
}

#[test]
fn two_hundred_clients_that_send_and_reset_at_once_leave_their_payload() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for number in 0..200u16 {
        let mut stream = net.connect(2000 + number);
        stream.write_all(format!("gone {number}").as_bytes()).expect("the sensor takes bytes");
        reset(stream);
    }
    for record in agent.expect_count(200, json!({"close_reason": "client_reset"})) {
        let port = record["destination_port"].as_u64().expect("a port");
        assert_eq!(record["payload"], format!("gone {}", port - 2000), "{record}");
    }
    agent.stop().log.expect_count(200, json!({}));
}

#[test]
fn a_thousand_clients_at_once_each_leave_their_own_record() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let ports = 10_000..11_000u16;
    let mut streams = net.client.connect_all(ports.clone().map(|port| (None, SocketAddr::new(SENSOR_V4, port))));
    assert_eq!(streams.len(), 1000);
    agent.wait_open(1000);
    for (stream, port) in streams.iter_mut().zip(ports) {
        stream.write_all(&port.to_be_bytes()).expect("the sensor takes bytes");
        half_close(stream);
    }
    for record in agent.expect_count(1000, json!({"bytes_in": 2})) {
        let port = u16::from_be_bytes(payload(&record).try_into().expect("two bytes"));
        assert_eq!(record["destination_port"], port, "{record}");
    }
    let log = agent.stop().log;
    log.expect_count(1000, json!({}));
    log.expect_sequence();
}

#[test]
fn a_long_payload_is_cut_at_the_limit_and_counted_to_its_end() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("payload_limit_bytes", 1000).start();
    let bytes: Vec<u8> = (0..5000u32).map(|number| (number % 251) as u8).collect();
    let mut stream = net.connect(9000);
    stream.write_all(&bytes).expect("the sensor takes bytes");
    half_close(&stream);
    read_to_end(&mut stream);
    let record = agent.expect_one(json!({"payload_truncated": true, "bytes_in": bytes.len()}));
    assert_eq!(payload(&record), bytes[..1000]);
}

#[test]
fn a_payload_of_exactly_the_limit_has_met_no_limit() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("payload_limit_bytes", 1000).start();
    let mut stream = net.connect(9000);
    stream.write_all(&[7; 1000]).expect("the sensor takes bytes");
    half_close(&stream);
    read_to_end(&mut stream);
    let record =
        agent.expect_one(json!({"bytes_in": 1000, "payload_truncated": false, "close_reason": "client_closed"}));
    assert_eq!(payload(&record), [7; 1000]);
}

#[test]
fn a_record_has_the_documented_shape() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("name", "sensor-7").set("community_id_seed", 7).start();
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();

    let before = seconds();
    let from = net.client.deliver((SENSOR_V4, 81), b"\xff\"\n\x1b[31m \xc2\x9b \xe2\x80\xa8 \x7f");
    let after = seconds();

    agent.expect_one(json!({"destination_port": 81}));
    let log = agent.stop().log;
    let line = log.sessions().next().expect("one record");
    let record = &line.value;
    assert_eq!(field_order(&line.text)[..9], FIRST);
    let mut names = field_order(&line.text);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), field_order(&line.text).len(), "a key appears twice: {}", line.text);
    assert!(line.text.bytes().all(|byte| byte >= b' ' && byte != 0x7f), "a control character: {:?}", line.text);
    assert!(!line.text.contains(['\u{9b}', '\u{2028}']), "a character that terminals obey: {:?}", line.text);

    assert!((before..=after).contains(&record["timestamp"].as_u64().expect("an integer")), "{record}");
    assert_eq!(record["schema"], "spip/1");
    assert_eq!(record["name"], "sensor-7");
    assert_eq!(record["session_id"].as_str().map(str::len), Some(36));
    assert!(record["duration_ms"].is_u64() && record["seq"].is_u64(), "{record}");
    let time = record["time"].as_str().expect("text");
    assert!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
    let to = SocketAddr::new(SENSOR_V4, 81);
    assert_eq!(record["community_id"], community_id::of_tcp(7, from, to));
    let finite = |value: &Value| value.as_f64().is_none_or(|number| number.abs() <= 9_007_199_254_740_992.0);
    assert!(record.as_object().expect("an object").values().all(finite), "a number above 2^53: {record}");
}

#[test]
fn system_messages_have_the_documented_keys() {
    let Some(net) = Net::new() else { return };
    let log = net.agent().start().stop().log;
    assert!(log.messages().count() > 1, "{log:?}");
    for line in log.messages() {
        for key in ["level", "message", "target", "name", "run"] {
            assert!(line.value[key].is_string(), "no {key}: {}", line.text);
        }
        assert_eq!(line.value["record_type"], "log", "{}", line.text);
        assert!(line.value["timestamp"].is_number(), "{}", line.text);
    }
}

#[test]
fn urgent_bytes_are_in_the_payload() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let stream = net.connect(23);
    let socket = socket2::SockRef::from(&stream);
    socket.send(b"x").expect("the sensor takes bytes");
    socket.send_out_of_band(b"U").expect("the sensor takes bytes");
    socket.send(b"y").expect("the sensor takes bytes");
    drop(stream);
    agent.expect_one(json!({"destination_port": 23, "payload": "xUy", "bytes_in": 3}));
}

#[test]
fn sessions_that_all_come_from_the_gateway_are_said_to_hide_the_clients() {
    for (first, hidden) in [(CLIENT_V4, 1), (IpAddr::from(CROWD_V4), 0)] {
        let Some(net) = Net::new() else { return };
        net.redirect();
        net.add_crowd();
        net.sensor.shell(&format!("ip route add default via {CLIENT_V4}"));
        let agent = net.agent().start();

        drop(net.client.connect_from((first, 0), (SENSOR_V4, 80)));
        agent.expect_count(1, json!({"destination_port": 80}));
        for _ in 1..12 {
            drop(net.connect(80));
        }

        agent.expect_count(12, json!({"destination_port": 80}));
        let log = agent.stop().log;
        let said: Vec<Value> =
            log.messages().map(|line| line.value.clone()).filter(|said| said["target"] == "origin").collect();
        assert_eq!(said.len(), hidden, "first from {first}: {said:?}");
        for said in said {
            assert_eq!((&said["source_ip"], &said["level"]), (&json!(CLIENT_V4), &json!("warn")), "{said}");
            assert!(said["message"].as_str().is_some_and(|text| text.contains("proxy_protocol_from")), "{said}");
        }
    }
}
