//! Every port without a rule of the firewall: what is steered, what is left alone, and who may change that.

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
fn what_listens_and_what_is_excluded_is_left_alone_and_the_start_says_why() {
    let Some(net) = Net::new() else { return };
    let _service = Service::start(&net, (ANY, 80));
    let _six = Service::start(&net, (address("::"), 443));
    let agent = steered(&net).set("exclude_ports", json!([25, "8000-8010"])).start();
    let message = agent.wait_message(json!({"target": "steering"}));
    let exclusions = message["exclusions"].as_str().expect("exclusions");
    for part in ["25: exclude_ports", "8000-8010: exclude_ports", "80: ", " listens on 0.0.0.0", " listens on ::"] {
        assert!(exclusions.contains(part), "{part} in {exclusions}");
    }
    assert_eq!(who(&net.client, (SENSOR_V4, 80)), "service");
    assert_eq!(who(&net.client, (SENSOR_V6, 443)), "service");
    for port in [25, 8000, 8005, 8010] {
        assert_eq!(who(&net.client, (SENSOR_V4, port)), "nobody", "{port}");
    }
    for port in [24, 26, 7999, 8011, LISTENER] {
        assert_eq!(who(&net.client, (SENSOR_V4, port)), "agent", "{port}");
    }
    let log = agent.stop().log;
    log.expect_count(5, json!({}));
}

#[test]
fn a_service_that_begins_has_its_port_soon_and_gives_it_up_when_it_ends() {
    let Some(net) = Net::new() else { return };
    let agent = steered(&net).start();
    for (sensor, any) in [(SENSOR_V4, ANY), (SENSOR_V6, address("::"))] {
        // The agent has connections to the port while the service comes: they do not keep it from its port.
        let open = net.client.connect((sensor, 8080));
        let service = Service::start(&net, (any, 8080));
        eventually("the service has its port", || (who(&net.client, (sensor, 8080)) == "service").then_some(()));
        drop(service);
        eventually("the agent has the port", || (who(&net.client, (sensor, 8080)) == "agent").then_some(()));
        drop(open);
    }
    agent.wait_message(json!({"message": "services have changed"}));
}

#[test]
fn the_machine_can_connect_out_while_strangers_hold_every_port_that_is_not_kept() {
    let Some(net) = Net::new() else { return };
    net.sensor.sysctl("ipv4/ip_local_port_range", "40000 40099");
    let elsewhere = net.client.enter(|| TcpListener::bind((CLIENT_V4, 9000))).expect("the port is free");
    let target = (CLIENT_V4, 9000);
    let hold =
        |from: u16| net.client.connect_all((from..from + 100).map(|port| (None, SocketAddr::new(SENSOR_V4, port))));

    let agent = steered(&net).start();
    let warning = agent.wait_message(json!({"target": "steering", "level": "warn"}));
    assert!(warning["message"].as_str().is_some_and(|text| text.contains("40000-40099")), "{warning}");
    let held = hold(40_000);
    assert_eq!(held.len(), 100);
    let error = net.sensor.enter(|| TcpStream::connect(target)).expect_err("no port is left");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
    drop((agent, held));

    // Another range: the first one is in TIME_WAIT.
    net.sensor.sysctl("ipv4/ip_local_port_range", "41000 41099");
    let agent = steered(&net).set("exclude_ports", json!(["41090-41099"])).start();
    let held = hold(41_000);
    assert_eq!(held.len(), 90);
    let _out = net.sensor.connect(target);
    let log = agent.stop().log;
    let warned = |line: &Line| line.value["target"] == "steering" && line.value["level"] == "warn";
    assert!(!log.messages().any(warned), "{}", log.text());
    drop((elsewhere, held));
}

/// A user without rights who listens on many ports, until this is dropped.
struct Squatter(std::process::Child);

impl Squatter {
    fn start(net: &Net, first: u16, count: u16) -> Self {
        let program = format!(
            "import os, resource, socket, sys\n\
             resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))\n\
             os.setgroups([]); os.setgid(65534); os.setuid(65534)\n\
             held = [socket.create_server(('', port)) for port in range({first}, {first} + {count})]\n\
             print('listens', flush=True)\nsys.stdin.read()"
        );
        let mut child = net.sensor.enter(|| {
            std::process::Command::new("python3")
                .args(["-c", &program])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("python starts")
        });
        // The pipe stays open: Python ends when what it says cannot be written.
        let mut said = [0; 8];
        child.stdout.as_mut().expect("piped").read_exact(&mut said).expect("it listens");
        Self(child)
    }
}

