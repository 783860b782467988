//! The sandbox, seen from outside: the agent keeps working without the rights that it gave up. What is refused
//! inside is tried by the agent's own unit tests.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;
use spip_tests::{Agent, Net, SENSOR_V4, eventually, every_step};

/// Capabilities that the documentation asks operators to give to an agent that is not root.
const CAPABILITIES: [&str; 4] = ["bpf", "net_admin", "perfmon", "net_raw"];

/// `nobody` of every distribution.
const NOBODY: u32 = 65534;

/// The fields of `/proc/PID/task/TID/status` of each thread, by the thread's name.
fn threads(agent: &Agent) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent runs");
    // One that ends meanwhile is none.
    let status = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        let fields: BTreeMap<_, _> =
            text.lines().filter_map(|line| line.split_once(":\t")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Some((fields.get("Name")?.clone(), fields))
    };
    let threads: Vec<_> = tasks.flatten().filter_map(status).collect();
    assert!(!threads.is_empty(), "the agent runs");
    threads
}

#[test]
fn no_thread_keeps_a_capability_or_leaves_the_filter() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent =
        net.agent().set("sandbox", every_step()).arguments(&["--config", "{config}", "--ebpf-log", "info"]).start();
    // A thread takes its name itself, as the first thing that it does.
    let expected = ["spip-agent", "spip-log", "signals", "worker-0", "service", "ebpf-log", "scans", "status"];
    let threads = eventually("all threads have their names", || {
        let threads = threads(&agent);
        expected.iter().all(|name| threads.iter().any(|(other, _)| other == name)).then_some(threads)
    });
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
        .set("sandbox", every_step())
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
    agent.wait_open(1);
    agent.signal(Signal::SIGTERM);
    // The file may be full with this record, and closed.
    eventually("the open session is recorded", || {
        let files = fs::read_dir(&directory).ok()?.flatten();
        let mut texts = files.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        texts.any(|text| text.contains("\"close_reason\":\"shutdown\"")).then_some(())
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
fn they_are_enough_to_steer_by_sk_lookup_too() {
    let Some(net) = Net::new() else { return };
    let launch = net.agent().capabilities(&CAPABILITIES).set("sandbox", every_step()).set("ip", "127.0.0.1");
    let agent = launch.set("ebpf", "required").set("steering", "sk_lookup").start();
    net.client.deliver((SENSOR_V4, 80), b"seen");
    agent.expect_one(json!({"payload": "seen", "destination_port": 80, "syn": {"ttl": 64}}));
    // Asked by netlink several times a second: a service that begins inside has its port.
    let any = (Ipv4Addr::UNSPECIFIED, 81);
    let _service = net.sensor.enter(|| TcpListener::bind(any)).expect("the port is free");
    agent.wait_message(json!({"message": "services have changed"}));
    assert!(threads(&agent).iter().all(|(_, status)| status["CapPrm"] == "0000000000000000"));
    assert!(agent.stop().status.success());
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
    let agent = net.agent().set("user", NOBODY.to_string()).set("sandbox", every_step()).log_to(&log).start();
    assert!(
        threads(&agent).iter().all(|(_, status)| status["Uid"] == format!("{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}"))
    );
    net.client.deliver((SENSOR_V4, 80), b"seen");
    agent.expect_one(json!({"payload": "seen", "destination_source": "ebpf"}));
    assert_eq!(fs::metadata(&log).expect("the log").uid(), NOBODY);
    let socket = net.path().join("run/status.sock");
    assert_eq!(fs::metadata(&socket).expect("the socket").uid(), NOBODY);
    assert!(agent.stop().status.success());
    assert!(!socket.exists(), "the user takes it away");
}

/// Returns the greeting of a silent client.
fn greeting(net: &Net, port: u16) -> String {
    let mut text = String::new();
    BufReader::new(net.connect(port)).read_line(&mut text).expect("the sensor speaks");
    text
}

#[test]
fn the_user_whom_root_becomes_keeps_the_face_over_a_reload_and_a_restart() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    fs::set_permissions(net.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    let persona = net.path().join("mine.toml");
    fs::write(&persona, "ftp = \"FIRST\"\n").expect("own directory");
    let state = net.path().join("made/state");
    let launch = net.agent().set("persona", persona.to_str().expect("text")).set("banner_after_ms", 50);
    let launch = launch.set("state_dir", state.to_str().expect("text"));
    let agent = launch.clone().set("user", NOBODY.to_string()).set("sandbox", every_step()).start();
    let ssh = greeting(&net, 22);
    assert_eq!(greeting(&net, 21), "220 FIRST\r\n");
    fs::write(&persona, "ftp = \"SECOND\"\n").expect("own directory");
    agent.signal(Signal::SIGHUP);
    agent.wait_message(json!({"message": "reopened the log and reloaded configuration and certificate"}));
    assert_eq!((greeting(&net, 21).as_str(), greeting(&net, 22)), ("220 SECOND\r\n", ssh.clone()));
    let _ = agent.stop();
    // As a unit starts it.
    let agent = launch.capabilities(&CAPABILITIES).start();
    assert_eq!(greeting(&net, 22), ssh);
    assert!(!agent.log().text().contains("drawn anew"), "{}", agent.log().text());
    let _ = agent.stop();
    // A directory that root has had before is its own.
    for (path, mode) in [(&state, 0o700), (&state.join("persona.toml"), 0o600)] {
        chown(path, Some(0), Some(0)).expect("root");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root");
    }
    let ended = net.agent().set("user", NOBODY.to_string()).set("state_dir", state.to_str().expect("text"));
    let ended = ended.set("sandbox", "required").run();
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("would not know its persona again; run: chown"), "{}", ended.stderr);
}

#[test]
fn a_reload_takes_up_the_operators_persona_where_the_state_directory_cannot_be_used() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let persona = net.path().join("mine.toml");
    fs::write(&persona, "ftp = \"FIRST\"\n").expect("own directory");
    let launch = net.agent().set("persona", persona.to_str().expect("text")).set("banner_after_ms", 50);
    let agent = launch.set("state_dir", "/proc/spip").start();
    agent.wait_message(json!({"level": "warn", "target": "respond"}));
    let ssh = greeting(&net, 22);
    fs::write(&persona, "ftp = \"SECOND\"\n").expect("own directory");
    agent.signal(Signal::SIGHUP);
    agent.wait_message(json!({"message": "reopened the log and reloaded configuration and certificate"}));
    assert_eq!((greeting(&net, 21).as_str(), greeting(&net, 22)), ("220 SECOND\r\n", ssh));
}

