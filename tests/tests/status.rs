//! `spip-agent status`: what the running agent says, and the kernel's counters when it does not answer.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use spip_tests::{Launch, Net, SENSOR_V4, half_close, read_to_end};

/// Runs `spip-agent status` with the configuration of `launch`; its status and what it printed.
fn status(launch: &Launch<'_>, json: bool) -> (Option<i32>, String) {
    let mut arguments = vec!["status", "--config", "{config}"];
    arguments.extend(json.then_some("--json"));
    let ended = launch.clone().unset("log_file").arguments(&arguments).run();
    assert_eq!(ended.stderr, "");
    // Neither a table nor indented JSON has a line that is a record.
    (ended.status.code(), ended.log.torn.join("\n"))
}

fn status_json(launch: &Launch<'_>) -> (Option<i32>, Value) {
    let (code, text) = status(launch, true);
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[test]
fn a_running_agent_says_what_it_does_and_leaves_alone() {
    let Some(net) = Net::new() else { return };
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let _service = net.sensor.enter(|| TcpListener::bind((any, 80))).expect("the port is free");
    let log = net.logs().join("agent.log");
    let launch = net
        .agent()
        .log_to(&log)
        .set("ip", "127.0.0.1")
        .set("steering", "sk_lookup")
        .set("ebpf", "required")
        .set("name", "seven")
        .set("exclude_ports", json!(["90-99"]));
    let agent = launch.clone().start();
    net.client.deliver((SENSOR_V4, 81), b"counted");
    agent.expect_one(json!({"payload": "counted"}));
    let mut open = net.client.connect((SENSOR_V4, 82));
    open.write_all(b"open").expect("the sensor takes bytes");

    let report = spip_tests::eventually("the open session is counted", || {
        let (code, report) = status_json(&launch.clone().set("log_file", log.to_str().expect("text")));
        assert_eq!(code, Some(0), "{report}");
        // The thread of the scans reads what happened a fifth of a second later, at most.
        let agent = &report["agent"];
        (agent["sessions"]["open"] == 1 && agent["scans"]["joined"] == 2).then_some(report)
    });
    let agent_says = &report["agent"];
    assert_eq!(agent_says["name"], "seven");
    assert_eq!(agent_says["pid"], agent.pid());
    assert_eq!(agent_says["uid"], 0);
    assert_eq!(agent_says["listener"]["address"], "127.0.0.1:12345");
    for program in ["syn_observer", "sock_ops", "syn_arrival", "steer"] {
        assert_eq!(agent_says["programs"][program], "attached", "{report}");
    }
    let steering = &agent_says["steering"];
    assert_eq!((&steering["mode"], &steering["families"]), (&json!("sk_lookup"), &json!(["IPv4", "IPv6"])));
    let reasons: Vec<_> = steering["exclusions"].as_array().expect("a list").iter().map(|e| &e["ports"]).collect();
    assert_eq!(reasons, ["90-99", "80"]);
    assert_eq!((&report["counters_from"], &report["steered"]["steered"]), (&json!("agent"), &json!(2)), "{report}");
    assert_eq!((&report["kernel"]["passive"], &report["kernel"]["joined"]), (&json!(2), &json!(2)), "{report}");
    let steps = agent_says["sandbox"].as_array().expect("a list");
    let taken: Vec<_> = steps.iter().map(|step| (step["name"].as_str(), step["result"].as_str())).collect();
    let expected =
        ["capabilities", "files", "no_new_privs", "landlock", "seccomp"].map(|name| (Some(name), Some("done")));
    assert_eq!(taken[0], (Some("user"), Some("skipped")), "{report}");
    assert_eq!(taken[1..], expected, "{report}");
    let writable = format!("writable: {}", net.logs().display());
    assert!(steps[4]["detail"].as_str().is_some_and(|detail| detail.contains(&writable)), "{report}");
    assert_eq!((&agent_says["scans"]["seen"], &agent_says["scans"]["joined"]), (&json!(2), &json!(2)), "{report}");
    let sessions = &agent_says["sessions"];
    assert_eq!((&sessions["accept_errors"], &sessions["accept_shortages"]), (&json!(0), &json!(0)), "{report}");
    assert_eq!(
        sessions["refused"],
        json!({
            "max_sessions": 0, "max_sessions_per_source": 0, "rate_limit": 0, "descriptors": 0,
            "payload_memory_bytes": 0, "log_budget": 0, "accept_queue": 0,
        })
    );
    let file = &agent_says["log"];
    assert_eq!(file["file"], log.to_str().expect("text"));
    assert_eq!(file["position"], std::fs::metadata(&log).expect("the log").len());
    assert!(agent_says["uptime_seconds"].is_u64(), "{report}");
    let started = agent_says["started"].as_str().expect("a time");
    assert_eq!((started.len(), started.as_bytes()[19]), ("2026-01-31T23:59:59.000001Z".len(), b'.'), "{started}");

    let (code, table) = status(&launch, false);
    assert_eq!(code, Some(0));
    for part in [
        "seven, version",
        "left alone       90-99: exclude_ports",
        "sk_lookup, IPv4 and IPv6",
        "steered 2",
        "sandbox          seccomp done: ",
        "syn_arrival      attached",
        "joined 2",
        "rate_limit 0",
    ] {
        assert!(table.contains(part), "{part} in:\n{table}");
    }
    half_close(&open);
    read_to_end(&mut open);
    let _ended = agent.stop();
    assert!(!net.path().join("run/status.sock").exists(), "the socket goes with the agent");
}

#[test]
fn sessions_that_made_room_for_others_are_refused_by_descriptors() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let launch = net.agent().descriptors(64).set("max_sessions", 1000);
    let agent = launch.clone().start();
    let idle = net.client.connect_all((0..90).map(|number| (None, SocketAddr::new(SENSOR_V4, 100 + number))));
    agent.wait_all_read();
    let (_, report) = status_json(&launch);
    let told = report["agent"]["sessions"]["refused"]["descriptors"].as_u64().expect("a number");
    let log = agent.stop().log;
    drop(idle);
    let recorded = log.connections(json!({"close_reason": "rejected", "limit": "descriptors"}));
    assert!((1..=recorded).contains(&told), "{recorded} recorded: {report}");
}