impl Drop for Squatter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_user_who_listens_on_thousands_of_ports_blinds_the_sensor_only_where_everybodys_services_are_exempt() {
    let Some(net) = Net::new() else { return };
    let _root = Service::start(&net, (ANY, 8080));
    let _nobody = Squatter::start(&net, 14_000, 3_000);
    let agent = steered(&net).start();
    drop(net.client.connect((SENSOR_V4, 15_000)));
    let log = agent.stop().log;
    let taken: Vec<_> = log.lines.iter().filter(|line| line.value["destination_port"] == 15_000).collect();
    assert!(taken.is_empty(), "{:?}", taken.iter().map(|line| &line.text).collect::<Vec<_>>());
    let agent = steered(&net).set("exempt_services_of", json!(["root"])).start();
    let later = Squatter::start(&net, 20_000, 1_000);
    for port in [14_000, 15_000, 16_999, 20_000, 20_999] {
        net.client.deliver((SENSOR_V4, port), b"to a squatter");
        agent.expect_one(json!({"payload": "to a squatter", "destination_port": port}));
    }
    assert_eq!(who(&net.client, (SENSOR_V4, 8080)), "service");
    drop(later);
    let said = agent.stop().log.lines.iter().any(|line| {
        line.value["message"].as_str().is_some_and(|text| text.contains("exempt_services_of does not name"))
    });
    assert!(said);
    let ended = steered(&net).set("exempt_services_of", json!(["no-such-user"])).run();
    assert!(ended.stderr.contains("exempt_services_of: there is no user \"no-such-user\""), "{}", ended.stderr);
}

#[test]
fn a_service_on_one_address_keeps_its_port_there_alone() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("ip addr add 198.51.100.9/24 dev wire");
    let _service = Service::start(&net, (SENSOR_V4, 22));
    let _agent = steered(&net).start();
    assert_eq!(who(&net.client, (SENSOR_V4, 22)), "service");
    assert_eq!(who(&net.client, (address("198.51.100.9"), 22)), "agent");
    assert_eq!(who(&net.client, (SENSOR_V6, 22)), "agent");
}

#[test]
fn clients_on_this_machine_are_left_alone_unless_they_are_asked_for() {
    let Some(net) = Net::new() else { return };
    let _service = Service::start(&net, (address("127.0.0.1"), 5432));
    let agent = steered(&net).start();
    for to in ["127.0.0.1", "127.1.2.3", "::1", "198.51.100.1", "2001:db8:1::1"] {
        assert_eq!(who(&net.sensor, (address(to), 6379)), "nobody", "{to}");
    }
    // Clients outside cannot reach a service on loopback: its port is recorded.
    assert_eq!(who(&net.client, (SENSOR_V4, 5432)), "agent");
    agent.stop().log.expect_count(1, json!({}));

    let agent = steered(&net).set("steer_loopback", true).start();
    for to in ["127.0.0.1", "127.1.2.3", "::1", "198.51.100.1", "2001:db8:1::1"] {
        assert_eq!(who(&net.sensor, (address(to), 6379)), "agent", "{to}");
        agent.expect_one(json!({"destination_ip": to, "destination_port": 6379, "destination_source": "socket"}));
    }
    assert_eq!(who(&net.sensor, (address("127.0.0.1"), 5432)), "service");
}

#[test]
fn only_the_prefixes_and_interfaces_that_are_listed_are_steered() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("ip addr add 198.51.100.9/24 dev wire");
    let agent = steered(&net).set("steer_prefixes", json!(["198.51.100.9/32", "2001:db8:1::/64"])).start();
    assert_eq!(who(&net.client, (address("198.51.100.9"), 81)), "agent");
    assert_eq!(who(&net.client, (SENSOR_V6, 81)), "agent");
    assert_eq!(who(&net.client, (SENSOR_V4, 81)), "nobody");
    drop(agent);

    let agent = steered(&net).set("steer_interfaces", json!(["other"])).start();
    assert_eq!(who(&net.client, (SENSOR_V4, 81)), "nobody");
    // An interface of that name comes: here, the one that is there gets it.
    net.sensor.shell("ip link set wire down && ip link set wire name other && ip link set other up");
    eventually("the interface is steered", || (who(&net.client, (SENSOR_V4, 81)) == "agent").then_some(()));
    drop(agent);
}

