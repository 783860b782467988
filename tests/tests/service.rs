//! The agent as a service: what it tells its manager, what it takes up while it runs, where it says what it has done,
//! and that it works under the settings of its unit.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use spip_tests::{Agent, Launch, Net, PATIENCE, SENSOR_V4, eventually, read_to_end};

/// The unit that is shipped.
fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd/spip-agent.service");
    fs::read_to_string(path).expect("the unit is there")
}

/// The values of a setting of the unit, word by word.
fn setting(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(|values| values.split(' ').map(str::to_owned)).collect()
}

/// A service manager, as far as the agent sees it.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(net: &Net) -> Self {
        let path = net.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("own directory");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        Self { socket, path }
    }

    fn around<'net>(&self, launch: Launch<'net>, more: &str) -> Launch<'net> {
        launch.within(&format!(r#"NOTIFY_SOCKET={} {more} exec "$@""#, self.path.display()))
    }

    fn heard(&self) -> String {
        let mut text = [0; 1024];
        let length = self.socket.recv(&mut text).expect("the agent says something");
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    /// The next message that begins so.
    fn wait(&self, beginning: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = self.heard();
            if heard.starts_with(beginning) {
                return heard;
            }
            assert!(Instant::now() < deadline, "{beginning} never comes, but {heard}");
        }
    }
}

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
fn change(net: &Net, keys: &[(&str, &str)]) {
    let path = config_file(net);
    let text = fs::read_to_string(&path).expect("readable");
    let kept = text.lines().filter(|line| !keys.iter().any(|(key, _)| line.starts_with(&format!("{key} ="))));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    for (key, value) in keys.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{key} = {value}\n"));
    }
    fs::write(path, text).expect("written");
}

fn reload(agent: &Agent, changed: &str) {
    agent.signal(Signal::SIGHUP);
    agent.wait_message(json!({
        "message": "reopened the log and read configuration and certificate again", "changed": changed,
    }));
}

/// One request over `stream`; the whole answer.
fn request(mut stream: impl Read + Write, text: &str) -> String {
    stream.write_all(text.as_bytes()).expect("the agent reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the agent answers");
    answer
}

/// The value of a metric in a page, by its name and labels.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {page}")).parse().expect("a number")
}

const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

