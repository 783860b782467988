//! A sensor that goes deaf says so, and says when that is over; a reload, a quiet line and ports that are not its own are
//! no deafness.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};

use serde_json::json;
use spip_tests::{Agent, CROWD_V4, CROWD_V6, LISTENER, Launch, Net, RawSyn, SENSOR_V4, SENSOR_V6, eventually};

/// An agent that takes a second of unanswered SYNs for deafness.
fn listening(net: &Net) -> Launch<'_> {
    net.add_crowd();
    net.agent()
        .set("ebpf", "required")
        .set("scan_timeout_seconds", 0.2)
        .set("deaf_after_seconds", 1)
        .set("metrics", METRICS)
}

const METRICS: &str = "127.0.0.1:9464";

/// Sends a SYN of the next source to a port.
struct Crowd<'a> {
    net: &'a Net,
    sent: u32,
}

impl<'a> Crowd<'a> {
    fn new(net: &'a Net) -> Self {
        Self { net, sent: 0 }
    }

    fn send(&mut self, to: IpAddr, port: u16) {
        self.sent += 1;
        let number = self.sent;
        let source: IpAddr = match to {
            IpAddr::V4(_) => (u32::from(CROWD_V4) + 1 + number % 200).to_be_bytes().into(),
            IpAddr::V6(_) => (u128::from(CROWD_V6) + 1 + u128::from(number % 200)).to_be_bytes().into(),
        };
        let source_port = 20_000 + u16::try_from(number % 30_000).expect("small");
        let sequence = number.wrapping_mul(2_654_435_761);
        self.net.client.send_syns([RawSyn { sequence, ..RawSyn::new((source, source_port), (to, port)) }]);
    }

    /// Sends SYNs until the agent says so.
    fn send_until(&mut self, to: IpAddr, port: u16, what: &str, mut probe: impl FnMut() -> bool) {
        eventually(what, || {
            self.send(to, port);
            probe().then_some(())
        });
    }
}

/// The families that are deaf.
fn deaf(net: &Net) -> Vec<String> {
    let status = net.status();
    let families = status["agent"]["deaf"].as_array().into_iter().flatten();
    families.filter_map(|missed| missed["family"].as_str()).map(str::to_owned).collect()
}

fn half_open(net: &Net) -> u64 {
    net.status()["agent"]["scans"]["half_open"].as_u64().unwrap_or_default()
}

fn ignored(net: &Net) -> u64 {
    net.status()["agent"]["scans"]["ignored"].as_u64().unwrap_or_default()
}

fn page(net: &Net, path: &str) -> String {
    let mut stream = net.sensor.enter(|| TcpStream::connect(METRICS)).expect("the metrics are served");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Stops the agent; how often it has said that it is deaf.
fn alarms(agent: Agent) -> usize {
    agent.stop().log.messages().filter(|line| line.value["target"] == "deaf" && line.value["level"] == "error").count()
}

#[test]
fn a_flushed_chain_makes_one_family_deaf_until_it_is_there_again() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = listening(&net).start();
    let mut crowd = Crowd::new(&net);
    for to in [SENSOR_V4, SENSOR_V6] {
        crowd.send_until(to, 23, "the agent hears", || half_open(&net) >= 1);
        crowd.send(to, 23);
    }
    assert!(page(&net, "/healthz").ends_with("ok\n"));
    net.sensor.shell("iptables -w -t nat -F PREROUTING");
    // The other family hears all the time, and the listener's own port needs no rule.
    crowd.send_until(SENSOR_V4, 23, "the agent is deaf", || {
        crowd_beside(&net);
        deaf(&net) == ["IPv4"]
    });
    let said = agent.wait_message(json!({"target": "deaf", "level": "error", "family": "IPv4"}));
    assert!(said["message"].as_str().is_some_and(|text| text.contains("rules install")), "{said}");
    assert_eq!(said["ports"], "23");
    assert!(page(&net, "/metrics").contains("spip_deaf{family=\"IPv4\"} 1\nspip_deaf{family=\"IPv6\"} 0\n"));
    let health = page(&net, "/healthz");
    assert!(
        health.starts_with("HTTP/1.1 503") && health.contains("degraded: the sensor is deaf: no IPv4 SYN"),
        "{health}"
    );

    net.redirect();
    crowd.send_until(SENSOR_V4, 80, "the agent hears again", || deaf(&net).is_empty());
    agent.wait_message(json!({"target": "deaf", "level": "info", "family": "IPv4"}));
    assert!(page(&net, "/healthz").ends_with("ok\n"));
    assert!(page(&net, "/metrics").contains("spip_deaf{family=\"IPv4\"} 0\n"));
    assert_eq!(alarms(agent), 1);
}