#[test]
fn what_confines_steering_to_nowhere_is_said_by_start_status_and_doctor() {
    let Some(net) = Net::new() else { return };
    let launch = steered(&net).set("steer_interfaces", json!(["wire", "later"]));
    let agent = launch.clone().start();
    agent.wait_message(json!({"level": "warn", "target": "steering", "interfaces": "later"}));
    let told = agent.log();
    let start = told
        .messages()
        .find(|line| line.value["steer_interfaces"] == "later, wire")
        .unwrap_or_else(|| panic!("{}", told.text()));
    let said = start.value["message"].as_str().expect("text");
    assert!(said.ends_with("what steer_prefixes and steer_interfaces leave out"), "{said}");
    let ask = |launch: &Launch, what: &str| {
        let output = net.path().join("asked.json");
        let asked = launch.clone().within(&format!(r#""$@" >{}"#, output.display()));
        let _ = asked.arguments(&[what, "--config", "{config}", "--json"]).run();
        let report = std::fs::read_to_string(&output).expect("it was written");
        serde_json::from_str::<Value>(&report).expect("JSON")
    };
    let confined = |launch: &Launch| {
        let report = ask(launch, "doctor");
        let mut findings = report["findings"].as_array().expect("findings").iter();
        findings.find(|finding| finding["check"] == "steering.confined").cloned().expect("the check")
    };
    let steering = ask(&launch, "status")["agent"]["steering"].clone();
    assert_eq!(steering["interfaces"], json!(["later", "wire"]), "{steering}");
    assert_eq!(steering["missing_interfaces"], json!(["later"]), "{steering}");
    assert_eq!(confined(&launch)["state"], "warning");
    net.sensor.shell("ip link add later type veth peer name its-peer");
    assert_eq!(confined(&launch)["state"], "ok");
    agent.wait_message(json!({"message": "all interfaces of steer_interfaces exist"}));
    let _ = agent.stop();

    for (key, value) in [("steer_interfaces", "none"), ("steer_prefixes", "192.0.2.0/24")] {
        let nowhere = confined(&steered(&net).set(key, json!([value])));
        assert_eq!(nowhere["state"], "failure", "{nowhere}");
        assert!(nowhere["found"].as_str().is_some_and(|found| found.ends_with("nothing is steered")), "{nowhere}");
    }
}

#[test]
fn a_hangup_brings_what_the_file_says_now() {
    let Some(net) = Net::new() else { return };
    let path = net.path().join("changing.toml");
    let write = |lines: &str| {
        let text = format!(
            "ip = \"127.0.0.1\"\nport = {LISTENER}\nsteering = \"sk_lookup\"\nbpf_pin_path = {:?}\n{lines}\n",
            net.pins()
        );
        std::fs::write(&path, text).expect("the test's directory is its own");
    };
    write("exclude_ports = [81]\nsteer_loopback = true");
    let agent = net.agent().arguments(&["--config", path.to_str().expect("text")]).start();
    let message = json!({"message": "steering follows the configuration again"});
    assert_eq!(who(&net.client, (SENSOR_V4, 81)), "nobody");
    assert_eq!(who(&net.sensor, (address("127.0.0.1"), 82)), "agent");
    assert_eq!(who(&net.client, (SENSOR_V6, 83)), "agent");

    write("exclude_ports = [\"90-99\"]\nsteer_loopback = false\nsteer_prefixes = [\"198.51.100.0/24\"]");
    agent.signal(Signal::SIGHUP);
    agent.wait_message(message);
    // What was excluded at the start stays so until the next one, and the reload says so.
    agent.wait_message(json!({"level": "warn", "target": "steering"}));
    assert_eq!(who(&net.client, (SENSOR_V4, 81)), "nobody");
    assert_eq!(who(&net.client, (SENSOR_V4, 95)), "nobody");
    assert_eq!(who(&net.client, (SENSOR_V4, 100)), "agent");
    assert_eq!(who(&net.sensor, (address("127.0.0.1"), 82)), "nobody");
    assert_eq!(who(&net.client, (SENSOR_V6, 83)), "nobody");

    // A mistake in the file changes nothing.
    write("exclude_ports = [0]");
    agent.signal(Signal::SIGHUP);
    agent.wait_message(json!({"level": "error", "target": "config"}));
    assert_eq!(who(&net.client, (SENSOR_V4, 95)), "nobody");
    assert_eq!(who(&net.client, (SENSOR_V4, 100)), "agent");
}

/// Writes a map of the agent's, as an intruder with its descriptors can; `value` in words of the kernel's tool.
fn overwrite(net: &Net, map: &str, key: u16, value: &str) -> bool {
    let [low, high] = key.to_le_bytes();
    let map = net.pins().join(map);
    let update = format!("bpftool map update pinned {} key {low} {high} 0 0 value {value}", map.display());
    net.sensor.shell(&format!("if {update} >&2; then echo written; else echo refused; fi")).contains("written")
}

#[test]
fn whoever_writes_the_agents_maps_takes_no_port_that_was_kept_at_the_start() {
    let Some(net) = Net::new() else { return };
    let bpftool = std::process::Command::new("bpftool").arg("version").output();
    if !net.has_bpffs() || !bpftool.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: needs a BPF file system and bpftool");
    }
    let _everywhere = Service::start(&net, (ANY, 22));
    let _here = Service::start(&net, (SENSOR_V4, 80));
    let _agent = steered(&net).set("exclude_ports", json!([25])).start();
    let later = Service::start(&net, (ANY, 9090));
    eventually("the service has its port", || (who(&net.client, (SENSOR_V4, 9090)) == "service").then_some(()));

    // All of the maps that say who is left alone, emptied; clients on this machine steered.
    for port in [22, 25, 80, 9090] {
        assert!(overwrite(&net, "STEER_PORTS", port, "0 0 0 0"), "{port}");
    }
    assert!(overwrite(&net, "STEER_SETTINGS", 0, "1 0 0 0 0 0 0 0 0 0 0 0"));

    // It takes a service that came later, so the map counts, and none that was there.
    assert_eq!(who(&net.client, (SENSOR_V4, 9090)), "agent");
    assert_eq!(who(&net.client, (SENSOR_V4, 22)), "service");
    assert_eq!(who(&net.client, (SENSOR_V4, 80)), "service");
    assert_eq!(who(&net.client, (SENSOR_V6, 80)), "agent", "another address than the service's");
    assert_eq!(who(&net.client, (SENSOR_V4, 25)), "nobody");
    assert_eq!(who(&net.sensor, (address("127.0.0.1"), 82)), "nobody");
    // Root itself cannot write what was frozen.
    for port in [22, 25] {
        assert!(!overwrite(&net, "STEER_KEPT", port, "0 0 0 0"), "{port}");
    }
    drop(later);
}

#[test]
fn a_service_that_was_there_at_the_start_keeps_its_port_until_the_agent_is_started_again() {
    let Some(net) = Net::new() else { return };
    let service = Service::start(&net, (ANY, 8080));
    let agent = steered(&net).start();
    drop(service);
    let later = Service::start(&net, (ANY, 8081));
    eventually("the agent has looked again", || (who(&net.client, (SENSOR_V4, 8081)) == "service").then_some(()));
    assert_eq!(who(&net.client, (SENSOR_V4, 8080)), "nobody");
    drop(later);
    let _ = agent.stop();
    let _agent = steered(&net).start();
    assert_eq!(who(&net.client, (SENSOR_V4, 8080)), "agent");
}

#[test]
fn as_many_prefixes_as_are_accepted_are_exchanged_for_as_many_others() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("ip route add local 203.0.113.0/24 dev lo");
    net.client.shell(&format!("ip route add 203.0.113.0/24 via {SENSOR_V4}"));
    let path = net.path().join("changing.toml");
    let write = |first: &[&str], network: u8, loopback: bool| {
        let others = (0..1024 - first.len()).map(|number| format!("10.{network}.{}.{}/32", number / 256, number % 256));
        let prefixes: Vec<_> = first.iter().map(|prefix| (*prefix).to_owned()).chain(others).collect();
        let text = format!(
            "ip = \"127.0.0.1\"\nport = {LISTENER}\nsteering = \"sk_lookup\"\nbpf_pin_path = {:?}\n\
             steer_prefixes = {prefixes:?}\nsteer_loopback = {loopback}\n",
            net.pins()
        );
        std::fs::write(&path, text).expect("the test's directory is its own");
    };
    let who_answers = || {
        let [far, near] = [address("203.0.113.7"), SENSOR_V4].map(|to| who(&net.client, (to, 81)));
        (far, near, who(&net.sensor, (address("127.0.0.1"), 82)))
    };
    // Whether it may be turned on at all is decided at the start.
    write(&["203.0.113.7/32"], 0, true);
    let agent = net.agent().arguments(&["--config", path.to_str().expect("text")]).start();
    assert_eq!(who_answers(), ("agent", "nobody", "nobody"));
    for (first, network, loopback, expected) in [
        (&["198.51.100.1/32", "127.0.0.0/8"][..], 1, true, ("nobody", "agent", "agent")),
        (&["203.0.113.7/32"], 2, false, ("agent", "nobody", "nobody")),
    ] {
        write(first, network, loopback);
        agent.signal(Signal::SIGHUP);
        let message = json!({"message": "steering follows the configuration again", "steer_loopback": loopback});
        agent.wait_message(message);
        assert_eq!(who_answers(), expected);
    }
}

