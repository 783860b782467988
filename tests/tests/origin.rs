//! The true destination and source port of a connection, and records without them.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use spip_tests::ghost::{GHOST_V4, Ghost};
use spip_tests::{
    CLIENT_V4, CLIENT_V6, LISTENER, Net, RawSyn, SENSOR_V4, SENSOR_V6, eventually, half_close, read_to_end, reset,
};

/// The port from which scanners of one kind send everything.
const ONE_PORT: u16 = 40_000;

/// Opens 50 connections from one source port to ports 1000 to 1049, all at once, and says in each where it went.
fn fifty_from_one_port(net: &Net, from: std::net::IpAddr, to: std::net::IpAddr) -> Vec<TcpStream> {
    let from = SocketAddr::new(from, ONE_PORT);
    let mut streams: Vec<_> = (1000..1050).map(|port| net.client.connect_from(from, (to, port))).collect();
    for (stream, port) in streams.iter_mut().zip(1000..) {
        let port: u16 = port;
        stream.write_all(format!("to {port}").as_bytes()).expect("the sensor takes bytes");
        half_close(stream);
    }
    streams
}

#[test]
fn fifty_connections_from_one_source_port_keep_their_true_ports_at_both_ends() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    let _open = fifty_from_one_port(&net, CLIENT_V4, SENSOR_V4);
    for port in 1000..1050 {
        let record = agent.expect_one(json!({"payload": format!("to {port}")}));
        let expected = json!({
            "source_ip": CLIENT_V4, "source_port": ONE_PORT, "destination_ip": SENSOR_V4, "destination_port": port,
            "destination_source": "ebpf",
        });
        agent.expect_one(expected);
        expect_syn(&record);
    }
}

#[test]
fn the_packet_filter_fits_the_sockets_of_kernels_that_allow_filters_of_20_kb() {
    let Some(net) = Net::new() else { return };
    // A setting of each namespace since 6.8; before, 20,480 is what every machine has by default.
    let limit = "core/optmem_max";
    if net.sensor.enter(|| Path::new("/proc/sys/net").join(limit).exists()) {
        net.sensor.sysctl(limit, "20480");
    }
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    net.client.deliver((SENSOR_V4, 81), b"seen");
    expect_syn(&agent.expect_one(json!({"payload": "seen", "destination_source": "ebpf"})));
    let _ = agent.stop();
    // The whole of it counts: a filter that is larger is refused, and the message names the setting.
    if net.sensor.enter(|| Path::new("/proc/sys/net").join(limit).exists()) {
        net.sensor.sysctl(limit, "8192");
        let refused = net.agent().set("ebpf", "required").spawn().wait();
        assert!(!refused.status.success() && refused.stderr.contains("net.core.optmem_max"), "{}", refused.stderr);
    }
}

#[test]
fn fifty_ipv6_connections_from_one_source_port_keep_their_true_ports_at_both_ends() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    let _open = fifty_from_one_port(&net, CLIENT_V6, SENSOR_V6);
    for port in 1000..1050 {
        agent.expect_one(json!({
            "payload": format!("to {port}"), "source_ip": CLIENT_V6, "source_port": ONE_PORT,
            "destination_ip": SENSOR_V6, "destination_port": port, "destination_source": "ebpf",
        }));
    }
}

#[test]
fn connections_that_are_gone_before_they_are_accepted_keep_their_true_ports_too() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    // A stopped process accepts nothing: every reset comes before its connection is looked at.
    agent.pause();
    let from = SocketAddr::new(CLIENT_V4, ONE_PORT);
    // All are open at once, so that NAT has to give all but one another port, and then all are gone.
    let mut streams: Vec<_> = (1000..1050).map(|port| net.client.connect_from(from, (SENSOR_V4, port))).collect();
    for (stream, port) in streams.iter_mut().zip(1000..) {
        let port: u16 = port;
        stream.write_all(format!("gone {port}").as_bytes()).expect("the kernel takes bytes");
    }
    streams.into_iter().for_each(reset);
    agent.signal(Signal::SIGCONT);
    for port in 1000..1050 {
        agent.expect_one(json!({
            "payload": format!("gone {port}"), "close_reason": "client_reset", "source_ip": CLIENT_V4,
            "source_port": ONE_PORT, "destination_ip": SENSOR_V4, "destination_port": port,
            "destination_source": "ebpf",
        }));
    }
}