fn page(net: &Net, path: &str) -> String {
    net.sensor.shell("ip link set lo up");
    let stream = net.sensor.enter(|| TcpStream::connect(METRICS).expect("metrics are served"));
    request(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[test]
fn the_manager_hears_of_start_watchdog_reload_and_stop() {
    let Some(net) = Net::new() else { return };
    let manager = Manager::new(&net);
    let agent = manager.around(net.agent().set("sandbox", "required"), "WATCHDOG_USEC=800000").start();
    let ready = manager.wait("READY=1");
    assert!(ready.contains("\nSTATUS=listens on "), "{ready}");
    let mut last = Instant::now();
    for _ in 0..6 {
        assert_eq!(manager.heard(), "WATCHDOG=1");
        assert!(last.elapsed() < Duration::from_millis(800), "too late: {:?}", last.elapsed());
        last = Instant::now();
    }
    agent.signal(Signal::SIGHUP);
    let reloading = manager.wait("RELOADING=1\nMONOTONIC_USEC=");
    let since: u64 = reloading.rsplit('=').next().and_then(|number| number.parse().ok()).expect("microseconds");
    assert!(since > 0);
    manager.wait("READY=1");
    agent.signal(Signal::SIGTERM);
    let stopping = manager.wait("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=20000000"), "{stopping}");
    assert!(agent.wait().status.success());
}

#[test]
fn a_worker_that_is_stuck_starves_the_watchdog() {
    let Some(net) = Net::new() else { return };
    let manager = Manager::new(&net);
    let agent = manager.around(net.agent(), "WATCHDOG_USEC=400000").start();
    manager.wait("WATCHDOG=1");
    // Stops one thread alone, as a system call that does not return would: by a tracer that never lets it go on.
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent runs").flatten();
    let worker = tasks
        .map(|task| task.path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0"));
    let worker = worker.and_then(|path| path.file_name()?.to_str()?.parse().ok()).expect("a worker");
    let worker = nix::unistd::Pid::from_raw(worker);
    nix::sys::ptrace::seize(worker, nix::sys::ptrace::Options::empty()).expect("root may");
    nix::sys::ptrace::interrupt(worker).expect("seized");
    nix::sys::wait::waitpid(worker, Some(nix::sys::wait::WaitPidFlag::__WALL)).expect("it stops");
    manager.socket.set_read_timeout(Some(Duration::from_millis(600))).expect("a time");
    // What was said while the last beat was young enough.
    let quiet = (0..5).any(|_| manager.socket.recv(&mut [0; 100]).is_err());
    assert!(quiet, "the watchdog goes on being fed");
    nix::sys::ptrace::detach(worker, None).expect("seized");
    manager.socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    manager.wait("WATCHDOG=1");
    let _ = agent.stop();
}

#[test]
fn an_agent_that_cannot_tell_its_manager_does_not_start() {
    let Some(net) = Net::new() else { return };
    let ended = net.agent().within(r#"NOTIFY_SOCKET=/nonexistent/notify exec "$@""#).run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("NOTIFY_SOCKET=/nonexistent/notify"), "{}", ended.stderr);
}

#[test]
fn a_reload_changes_what_comes_next_and_leaves_what_is_open() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let log = net.path().join("spip.json");
    let agent = net.agent().set("sandbox", "required").set("name", "before").log_to(&log).start();
    let mut open = net.connect(80);
    open.write_all(b"still").expect("the sensor takes bytes");
    agent.wait_all_read();

    change(&net, &[("name", "\"after\""), ("payload_limit_bytes", "4"), ("read_timeout_seconds", "0.2")]);
    // The longest line follows the payload limit.
    reload(&agent, "max_line_bytes, name, payload_limit_bytes, read_timeout_seconds");

    net.client.deliver((SENSOR_V4, 81), b"cut off");
    agent.expect_one(json!({"name": "after", "destination_port": 81, "payload": "cut ", "bytes_in": 7}));
    // Nobody says a word, and only the new idle time is short.
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
fn a_bad_file_changes_nothing_and_is_named_with_its_line() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let log = net.path().join("spip.json");
    let agent = net.agent().set("sandbox", "required").set("name", "kept").log_to(&log).start();
    change(&net, &[("name", "\"never\""), ("port", "0")]);
    fs::rename(&log, net.path().join("moved")).expect("logrotate may");
    agent.signal(Signal::SIGHUP);
    let file = config_file(&net);
    let line =
        fs::read_to_string(&file).expect("readable").lines().position(|line| line == "port = 0").expect("there") + 1;
    let reason = format!("{}:{line}: port = 0: must be a whole number from 1 to 65535", file.display());
    eventually("the log is reopened all the same, and holds the reason", || {
        let text = fs::read_to_string(&log).ok()?;
        let message = text.lines().find(|line| line.contains("everything stays as it was"))?;
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
        (agent.log().messages().filter(|line| line.text.contains("restart the agent")).count() == 2).then_some(())
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
    change(&net, &[("log_file", "\"/var/log/spip-tests-out-of-reach/log.json\"")]);
    agent.signal(Signal::SIGHUP);
    eventually("the reason", || {
        let text = fs::read_to_string(&second).ok()?;
        (text.contains("everything stays as it was") && text.contains("cannot open log_file")).then_some(())
    });
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait().status.success());
}

#[test]
fn messages_go_where_system_log_says_and_levels_hold_by_target() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("system_log", "stderr").set("log_level", "warn, agent=info").spawn();
    eventually("ready on standard error", || agent.stderr().contains("\"message\":\"ready\"").then_some(()));
    net.client.deliver((SENSOR_V4, 80), b"x");
    agent.expect_one(json!({"payload": "x"}));
    let ended = agent.stop();
    assert_eq!(ended.log.messages().count(), 0, "{}", ended.log.text());
    assert!(!ended.stderr.contains("\"target\":\"sandbox\""), "{}", ended.stderr);

    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("own directory");
    let messages = directory.join("messages.json");
    let path = messages.to_str().expect("text");
    let agent = net.agent().set("sandbox", "required").set("system_log", path).spawn();
    let said = |text: &str| fs::read_to_string(&messages).is_ok_and(|messages| messages.contains(text));
    eventually("ready in the file", || said("\"message\":\"ready\"").then_some(()));
    fs::rename(&messages, directory.join("moved")).expect("logrotate may");
    agent.signal(Signal::SIGHUP);
    eventually("the file is opened again", || said("reopened the log").then_some(()));
    net.client.deliver((SENSOR_V4, 81), b"y");
    agent.expect_one(json!({"payload": "y"}));
    let ended = agent.stop();
    assert_eq!((ended.log.messages().count(), ended.stderr.as_str()), (0, ""));
    assert!(said("\"message\":\"stopped\""));
}

#[test]
fn metrics_count_what_was_recorded() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.shell("ip link set lo up");
    let agent = net
        .agent()
        .set("sandbox", "required")
        .set("metrics", METRICS.to_string())
        .set("max_sessions_per_source", 3)
        .set("rejected_interval_seconds", 0.1)
        // Who closes first is then the client.
        .set("respond", "off")
        .start();
    for _ in 0..3 {
        net.client.deliver((SENSOR_V4, 80), b"GET / HTTP/1.1\r\n\r\n");
    }
    net.client.deliver((SENSOR_V4, 81), b"what \"is\"\nthis{le=\"1\"}");
    net.client.deliver((SENSOR_V4, 443), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let records = agent.expect_count(5, json!({}));
    let received: u64 = records.iter().filter_map(|record| record["bytes_in"].as_u64()).sum();
    let held: Vec<_> = (0..3).map(|port| net.connect(90 + port)).collect();
    agent.wait_open(3);
    let refused = net.connect(99);
    agent.expect_one(json!({"close_reason": "rejected"}));

    let answer = page(&net, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("application/openmetrics-text"), "{head}");
    for (series, expected) in [
        ("spip_sessions_total{close_reason=\"client_closed\"}", 5.0),
        ("spip_sessions_total{close_reason=\"aborted\"}", 0.0),
        ("spip_session_protocols_total{protocol=\"http\"}", 3.0),
        ("spip_session_protocols_total{protocol=\"redis\"}", 0.0),
        ("spip_session_destinations_total{destination_source=\"ebpf\"}", 5.0),
        ("spip_session_tls_total{outcome=\"none\"}", 4.0),
        ("spip_session_tls_total{outcome=\"incomplete_hello\"}", 1.0),
        ("spip_rejected_connections_total{limit=\"max_sessions_per_source\"}", 1.0),
        ("spip_sessions_open", 3.0),
        ("spip_received_bytes_total", received as f64),
        ("spip_log_write_failures_total", 0.0),
        ("spip_kernel_events_total{event=\"joined\"}", 9.0),
        ("spip_syns_total{outcome=\"half_open\"}", 0.0),
    ] {
        assert_eq!(value(body, series), expected, "{series} in {body}");
    }
    assert!(value(body, "process_resident_memory_bytes") > 1e6);
    assert!(value(body, "process_open_fds") > 10.0);
    assert!(value(body, "process_cpu_seconds_total") >= 0.0);
    assert!(body.contains("spip_build_info{version=\"") && body.ends_with("# EOF\n"), "{body}");
    assert!(!body.contains("this"), "a client's bytes are in {body}");

    assert!(page(&net, "/healthz").ends_with("\r\n\r\nok\n"));
    assert!(page(&net, "/").starts_with("HTTP/1.1 404"));
    drop((held, refused));
    let _ = agent.stop();
}

#[test]
fn the_responder_bears_with_broken_and_silent_clients() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("ip link set lo up");
    let agent = net.agent().set("metrics", METRICS.to_string()).start();
    let connect = || {
        let stream = net.sensor.enter(|| TcpStream::connect(METRICS).expect("metrics are served"));
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream
    };
    assert!(request(connect(), "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(request(connect(), "\x16\x03\x01 nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(!request(connect(), "HEAD /healthz HTTP/1.0\r\n\r\n").contains("ok\n"));
    let mut flood = connect();
    let _ = flood.write_all(&[b'a'; 100_000]);
    // More than are served at once, none of which says a word: each has its time, then the others have their turn.
    let silent: Vec<_> = (0..20).map(|_| connect()).collect();
    let started = Instant::now();
    assert!(request(connect(), "GET /healthz HTTP/1.1\r\n\r\n").ends_with("ok\n"));
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    drop(silent);
    let _ = agent.stop();
}

#[test]
fn metrics_on_a_unix_socket_replace_one_that_nobody_listens_on() {
    let Some(net) = Net::new() else { return };
    let path = net.path().join("metrics.sock");
    let launch = net.agent().set("metrics", path.to_str().expect("text"));
    for _ in 0..2 {
        let agent = launch.clone().start();
        let answer = request(UnixStream::connect(&path).expect("served"), "GET /healthz HTTP/1.1\r\n\r\n");
        assert!(answer.ends_with("ok\n"), "{answer}");
        let _ = agent.kill();
    }
    let _living = launch.clone().start();
    let ended = launch.set("port", 12_346).run();
    assert!(ended.stderr.contains("something else listens there"), "{}", ended.stderr);
}

#[test]
fn metrics_are_refused_on_an_address_that_others_reach() {
    let Some(net) = Net::new() else { return };
    for address in ["0.0.0.0:9464", "[::]:9464", "198.51.100.1:9464", "localhost:9464", "127.0.0.1:0"] {
        let ended = net.agent().set("metrics", address).run();
        assert_eq!(ended.status.code(), Some(2), "{address}: {}", ended.stderr);
        assert!(ended.stderr.contains("loopback"), "{address}: {}", ended.stderr);
    }
}

#[test]
fn health_tells_that_the_log_cannot_be_written() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.shell("ip link set lo up");
    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("own directory");
    let log = directory.join("spip.json");
    let agent = net.agent().set("sandbox", "off").set("metrics", METRICS.to_string()).log_to(&log).start();
    fs::remove_dir_all(&directory).expect("own directory");
    net.client.deliver((SENSOR_V4, 80), b"waits");
    eventually("the fault shows", || {
        let stream = net.sensor.enter(|| TcpStream::connect(METRICS).expect("metrics are served"));
        request(stream, "GET /healthz HTTP/1.1\r\n\r\n").contains("503").then_some(())
    });
    let page = page(&net, "/metrics");
    assert_eq!((value(&page, "spip_log_faulty"), value(&page, "spip_log_write_failures_total")), (1.0, 1.0));
    let _ = agent.kill();
}

#[test]
fn the_agent_works_under_the_settings_of_its_unit() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let unit = unit();
    let names = setting(&unit, "AmbientCapabilities");
    assert_eq!(names, setting(&unit, "CapabilityBoundingSet"));
    assert_eq!(setting(&unit, "ProtectSystem"), ["strict"]);
    let names: Vec<_> = names.iter().map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let logs = net.path().join("logs");
    fs::create_dir(&logs).expect("own directory");
    std::os::unix::fs::chown(&logs, Some(65_534), Some(65_534)).expect("root");
    let manager = Manager::new(&net);
    fs::set_permissions(&manager.path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("own");
    // A name space of its own, in which the log's directory alone can be written to, and of /proc only what is its own can
    // be seen.
    let inside = format!(
        r#"set -e
        mount --bind {logs} {logs}; mount --bind {notify} {notify}
        mount -t proc -o hidepid=2 proc /proc
        awk '$5 !~ "^(/proc|{logs}|{notify})" {{print $5}}' /proc/self/mountinfo | sort -u | while read -r point; do
            mount -o remount,bind,ro "$point" 2>/dev/null || true
        done
        ! touch /etc/spip-tests-can-write 2>/dev/null
        umask 0027
        NOTIFY_SOCKET={notify} WATCHDOG_USEC=30000000 exec setpriv --no-new-privs "$@""#,
        logs = logs.display(),
        notify = manager.path.display(),
    );
    let script = net.path().join("inside");
    fs::write(&script, inside).expect("own directory");
    let agent = net
        .agent()
        .set("sandbox", "required")
        .set("ebpf", "required")
        .capabilities(&names)
        .within(&format!(r#"exec unshare --mount --propagation private sh {} "$@""#, script.display()))
        .log_to(&logs.join("spip.json"))
        .start();
    manager.wait("READY=1");
    net.client.deliver((SENSOR_V4, 80), b"seen");
    agent.expect_one(json!({"payload": "seen", "destination_port": 80, "destination_source": "ebpf"}));
    agent.wait_message(json!({"message": "eBPF is attached", "syn_observer": true, "sock_ops": true, "scans": true}));
    reload(&agent, "");
    let _ = agent.stop();
}

#[test]
fn systemd_rates_the_unit_two_or_better_and_finds_no_mistake() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: systemd-analyze is not installed (package systemd)");
        return;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd");
    let unit = directory.join("spip-agent.service");
    let rated = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager", "--threshold=20"])
        .arg(&unit)
        .output()
        .expect("it runs");
    // Fails when the exposure is above the threshold, in tenths.
    assert!(rated.status.success(), "{}", String::from_utf8_lossy(&rated.stdout));
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().expect("it runs");
    let said = String::from_utf8_lossy(&verified.stderr);
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.contains("spip-agent") && !line.contains("/usr/bin/spip-agent is not executable"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// A program of Prometheus, or nothing where it is not installed: it is large, and nothing else here needs it.
fn prometheus(program: &str) -> Option<Command> {
    if Command::new(program).arg("--version").output().is_ok() {
        return Some(Command::new(program));
    }
    eprintln!("skipped: {program} is not installed (package prometheus)");
    None
}

fn docs(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(path)
}

#[test]
fn promtool_finds_the_rules_sound_and_their_tests_pass() {
    for arguments in [["check", "rules", "spip-rules.yml"], ["test", "rules", "spip-rules-test.yml"]] {
        let Some(mut promtool) = prometheus("promtool") else { return };
        let output = promtool.args(arguments).current_dir(docs("prometheus")).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

/// The names of metrics in an expression, as far as they are the agent's or the process's.
fn metric_names(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("spip_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn rules_dashboard_manual_and_page_speak_of_the_same_metrics() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("ip link set lo up");
    let messages = net.path().join("messages.json");
    let messages = messages.to_str().expect("text");
    let _agent = net.agent().set("metrics", METRICS.to_string()).set("system_log", messages).spawn();
    eventually("metrics are served", || net.sensor.enter(|| TcpStream::connect(METRICS).ok()));
    let page = page(&net, "/metrics");
    let body = page.split_once("\r\n\r\n").expect("an answer").1;
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let served: Vec<_> = lines.filter_map(|line| line.split(['{', ' ']).next()).collect();
    let rules = fs::read_to_string(docs("prometheus/spip-rules.yml")).expect("there");
    let rules = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    let dashboard = fs::read_to_string(docs("grafana/spip.json")).expect("there");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let mut used: Vec<_> = rules.flat_map(metric_names).collect();
    used.extend(targets.flat_map(|target| metric_names(target["expr"].as_str().expect("text"))));
    assert!(used.len() > 30, "{used:?}");
    for name in used {
        assert!(served.contains(&name.as_str()), "{name} is not served");
    }
    let manual = fs::read_to_string(docs("metrics.md")).expect("there");
    for name in served {
        // Both logs have the same metrics: the manual shows them once.
        let name = name.replace("spip_system_log_", "spip_log_");
        assert!(manual.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
    }
}

#[test]
fn a_prometheus_scrapes_the_agent() {
    let Some(mut prometheus) = prometheus("prometheus") else { return };
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.shell("ip link set lo up");
    let agent = net.agent().set("sandbox", "required").set("metrics", METRICS.to_string()).start();
    for _ in 0..3 {
        net.client.deliver((SENSOR_V4, 80), b"GET / HTTP/1.1\r\n\r\n");
    }
    agent.expect_count(3, json!({}));
    let config = fs::read_to_string(docs("prometheus/prometheus.yml")).expect("there");
    let rules = docs("prometheus/spip-rules.yml");
    let config = config.replace("15s", "200ms").replace("spip-rules.yml", rules.to_str().expect("text"));
    let file = net.path().join("prometheus.yml");
    fs::write(&file, config).expect("own directory");
    prometheus
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", net.path().join("series").display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .stderr(std::process::Stdio::null());
    let mut scraper = net.sensor.enter(|| prometheus.spawn().expect("it starts"));
    let query = "GET /api/v1/query?query=spip_session_protocols_total%7Bprotocol=%22http%22%7D HTTP/1.0\r\n\r\n";
    let answer = eventually("the sample is stored", || {
        let stream = net.sensor.enter(|| TcpStream::connect("127.0.0.1:9090").ok())?;
        let answer = request(stream, query);
        answer.contains("\"value\"").then_some(answer)
    });
    scraper.kill().and_then(|()| scraper.wait()).expect("it is our child");
    assert!(answer.contains("\"protocol\":\"http\"") && answer.contains(",\"3\"]"), "{answer}");
    let _ = agent.stop();
}

#[test]
fn format_and_persona_change_while_it_runs() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let (log, persona) = (net.path().join("spip.json"), net.path().join("persona.toml"));
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
        (has(|line| line["schema"] == "spip/1") && has(|line| line["ecs"]["version"].is_string())).then_some(())
    });
    let _ = agent.kill();
}