#[test]
fn the_operators_ssh_connections_keep_their_ports() {
    let Some(net) = Net::new() else { return };
    // A process that is called sshd and has one open connection, but does not listen any more.
    let sshd = net.path().join("sshd");
    std::fs::copy("/bin/sleep", &sshd).expect("sleep can be copied");
    let listener = net.sensor.enter(|| TcpListener::bind((ANY, 2222))).expect("the port is free");
    let mut ssh = net.client.connect((SENSOR_V4, 2222));
    let (mut session, _) = listener.accept().expect("a connection");
    drop(listener);
    let held = session.try_clone().expect("a descriptor is left");
    let mut child =
        std::process::Command::new(&sshd).arg("60").stdin(std::os::fd::OwnedFd::from(held)).spawn().expect("sshd");
    net.sensor.shell("ip addr add 198.51.100.9/24 dev wire");
    let around = format!("SSH_CONNECTION='192.0.2.7 50000 {SENSOR_V4} 2022' exec \"$@\"");
    let agent = steered(&net).within(&around).start();
    let message = agent.wait_message(json!({"target": "steering"}));
    let exclusions = message["exclusions"].as_str().expect("exclusions").to_owned();
    child.kill().expect("our child");
    child.wait().expect("our child");
    for port in [2022, 2222] {
        let named = format!("{port} on {SENSOR_V4}: the operator's SSH connection");
        assert!(exclusions.contains(&named), "{exclusions}");
        assert_eq!(who(&net.client, (SENSOR_V4, port)), "nobody");
        // Every other address has the port to show.
        assert_eq!(who(&net.client, (address("198.51.100.9"), port)), "agent");
        assert_eq!(who(&net.client, (SENSOR_V6, port)), "agent");
    }
    // And the connection itself goes on.
    ssh.write_all(b"ls").expect("the connection is open");
    let mut bytes = [0; 2];
    session.read_exact(&mut bytes).expect("the connection is open");
    agent.stop().log.expect_count(4, json!({}));
}

