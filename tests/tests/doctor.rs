//! `spip-agent doctor`: what it says of a machine that is ready, of one that is not, and what its probe finds out.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use spip_tests::{CLIENT_V4, Ended, LISTENER, Launch, Net, SENSOR_V4, eventually};

const MANUAL: &str = include_str!("../../docs/operating.md");

/// A doctor's status and document. What else the machine of the test has to be said of is no test's business, so a status
/// is compared with the report's own state.
struct Said {
    status: Option<i32>,
    report: Value,
    text: String,
}

impl Said {
    /// Every check that is reported is in the manual.
    fn read(ended: Ended, text: String) -> Self {
        let report: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{}", ended.stderr));
        for finding in report["findings"].as_array().expect("findings") {
            let check = finding["check"].as_str().expect("text");
            assert!(MANUAL.contains(&format!("`{check}`")), "{check} is not in docs/operating.md");
        }
        Self { status: ended.status.code(), report, text }
    }

    /// The finding of a check.
    fn of(&self, check: &str) -> &Value {
        let findings = self.report["findings"].as_array().expect("findings");
        let found = findings.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("no {check} in {}", self.text))
    }

    /// The status says what the worst finding is, which is at least this.
    fn expect_status(&self, least: i32) {
        let state = self.report["state"].as_str().expect("text");
        let of_state = match state {
            "failure" => 2,
            "warning" => 1,
            _ => 0,
        };
        assert_eq!(self.status, Some(of_state), "{}", self.text);
        assert!(of_state >= least, "{}", self.text);
    }

    fn expect(&self, check: &str, state: &str) -> &Value {
        let finding = self.of(check);
        assert_eq!(finding["state"], state, "{finding}");
        finding
    }
}

/// Asks the doctor in the sensor's namespace, with the configuration of `launch`.
fn doctor(net: &Net, launch: &Launch<'_>, arguments: &[&str]) -> Said {
    let output = net.path().join("doctor.json");
    let mut all = vec!["doctor", "--config", "{config}", "--json"];
    all.extend(arguments);
    // To a file: the harness would take the document for a record.
    let ended = launch.clone().within(&format!(r#""$@" >{}"#, output.display())).arguments(&all).run();
    let text = fs::read_to_string(&output).expect("the doctor wrote it");
    Said::read(ended, text)
}

fn rotated(net: &Net) -> Launch<'_> {
    net.agent()
        .set("log_rotate_bytes", 1_000_000)
        .set("log_keep_files", 3)
        .set("max_sessions", 1_000)
        .log_to(&net.logs().join("spip.jsonl"))
}

#[test]
fn a_connection_of_the_probe_leaves_a_record_by_both_families() {
    let Some(net) = Net::new() else { return };
    let _ = net.agent().arguments(&["rules", "install", "--yes", "--config", "{config}"]).run();
    let launch = rotated(&net).set("ebpf", "required");
    let agent = launch.clone().start();

    let said = doctor(&net, &launch, &["--probe"]);

    for check in ["probe.ipv4", "probe.ipv6"] {
        let found = said.expect(check, "ok")["found"].as_str().expect("text").to_owned();
        assert!(found.contains("known by ebpf"), "{found}");
    }
    for check in ["listener", "steering.rules_ipv4", "steering.rules_ipv6", "ebpf.programs", "ebpf.sock_ops"] {
        said.expect(check, "ok");
    }
    said.expect("log.disk", "ok");
    // A kernel whose Landlock is of an older version is no reason to hold anything else against the agent.
    let landlock = said.of("sandbox.landlock")["state"].as_str().expect("text");
    let kept = said.expect("privileges.kept", landlock);
    assert!(
        landlock == "ok"
            || kept["found"].as_str().is_some_and(|found| found.contains("steps of the sandbox: landlock"))
    );
    said.expect_status(if landlock == "ok" { 0 } else { 1 });
    // Exactly what it says it sends, and nothing left behind.
    let _ = agent.expect_count(2, json!({"protocol": "unknown"}));
    let links = net.sensor.shell("ip -o link");
    assert_eq!(links.lines().count(), 2, "{links}");
}

#[test]
fn steering_by_sk_lookup_is_seen_and_probed_within_its_prefixes() {
    let Some(net) = Net::new() else { return };
    let socket = net.path().join("status.sock");
    let launch = rotated(&net)
        .set("steering", "sk_lookup")
        .set("status_socket", socket.to_str().expect("text"))
        .set("exclude_ports", json!(["60000-60999"]));
    let agent = launch.clone().start();
    let said = doctor(&net, &launch, &["--probe"]);
    for check in ["steering.sk_lookup", "steering.rules", "probe.ipv4", "probe.ipv6", "network.port_range"] {
        said.expect(check, "ok");
    }
    let _ = agent.stop();

    net.sensor.shell("ip route add local 203.0.113.0/24 dev lo");
    let launch = launch.set("steer_prefixes", json!(["203.0.113.0/24"]));
    let _agent = launch.clone().start();
    let said = doctor(&net, &launch, &["--probe"]);
    let found = said.expect("probe.ipv4", "ok")["found"].as_str().expect("text").to_owned();
    assert!(found.contains("to 203.0.113.0:"), "{found}");
    let findings = said.report["findings"].as_array().expect("findings");
    assert!(findings.iter().all(|finding| finding["check"] != "probe.ipv6"), "{}", said.text);
}

#[test]
fn the_probe_uses_a_prefix_that_is_local_by_its_route_alone() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("ip -6 route add local 2001:db8:f::/64 dev lo");
    let launch = rotated(&net).set("steering", "sk_lookup").set("steer_prefixes", json!(["2001:db8:f::/64"]));
    let _agent = launch.clone().start();
    let said = doctor(&net, &launch, &["--probe"]);
    let found = said.expect("probe.ipv6", "ok")["found"].as_str().expect("text").to_owned();
    assert!(found.contains("to [2001:db8:f::]:"), "{found}");
}

