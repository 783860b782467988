//! Start, refused start, end, and start after a kill.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use serde_json::json;
use spip_tests::{LISTENER, Net, SENSOR_V4, read_log};

#[test]
fn without_privileges_it_captures_and_says_once_why_ebpf_is_off() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().unprivileged().start();
    net.client.deliver((SENSOR_V4, 80), b"hello");
    agent.expect_one(json!({
        "payload": "hello", "destination_ip": SENSOR_V4, "destination_port": 80, "destination_source": "conntrack",
    }));
    let log = agent.stop().log;
    let reasons: Vec<_> = log
        .messages()
        .filter(|line| line.value["level"] == "warn")
        .filter(|line| line.text.to_lowercase().contains("ebpf"))
        .collect();
    assert_eq!(reasons.len(), 1, "{}", log.text());
}

#[test]
fn without_privileges_it_does_not_start_where_ebpf_is_required() {
    let Some(net) = Net::new() else { return };
    let ended = net.agent().unprivileged().set("ebpf", "required").run();
    let said = ended.log.text() + &ended.stderr;
    assert!(!ended.status.success(), "{said}");
    assert!(said.to_lowercase().contains("ebpf"), "{said}");
    assert!(!ended.log.messages().any(|line| line.value["message"] == "ready"), "{said}");
}

#[test]
fn a_predecessors_command_line_and_file_are_accepted() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net
        .agent()
        .arguments(&["-config", "{config}"])
        .set("name", "old")
        .set("read_timeout_seconds", 30)
        .set("write_timeout_seconds", 10)
        .set("rate_limit_per_second", 1000)
        .set("rate_limit_burst", 2000)
        .set("community_id_seed", 0)
        .text("[loom]\nenabled = true\nurl = \"https://loom.invalid\"\n")
        .start();
    net.client.deliver((SENSOR_V4, 80), b"hello");
    agent.expect_one(json!({"payload": "hello", "name": "old"}));
    let log = agent.stop().log;
    let warnings: Vec<_> = log.messages().filter(|line| line.text.contains("loom")).collect();
    assert!(!warnings.is_empty(), "nothing is said of [loom]: {}", log.text());
}

#[test]
fn check_prints_the_effective_configuration_and_binds_nothing() {
    let Some(net) = Net::new() else { return };
    let _taken = net.sensor.enter(|| TcpListener::bind(("::", LISTENER)).expect("a free port"));
    let ended = net.agent().arguments(&["--config", "{config}", "--check"]).set("name", "checked").run();
    assert!(ended.status.success(), "{}", ended.stderr);
    let text = ended.log.text();
    // What the file says, and a default that it does not name.
    assert!(text.contains("name = \"checked\"") && text.contains("write_timeout_seconds = "), "{text}");
}

#[test]
fn what_the_configuration_names_is_looked_at_by_check_and_by_the_start_alike() {
    let Some(net) = Net::new() else { return };
    let file = |name: &str, text: &str| {
        let path = net.path().join(name);
        fs::write(&path, text).expect("the test's directory is its own");
        path.to_str().expect("text").to_owned()
    };
    let (no_pem, persona) = (file("no.pem", "nothing"), file("persona.toml", "ssh = \"OpenSSH\""));
    let cases = [
        (net.agent().set("cert_path", no_pem.as_str()).set("key_path", no_pem.as_str()), "holds no certificate"),
        (net.agent().set("persona", persona.as_str()), "ssh: must begin with SSH-2.0-"),
        (net.agent().set("user", "no-such-user"), "there is no such user"),
    ];
    for (agent, reason) in cases {
        for agent in [agent.clone(), agent.arguments(&["--config", "{config}", "--check"])] {
            let ended = agent.run();
            assert_eq!(ended.status.code(), Some(2), "{reason}: {}", ended.stderr);
            assert_eq!(ended.stderr.matches(reason).count(), 1, "once, on standard error: {}", ended.stderr);
            let place = format!("{}/agent-", net.path().display());
            assert!(ended.stderr.starts_with(&place), "with its place in the file: {}", ended.stderr);
        }
    }
}

