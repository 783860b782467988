//! What the agent gives up after its start, seen from outside, and that it goes on working without it. What is refused
//! inside is tried by the agent's own unit tests.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use nix::sys::signal::Signal;
use serde_json::json;
use spip_tests::{Agent, Net, SENSOR_V4, eventually};

/// What the README tells operators to give to an agent that is not root.
const CAPABILITIES: [&str; 4] = ["bpf", "net_admin", "perfmon", "net_raw"];

/// `nobody` of every distribution.
const NOBODY: u32 = 65534;

/// The fields of `/proc/PID/task/TID/status` of each thread, by the thread's name.
fn threads(agent: &Agent) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent runs");
    let status = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("status")).expect("the thread runs");
        let fields: BTreeMap<_, _> =
            text.lines().filter_map(|line| line.split_once(":\t")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        (fields["Name"].clone(), fields)
    };
    tasks.map(|task| status(task.expect("a task"))).collect()
}

#[test]
fn no_thread_keeps_a_capability_or_leaves_the_filter() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent =
        net.agent().set("sandbox", "required").arguments(&["--config", "{config}", "--ebpf-log", "info"]).start();
    let threads = threads(&agent);
    for name in ["spip-agent", "spip-log", "signals", "worker-0", "service", "ebpf-log"] {
        assert!(threads.iter().any(|(other, _)| other == name), "{name} of {threads:?}");
    }
    for (name, status) in &threads {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set} of {name}");
        }
        assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"), "{name}");
    }
    net.client.deliver((SENSOR_V4, 80), b"seen");
    agent.expect_one(json!({"payload": "seen", "destination_port": 80, "destination_source": "ebpf"}));
}

#[test]
fn the_log_is_rotated_reopened_and_drained_inside() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("the test's directory is its own");
    let log = directory.join("spip.json");
    let agent = net
        .agent()
        .set("sandbox", "required")
        .set("log_rotate_bytes", 20_000)
        .set("log_keep_files", 2)
        .set("log_compress", "zstd")
        .log_to(&log)
        .start();
    for number in 0..60_u16 {
        net.client.deliver((SENSOR_V4, 1000 + number), &[b'x'; 500]);
    }
    // Two closed files, compressed, and older ones removed.
    eventually("rotation", || {
        let names: Vec<_> = fs::read_dir(&directory).ok()?.flatten().map(|entry| entry.file_name()).collect();
        let closed = names.iter().filter(|name| name.to_string_lossy().ends_with(".zst")).count();
        (closed == 2).then_some(())
    });
    fs::rename(&log, directory.join("moved")).expect("logrotate may");
    agent.signal(Signal::SIGHUP);
    net.client.deliver((SENSOR_V4, 7), b"after");
    eventually("the file is there again", || {
        fs::read_to_string(&log).ok()?.contains("\"payload\":\"after\"").then_some(())
    });
    let open = net.connect(9);
    agent.signal(Signal::SIGTERM);
    eventually("the open session is recorded", || {
        fs::read_to_string(&log).ok()?.contains("\"close_reason\":\"shutdown\"").then_some(())
    });
    drop(open);
}

#[test]
fn an_ordinary_user_with_the_four_capabilities_has_everything() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().capabilities(&CAPABILITIES).set("ebpf", "required").start();
    agent.wait_message(json!({"message": "eBPF is attached", "syn_observer": true, "sock_ops": true, "scans": true}));
    assert!(threads(&agent).iter().all(|(_, status)| status["CapPrm"] == "0000000000000000"));
    assert!(threads(&agent).iter().all(|(_, status)| status["Uid"].starts_with(&format!("{NOBODY}\t"))));
    net.client.deliver((SENSOR_V4, 80), b"seen");
    agent.expect_one(json!({"payload": "seen", "destination_port": 80, "destination_source": "ebpf"}));
}

#[test]
fn without_any_of_the_four_capabilities_the_kernel_side_is_incomplete_and_capture_goes_on() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    for missing in CAPABILITIES {
        let rest: Vec<_> = CAPABILITIES.into_iter().filter(|name| *name != missing).collect();
        let agent = net.agent().capabilities(&rest).start();
        agent.wait_message(json!({"level": "warn", "target": "ebpf"}));
        net.client.deliver((SENSOR_V4, 80), b"seen");
        agent.expect_one(json!({"payload": "seen", "destination_port": 80}));
        assert!(agent.stop().status.success(), "without {missing}");
    }
}

#[test]
fn root_becomes_the_user_who_then_owns_the_log() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("the test's directory is its own");
    // Reached by name from outside, written to by the user alone.
    fs::set_permissions(net.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    chown(&directory, Some(NOBODY), Some(NOBODY)).expect("root");
    let log = directory.join("spip.json");
    let agent = net.agent().set("user", NOBODY.to_string()).set("sandbox", "required").log_to(&log).start();
    assert!(
        threads(&agent).iter().all(|(_, status)| status["Uid"] == format!("{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}"))
    );
    net.client.deliver((SENSOR_V4, 80), b"seen");
    agent.expect_one(json!({"payload": "seen", "destination_source": "ebpf"}));
    assert_eq!(fs::metadata(&log).expect("the log").uid(), NOBODY);
}

#[test]
fn a_user_who_cannot_write_the_log_is_refused_where_everything_is_required() {
    let Some(net) = Net::new() else { return };
    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("the test's directory is its own");
    let agent = net.agent().set("user", NOBODY.to_string()).set("sandbox", "required");
    let ended = agent.log_to(&directory.join("spip.json")).run();
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("cannot write to"), "{}", ended.stderr);
    let ended = net.agent().set("user", "no-such-user").run();
    assert!(ended.stderr.contains("there is no such user"), "{}", ended.stderr);
}

#[test]
fn nothing_is_given_up_when_the_sandbox_is_off() {
    let Some(net) = Net::new() else { return };
    let agent = net.agent().set("sandbox", "off").start();
    assert!(threads(&agent).iter().all(|(_, status)| status["Seccomp"] == "0" && status["NoNewPrivs"] == "0"));
}