#[test]
fn connections_of_a_service_outlive_its_listener_and_the_coming_of_an_agent() {
    let Some(net) = Net::new() else { return };
    let listener = net.sensor.enter(|| TcpListener::bind((ANY, 80))).expect("the port is free");
    let mut client = net.client.connect((SENSOR_V4, 80));
    let (mut server, _) = listener.accept().expect("a connection");
    drop(listener);
    let agent = steered(&net).start();
    // The port is the agent's for new connections, and the old one belongs to no other program.
    assert_eq!(who(&net.client, (SENSOR_V4, 80)), "agent");
    client.write_all(b"still here").expect("the connection is open");
    half_close(&client);
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).expect("the connection is open");
    assert_eq!(bytes, b"still here");
    drop((client, server));
    agent.stop().log.expect_count(1, json!({}));
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
fn the_maps_can_be_read_by_name() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() || std::process::Command::new("bpftool").arg("version").output().is_err() {
        return eprintln!("skipped: needs a BPF file system and bpftool");
    }
    let _service = Service::start(&net, (SENSOR_V4, 80));
    let agent =
        steered(&net).set("exclude_ports", json!([25])).set("steer_prefixes", json!(["198.51.100.0/24"])).start();
    for (port, whose) in [(25, "nobody"), (80, "service"), (81, "agent"), (82, "agent")] {
        assert_eq!(who(&net.client, (SENSOR_V4, port)), whose, "{port}");
    }
    assert_eq!(who(&net.client, (SENSOR_V6, 81)), "nobody");
    assert_eq!(who(&net.sensor, (SENSOR_V4, 81)), "nobody");
    let dump = |map: &str, rest: &str| -> Value {
        let pin = net.pins().join(map);
        let text = net.sensor.shell(&format!("bpftool --json map {rest} pinned {}", pin.display()));
        serde_json::from_str(&text).expect("JSON")
    };
    let counters = dump("STEER_COUNTERS", "dump");
    let sum = |name: &str| -> u64 {
        let cpus = counters[0]["formatted"]["values"].as_array().expect("one set for each CPU");
        cpus.iter().map(|cpu| cpu["value"][name].as_u64().expect("a named number")).sum()
    };
    let expected = [("steered", 2), ("excluded", 2), ("elsewhere", 1), ("loopback", 1), ("missed", 0)];
    for (name, count) in expected {
        assert_eq!(sum(name), count, "{name}: {counters}");
    }
    let ports = dump("STEER_PORTS", "dump");
    let port = |number: usize| &ports[number]["formatted"]["value"];
    assert_eq!((&port(25)["everywhere"], &port(25)["reason"]), (&json!(1), &json!(1)));
    assert_eq!((&port(80)["endpoints"], &port(80)["reason"]), (&json!(1), &json!(3)));
    assert_eq!(port(81)["reason"], 0);
    drop(agent);
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