#[test]
fn a_wrong_configuration_ends_with_2_before_anything_is_bound_and_names_what_is_wrong() {
    let Some(net) = Net::new() else { return };
    // The first to bind fails differently: the port is taken.
    let _taken = net.sensor.enter(|| TcpListener::bind(("::", LISTENER)).expect("a free port"));
    let agent = || net.agent();
    let cases = [
        (agent().set("porrt", 80), vec!["porrt"]),
        (agent().set("port", "eighty"), vec!["port", "eighty"]),
        (agent().set("port", 0), vec!["port", "0"]),
        (agent().set("port", 65_536), vec!["port", "65536"]),
        (agent().unset("port"), vec!["port"]),
        (agent().set("ip", "300.1.2.3"), vec!["ip", "300.1.2.3"]),
        (agent().set("cert_path", "only.pem"), vec!["cert_path", "key_path"]),
        (agent().set("key_path", "only.pem"), vec!["cert_path", "key_path"]),
        (agent().set("cert_path", "a.pem").set("key_path", "b.pem"), vec!["a.pem"]),
        (agent().set("ebpf", "sometimes"), vec!["ebpf", "sometimes", "required"]),
        (agent().set("read_timeout_seconds", -1), vec!["read_timeout_seconds", "-1"]),
        (agent().unset("port").text("port = = 3\n"), vec!["not valid TOML"]),
    ];
    for (launch, named) in cases {
        let ended = launch.clone().run();
        let said = ended.log.text() + &ended.stderr;
        assert_eq!(ended.status.code(), Some(2), "{launch:?}: {said}");
        for name in named.iter().chain(&["agent-"]) {
            assert!(said.contains(name), "{name} is not named: {said}");
        }
    }
    let missing = agent().arguments(&["--config", "/nonexistent/spip.toml"]).run();
    assert_eq!(missing.status.code(), Some(2), "{}", missing.stderr);
    assert!(missing.stderr.contains("/nonexistent/spip.toml"), "{}", missing.stderr);
}