#[test]
fn when_the_kernel_side_forgets_the_record_says_who_knew_instead() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let entries = 64;
    let agent = net
        .agent()
        .set("ebpf", "required")
        .set("ebpf_syn_entries", entries)
        .set("ebpf_origin_entries", entries)
        .start();
    // All are open before the first is accepted: far more than the maps have room for.
    agent.pause();
    let streams = net.client.connect_all((0..600).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    assert_eq!(streams.len(), 600);
    agent.signal(Signal::SIGCONT);
    agent.wait_all_read();
    drop(streams);
    let records = agent.expect_count(600, json!({"source_ip": CLIENT_V4, "destination_ip": SENSOR_V4}));
    let ports: std::collections::BTreeSet<_> =
        records.iter().map(|record| &record["destination_port"]).map(Value::as_u64).collect();
    assert_eq!(ports.len(), 600, "destinations were confused");
    let by_conntrack = records.iter().filter(|record| record["destination_source"] == "conntrack").count();
    assert!(by_conntrack >= 600 - 2 * entries, "{by_conntrack} of 600 by conntrack with {entries} entries");
}

#[test]
fn without_ebpf_conntrack_knows_the_destination_and_the_record_says_so() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "off").start();
    let _open = fifty_from_one_port(&net, CLIENT_V4, SENSOR_V4);
    for port in 1000..1050 {
        let record = agent.expect_one(json!({
            "payload": format!("to {port}"), "source_ip": CLIENT_V4,
            "destination_ip": SENSOR_V4, "destination_port": port, "destination_source": "conntrack",
        }));
        expect_syn(&record);
    }
}

#[test]
fn without_ebpf_conntrack_knows_the_destination_of_ipv6_connections_too() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "off").start();
    let _open = fifty_from_one_port(&net, CLIENT_V6, SENSOR_V6);
    for port in 1000..1050 {
        agent.expect_one(json!({
            "payload": format!("to {port}"), "source_ip": CLIENT_V6,
            "destination_ip": SENSOR_V6, "destination_port": port, "destination_source": "conntrack",
        }));
    }
}

#[test]
fn without_ebpf_and_nat_the_sockets_own_address_is_the_destination() {
    let Some(net) = Net::new() else { return };
    let agent = net.agent().set("ebpf", "off").start();
    let from = net.client.deliver((SENSOR_V4, LISTENER), b"straight");
    let record = agent.expect_one(json!({
        "payload": "straight", "source_port": from.port(), "destination_port": LISTENER,
    }));
    // Conntrack knows connections that no rule has changed too, where anything makes it track.
    assert!(["socket", "conntrack"].contains(&record["destination_source"].as_str().unwrap_or("none")), "{record}");
}

#[test]
fn a_local_client_is_known_by_ebpf() {
    let Some(net) = Net::new() else { return };
    net.redirect_local();
    let agent = net.agent().set("ebpf", "required").start();
    let local = "127.0.0.1:6379".parse::<SocketAddr>().expect("an address");
    let from = net.sensor.deliver(local, b"PING");
    agent.expect_one(json!({
        "payload": "PING", "source_port": from.port(), "destination_port": 6379, "destination_source": "ebpf",
    }));
}

#[test]
fn two_agents_side_by_side_record_their_own_connections_only() {
    let Some(net) = Net::new() else { return };
    for (port, listener) in [(80, 20_001), (81, 20_002)] {
        net.sensor.shell(&format!(
            "iptables -w -t nat -A PREROUTING -p tcp --dport {port} -j REDIRECT --to-ports {listener}"
        ));
    }
    let one = net.agent().set("ebpf", "required").set("port", 20_001).start();
    let other = net.agent().set("ebpf", "required").set("port", 20_002).start();
    for (agent, port) in [(&one, 80), (&other, 81), (&one, 80)] {
        let from = SocketAddr::new(CLIENT_V4, 0);
        let mut stream = net.client.connect_from(from, (SENSOR_V4, port));
        stream.write_all(b"hello").expect("the sensor takes bytes");
        let from = stream.local_addr().expect("a connected socket has an address");
        drop(stream);
        agent.expect_one(json!({
            "payload": "hello", "source_port": from.port(), "destination_port": port, "destination_source": "ebpf",
        }));
    }
    one.stop().log.expect_count(2, json!({}));
    // The end of the one takes nothing from the other.
    net.client.deliver((SENSOR_V4, 81), b"still here");
    other.expect_one(json!({"payload": "still here", "destination_port": 81, "destination_source": "ebpf"}));
    other.stop().log.expect_count(2, json!({}));
}

