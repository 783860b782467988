//! Data that comes with a SYN is in the record, whatever becomes of the SYN, and once in the payload where the kernel has it.

use serde_json::{Value, json};
use spip_tests::ghost::{GHOST_V4, GHOST_V6, Ghost};
use spip_tests::{CLIENT_V4, CLIENT_V6, LISTENER, Launch, Net, RawSyn, SENSOR_V4, SENSOR_V6};

const DATA: &[u8] = b"GET /syn HTTP/1.0\r\n\r\n";
/// A Fast Open cookie (kind 34) of eight bytes, behind a maximum segment size, with padding.
const COOKIE: [u8; 16] = [2, 4, 0x05, 0xb4, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
/// A request for one.
const REQUEST: [u8; 8] = [2, 4, 0x05, 0xb4, 34, 2, 1, 1];

fn watching(net: &Net) -> Launch<'_> {
    net.redirect();
    net.agent().set("ebpf", "required").set("scan_timeout_seconds", 1)
}

fn expect_data(record: &Value, length: usize, kept: &[u8]) {
    assert_eq!(record["syn_data_length"], length, "{record}");
    assert_eq!(record["syn_data"], json!(String::from_utf8_lossy(kept)), "{record}");
    let digits: String = kept.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(record["syn_data_hex"], digits, "{record}");
}

#[test]
fn a_half_open_scan_has_the_data_of_its_syns() {
    let Some(net) = Net::new() else { return };
    let agent = watching(&net).start();
    let long: Vec<u8> = (0..1_400_u32).map(|number| b'a' + (number % 26) as u8).collect();
    let with = |from, to, data: &[u8], options: &[u8]| RawSyn {
        data: data.to_vec(),
        options: options.to_vec(),
        ..RawSyn::new(from, to)
    };
    // Without data, with some, with more than is kept; behind IP options, with a cookie and with the request for one.
    net.client.send_syns([
        with((CLIENT_V4, 40_000), (SENSOR_V4, 80), b"", &[2, 4, 0x05, 0xb4]),
        RawSyn { ip_options: vec![1, 1, 1, 0], ..with((CLIENT_V4, 40_000), (SENSOR_V4, 81), DATA, &COOKIE) },
        with((CLIENT_V4, 40_000), (SENSOR_V4, 82), b"other", &[]),
        RawSyn { ip_options: vec![1], ..with((CLIENT_V6, 40_000), (SENSOR_V6, 83), &long, &REQUEST) },
    ]);
    let log = agent.stop().log;
    let ipv4 = log.expect_one(json!({"record_type": "scan", "source_ip": CLIENT_V4, "count": 3, "syn_data_count": 2}));
    expect_data(ipv4, DATA.len(), DATA);
    let ipv6 = log.expect_one(json!({"record_type": "scan", "source_ip": CLIENT_V6, "count": 1, "syn_data_count": 1}));
    expect_data(ipv6, 1_400, &long[..512]);
    assert_eq!((&ipv4["syn"]["fast_open"], &ipv6["syn"]["fast_open"]), (&Value::Null, &json!("")));
}

#[test]
fn a_session_has_the_data_of_its_syn_beside_its_payload_under_either_steering() {
    for steering in ["redirect", "sk_lookup"] {
        let Some(net) = Net::new() else { return };
        net.add_ghosts();
        let launch = watching(&net);
        let launch = if steering == "sk_lookup" {
            for program in ["iptables", "ip6tables"] {
                net.sensor.shell(&format!("{program} -w -t nat -F PREROUTING"));
            }
            launch.set("ip", "127.0.0.1").set("steering", steering)
        } else {
            launch
        };
        let agent = launch.start();
        for (ghost, sensor) in [(GHOST_V4, SENSOR_V4), (GHOST_V6, SENSOR_V6)] {
            let syn = RawSyn {
                data: DATA.to_vec(),
                options: COOKIE.to_vec(),
                ..RawSyn::new((ghost, 31_000), (sensor, 8080))
            };
            let client = Ghost::new(&net, syn.clone());
            net.client.send_syns([syn]);
            // Linux answers as if there were no data, so the client sends it again.
            client.complete(DATA);
            let record = agent.expect_one(json!({"source_ip": ghost, "payload": String::from_utf8_lossy(DATA)}));
            expect_data(&record, DATA.len(), DATA);
            assert_eq!(record["syn"]["fast_open"], "0102030405060708", "{steering}: {record}");
            assert_eq!(record["bytes_in"], DATA.len(), "{steering}: not counted twice: {record}");
        }
        let plain = Ghost::new(&net, RawSyn::new((GHOST_V4, 31_001), (SENSOR_V4, 8080)));
        net.client.send_syns([RawSyn::new((GHOST_V4, 31_001), (SENSOR_V4, 8080))]);
        plain.complete(b"plain");
        let record = agent.expect_one(json!({"payload": "plain"}));
        assert_eq!((record.get("syn_data_length"), record["syn"].get("fast_open")), (None, None), "{record}");
        let _ = agent.stop();
    }
}

#[test]
fn data_that_the_kernel_takes_with_fast_open_is_payload_and_a_fact_of_the_syn() {
    let Some(net) = Net::new() else { return };
    // Server, for all listeners, also without a cookie; client, also without one (Documentation/networking/ip-sysctl.rst).
    net.sensor.sysctl("ipv4/tcp_fastopen", "1538");
    net.client.sysctl("ipv4/tcp_fastopen", "5");
    let agent = watching(&net).start();
    // MSG_FASTOPEN of linux/socket.h.
    net.client.shell(&format!(
        "python3 -c 'import socket
s = socket.socket()
s.sendto(b\"fast\", 0x20000000, (\"{SENSOR_V4}\", {LISTENER}))
s.sendall(b\" open\")
s.shutdown(1)
s.recv(1)'"
    ));
    let record = agent.expect_one(json!({"payload": "fast open", "source_ip": CLIENT_V4, "bytes_in": 9}));
    expect_data(&record, 4, b"fast");
    let log = agent.stop().log;
    log.expect_count(0, json!({"record_type": "scan"}));
}
