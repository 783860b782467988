//! The firewall rules that the agent makes: beside those of others, undone exactly.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;
use spip_tests::{Ended, LISTENER, Net, SENSOR_V4, SENSOR_V6};

/// Rules that the operator has already; none of them may change.
const FOREIGN: &str = "
    iptables -w -A INPUT -p tcp --dport 22 -j ACCEPT &&
    iptables -w -t nat -N THEIRS && iptables -w -t nat -A THEIRS -p tcp --dport 9999 -j RETURN &&
    iptables -w -t nat -A PREROUTING -j THEIRS &&
    iptables -w -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE &&
    iptables -w -t nat -A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 5353 &&
    ip6tables -w -A INPUT -p tcp --dport 22 -j ACCEPT &&
    ip6tables -w -t nat -A PREROUTING -p tcp --dport 7777 -j RETURN";

/// The rules of both families without times and counters.
fn saved(net: &Net) -> String {
    let text = net.sensor.shell("iptables-save; ip6tables-save");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap_or(line).to_owned() + "\n").collect()
}

fn rules(net: &Net, arguments: &[&str]) -> Ended {
    let mut all = vec!["rules", arguments[0], "--config", "{config}"];
    all.extend(&arguments[1..]);
    let ended = net.agent().arguments(&all).set("exclude_ports", json!([2222, "3000-3010"])).run();
    assert!(ended.status.success(), "{all:?}: {}", ended.stderr);
    ended
}

#[test]
fn rules_are_installed_beside_foreign_ones_twice_and_removed_without_a_trace() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell(FOREIGN);
    let before = saved(&net);

    rules(&net, &["install", "--yes", "--local"]);
    let installed = saved(&net);
    rules(&net, &["install", "--yes", "--local"]);
    assert_eq!(saved(&net), installed, "a second install changes the rules");
    assert_ne!(installed, before);
    for line in before.lines().filter(|line| line.starts_with("-A")) {
        assert!(installed.contains(line), "lost: {line}\n{installed}");
    }

    rules(&net, &["remove", "--yes"]);
    assert_eq!(saved(&net), before);
    rules(&net, &["remove", "--yes"]);
    assert_eq!(saved(&net), before, "a second remove changes the rules");
}

#[test]
fn installed_rules_lead_strangers_to_the_agent_and_spare_excluded_ports() {
    let Some(net) = Net::new() else { return };
    rules(&net, &["install", "--yes"]);
    let agent = net.agent().start();
    for address in [SENSOR_V4, SENSOR_V6] {
        let text = format!("to {address}");
        net.client.deliver((address, 8443), text.as_bytes());
        agent.expect_one(json!({"payload": text, "destination_ip": address, "destination_port": 8443}));
    }
    let from = (spip_tests::CLIENT_V4, 0).into();
    let excluded = [2222, 3000, 3010].map(|port| (Some(from), (SENSOR_V4, port).into()));
    assert_eq!(net.client.connect_all(excluded.into_iter()).len(), 0, "excluded ports answer");
    // Without --local nothing on the machine itself is led away.
    let local = (None, (IpAddr::V4(Ipv4Addr::LOCALHOST), 8443).into());
    assert_eq!(net.sensor.connect_all([local].into_iter()).len(), 0, "loopback is led away");
    let log = agent.stop().log;
    log.expect_count(2, json!({}));
    log.expect_count(0, json!({"destination_port": LISTENER}));
}

#[test]
fn local_rules_lead_loopback_to_the_agent() {
    let Some(net) = Net::new() else { return };
    rules(&net, &["install", "--yes", "--local"]);
    let agent = net.agent().start();
    net.sensor.deliver((IpAddr::V4(Ipv4Addr::LOCALHOST), 8080), b"from here");
    agent.expect_one(json!({"payload": "from here", "destination_port": 8080}));
}

#[test]
fn show_prints_commands_and_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let before = saved(&net);
    let shown = rules(&net, &["show"]).log.text();
    assert!(shown.contains("SPIP") && shown.contains(&LISTENER.to_string()) && shown.contains("2222"), "{shown}");
    assert_eq!(saved(&net), before);
}

#[test]
fn install_without_a_yes_changes_nothing() {
    let Some(net) = Net::new() else { return };
    let before = saved(&net);
    // There is no answer: standard input is empty.
    let ended = net.agent().arguments(&["rules", "install", "--config", "{config}"]).run();
    assert!(!ended.status.success() && ended.stderr.contains("say --yes"), "{}: {}", ended.status, ended.stderr);
    assert_eq!(saved(&net), before);
}