#[test]
fn nothing_of_a_session_stays_in_the_maps_whichever_side_ends_it() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() || !has_bpftool() {
        return eprintln!("skipped: needs a BPF file system and bpftool");
    }
    net.redirect();
    let agent = net.agent().set("ebpf", "required").set("read_timeout_seconds", 0.5).start();
    let open = net.connect(5900);
    eventually("the origin of an open session is there", || (entries(&net, "ORIGINS") == 1).then_some(()));
    drop(open);
    let all_gone = |what: &str| {
        eventually(format!("nothing is left of sessions that {what}"), || {
            (entries(&net, "ORIGINS") + entries(&net, "SYNS") == 0).then_some(())
        });
    };
    agent.expect_one(json!({"destination_port": 5900}));
    all_gone("said nothing");
    // The handshake of the end that the client begins: the sensor's side ends in LAST_ACK.
    for port in 1000..1010 {
        net.client.deliver((SENSOR_V4, port), b"client first");
    }
    agent.expect_count(10, json!({"payload": "client first", "close_reason": "client_closed"}));
    all_gone("the client ended");
    let open = |text: &[u8], from: u16| -> Vec<_> {
        let mut streams: Vec<_> = (from..from + 10).map(|port| net.connect(port)).collect();
        streams.iter_mut().for_each(|stream| stream.write_all(text).expect("the sensor takes bytes"));
        streams
    };
    let mut idle = open(b"sensor first", 2000);
    agent.expect_count(10, json!({"payload": "sensor first", "close_reason": "idle_timeout"}));
    idle.iter_mut().for_each(|stream| drop(read_to_end(stream)));
    drop(idle);
    all_gone("the sensor ended");
    let gone = open(b"reset", 3000);
    agent.wait_all_read();
    gone.into_iter().for_each(reset);
    agent.expect_count(10, json!({"payload": "reset", "close_reason": "client_reset"}));
    all_gone("the client reset");
    // A reset right behind the end: the agent reads the end, and the kernel has nothing left to close.
    net.add_ghosts();
    for port in 4000..4010 {
        let syn = RawSyn::new((GHOST_V4, port), (SENSOR_V4, port));
        let client = Ghost::new(&net, syn.clone());
        net.client.send_syns([syn]);
        client.complete_and_reset(b"end, then reset");
    }
    agent.expect_count(10, json!({"payload": "end, then reset"}));
    all_gone("the client ended and reset");
}

#[test]
fn nothing_of_a_refused_connection_stays_in_the_maps() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() || !has_bpftool() {
        return eprintln!("skipped: needs a BPF file system and bpftool");
    }
    net.redirect();
    let agent = net.agent().set("ebpf", "required").set("max_sessions_per_source", 1).start();
    let open = net.connect(5900);
    eventually("the origin of an open session is there", || (entries(&net, "ORIGINS") == 1).then_some(()));
    for port in 1000..1020 {
        drop(net.connect(port));
    }
    eventually("all but one are refused", || {
        (net.status()["kernel"]["passive"] == 21 && entries(&net, "ORIGINS") == 1).then_some(())
    });
    drop(open);
    eventually("nothing is left", || (entries(&net, "ORIGINS") == 0).then_some(()));
    let _ = agent.stop();
}

