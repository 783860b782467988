//! SIGHUP: what is taken up while the agent runs, what is not, and that a mistake changes nothing.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use spip_tests::{Agent, Net, PATIENCE, SENSOR_V4, eventually, read_to_end};

/// The configuration file of the only agent of a test.
fn config_file(net: &Net) -> PathBuf {
    let files = fs::read_dir(net.path()).expect("own directory").flatten().map(|entry| entry.path());
    let is_config = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("agent-") && name.ends_with(".toml")
    };
    let mut files: Vec<_> = files.filter(is_config).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// Changes lines of the configuration: each key gets its value, or goes where that is empty.
pub(crate) fn change(net: &Net, keys: &[(&str, &str)]) {
    let path = config_file(net);
    let text = fs::read_to_string(&path).expect("readable");
    let kept = text.lines().filter(|line| !keys.iter().any(|(key, _)| line.starts_with(&format!("{key} ="))));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    for (key, value) in keys.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{key} = {value}\n"));
    }
    fs::write(path, text).expect("written");
}

pub(crate) fn reload(agent: &Agent, changed: &str) {
    agent.signal(Signal::SIGHUP);
    agent.wait_message(json!({
        "message": "reopened the log and reloaded configuration and certificate", "changed": changed,
    }));
}

#[test]
fn a_reload_changes_what_comes_next_and_leaves_what_is_open() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let log = net.logs().join("spip.json");
    let agent = net.agent().set("sandbox", "required").set("name", "before").log_to(&log).start();
    let mut open = net.connect(80);
    open.write_all(b"still").expect("the sensor takes bytes");
    agent.wait_all_read();

    change(&net, &[("name", "\"after\""), ("payload_limit_bytes", "4"), ("read_timeout_seconds", "0.2")]);
    // The longest line follows the payload limit.
    reload(&agent, "max_line_bytes, name, payload_limit_bytes, read_timeout_seconds");
    // Its own messages have the new name, too.
    agent.wait_message(
        json!({"changed": "max_line_bytes, name, payload_limit_bytes, read_timeout_seconds", "name": "after"}),
    );

    net.client.deliver((SENSOR_V4, 81), b"cut off");
    agent.expect_one(json!({"name": "after", "destination_port": 81, "payload": "cut ", "bytes_in": 7}));
    // All are silent, and only the new idle time is short.
    let mut idle = net.connect(82);
    idle.write_all(b"x").expect("the sensor takes bytes");
    agent.expect_one(json!({"name": "after", "destination_port": 82, "close_reason": "idle_timeout"}));
    open.write_all(b" here, with all").expect("the sensor takes bytes");
    open.shutdown(std::net::Shutdown::Write).expect("open");
    read_to_end(&mut open);
    agent.expect_one(json!({"name": "before", "payload": "still here, with all", "close_reason": "client_closed"}));
    let _ = agent.stop();
}

#[test]
fn limits_change_for_newcomers_and_count_those_who_are_there() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("rejected_interval_seconds", 0.1).start();
    let held = [net.connect(80), net.connect(81)];
    agent.wait_open(2);
    change(&net, &[("max_sessions_per_source", "2")]);
    reload(&agent, "max_sessions_per_source");
    let refused = net.connect(82);
    agent.expect_one(json!({"close_reason": "rejected", "limit": "max_sessions_per_source"}));
    drop((held, refused));
    let _ = agent.stop();
}

#[test]
fn more_sessions_than_there_are_descriptors_for_are_taken_up_with_a_warning() {
    let Some(net) = Net::new() else { return };
    let agent = net.agent().descriptors(400).start();
    change(&net, &[("max_sessions", "1000"), ("state_dir", "\"/nonexistent\"")]);
    reload(&agent, "max_sessions");
    let warning = agent.wait_message(json!({"level": "warn", "target": "config"}));
    let text = warning["message"].as_str().expect("text");
    assert!(text.contains("max_sessions = 1000 takes") && text.contains("400 are all that there are"), "{text}");
    agent.wait_message(json!({"level": "warn", "keys": "state_dir"}));
    assert!(agent.stop().status.success());
}