#[test]
fn the_probe_fails_where_nothing_is_steered_and_says_what_mends_it() {
    let Some(net) = Net::new() else { return };
    let launch = rotated(&net);
    let _agent = launch.clone().start();
    let said = doctor(&net, &launch, &["--probe"]);
    let remedy = said.expect("probe.ipv4", "failure")["remedy"].as_str().expect("a remedy").to_owned();
    assert!(remedy.contains("rules install"), "{remedy}");
    let rules = said.expect("steering.rules_ipv4", "warning");
    assert!(rules["remedy"].as_str().is_some_and(|remedy| remedy.starts_with("spip-agent rules install --config /")));
    said.expect_status(2);
}

#[test]
fn the_probe_fails_where_a_filter_drops_what_is_steered() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.shell("iptables -w -A INPUT -p tcp -j DROP");
    let launch = rotated(&net);
    let _agent = launch.clone().start();
    let said = doctor(&net, &launch, &["--probe"]);
    let finding = said.expect("probe.ipv4", "failure");
    assert!(finding["remedy"].as_str().is_some_and(|remedy| remedy.contains("firewall")), "{finding}");
    said.expect("probe.ipv6", "ok");
    let filter = said.expect("steering.filter", "warning");
    assert!(filter["found"].as_str().is_some_and(|found| found.contains("drops IPv4 connections")), "{filter}");
    net.sensor.shell(&format!("iptables -w -I INPUT -p tcp --dport {LISTENER} -j ACCEPT"));
    let said = doctor(&net, &launch, &["--probe"]);
    said.expect("steering.filter", "ok");
    said.expect("probe.ipv4", "ok");
}

#[test]
fn a_service_that_started_after_the_rules_is_noticed() {
    let Some(net) = Net::new() else { return };
    let _ = net.agent().arguments(&["rules", "install", "--yes", "--config", "{config}"]).run();
    let launch = rotated(&net);
    doctor(&net, &launch, &[]).expect("steering.rules_ipv4", "ok");
    let _service = net.sensor.enter(|| TcpListener::bind(("0.0.0.0", 8080)).expect("a free port"));
    doctor(&net, &launch, &[]).expect("steering.rules_ipv4", "warning");
}