#[test]
fn as_nobody_in_its_sandbox_the_agent_keeps_exclusions_current() {
    let Some(net) = Net::new() else { return };
    let launch = steered(&net).set("sandbox", every_step()).set("user", "nobody").set("pin_links", net.has_bpffs());
    let launch = launch.set("steer_interfaces", json!(["wire", "later"]));
    let agent = launch.clone().start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("the agent runs");
    assert!(status.contains("Uid:\t65534\t65534"), "{status}");
    let service = Service::start(&net, (ANY, 8080));
    eventually("the service has its port", || (who(&net.client, (SENSOR_V4, 8080)) == "service").then_some(()));
    drop(service);
    eventually("the agent has the port", || (who(&net.client, (SENSOR_V4, 8080)) == "agent").then_some(()));
    net.sensor.shell("ip link set wire down && ip link set wire name later && ip link set later up");
    eventually("the interface is steered", || (who(&net.client, (SENSOR_V4, 81)) == "agent").then_some(()));
    agent.signal(Signal::SIGHUP);
    agent.wait_message(json!({"message": "steering follows the configuration again"}));
    assert_eq!(who(&net.client, (SENSOR_V4, 81)), "agent");
    let log = agent.log();
    let wrong: Vec<_> = log.messages().filter(|line| line.value["level"] == "error").map(|line| &line.text).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // And it is asked what it does.
    let report = launch.unset("log_file").arguments(&["status", "--config", "{config}", "--json"]).run();
    assert_eq!(report.status.code(), Some(0));
    let report: Value = serde_json::from_str(&report.log.torn.join("\n")).expect("JSON");
    assert_eq!(report["agent"]["uid"], 65_534);
    assert!(report["steered"]["steered"].as_u64().is_some_and(|steered| steered >= 3), "{report}");
    assert!(report["kernel"]["passive"].as_u64().is_some_and(|passive| passive >= 3), "{report}");
}