#[test]
fn a_renewed_certificate_behind_a_symbolic_link_is_read_at_sighup() {
    let Some(net) = Net::new() else { return };
    let (live, archive) = (net.path().join("live/a"), net.path().join("archive/a"));
    for directory in [&live, &archive] {
        fs::create_dir_all(directory).expect("the test's directory is its own");
    }
    // As certbot does: numbered files, and links that are replaced.
    let make = |number: u32| {
        let (key, chain) = (archive.join(format!("key{number}.pem")), archive.join(format!("chain{number}.pem")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "1"])
            .args(["-subj", &format!("/CN=certificate-{number}"), "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&chain)
            .output()
            .expect("openssl is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for (name, target) in [("key.pem", key), ("chain.pem", chain)] {
            let next = live.join("next");
            symlink(target, &next).expect("own directory");
            fs::rename(next, live.join(name)).expect("own directory");
        }
    };
    make(1);
    let text = |name: &str| live.join(name).to_str().expect("text").to_owned();
    let agent = net.agent().set("sandbox", every_step()).set("key_path", text("key.pem"));
    let agent = agent.set("cert_path", text("chain.pem")).start();
    let shown = || {
        net.client.shell(&format!(
            "openssl s_client -connect {SENSOR_V4}:12345 </dev/null 2>/dev/null | openssl x509 -noout -subject"
        ))
    };
    assert!(shown().contains("certificate-1"));
    make(2);
    agent.signal(Signal::SIGHUP);
    agent.wait_message(json!({"message": "reopened the log and reloaded configuration and certificate"}));
    assert!(shown().contains("certificate-2"));
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
    // What the user will have to read again counts as well.
    let persona = net.path().join("persona.toml");
    fs::write(&persona, "").expect("the test's directory is its own");
    fs::set_permissions(&persona, fs::Permissions::from_mode(0o600)).expect("own file");
    let agent = net.agent().set("user", NOBODY.to_string()).set("sandbox", "required");
    let ended = agent.set("persona", persona.to_str().expect("text")).run();
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("cannot read") && ended.stderr.contains("persona.toml"), "{}", ended.stderr);
    let ended = net.agent().set("user", "no-such-user").run();
    assert!(ended.stderr.contains("there is no such user"), "{}", ended.stderr);
    for (key, value) in [("user", "no-such-user"), ("group", "no-such-group")] {
        let agent = net.agent().set("user", "0").set(key, value).arguments(&["--config", "{config}", "--check"]);
        let ended = agent.run();
        assert_eq!(ended.status.code(), Some(2));
        assert!(ended.stderr.contains(&format!("there is no such {key}")), "{}", ended.stderr);
    }
}

#[test]
fn root_without_its_capabilities_is_not_believed_to_write_where_it_may_not() {
    let Some(net) = Net::new() else { return };
    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("the test's directory is its own");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o000)).expect("own directory");
    let log = directory.join("spip.json");
    let launch = net.agent().log_to(&log);
    let ended = launch.clone().set("sandbox", "required").run();
    assert!(!ended.status.success());
    let told = format!("the user root (0) cannot write to {}; run: chown root", directory.display());
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    let agent = launch.clone().start();
    let steps = agent.wait_message(json!({"target": "sandbox", "level": "warn"}));
    assert!(steps["steps"].as_str().is_some_and(|steps| steps.contains(&told)), "{steps}");
    // What was not opened again is not said to be.
    fs::rename(&log, directory.join("moved")).expect("logrotate may");
    agent.signal(Signal::SIGHUP);
    let moved = || fs::read_to_string(directory.join("moved")).unwrap_or_default();
    eventually("the reason is in the file that goes on", || moved().contains("cannot reopen the log").then_some(()));
    eventually("the rest is read", || {
        moved().contains("\"message\":\"reloaded configuration and certificate\"").then_some(())
    });
    assert!(!moved().contains("reopened the log"), "{}", moved());
    let _ = agent.stop();
    // The file alone, in a directory of root's.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).expect("own directory");
    fs::write(&log, "").and_then(|()| fs::set_permissions(&log, fs::Permissions::from_mode(0o640))).expect("root");
    chown(&log, Some(NOBODY), Some(NOBODY)).expect("root");
    let ended = launch.set("sandbox", "required").run();
    assert!(!ended.status.success());
    assert!(ended.stderr.contains(&format!("cannot open {} again", log.display())), "{}", ended.stderr);
}