#[test]
fn without_a_program_that_reads_rules_nobody_knows_whether_anything_is_steered() {
    let Some(net) = Net::new() else { return };
    let output = net.path().join("doctor.json");
    let script = net.path().join("without");
    // In a mount namespace of its own, a device in the place of each program that reads rules.
    let line = format!(
        r#"set -e
        for name in iptables-save ip6tables-save nft; do
            file=$(command -v "$name") || continue
            mount --bind /dev/null "$(readlink -f "$file")"
        done
        "$@" >{}"#,
        output.display()
    );
    fs::write(&script, line).expect("the test's directory is its own");
    let within = format!(r#"unshare --mount --propagation private sh {} "$@""#, script.display());
    let asked = |ip: &str| {
        let arguments = ["doctor", "--config", "{config}", "--json"];
        let ended = rotated(&net).set("ip", ip).within(&within).arguments(&arguments).run();
        let text = fs::read_to_string(&output).expect("the doctor wrote it");
        Said::read(ended, text)
    };
    let said = asked("::");
    for check in ["steering.rules_ipv4", "steering.rules_ipv6"] {
        let finding = said.expect(check, "warning");
        assert!(finding["remedy"].as_str().is_some_and(|remedy| remedy.contains("iptables")), "{finding}");
    }
    said.expect_status(1);
    let said = asked("0.0.0.0");
    said.expect("steering.rules_ipv4", "warning");
    said.expect("steering.rules_ipv6", "skipped");
}

#[test]
fn an_agent_that_listens_and_does_not_answer_is_noticed() {
    let Some(net) = Net::new() else { return };
    let launch = rotated(&net);
    let agent = launch.clone().start();
    let found = doctor(&net, &launch, &[]).expect("listener", "ok")["found"].clone();
    assert!(found.as_str().is_some_and(|found| found.ends_with("and answers")), "{found}");
    agent.signal(Signal::SIGSTOP);
    let said = doctor(&net, &launch, &[]);
    agent.signal(Signal::SIGCONT);
    let finding = said.expect("listener", "warning");
    assert!(finding["found"].as_str().is_some_and(|found| found.contains("is not available")), "{finding}");
    let _ = agent.stop();
}

#[test]
fn a_log_that_the_running_agent_cannot_write_is_a_failure_and_so_is_the_full_disk() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let disk = net.small_disk(1024 * 1024);
    let launch = rotated(&net).log_to(&disk.join("spip.jsonl"));
    let agent = launch.clone().start();
    doctor(&net, &launch, &[]).expect("log.writing", "ok");
    net.sensor.shell(&format!("dd if=/dev/zero of={}/filler bs=4096 2>/dev/null || true", disk.display()));
    net.client.deliver(SocketAddr::new(SENSOR_V4, 8080), &[b'A'; 5000]);
    eventually("the agent says that the disk is full", || (!agent.stderr().trim().is_empty()).then_some(()));
    let said = doctor(&net, &launch, &[]);
    let finding = said.expect("log.writing", "failure");
    assert!(finding["found"].as_str().is_some_and(|found| found.contains("No space left on device")), "{finding}");
    let finding = said.expect("log.disk", "failure");
    assert!(finding["remedy"].as_str().is_some_and(|remedy| remedy.contains("free room")), "{finding}");
    fs::remove_file(disk.join("filler")).expect("ours");
    agent.expect_one(json!({"bytes_in": 5000}));
    doctor(&net, &launch, &[]).expect("log.writing", "ok");
}

