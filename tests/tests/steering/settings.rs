//! What the configuration confines steering to, what a reload changes, and who can change it besides.

use super::*;

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