#[test]
fn a_bad_file_changes_nothing_and_is_named_with_its_line() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let log = net.logs().join("spip.json");
    let agent = net.agent().set("sandbox", "required").set("name", "kept").log_to(&log).start();
    change(&net, &[("name", "\"never\""), ("port", "0")]);
    fs::rename(&log, net.logs().join("moved")).expect("logrotate may");
    agent.signal(Signal::SIGHUP);
    let file = config_file(&net);
    let line =
        fs::read_to_string(&file).expect("readable").lines().position(|line| line == "port = 0").expect("there") + 1;
    let reason = format!("{}:{line}: port = 0: must be a whole number from 1 to 65535", file.display());
    eventually("the log is reopened all the same, and holds the reason", || {
        let text = fs::read_to_string(&log).ok()?;
        let message = text.lines().find(|line| line.contains("configuration rejected"))?;
        let message: Value = serde_json::from_str(message).ok()?;
        assert_eq!((&message["level"], &message["reason"]), (&json!("error"), &json!(reason)));
        Some(())
    });
    net.client.deliver((SENSOR_V4, 80), b"x");
    eventually("the old name", || fs::read_to_string(&log).ok()?.contains("\"name\":\"kept\"").then_some(()));
    // Not even readable; then gone.
    fs::remove_file(&file).expect("own directory");
    agent.signal(Signal::SIGHUP);
    eventually("the file is missed", || {
        fs::read_to_string(&log).ok()?.contains("cannot read the configuration").then_some(())
    });
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().status.success());
}

#[test]
fn files_that_are_out_of_reach_or_wrong_are_named_together_with_their_lines() {
    let Some(net) = Net::new() else { return };
    let agent = net.agent().set("sandbox", "required").start();
    let file = config_file(&net);
    let persona = file.with_file_name("persona.toml");
    fs::write(&persona, "ftp = \"a\"\nssh = \"OpenSSH\"\n").expect("own directory");
    fs::write(file.with_file_name("no.pem"), "nothing").expect("own directory");
    let names = [("cert_path", "\"no.pem\""), ("key_path", "\"no.pem\""), ("persona", "\"persona.toml\"")];
    change(&net, &names);
    let line = |key: &str| {
        let text = fs::read_to_string(&file).expect("readable");
        let line = text.lines().position(|line| line.starts_with(key)).expect("there") + 1;
        format!("{}:{line}: ", file.display())
    };
    let (certificate, texts) = (line("cert_path"), line("persona"));
    agent.signal(Signal::SIGHUP);
    let refused = agent.wait_message(json!({"level": "error", "target": "config"}));
    let reason = refused["reason"].as_str().expect("text").to_owned();
    assert!(reason.contains(&format!("{certificate}cert_path ")), "{reason}");
    let place = format!("{texts}the persona {}:2: ssh: must begin", persona.display());
    assert!(reason.contains(&place), "{reason}");
    // What root could read, were it not for the sandbox.
    let closed = std::env::temp_dir().join(format!("spip-reload-{}.pem", std::process::id()));
    fs::copy(file.with_file_name("no.pem"), &closed).expect("a file for the test");
    let given = format!("\"{}\"", closed.display());
    change(&net, &[("cert_path", &given), ("key_path", &given), ("persona", "")]);
    agent.signal(Signal::SIGHUP);
    let refused = eventually("the second reason", || {
        let log = agent.log();
        let mut errors = log.messages().filter(|line| line.value["level"] == "error");
        errors.nth(1).map(|line| line.value["reason"].as_str().unwrap_or_default().to_owned())
    });
    fs::remove_file(&closed).expect("the test's own");
    assert!(refused.contains(&line("cert_path")), "{refused}");
    assert!(refused.contains("it is outside of what the sandbox opened at the start: restart"), "{refused}");
    assert!(!refused.contains("may read"), "{refused}");
    let _ = agent.stop();
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_is_taken_up() {
    let Some(net) = Net::new() else { return };
    let agent = net.agent().start();
    change(&net, &[("port", "12346"), ("name", "\"new\""), ("ebpf_syn_entries", "128"), ("scans", "false")]);
    reload(&agent, "name");
    let warning = agent.wait_message(json!({"level": "warn", "target": "config"}));
    assert_eq!(warning["keys"], "ebpf_syn_entries, port, scans", "{warning}");
    // Once more without a change: still not taken up, so still named.
    agent.signal(Signal::SIGHUP);
    eventually("the second warning", || {
        (agent.log().messages().filter(|line| line.text.contains("take effect when the agent restarts")).count() == 2)
            .then_some(())
    });
    let _ = agent.stop();
}

#[test]
fn the_log_goes_on_in_another_file_of_its_directory_and_not_in_one_that_is_out_of_reach() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("own directory");
    let (first, second) = (directory.join("first.json"), directory.join("second.json"));
    let agent = net.agent().set("sandbox", "required").log_to(&first).start();
    net.client.deliver((SENSOR_V4, 80), b"one");
    agent.expect_one(json!({"payload": "one"}));
    change(&net, &[("log_file", &format!("{second:?}")), ("log_rotate_bytes", "20000"), ("log_keep_files", "1")]);
    agent.signal(Signal::SIGHUP);
    eventually("the second file begins", || {
        fs::read_to_string(&second).ok()?.contains("log_file, log_keep_files, log_rotate_bytes").then_some(())
    });
    for number in 0..60_u16 {
        net.client.deliver((SENSOR_V4, 1000 + number), &[b'x'; 500]);
    }
    eventually("it is rotated, and one closed file is kept", || {
        let names: Vec<_> = fs::read_dir(&directory).ok()?.flatten().map(|entry| entry.file_name()).collect();
        let closed = names.iter().filter(|name| name.to_string_lossy().starts_with("second.json.")).count();
        let last = fs::read_to_string(&second).ok()?;
        (closed == 1 && last.contains("\"destination_port\":1059")).then_some(())
    });
    assert!(!fs::read_to_string(&first).expect("it stays").contains("\"destination_port\":1000"));
    // Missing; there, but closed by the sandbox; and open for reading only.
    let (missing, closed) = (net.path().join("missing/log.json"), net.path().join("closed"));
    fs::create_dir(&closed).expect("own directory");
    let refused = [
        (missing, "create its directory and restart the agent"),
        (closed.join("log.json"), "it is outside of what the sandbox opened at the start: restart the agent for it"),
        (config_file(&net).with_extension("json"), "outside of what the sandbox opened at the start"),
    ];
    for (path, remedy) in refused {
        change(&net, &[("log_file", &format!("{path:?}"))]);
        agent.signal(Signal::SIGHUP);
        let reason = format!("cannot open log_file {}: ", path.display());
        eventually("the reason", || {
            let text = fs::read_to_string(&second).ok()?;
            let told =
                text.lines().find(|line| line.contains("previous one stays in effect") && line.contains(&reason))?;
            assert!(told.contains(remedy) && !told.contains("allow the agent"), "{told}");
            Some(())
        });
    }
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().status.success());
}

