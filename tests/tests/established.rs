//! Every handshake that the kernel completed has a record, also where it refuses to hand the connection out as it hands out
//! others, where the client is gone before the agent accepts, and where the agent stops meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use spip_tests::ghost::{GHOST_V4, GHOST_V6, Ghost};
use spip_tests::{CLIENT_V4, Launch, Namespace, Net, RawSyn, SENSOR_V4, SENSOR_V6, eventually, reset};

/// Ways in which connections come to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Redirect,
    Lookup,
}

const WAYS: [Way; 2] = [Way::Redirect, Way::Lookup];

/// An agent that connections to any port reach in this way.
fn agent(net: &Net, way: Way) -> Launch<'_> {
    let launch = net.agent().set("ebpf", "required").set("scan_timeout_seconds", 1);
    match way {
        Way::Redirect => {
            net.redirect();
            launch
        }
        Way::Lookup => launch.set("ip", "127.0.0.1").set("steering", "sk_lookup"),
    }
}

/// Returns a number of the kernel: those of `/proc/net/snmp` and `/proc/net/netstat` are in pairs of lines, names and values.
fn kernel(namespace: &Namespace, name: &str) -> u64 {
    let tables = namespace.shell("cat /proc/net/snmp /proc/net/netstat");
    let lines: Vec<_> = tables.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).collect();
    let found = lines.windows(2).find_map(|pair| {
        let at = pair[0].iter().position(|column| *column == name)?;
        pair[1].get(at)?.parse().ok()
    });
    found.unwrap_or_else(|| panic!("the kernel counts no {name}"))
}

#[test]
fn a_client_with_the_port_0_is_recorded_like_any_other() {
    for way in WAYS {
        let Some(net) = Net::new() else { return };
        net.add_ghosts();
        let agent = agent(&net, way).start();
        for (ghost, sensor) in [(GHOST_V4, SENSOR_V4), (GHOST_V6, SENSOR_V6)] {
            let syn = RawSyn::new((ghost, 0), (sensor, 8080));
            let client = Ghost::new(&net, syn.clone());
            net.client.send_syns([syn]);
            client.complete(b"from port 0");
            let record = agent.expect_one(json!({
                "source_ip": ghost, "source_port": 0, "destination_ip": sensor, "destination_port": 8080,
                "payload": "from port 0", "close_reason": "client_closed",
            }));
            assert_eq!(record["syn"]["muonfp"], "1024:2:1460:", "{way:?}: {record}");
        }
        assert_eq!(kernel(&net.sensor, "PassiveOpens"), 2, "{way:?}");
        agent.stop().log.expect_sequence();
    }
}

#[test]
fn a_handshake_that_two_packets_complete_at_once_has_one_record() {
    const CLIENTS: u16 = 200;
    let Some(net) = Net::new() else { return };
    net.add_ghosts();
    let agent = agent(&net, Way::Redirect).start();
    for port in 31_000..31_000 + CLIENTS {
        let syn = RawSyn::new((GHOST_V4, port), (SENSOR_V4, 8080));
        let client = Ghost::new(&net, syn.clone());
        net.client.send_syns([syn]);
        client.complete_twice(b"twice");
    }
    for port in 31_000..31_000 + CLIENTS {
        agent.expect_one(json!({"source_ip": GHOST_V4, "source_port": port, "payload": "twice"}));
    }
    let clients = u64::from(CLIENTS);
    assert_eq!(net.status()["kernel"]["passive"], clients);
    let log = agent.stop().log;
    assert_eq!(log.connections(json!({"record_type": null})), clients);
    // The kernel counts before it knows which packet wins: on two processors this is more.
    let opened = kernel(&net.sensor, "PassiveOpens");
    assert!((clients..=2 * clients).contains(&opened), "{opened} counted, {clients} completed");
}

#[test]
fn a_client_that_resets_before_the_agent_accepts_has_its_record() {
    for way in WAYS {
        let Some(net) = Net::new() else { return };
        let agent = agent(&net, way).start();
        agent.pause();
        let gone: Vec<_> = (0..5).map(|_| net.connect(80)).collect();
        let sources: Vec<_> = gone.iter().map(|stream| stream.local_addr().expect("connected").port()).collect();
        gone.into_iter().for_each(reset);
        agent.signal(Signal::SIGCONT);
        for port in sources {
            agent.expect_one(json!({
                "source_ip": CLIENT_V4, "source_port": port, "destination_port": 80, "close_reason": "client_reset",
            }));
        }
        let _ = agent.stop();
    }
}

