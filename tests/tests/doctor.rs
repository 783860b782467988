//! `spip-agent doctor`: what it says of a machine that is ready, of one that is not, and what its probe finds out.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};
use spip_tests::{LISTENER, Launch, Net};

/// A doctor's status and document.
struct Said {
    status: Option<i32>,
    report: Value,
    text: String,
}

impl Said {
    /// The finding of a check.
    fn of(&self, check: &str) -> &Value {
        let findings = self.report["findings"].as_array().expect("findings");
        let found = findings.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("no {check} in {}", self.text))
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
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{}", ended.stderr));
    Said { status: ended.status.code(), report, text }
}

fn rotated(net: &Net) -> Launch<'_> {
    net.agent()
        .set("log_rotate_bytes", 1_000_000)
        .set("log_keep_files", 3)
        .set("max_sessions", 1_000)
        .log_to(&net.path().join("spip.jsonl"))
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
    said.expect("privileges.kept", "ok");
    said.expect("log.disk", "ok");
    assert_ne!(said.status, Some(2), "{}", said.text);
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
fn the_probe_fails_where_nothing_is_steered_and_says_what_mends_it() {
    let Some(net) = Net::new() else { return };
    let launch = rotated(&net);
    let _agent = launch.clone().start();
    let said = doctor(&net, &launch, &["--probe"]);
    let remedy = said.expect("probe.ipv4", "failure")["remedy"].as_str().expect("a remedy").to_owned();
    assert!(remedy.contains("rules install"), "{remedy}");
    let rules = said.expect("steering.rules_ipv4", "warning");
    assert!(rules["remedy"].as_str().is_some_and(|remedy| remedy.starts_with("spip-agent rules install --config /")));
    assert_eq!(said.status, Some(2));
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
fn before_the_start_the_missing_agent_is_a_warning_and_a_taken_port_a_failure() {
    let Some(net) = Net::new() else { return };
    let launch = rotated(&net);
    let said = doctor(&net, &launch, &[]);
    said.expect("listener", "warning");
    said.expect("privileges.start", "ok");
    assert_eq!(said.status, Some(1), "{}", said.text);
    let _taken = net.sensor.enter(|| TcpListener::bind(("0.0.0.0", LISTENER)).expect("a free port"));
    let said = doctor(&net, &launch, &[]);
    said.expect("listener", "failure");
    assert_eq!(said.status, Some(2));
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
    for check in ["privileges.user", "limits.descriptors", "log.disk"] {
        let finding = said.expect(check, "failure");
        assert!(finding["remedy"].is_string(), "{finding}");
    }
    let wrong = doctor(&net, &net.agent().set("port", 0), &[]);
    wrong.expect("config.file", "failure");
    assert_eq!(wrong.status, Some(2));
}

#[test]
fn without_privileges_it_says_what_it_cannot_see_and_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let output = net.path().join("doctor.json");
    fs::write(&output, "").expect("the test's directory is its own");
    net.sensor.shell(&format!("chmod 666 {}", output.display()));
    let said = doctor(&net, &net.agent().unprivileged().set("log_rotate_bytes", 1_000), &["--probe"]);
    said.expect("privileges.start", "warning");
    said.expect("steering.rules", "skipped");
    said.expect("ebpf.programs", "skipped");
    said.expect("probe", "skipped");
    assert_eq!(said.status, Some(1), "{}", said.text);
}

#[test]
fn a_page_for_people_explains_what_is_amiss() {
    let Some(net) = Net::new() else { return };
    let output = net.path().join("page");
    let line = format!(r#""$@" >{}"#, output.display());
    let ended = net.agent().within(&line).arguments(&["doctor", "--config", "{config}"]).run();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let page = fs::read_to_string(&output).expect("the page");
    for text in ["WARN  listener", "means  ", "mend   systemctl start", "kernel.release"] {
        assert!(page.contains(text), "{text} is missing in\n{page}");
    }
}