#[test]
fn a_certificate_is_not_taken_up_when_something_else_in_the_file_is_wrong() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../spip-agent/fixtures/tls");
    let directory = net.path().join("tls");
    fs::create_dir(&directory).expect("own directory");
    let (chain, key) = (directory.join("server.crt"), directory.join("server.key"));
    let place = |kind: &str| {
        fs::copy(format!("{fixtures}/{kind}-chain.crt"), &chain).expect("a fixture");
        fs::copy(format!("{fixtures}/{kind}-pkcs8.key"), &key).expect("a fixture");
    };
    place("ecdsa");
    let log = net.logs().join("spip.json");
    let path = |path: &PathBuf| path.to_str().expect("text").to_owned();
    let agent = net.agent().set("cert_path", path(&chain)).set("key_path", path(&key)).log_to(&log).start();
    let shown = || {
        net.client.shell(&format!(
            "openssl s_client -connect {SENSOR_V4}:443 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
        ))
    };
    let first = shown();
    place("rsa");
    change(&net, &[("log_file", "\"/nonexistent/spip.json\"")]);
    agent.signal(Signal::SIGHUP);
    agent.wait_message(json!({"level": "error", "target": "config"}));
    assert_eq!(shown(), first, "the previous configuration stays in effect");
    change(&net, &[("log_file", &format!("{log:?}"))]);
    reload(&agent, "");
    assert_ne!(shown(), first);
    let _ = agent.stop();
}