#[test]
fn a_running_agent_without_the_programs_that_it_should_have_is_noticed_whoever_asks() {
    let Some(net) = Net::new() else { return };
    let directory = net.path().join("nobody");
    net.sensor.shell(&format!("install -d -o nobody {}", directory.display()));
    let socket = directory.join("status.sock");
    let launch = net.agent().set("status_socket", socket.to_str().expect("text")).log_to(&directory.join("spip.jsonl"));
    let _agent = launch.clone().unprivileged().start();
    let finding = doctor(&net, &launch, &[]).expect("ebpf.attached", "warning").clone();
    for text in ["syn_observer", "sock_ops", "syn_arrival", "CAP_BPF"] {
        assert!(finding["found"].as_str().is_some_and(|found| found.contains(text)), "{text}: {finding}");
    }
    doctor(&net, &launch.set("ebpf", "off"), &[]).expect("ebpf.attached", "skipped");
}

#[test]
fn an_agent_is_known_by_its_answer_whatever_its_program_is_called_and_wherever_it_listens() {
    let Some(net) = Net::new() else { return };
    let launch = rotated(&net);
    let renamed = net.path().join("renamed");
    std::os::unix::fs::symlink(spip_tests::program(), &renamed).expect("the test's directory is its own");
    let line = format!(r#"shift; exec {} "$@""#, renamed.display());
    let agent = launch.clone().within(&line).start();
    let comm = fs::read_to_string(format!("/proc/{}/comm", agent.pid())).expect("it runs");
    assert_eq!(comm.trim(), "renamed");
    let said = doctor(&net, &launch, &[]);
    let finding = said.expect("listener", "ok");
    assert!(finding["found"].as_str().is_some_and(|found| found.ends_with("and answers")), "{finding}");
    assert!(said.of("limits.descriptors")["found"].as_str().is_some_and(|found| found.contains("process")));
    // The port is another one in the file since the agent was started.
    let moved = launch.set("port", LISTENER + 1);
    let finding = doctor(&net, &moved, &[]).expect("listener", "warning").clone();
    for (key, text) in [("found", format!(":{LISTENER}, not on")), ("remedy", "restart".to_owned())] {
        assert!(finding[key].as_str().is_some_and(|found| found.contains(&text)), "{finding}");
    }
    let _taken = net.sensor.enter(|| TcpListener::bind(("0.0.0.0", LISTENER + 1)).expect("a free port"));
    doctor(&net, &moved, &[]).expect("listener", "failure");
    let _ = agent.stop();
}

#[test]
fn an_address_of_no_interface_is_a_failure_before_the_start() {
    let Some(net) = Net::new() else { return };
    let finding = doctor(&net, &net.agent().set("ip", "192.0.2.77"), &[]).expect("listener", "failure").clone();
    assert!(finding["found"].as_str().is_some_and(|found| found.contains("192.0.2.77")), "{finding}");
}

#[test]
fn before_the_start_the_missing_agent_is_a_warning_and_a_taken_port_a_failure() {
    let Some(net) = Net::new() else { return };
    let launch = rotated(&net);
    let said = doctor(&net, &launch, &[]);
    said.expect("listener", "warning");
    said.expect("privileges.start", "ok");
    said.expect_status(1);
    let _taken = net.sensor.enter(|| TcpListener::bind(("0.0.0.0", LISTENER)).expect("a free port"));
    let said = doctor(&net, &launch, &[]);
    said.expect("listener", "failure");
    said.expect_status(2);
}

#[test]
fn what_is_configured_and_cannot_be_had_is_a_failure() {
    let Some(net) = Net::new() else { return };
    let launch = net
        .agent()
        .set("user", "nobody-of-this-name")
        .set("max_sessions", 16_000_000)
        .set("log_file", "/nonexistent/spip/spip.jsonl");
    let said = doctor(&net, &launch, &[]);
    for check in ["privileges.user", "limits.descriptors", "limits.memory", "log.disk"] {
        let finding = said.expect(check, "failure");
        assert!(finding["remedy"].is_string(), "{finding}");
    }
    let wrong = doctor(&net, &net.agent().set("port", 0), &[]);
    wrong.expect("config.file", "failure");
    assert_eq!(wrong.status, Some(2));
}

#[test]
fn what_the_start_could_not_open_make_or_bind_is_said_before_it_and_by_it() {
    let Some(net) = Net::new() else { return };
    let usable = net.path().join("payloads/of/it");
    let log = net.path().join("log");
    fs::create_dir(&log).expect("the test's directory is its own");
    let well = rotated(&net).set("payload_dir", usable.to_str().expect("text")).set("metrics", "127.0.0.1:9464");
    let said = doctor(&net, &well, &[]);
    for check in ["log.file", "payloads.directory", "persona.kept", "metrics.address"] {
        said.expect(check, "ok");
    }
    assert!(!usable.exists() && !net.logs().join("spip.jsonl").exists(), "looked at, and not made");

    for key in ["log_file", "system_log"] {
        let missing = net.path().join("missing/log.jsonl");
        let launch = rotated(&net).set(key, missing.to_str().expect("text"));
        let finding = doctor(&net, &launch, &[]).expect("log.file", "failure").clone();
        assert!(finding["found"].as_str().is_some_and(|found| found.contains(key)), "{finding}");
        let stderr = launch.run().stderr;
        assert!(stderr.contains(&format!("cannot open {key} {}", missing.display())), "{stderr}");
    }

    let said = doctor(&net, &net.agent().log_to(&log).set("state_dir", "/proc/spip"), &[]);
    assert!(said.expect("log.file", "failure")["found"].as_str().is_some_and(|found| found.contains("a directory")));
    said.expect("persona.kept", "warning");

    let _taken = net.sensor.enter(|| TcpListener::bind(("127.0.0.1", 9464)).expect("a free port"));
    doctor(&net, &well, &[]).expect("metrics.address", "failure");

    for (check, key, value, remedy) in [
        ("payloads.directory", "payload_dir", "/proc/p", "set it to a directory"),
        ("metrics.address", "metrics", "/proc/m.sock", "set metrics to"),
    ] {
        let launch = net.agent().set(key, value);
        doctor(&net, &launch, &[]).expect(check, "failure");
        let stderr = launch.run().stderr;
        assert!(stderr.contains(value) && stderr.contains(remedy), "{stderr}");
    }
}

#[test]
fn directories_that_the_agent_will_not_write_to_or_should_not_are_said_before_the_start() {
    let Some(net) = Net::new() else { return };
    let said = doctor(&net, &rotated(&net), &[]);
    said.expect("sandbox.directories", "ok");
    said.expect("privileges.user", "ok");
    // Beside the configuration.
    let beside = rotated(&net).log_to(&net.path().join("spip.jsonl"));
    let finding = doctor(&net, &beside, &[]).expect("sandbox.directories", "warning").clone();
    assert!(finding["found"].as_str().is_some_and(|found| found.contains(".toml can be written to")), "{finding}");
    let ended = beside.set("sandbox", "required").run();
    assert!(ended.stderr.contains(".toml can be written to"), "{}", ended.stderr);
    // Another user's, and root has no capability by then.
    let messages = net.path().join("messages");
    net.sensor.shell(&format!("install -d -o nobody -m 750 {}", messages.display()));
    let launch = rotated(&net).set("system_log", messages.join("x.jsonl").to_str().expect("text"));
    let finding = doctor(&net, &launch, &[]).expect("privileges.user", "failure").clone();
    assert!(finding["remedy"].as_str().is_some_and(|remedy| remedy.contains("chown root")), "{finding}");
}

#[test]
fn rules_that_take_this_machines_own_connections_are_to_be_installed_so_again() {
    let Some(net) = Net::new() else { return };
    let _ = net.agent().arguments(&["rules", "install", "--local", "--yes", "--config", "{config}"]).run();
    let launch = rotated(&net);
    doctor(&net, &launch, &[]).expect("steering.rules_ipv4", "ok");
    let _service = net.sensor.enter(|| TcpListener::bind(("0.0.0.0", 8080)).expect("a free port"));
    let remedy = doctor(&net, &launch, &[]).expect("steering.rules_ipv4", "warning")["remedy"].clone();
    let remedy = remedy.as_str().expect("a remedy");
    assert!(remedy.starts_with("spip-agent rules install --local --config /"), "{remedy}");
    // Of a family that is not listened on any more, install takes the rules away, and leaves the other's.
    let said = doctor(&net, &launch.clone().set("ip", "0.0.0.0"), &[]);
    let left = said.expect("steering.rules_ipv6", "warning")["remedy"].as_str().expect("a remedy").to_owned();
    assert!(left.starts_with("spip-agent rules install --local"), "{left}");
}

#[test]
fn without_privileges_it_says_what_it_cannot_see_and_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let output = net.path().join("doctor.json");
    fs::write(&output, "").expect("the test's directory is its own");
    net.sensor.shell(&format!("chmod 666 {}", output.display()));
    let state = || net.sensor.shell("iptables-save | grep -v '^#'; ip6tables-save | grep -v '^#'; ip -o link; ip addr");
    let before = state();
    let said = doctor(&net, &net.agent().unprivileged().set("log_rotate_bytes", 1_000), &["--probe"]);
    said.expect("privileges.start", "warning");
    said.expect("steering.rules", "skipped");
    said.expect("ebpf.programs", "skipped");
    said.expect("probe", "skipped");
    said.expect_status(1);
    assert_eq!(state(), before, "it changed the machine");
}

