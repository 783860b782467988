//! `spip-agent init`: without a terminal, and with one; the file that it writes starts a sensor.

use std::fs;
use std::net::TcpListener;

use serde_json::json;
use spip_tests::{Ended, LISTENER, Net, SENSOR_V4};

fn init(net: &Net, arguments: &[&str]) -> Ended {
    let mut all = vec!["init"];
    all.extend(arguments);
    net.agent().arguments(&all).run()
}

#[test]
fn without_a_terminal_it_writes_a_file_that_starts_a_sensor() {
    let Some(net) = Net::new() else { return };
    let file = net.path().join("init.toml");
    let log = net.path().join("spip.jsonl");
    let (file, log) = (file.to_str().expect("text"), log.to_str().expect("text"));
    let before = net.sensor.shell("iptables-save; ip6tables-save; ip link");

    let chosen = ["--log-file", log, "--name", "walked", "--steering", "sk_lookup", "--exclude-ports", "8000-8010"];
    let ended = init(&net, &[&["--output", file], &chosen[..]].concat());

    assert!(ended.status.success(), "{}", ended.stderr);
    for text in ["spip-agent doctor --config", "To undo this:", "steering ends with it"] {
        assert!(ended.stderr.contains(text), "{text} is missing in\n{}", ended.stderr);
    }
    assert_eq!(net.sensor.shell("iptables-save; ip6tables-save; ip link"), before, "it changed the network");
    let pins = net.pins();
    let text =
        fs::read_to_string(file).expect("the file") + &format!("bpf_pin_path = {pins:?}\nstatus_socket = \"off\"\n");
    fs::write(file, text).expect("the test's directory is its own");
    let agent = net.agent().arguments(&["--config", file]).set("log_file", log).start();
    net.client.deliver((SENSOR_V4, 80), b"hello");
    agent.expect_one(json!({"payload": "hello", "name": "walked", "destination_port": 80}));
    let excluded = [8000, 8010].map(|port| (None, (SENSOR_V4, port).into()));
    assert_eq!(net.client.connect_all(excluded.into_iter()).len(), 0, "excluded ports answer");
}

#[test]
fn the_port_of_sshd_and_of_the_session_is_excluded_and_a_taken_port_is_not_proposed() {
    let Some(net) = Net::new() else { return };
    let _taken = net.sensor.enter(|| TcpListener::bind(("0.0.0.0", LISTENER)).expect("a free port"));
    // A listener whose process is called as sshd is.
    let script = net.path().join("sshd");
    let path = script.display();
    net.sensor.shell(&format!("install -m 755 $(readlink -f $(command -v nc)) {path}"));
    let mut sshd = net.sensor.enter(|| std::process::Command::new(&script).args(["-l", "2022"]).spawn().expect("nc"));
    spip_tests::eventually("the sshd listens", || {
        net.sensor.shell("ss -Hltn sport = :2022").contains("2022").then_some(())
    });
    let line = r#"SSH_CONNECTION="192.0.2.9 50000 198.51.100.1 2222" exec "$@""#;
    let ended = net.agent().within(line).arguments(&["init", "--output", "-", "--yes"]).run();
    sshd.kill().expect("ours");
    sshd.wait().expect("ours");
    assert!(ended.status.success(), "{}", ended.stderr);
    let text = ended.log.text();
    assert!(text.contains("2022") && text.contains("2222 (this session)"), "{text}");
    assert!(text.contains("\nport = 12346\n"), "{text}");
    assert!(ended.stderr.contains("2222 stays yours: this session"), "{}", ended.stderr);
}

#[test]
fn a_file_that_exists_stays_as_it_is_without_force() {
    let Some(net) = Net::new() else { return };
    let file = net.path().join("mine.toml");
    fs::write(&file, "mine").expect("the test's directory is its own");
    let path = file.to_str().expect("text");
    let refused = init(&net, &["--output", path]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&file).expect("file"), "mine");
    assert!(init(&net, &["--output", path, "--force"]).status.success());
    assert_ne!(fs::read_to_string(&file).expect("file"), "mine");
    let wrong = init(&net, &["--output", "-", "--exclude-ports", "99999"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", wrong.stderr);
}

#[test]
fn answers_that_cannot_hold_are_refused_with_the_flag_and_leave_nothing() {
    let Some(net) = Net::new() else { return };
    let file = net.path().join("made").join("refused.toml");
    let path = file.to_str().expect("text");
    for (arguments, reason) in [
        (&["--ip", "127.0.0.1", "--steering", "redirect"][..], "--ip 127.0.0.1: rules lead no connection"),
        (&["--user", "a;rm"], "--user \"a;rm\": must be a user"),
        (&["--name", "a\nb"], "--name = "),
        (&["--log-file", "/tmp"], "--log-file /tmp: is a directory"),
        (&["--port", "8050", "--exclude-ports", "8000-8100"], "--exclude-ports 8000-8100: the agent itself listens"),
    ] {
        let refused = init(&net, &[&["--yes", "--output", path][..], arguments].concat());
        assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(reason) && !refused.stderr.contains("refused.toml"), "{}", refused.stderr);
        assert!(!file.parent().expect("a directory").exists());
    }
    let made = init(&net, &["--yes", "--output", path, "--user", "0"]);
    assert!(made.status.success(), "{}", made.stderr);
    let directory = file.parent().expect("a directory").display();
    for text in [format!("Made its directory {directory}"), format!("  rmdir {directory}\n")] {
        assert!(made.stderr.contains(&text) && !made.stderr.contains("useradd"), "{}", made.stderr);
    }
}

#[test]
fn a_port_from_which_this_machine_connects_out_is_not_proposed() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("echo 10000 60999 >/proc/sys/net/ipv4/ip_local_port_range");
    let ended = init(&net, &["--yes", "--output", "-"]);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.log.text().contains("\nport = 61000\n"), "{}", ended.log.text());
}

#[test]
fn on_a_terminal_it_asks_and_takes_the_answers() {
    let Some(net) = Net::new() else { return };
    let file = net.path().join("asked.toml");
    let answers = r"sensor-9\n0.0.0.0\n\n-\nnobody\nredirect\n443\n";
    // script(1) gives the program a terminal.
    let line = format!(
        r#"printf '{answers}' | script -qec "$1 init --output {}" {} >/dev/null"#,
        file.display(),
        net.path().join("typescript").display()
    );
    let ended = net.agent().within(&line).arguments(&[]).run();
    let asked = fs::read_to_string(net.path().join("typescript")).unwrap_or_default();
    assert!(ended.status.success(), "{}\n{asked}", ended.stderr);
    assert!(asked.contains("Address to listen on") && asked.contains("[12345]"), "{asked}");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}: {asked}"));
    for line in ["name = \"sensor-9\"", "ip = \"0.0.0.0\"", "user = \"nobody\"", "443"] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("\nlog_file"), "{text}");
}