#[test]
fn the_limit_of_descriptors_is_raised_to_the_hard_one_and_sessions_follow_from_it() {
    let Some(net) = Net::new() else { return };
    let agent = net.agent().within(r#"exec prlimit --nofile=256:2048 -- "$@""#).start();
    let starting = agent.wait_message(json!({"message": "starting", "descriptors": 2048}));
    let workers = starting["workers"].as_u64().expect("a number");
    assert_eq!(starting["max_sessions"], 2048 - 100 - workers, "{starting}");
    assert_eq!(starting["max_sessions_from"], "descriptors", "{starting}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid())).expect("the agent runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["2048", "2048"], "{files}");
    let _ = agent.stop();
}

#[test]
fn where_memory_is_scarcer_than_descriptors_sessions_follow_from_it_also_after_a_reload() {
    let Some(net) = Net::new() else { return };
    let meminfo = net.path().join("meminfo");
    fs::write(&meminfo, "MemTotal:         102400 kB\n").expect("the test's directory is its own");
    let small = format!(
        r#"exec unshare --mount sh -c 'mount --bind {} /proc/meminfo && exec "$@"' sh "$@""#,
        meminfo.display()
    );
    let metrics = net.path().join("metrics.sock");
    let agent = net.agent().set("metrics", metrics.to_str().expect("text")).within(&small).start();
    let starting = agent.wait_message(json!({"message": "starting"}));
    assert_eq!((&starting["max_sessions"], &starting["max_sessions_from"]), (&json!(6_400), &json!("memory")));
    agent.signal(Signal::SIGHUP);
    agent.wait_message(json!({"message": "reopened the log and reloaded configuration and certificate"}));
    let mut page = String::new();
    let mut stream = UnixStream::connect(&metrics).expect("the agent listens");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("the agent takes bytes");
    stream.read_to_string(&mut page).expect("the agent answers");
    assert!(page.contains("\nspip_sessions_limit 6400\n"), "{page}");
    let _ = agent.stop();

    let agent = net.agent().set("max_sessions", 10_000).within(&small).start();
    agent.wait_message(json!({"message": "starting", "max_sessions": 10_000, "max_sessions_from": "configuration"}));
    let _ = agent.stop();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let Some(net) = Net::new() else { return };
    let _taken = net.sensor.enter(|| TcpListener::bind(("::", LISTENER)).expect("a free port"));
    let ended = net.agent().run();
    assert!(!ended.status.success());
    // A reader of the log only has to find the reason there.
    for said in [ended.log.text(), ended.stderr] {
        assert!(said.contains(&LISTENER.to_string()) && said.contains("cannot"), "{said}");
    }
}

#[test]
fn several_passed_sockets_are_refused_and_one_on_another_address_gets_a_warning() {
    let Some(net) = Net::new() else { return };
    let socket = net.sensor.enter(|| TcpListener::bind(("0.0.0.0", LISTENER))).expect("a free port");
    for steering in ["redirect", "sk_lookup"] {
        let launch = net.agent().set("steering", steering).listening(&socket);
        let two = r#"exec 3<&0 4<&0 0</dev/null; LISTEN_FDS=2 LISTEN_PID=$$ exec "$@""#;
        let refused = launch.clone().within(two).run();
        assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
        for text in ["passed 2 sockets", "ListenStream=[::]:12345", "BindIPv6Only=both"] {
            assert!(refused.stderr.contains(text), "{}", refused.stderr);
        }
        let log = launch.start().stop().log;
        let texts = log.messages().filter_map(|line| line.value["message"].as_str());
        assert_eq!(texts.filter(|text| text.contains("passed a socket on 0.0.0.0")).count(), 1, "{}", log.text());
    }
}

#[test]
fn a_stop_records_every_open_session() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let agent = net.agent().start();
        let _silent = net.connect(80);
        let mut speaking = net.connect(81);
        speaking.write_all(b"not done").expect("the sensor takes bytes");
        agent.wait_all_read();

        agent.signal(signal);
        let ended = agent.wait();

        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        let log = ended.log;
        log.expect_one(json!({"destination_port": 80, "payload": "", "close_reason": "shutdown"}));
        log.expect_one(json!({"destination_port": 81, "payload": "not done", "close_reason": "shutdown"}));
        log.expect_count(2, json!({}));
    }
}

#[test]
fn after_a_kill_it_starts_at_once_on_the_same_port_log_and_pins() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let path = net.path().join("spip.jsonl");
    let launch = net.agent().log_to(&path);
    for round in 0..3 {
        let agent = launch.clone().start();
        let text = format!("round {round}");
        net.client.deliver((SENSOR_V4, 80), text.as_bytes());
        agent.expect_one(json!({"payload": text}));
        let _open = net.connect(81);
        agent.wait_all_read();
        let _ = agent.kill();
    }
    let agent = launch.start();
    net.client.deliver((SENSOR_V4, 80), b"the last");
    agent.expect_one(json!({"payload": "the last", "destination_source": "ebpf"}));
    let _ = agent.stop();
    let log = read_log(&path);
    log.expect_whole();
    // Each has pinned its maps where those of the one before were left.
    assert!(!net.has_bpffs() || !log.text().contains("are not pinned"), "{}", log.text());
    for text in ["round 0", "round 1", "round 2", "the last"] {
        log.expect_one(json!({"payload": text}));
    }
}

#[test]
fn a_log_file_is_readable_for_its_group_and_no_further() {
    use std::os::unix::fs::PermissionsExt;
    let Some(net) = Net::new() else { return };
    let path = net.path().join("spip.jsonl");
    let _ = net.agent().log_to(&path).start().stop();
    let mode = fs::metadata(&path).expect("the log is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o640, "{mode:o}");
}

#[test]
fn the_kernel_side_speaks_when_it_is_asked_to() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().arguments(&["--config", "{config}", "--ebpf-log", "debug"]).start();
    net.client.deliver((spip_tests::SENSOR_V4, 80), b"seen");
    agent.expect_one(json!({"payload": "seen"}));
    agent.wait_message(json!({"target": "spip::syn_observer", "level": "debug"}));
}