#[test]
fn when_the_agent_is_gone_the_kernels_counters_are_read_from_the_pinned_maps() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() {
        return eprintln!("skipped: this kernel mounts no BPF file system");
    }
    let launch = net.agent().set("ip", "127.0.0.1").set("steering", "sk_lookup").set("pin_links", true);
    let (code, report) = status_json(&launch);
    assert_eq!((code, &report["agent"]), (Some(1), &Value::Null));
    let reason = report["unreachable"].as_str().expect("a reason");
    assert!(reason.contains("no agent answers") && reason.contains("no counters are pinned"), "{reason}");

    let agent = launch.clone().start();
    net.client.deliver((SENSOR_V4, 81), b"counted");
    agent.expect_one(json!({"payload": "counted"}));
    let _ = agent.kill();
    let (code, report) = status_json(&launch);
    assert_eq!((code, &report["agent"]), (Some(1), &Value::Null));
    assert_eq!((&report["counters_from"], &report["steered"]["steered"]), (&json!("pins"), &json!(1)), "{report}");
    assert_eq!(report["kernel"]["passive"], 1, "{report}");
    assert!(report["unreachable"].as_str().is_some_and(|reason| reason.contains("ended without removing its socket")));
    let (_, table) = status(&launch, false);
    assert!(table.contains("(from the pinned maps)"), "{table}");
}

#[test]
fn another_user_reads_the_pinned_maps_where_their_owner_lets_it() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() {
        return eprintln!("skipped: this kernel mounts no BPF file system");
    }
    let launch = net.agent().set("ip", "127.0.0.1").set("steering", "sk_lookup");
    let agent = launch.clone().start();
    net.client.deliver((SENSOR_V4, 81), b"counted");
    agent.expect_one(json!({"payload": "counted"}));
    let asked = || {
        let ended =
            launch.clone().capabilities(&["bpf"]).arguments(&["status", "--config", "{config}", "--json"]).run();
        serde_json::from_str::<Value>(&ended.log.torn.join("\n")).expect("JSON")
    };
    let report = asked();
    let reason = report["unreachable"].as_str().expect("a reason");
    assert!(reason.contains("belongs to another user") && reason.contains("cannot read the maps"), "{reason}");
    for map in ["COUNTERS", "STEER_COUNTERS"] {
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(net.pins().join(map), readable).expect("the pins are root's");
    }
    let report = asked();
    assert_eq!((&report["agent"], &report["counters_from"]), (&Value::Null, &json!("pins")), "{report}");
    assert_eq!((&report["steered"]["steered"], &report["kernel"]["passive"]), (&json!(1), &json!(1)), "{report}");
    assert!(agent.stop().status.success());
}

