//! Every port without a rule of the firewall: what is steered, what is left alone, and who may change that.

mod connections;
mod services;
mod settings;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use spip_tests::{
    Agent, CLIENT_V4, CLIENT_V6, LISTENER, Launch, Line, Namespace, Net, PATIENCE, RawSyn, SENSOR_V4, SENSOR_V6,
    eventually, every_step, half_close, read_to_end,
};

/// The port from which scanners of one kind send everything.
const ONE_PORT: u16 = 40_000;

/// An agent that listens on loopback only and has every port all the same.
fn steered(net: &Net) -> Launch<'_> {
    net.agent().set("ip", "127.0.0.1").set("steering", "sk_lookup").set("ebpf", "required")
}

/// Another service in the sensor's namespace: it reads to the end and answers `service`.
struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start(net: &Net, address: (IpAddr, u16)) -> Self {
        let listener = net.sensor.enter(|| TcpListener::bind(address)).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket can be told not to wait");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        stream.set_nonblocking(false).expect("a socket can be told to wait");
                        let _ = read_to_end(&mut stream);
                        let _ = stream.write_all(b"service");
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the name of the program that answers at an address.
fn who(from: &Namespace, to: (IpAddr, u16)) -> &'static str {
    let stream = from.enter(|| TcpStream::connect_timeout(&to.into(), PATIENCE));
    let Ok(mut stream) = stream else { return "nobody" };
    let _ = stream.write_all(b"who");
    half_close(&stream);
    match read_to_end(&mut stream).as_slice() {
        b"service" => "service",
        b"" => "agent",
        other => panic!("an answer of {other:?}"),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[test]
fn a_listener_on_loopback_has_every_port_of_every_address_with_true_ports() {
    let Some(net) = Net::new() else { return };
    let agent = steered(&net).start();
    for (client, sensor) in [(CLIENT_V4, SENSOR_V4), (CLIENT_V6, SENSOR_V6)] {
        let from = SocketAddr::new(client, ONE_PORT);
        let mut streams: Vec<_> = (1000..1050).map(|port| net.client.connect_from(from, (sensor, port))).collect();
        for (stream, port) in streams.iter_mut().zip(1000..) {
            let port: u16 = port;
            stream.write_all(format!("to {port}").as_bytes()).expect("the sensor takes bytes");
            half_close(stream);
        }
        for port in 1000..1050 {
            let record = agent.expect_one(json!({
                "payload": format!("to {port}"), "source_ip": client, "source_port": ONE_PORT,
                "destination_ip": sensor, "destination_port": port, "destination_source": "socket",
            }));
            let syn = &record["syn"];
            assert!(syn["ttl"].is_u64() && syn["window"].is_u64() && syn["muonfp"].is_string(), "{record}");
            assert_eq!(syn["options"], json!([2, 4, 8, 1, 3]), "{record}");
            assert!(record["community_id"].is_string(), "{record}");
        }
    }
}

#[test]
fn whole_prefixes_are_steered_with_one_route() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("ip route add local 203.0.113.0/24 dev lo && ip -6 route add local 2001:db8:f::/64 dev lo");
    net.client.shell(&format!(
        "ip route add 203.0.113.0/24 via {SENSOR_V4} && ip -6 route add 2001:db8:f::/64 via {SENSOR_V6}"
    ));
    let agent = steered(&net).start();
    for (to, port) in [("203.0.113.7", 23), ("203.0.113.255", 65_535), ("2001:db8:f::1234", 445), ("2001:db8:f::", 1)] {
        net.client.deliver((address(to), port), to.as_bytes());
        agent.expect_one(json!({
            "payload": to, "destination_ip": to, "destination_port": port, "destination_source": "socket",
        }));
    }
}

#[test]
fn another_agent_that_steers_already_is_told_of_by_the_second_and_by_the_doctor() {
    let Some(net) = Net::new() else { return };
    let warned = |agent: &Agent| agent.log().messages().filter(|line| line.value["programs"] == 1).count();
    let first = steered(&net).start();
    assert_eq!(warned(&first), 0, "{}", first.log().text());
    // As another service would be started: with a place of its own for everything.
    let own = |name: &str| net.path().join(name).to_str().expect("text").to_owned();
    let apart = steered(&net)
        .set("port", LISTENER + 1)
        .set("bpf_pin_path", own("bpf/second"))
        .set("status_socket", own("second.sock"));
    let second = apart.clone().start();
    assert_eq!(warned(&second), 1, "{}", second.log().text());
    net.client.deliver((SENSOR_V4, 81), b"to the first");
    first.expect_one(json!({"payload": "to the first"}));
    let output = own("doctor.json");
    let doctor = apart.within(&format!(r#""$@" >{output}"#)).arguments(&["doctor", "--config", "{config}", "--json"]);
    let finding = || {
        let _ = doctor.clone().run();
        let report = std::fs::read_to_string(&output).expect("the doctor wrote it");
        let report: Value = serde_json::from_str(&report).expect("JSON");
        let mut findings = report["findings"].as_array().expect("findings").iter();
        findings.find(|finding| finding["check"] == "steering.other_programs").cloned().expect("the check")
    };
    assert_eq!(finding()["state"], "warning", "{}", finding());
    let _ = first.stop();
    assert_eq!(finding()["state"], "ok", "{}", finding());
    net.client.deliver((SENSOR_V4, 82), b"to the second");
    second.expect_one(json!({"payload": "to the second"}));
}

#[test]
fn when_the_agent_is_killed_ports_behave_as_before() {
    let Some(net) = Net::new() else { return };
    let agent = steered(&net).start();
    assert_eq!(who(&net.client, (SENSOR_V4, 81)), "agent");
    let _ = agent.kill();
    assert_eq!(who(&net.client, (SENSOR_V4, 81)), "nobody");
    let _service = Service::start(&net, (ANY, 81));
    assert_eq!(who(&net.client, (SENSOR_V4, 81)), "service");
    // What it left behind does not prevent a new start.
    let _agent = steered(&net).start();
    assert_eq!(who(&net.client, (SENSOR_V4, 81)), "service");
    assert_eq!(who(&net.client, (SENSOR_V4, 82)), "agent");
}

#[test]
fn without_the_privileges_the_start_fails_and_names_key_and_remedy() {
    let Some(net) = Net::new() else { return };
    let ended = net.agent().set("steering", "sk_lookup").unprivileged().run();
    assert_eq!(ended.status.code(), Some(1));
    let text = ended.stderr + &ended.log.text();
    for part in ["steering = \\\"sk_lookup\\\" is not available", "steering = \\\"redirect\\\"", "CAP_BPF"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
