//! Ports that stay with those who had them: services, the operator, and the machine's own connections.

use super::*;

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