#[test]
fn connections_that_this_machine_opens_leave_no_syn_behind() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() || !has_bpftool() {
        return eprintln!("skipped: needs a BPF file system and bpftool");
    }
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    let far = net.client.enter(|| TcpListener::bind((CLIENT_V4, 7777))).expect("the port is free");
    for _ in 0..5 {
        drop(net.sensor.connect((CLIENT_V4, 7777)));
        far.accept().expect("it is connected");
    }
    // Refused, too.
    let refused = net.sensor.connect_all([(None, SocketAddr::new(CLIENT_V4, 7778))].into_iter());
    assert!(refused.is_empty());
    // Whatever the packet filter saw before this is in the map by now.
    net.client.deliver((SENSOR_V4, 80), b"after them");
    agent.expect_one(json!({"payload": "after them", "destination_source": "ebpf"}));
    eventually("the SYN of the one session is gone", || (entries(&net, "SYNS") == 0).then_some(()));
}

#[test]
fn pinned_maps_of_another_shape_are_replaced() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() {
        return eprintln!("skipped: this kernel mounts no BPF file system");
    }
    net.redirect();
    // Killed, so that its pins stay; the next one wants a smaller map under the same name.
    let _ = net.agent().set("ebpf", "required").set("ebpf_syn_entries", 4096).start().kill();
    assert!(pins(&net).len() >= 3, "pins: {:?}", pins(&net));

    let agent = net.agent().set("ebpf", "required").set("ebpf_syn_entries", 1024).start();

    net.client.deliver((SENSOR_V4, 80), b"new shape");
    agent.expect_one(json!({"payload": "new shape", "destination_port": 80, "destination_source": "ebpf"}));
}

#[test]
fn a_foreign_map_under_the_name_of_a_pin_is_replaced() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() || !has_bpftool() {
        return eprintln!("skipped: needs a BPF file system and bpftool");
    }
    net.redirect();
    let _ = net.agent().set("ebpf", "required").start().kill();
    for pin in pins(&net) {
        std::fs::remove_file(&pin).expect("the pin is ours");
        let map = format!("bpftool map create {} type array key 4 value 4 entries 1 name foreign", pin.display());
        net.sensor.shell(&map);
    }
    let agent = net.agent().set("ebpf", "required").start();
    net.client.deliver((SENSOR_V4, 80), b"mine again");
    agent.expect_one(json!({"payload": "mine again", "destination_port": 80, "destination_source": "ebpf"}));
}

#[test]
fn pinned_maps_show_their_fields_by_name() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() || !has_bpftool() {
        return eprintln!("skipped: needs a BPF file system and bpftool");
    }
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    let open = net.connect(5900);
    agent.wait_all_read();
    let dumps: String = pins(&net)
        .iter()
        .map(|pin| net.sensor.shell(&format!("bpftool --json --pretty map dump pinned {}", pin.display())))
        .collect();
    for name in ["destination", "source_port", "ttl", "window"] {
        assert!(dumps.contains(&format!("{name}\"")) || dumps.contains(&format!("{name}_")), "no {name}: {dumps}");
    }
    assert!(dumps.contains("5900"), "the open connection is in no map: {dumps}");
    drop(open);
}

/// Returns the number of entries of a map of the kernel side.
fn entries(net: &Net, map: &str) -> usize {
    let pin = net.pins().join(map);
    let text = net.sensor.shell(&format!("bpftool --json map dump pinned {}", pin.display()));
    let dump: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    dump.as_array().unwrap_or_else(|| panic!("no list: {text}")).len()
}

fn has_bpftool() -> bool {
    Command::new("bpftool").arg("version").output().is_ok_and(|output| output.status.success())
}

fn pins(net: &Net) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(net.pins()).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// The facts of a SYN that this kernel's own client sends.
fn expect_syn(record: &Value) {
    let syn = &record["syn"];
    let ttl = syn["ttl"].as_u64().expect("a time to live");
    assert!((63..=64).contains(&ttl), "{record}");
    assert!(syn["window"].is_u64() && syn["scale"].is_u64(), "{record}");
    // Maximum segment size, SACK permitted, timestamps, padding, window scale.
    assert_eq!((&syn["mss"], &syn["options"]), (&json!(1460), &json!([2, 4, 8, 1, 3])), "{record}");
    let fingerprint = format!("{}:2-4-8-1-3:1460:{}", syn["window"], syn["scale"]);
    assert_eq!(syn["muonfp"], fingerprint, "{record}");
}