#[test]
fn a_page_for_people_explains_what_is_amiss() {
    let Some(net) = Net::new() else { return };
    let output = net.path().join("page");
    let line = format!(r#""$@" >{}"#, output.display());
    let ended = net.agent().within(&line).arguments(&["doctor", "--config", "{config}"]).run();
    // A warning at least: no agent runs.
    assert!(matches!(ended.status.code(), Some(1 | 2)), "{}", ended.stderr);
    let page = fs::read_to_string(&output).expect("the page");
    for text in ["WARN  listener", "means  ", "fix    systemctl start", "kernel.release"] {
        assert!(page.contains(text), "{text} is missing in\n{page}");
    }
}

#[test]
fn connections_from_one_source_port_are_kept_apart_once_the_doctor_was_followed() {
    let Some(net) = Net::new() else { return };
    net.sensor.sysctl("ipv4/tcp_early_demux", "1");
    net.redirect();
    let launch = rotated(&net).set("ebpf", "required").set("first_byte_timeout_seconds", 600);
    let from = SocketAddr::new(CLIENT_V4, 40_000);
    let connect = || net.client.connect_all((1000..1003).map(|port| (Some(from), SocketAddr::new(SENSOR_V4, port))));
    let agent = launch.clone().start();
    if let Some(remedy) = doctor(&net, &launch, &[]).of("steering.early_demux")["remedy"].as_str() {
        // What is said to be lost is lost, and leaves what it is said to leave.
        agent.wait_message(json!({"level": "warn", "target": "steering"}));
        let first = net.client.connect_from(from, (SENSOR_V4, 1000));
        let net = &net;
        std::thread::scope(|scope| {
            for port in 1001..1003 {
                let other = (Some(from), SocketAddr::new(SENSOR_V4, port));
                scope.spawn(move || net.client.connect_all(std::iter::once(other)));
            }
        });
        let log = agent.stop().log;
        log.expect_count(1, json!({"source_port": 40_000}));
        let scans = log.matching(&json!({"record_type": "scan", "source_ip": CLIENT_V4}));
        let ports: BTreeSet<_> = scans.iter().filter_map(|scan| scan["destination_ports"][0].as_str()).collect();
        assert!([vec!["1001-1002"], vec!["1001", "1002"]].contains(&ports.into_iter().collect()), "{scans:?}");
        drop(first);
        net.sensor.shell(remedy);
    } else {
        let _ = agent.stop();
    }
    let agent = launch.clone().start();
    doctor(&net, &launch, &[]).expect("steering.early_demux", "ok");
    for stream in &mut connect() {
        stream.write_all(b"hello").expect("the sensor takes bytes");
    }
    for port in 1000..1003 {
        agent.expect_one(json!({"payload": "hello", "source_port": 40_000, "destination_port": port}));
    }
}