#[test]
fn what_a_hangup_has_changed_is_what_the_status_says() {
    let Some(net) = Net::new() else { return };
    let path = net.path().join("changing.toml");
    let socket = net.path().join("run/status.sock");
    let (first, second) = (net.path().join("first.log"), net.path().join("second.log"));
    let write = |name: &str, log: &std::path::Path| {
        let text = format!(
            "ip = \"127.0.0.1\"\nport = 12345\nstatus_socket = {socket:?}\nname = {name:?}\nlog_file = {log:?}\n\
             system_log = \"stderr\"\nscans = false\nbpf_pin_path = {:?}\n",
            net.pins()
        );
        std::fs::write(&path, text).expect("the test's directory is its own");
    };
    write("before", &first);
    let arguments = ["--config", path.to_str().expect("text")];
    let agent = net.agent().unset("log_file").arguments(&arguments).spawn();
    let ask = || {
        let mut document = String::new();
        UnixStream::connect(&socket).ok()?.read_to_string(&mut document).ok()?;
        serde_json::from_str::<Value>(&document).ok()
    };
    let says = |name: &str, log: &std::path::Path| {
        let report = spip_tests::eventually("the agent says what holds now", || {
            ask().filter(|report| report["agent"]["name"] == name)
        });
        let file = &report["agent"]["log"];
        assert_eq!(file["file"], log.to_str().expect("text"), "{report}");
        assert_eq!(file["position"], std::fs::metadata(log).expect("the log").len(), "{report}");
        assert_eq!(report["agent"]["programs"]["syn_arrival"], "scans = false", "{report}");
        assert_eq!(report["agent"]["scans"], Value::Null, "{report}");
    };
    says("before", &first);
    write("after", &second);
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    says("after", &second);
    drop(agent);
}

#[test]
fn an_agent_behind_rules_without_ebpf_has_a_status_too_and_strangers_do_not() {
    let Some(net) = Net::new() else { return };
    let launch = net.agent().set("ebpf", "off");
    let agent = launch.clone().start();
    let (code, report) = status_json(&launch);
    assert_eq!(code, Some(0));
    assert_eq!(report["agent"]["programs"]["steer"], r#"eBPF is not used: ebpf = "off""#);
    assert_eq!(report["agent"]["steering"], json!({"mode": "redirect"}));
    // Another user may look at neither the socket nor the maps.
    let ended = launch.clone().unprivileged().arguments(&["status", "--config", "{config}"]).run();
    assert_eq!(ended.status.code(), Some(1));
    let text = ended.log.torn.join("\n");
    assert!(text.contains("belongs to another user: ask as that user, or as root"), "{text}");
    drop(agent);
}

#[test]
fn clients_that_do_not_read_or_go_at_once_keep_nobody_waiting_for_long() {
    let Some(net) = Net::new() else { return };
    let launch = net.agent();
    let agent = launch.clone().start();
    let socket = net.path().join("run/status.sock");
    let idle: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&socket).expect("the agent listens")).collect();
    for _ in 0..20 {
        drop(UnixStream::connect(&socket).expect("the agent listens"));
    }
    let mut stream = UnixStream::connect(&socket).expect("the agent listens");
    stream.set_read_timeout(Some(spip_tests::PATIENCE)).expect("above zero");
    let mut document = String::new();
    stream.read_to_string(&mut document).expect("an answer");
    assert!(serde_json::from_str::<Value>(&document).is_ok(), "{document}");
    drop(idle);
    net.redirect();
    net.client.deliver((SENSOR_V4, 80), b"still at work");
    agent.expect_one(json!({"payload": "still at work"}));
}

#[test]
fn a_second_agent_leaves_the_socket_to_the_first_one() {
    let Some(net) = Net::new() else { return };
    let first = net.agent().start();
    let second = net.agent().set("port", 20_001).start();
    second.wait_message(json!({"message": "status socket unavailable"}));
    let (_, report) = status_json(&net.agent());
    assert_eq!(report["agent"]["pid"], first.pid());
    let _ended = second.stop();
    let (_, report) = status_json(&net.agent());
    assert_eq!(report["agent"]["pid"], first.pid());
}