#[test]
fn a_log_in_a_directory_that_others_share_is_reported_and_refused_where_everything_is_required() {
    let Some(net) = Net::new() else { return };
    let shared = std::env::temp_dir();
    let log = shared.join(format!("spip-sandbox-test-{}.json", std::process::id()));
    let socket = shared.join(format!("spip-sandbox-test-{}.sock", std::process::id()));
    let launch = net.agent().log_to(&log).set("status_socket", socket.to_str().expect("text"));
    let ended = launch.clone().set("sandbox", "required").run();
    assert!(!ended.status.success());
    let told = format!("other programs use {} too", shared.display());
    assert!(ended.stderr.contains(&told) && ended.stderr.contains("directory of its own"), "{}", ended.stderr);
    let agent = launch.clone().start();
    let steps = agent.wait_message(json!({"target": "sandbox", "level": "warn"}));
    assert!(steps["steps"].as_str().is_some_and(|steps| steps.contains(&told)), "{steps}");
    assert!(agent.stop().status.success());
    // For the sake of a socket alone such a directory is not opened: what stays is replaced by the next agent.
    let launch = launch.log_to(&net.path().join("spip.json"));
    for _ in 0..2 {
        let agent = launch.clone().start();
        let steps = agent.wait_message(json!({"target": "sandbox"}));
        assert!(steps["steps"].as_str().is_some_and(|steps| !steps.contains(&told)), "{steps}");
        assert!(agent.stop().status.success());
        assert!(socket.exists());
    }
    fs::remove_file(&log).and_then(|()| fs::remove_file(&socket)).expect("the test's own");
}

#[test]
fn a_user_has_nothing_of_root_also_when_the_sandbox_is_off() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    fs::set_permissions(net.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    let agent = net.agent().set("sandbox", "off").set("user", NOBODY.to_string()).set("ebpf", "required").start();
    for (name, status) in threads(&agent) {
        // Kernels before 5.19 look into maps with CAP_BPF only.
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert!(["0000000000000000", "0000008000000000"].contains(&status[set].as_str()), "{set} of {name}");
        }
        assert_eq!((status["Seccomp"].as_str(), status["NoNewPrivs"].as_str()), ("0", "0"), "{name}");
    }
    net.client.deliver((SENSOR_V4, 80), b"seen");
    agent.expect_one(json!({"payload": "seen", "destination_source": "ebpf"}));
    let _ = agent.stop();
}

#[test]
fn nothing_is_given_up_when_the_sandbox_is_off() {
    let Some(net) = Net::new() else { return };
    let agent = net.agent().set("sandbox", "off").start();
    assert!(threads(&agent).iter().all(|(_, status)| status["Seccomp"] == "0" && status["NoNewPrivs"] == "0"));
}