#[test]
fn the_file_of_the_messages_is_rotated_as_the_log_from_a_reload_on() {
    let Some(net) = Net::new() else { return };
    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("own directory");
    let messages = directory.join("messages.json");
    let launch = net.agent().set("sandbox", "required").set("system_log", messages.to_str().expect("text"));
    let agent = launch.log_to(&directory.join("log.json")).spawn();
    // Also in a file that was closed meanwhile: the messages of the start may fill one.
    let said = |text: &str| {
        let files = fs::read_dir(&directory).expect("own directory").flatten().map(|entry| entry.path());
        let mut of_messages = files.filter(|file| file.to_string_lossy().contains("messages.json"));
        of_messages.any(|file| fs::read_to_string(file).is_ok_and(|messages| messages.contains(text)))
    };
    eventually("ready", || said("\"message\":\"ready\"").then_some(()));
    change(&net, &[("log_rotate_bytes", "4096"), ("log_keep_files", "2")]);
    agent.signal(Signal::SIGHUP);
    eventually("taken up", || said("log_keep_files, log_rotate_bytes").then_some(()));
    let closed = || {
        let names = fs::read_dir(&directory).expect("own directory").flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with("messages.json.")).count()
    };
    eventually("two closed files are kept, of more", || {
        agent.signal(Signal::SIGHUP);
        (closed() == 2).then_some(())
    });
    // The log cannot become this file, though the configuration has another one for the messages by now.
    let (own, other) = (format!("{messages:?}"), format!("{:?}", directory.join("other.json")));
    change(&net, &[("log_rotate_bytes", ""), ("log_keep_files", "")]);
    change(&net, &[("log_file", &own), ("system_log", &other)]);
    agent.signal(Signal::SIGHUP);
    eventually("refused", || said("is the system_log until the agent is restarted").then_some(()));
    let _ = agent.stop();
}

#[test]
fn exclusions_that_hold_with_new_rules_only_are_named_as_such() {
    let Some(net) = Net::new() else { return };
    let agent = net.agent().start();
    change(&net, &[("exclude_ports", "[22, 443]")]);
    reload(&agent, "exclude_ports");
    let warning = agent.wait_message(json!({"level": "warn", "target": "config", "keys": "exclude_ports"}));
    assert!(warning["message"].as_str().expect("text").contains("rules install"), "{warning}");
    let _ = agent.stop();
}

#[test]
fn format_and_persona_change_while_it_runs() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let (log, persona) = (net.logs().join("spip.json"), net.path().join("persona.toml"));
    fs::write(&persona, "ssh = \"SSH-2.0-before\"\n").expect("own directory");
    let agent = net
        .agent()
        .set("sandbox", "required")
        .set("respond", "banners")
        .set("banner_after_ms", 1)
        .set("state_dir", net.path().join("state").to_str().expect("text"))
        .set("persona", persona.to_str().expect("text"))
        .log_to(&log)
        .start();
    let greeting = || {
        let mut stream = net.connect(22);
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        let mut line = [0; 14];
        stream.read_exact(&mut line).expect("a greeting");
        String::from_utf8_lossy(&line).into_owned()
    };
    assert_eq!(greeting(), "SSH-2.0-before");
    fs::write(&persona, "ssh = \"SSH-2.0-after0\"\n").expect("own directory");
    change(&net, &[("log_format", "\"ecs\"")]);
    agent.signal(Signal::SIGHUP);
    eventually("the new face", || (greeting() == "SSH-2.0-after0").then_some(()));
    net.client.deliver((SENSOR_V4, 80), b"last");
    // Killed before that, it may take the last 200 ms with it.
    eventually("records in both formats", || {
        let text = fs::read_to_string(&log).ok()?;
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let has = |known: fn(&Value) -> bool| lines.iter().any(known);
        // The message of the reload has the new shape, too.
        let is_message =
            |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("configuration and certificate"));
        let reloads: Vec<&Value> = lines.iter().filter(|line| is_message(line)).collect();
        let are_ecs = !reloads.is_empty() && reloads.iter().all(|line| line["ecs"]["version"].is_string());
        (are_ecs && has(|line| line["schema"] == "spip/1") && has(|line| line["ecs"]["version"].is_string()))
            .then_some(())
    });
    let _ = agent.kill();
}