#[test]
fn a_stop_amid_a_flood_loses_no_connection_that_the_kernel_completed() {
    for way in WAYS {
        let Some(net) = Net::new() else { return };
        net.sensor.sysctl("ipv4/tcp_syncookies", "0");
        let agent = agent(&net, way).start();
        let over = AtomicBool::new(false);
        let ended = thread::scope(|scope| {
            for number in 0..4_u16 {
                let (net, over) = (&net, &over);
                scope.spawn(move || {
                    net.client.enter(|| {
                        while !over.load(Ordering::Relaxed) {
                            connect_and_leave((SENSOR_V4, 2000 + number).into());
                        }
                    });
                });
            }
            eventually("the flood comes", || (agent.log().sessions().count() > 200).then_some(()));
            let ended = agent.stop();
            over.store(true, Ordering::Relaxed);
            ended
        });
        let recorded = ended.log.connections(json!({"record_type": null}));
        assert_eq!(recorded, kernel(&net.sensor, "PassiveOpens"), "{way:?}: records, and handshakes of the kernel");
    }
}

#[test]
fn a_handshake_for_which_the_accept_queue_has_no_room_is_recorded_as_refused() {
    for way in WAYS {
        let Some(net) = Net::new() else { return };
        net.add_ghosts();
        net.sensor.sysctl("core/somaxconn", "4");
        // Without cookies the kernel forgets SYNs for which the queue has no room, and their last packets with them.
        net.sensor.sysctl("ipv4/tcp_syncookies", "2");
        let agent = agent(&net, way).set("rejected_interval_seconds", 1).start();
        agent.pause();
        let syns: Vec<_> = (0..60).map(|number| RawSyn::new((GHOST_V4, 31_000 + number), (SENSOR_V4, 8080))).collect();
        let ghosts: Vec<_> = syns.iter().map(|syn| Ghost::new(&net, syn.clone())).collect();
        net.client.send_syns(syns);
        ghosts.into_iter().for_each(|ghost| ghost.complete(b"hello"));
        // Half-open beside them: nothing follows this one.
        net.client.send_syns([RawSyn::new((CLIENT_V4, 31_000), (SENSOR_V4, 8081))]);
        let opened = kernel(&net.sensor, "PassiveOpens");
        assert!((1..60).contains(&opened), "{way:?}: {opened} of 60 found room");
        assert!(kernel(&net.sensor, "ListenOverflows") >= 60 - opened, "{way:?}");
        agent.signal(Signal::SIGCONT);
        eventually("all are recorded", || {
            let log = agent.log();
            let accepted = log.connections(json!({"payload": "hello", "source_ip": GHOST_V4}));
            let refused = log.connections(json!({"close_reason": "rejected", "limit": "accept_queue"}));
            assert!(accepted <= opened && refused <= 60 - opened, "{way:?}: {accepted} and {refused}, {opened} opened");
            (accepted + refused == 60).then_some(())
        });
        let log = agent.stop().log;
        let record = log.sessions().find(|line| line.value["limit"] == "accept_queue").expect("a record");
        assert_eq!(record.value["source_ip"], json!(GHOST_V4), "{}", record.value);
        assert_eq!(
            (&record.value["destination_ip"], &record.value["destination_port"]),
            (&json!(SENSOR_V4), &json!(8080))
        );
        assert_eq!(record.value["syn"]["muonfp"], "1024:2:1460:");
        log.expect_count(1, json!({"record_type": "scan", "source_ip": CLIENT_V4, "destination_ports": ["8081"]}));
        log.expect_count(0, json!({"record_type": "scan", "source_ip": GHOST_V4}));
        let accepted = log.connections(json!({"payload": "hello", "source_ip": GHOST_V4}));
        assert_eq!(accepted, kernel(&net.sensor, "PassiveOpens"), "{way:?}: records, and handshakes of the kernel");
        log.expect_sequence();
    }
}

/// Connects for as long as it takes the kernel to answer, and leaves.
fn connect_and_leave(to: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    let _ = socket.connect_timeout(&to.into(), Duration::from_millis(300));
}