/// SYNs by IPv6 to a port that is steered, and by IPv4 to the listener's own.
fn crowd_beside(net: &Net) {
    let source = |number: u128| IpAddr::from((u128::from(CROWD_V6) + number).to_be_bytes());
    let ipv4 = IpAddr::from((u32::from(CROWD_V4) + 999).to_be_bytes());
    let number = u128::from(rand());
    net.client.send_syns([
        RawSyn { sequence: rand(), ..RawSyn::new((source(number), 40_000), (SENSOR_V6, 23)) },
        RawSyn { sequence: rand(), ..RawSyn::new((ipv4, 40_000), (SENSOR_V4, LISTENER)) },
    ]);
}

/// A number that differs each time.
fn rand() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(7_919, Ordering::Relaxed)
}

#[test]
fn a_rule_before_the_chain_makes_deaf_as_its_absence_does() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = listening(&net).start();
    let mut crowd = Crowd::new(&net);
    crowd.send_until(SENSOR_V4, 23, "the agent hears", || half_open(&net) >= 1);
    net.sensor.shell("iptables -w -t nat -I PREROUTING -p tcp -j ACCEPT");
    crowd.send_until(SENSOR_V4, 23, "the agent is deaf", || deaf(&net) == ["IPv4"]);
    // Whatever the technology.
    net.sensor.shell("iptables -w -t nat -D PREROUTING -p tcp -j ACCEPT");
    crowd.send_until(SENSOR_V4, 23, "the agent hears again", || deaf(&net).is_empty());
    net.sensor.shell("iptables -w -t raw -I PREROUTING -i wire -p tcp -j DROP");
    crowd.send_until(SENSOR_V4, 23, "the agent is deaf again", || deaf(&net) == ["IPv4"]);
    assert_eq!(alarms(agent), 2);
}

#[test]
fn a_packet_filter_before_sk_lookup_makes_deaf_too() {
    let Some(net) = Net::new() else { return };
    let agent = listening(&net).set("ip", "127.0.0.1").set("steering", "sk_lookup").start();
    let mut crowd = Crowd::new(&net);
    crowd.send_until(SENSOR_V4, 23, "the agent hears", || half_open(&net) >= 1);
    net.sensor.shell("iptables -w -I INPUT -p tcp --dport 23 -j DROP");
    crowd.send_until(SENSOR_V4, 23, "the agent is deaf", || deaf(&net) == ["IPv4"]);
    let said = agent.wait_message(json!({"target": "deaf", "level": "error"}));
    assert!(said["message"].as_str().is_some_and(|text| text.contains("bpftool net")), "{said}");
    net.sensor.shell("iptables -w -D INPUT -p tcp --dport 23 -j DROP");
    crowd.send_until(SENSOR_V4, 23, "the agent hears again", || deaf(&net).is_empty());
    let _ = agent.stop();
}

#[test]
fn reloads_of_the_rules_and_ports_that_are_not_the_sensors_are_no_deafness() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = listening(&net).set("exclude_ports", json!([8080])).start();
    let mut crowd = Crowd::new(&net);
    crowd.send_until(SENSOR_V4, 23, "the agent hears", || half_open(&net) >= 1);
    // Each reload is a moment without rules, and what comes in between is heard.
    for _ in 0..10 {
        net.sensor.shell("iptables -w -t nat -F PREROUTING");
        (0..3).for_each(|_| crowd.send(SENSOR_V4, 23));
        net.redirect();
        let before = half_open(&net);
        crowd.send_until(SENSOR_V4, 23, "the agent hears", || half_open(&net) > before);
    }
    // Ports that were heard are excluded, or a service's, and no longer led to the agent; one never was.
    let before = half_open(&net);
    crowd.send_until(SENSOR_V4, 8080, "the agent hears", || half_open(&net) > before);
    net.sensor.shell("iptables -w -t nat -I PREROUTING -p tcp -m multiport --dports 22,23,8080 -j RETURN");
    let service = net.sensor.enter(|| std::net::TcpListener::bind((SENSOR_V4, 23))).expect("a free port");
    for port in [22, 23, 8080] {
        let before = ignored(&net);
        crowd.send_until(SENSOR_V4, port, "many are not the agent's", || ignored(&net) > before + 40);
    }
    assert_eq!(deaf(&net), [""; 0]);
    assert_eq!(alarms(agent), 0);
    drop(service);
}
