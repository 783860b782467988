//! Metrics and health: what is counted, who is answered, and that rules, dashboard and manual speak of what is served.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use spip_tests::{Net, PATIENCE, SENSOR_V4, eventually, require_program};

use crate::StuckWorker;

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
        .set("payload_dir", net.path().join("payloads").to_str().expect("text"))
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
        ("spip_payloads_total{outcome=\"lost\"}", 0.0),
        ("spip_rejected_connections_total{limit=\"descriptors\"}", 0.0),
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
fn the_agents_own_metrics_are_left_alone_where_loopback_is_steered() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("ip link set lo up");
    let agent = net
        .agent()
        .set("steering", "sk_lookup")
        .set("ebpf", "required")
        .set("steer_loopback", true)
        .set("metrics", METRICS.to_string())
        .start();
    assert!(page(&net, "/metrics").contains("spip_"), "the metrics answer themselves");
    let beside = SocketAddr::new(METRICS.ip(), METRICS.port() + 1);
    net.sensor.deliver(beside, b"beside them");
    agent.expect_one(json!({"payload": "beside them", "destination_port": beside.port()}));
    assert_eq!(agent.stop().log.connections(json!({})), 1, "and none of theirs is a session");
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
    assert!(path.exists(), "who is killed leaves it");
    let living = launch.clone().start();
    let ended = launch.set("port", 12_346).run();
    assert!(ended.stderr.contains("something else listens there"), "{}", ended.stderr);
    assert!(path.exists(), "it is not the other's to remove");
    assert!(living.stop().status.success());
    assert!(!path.exists(), "who ends removes it");
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
fn health_tells_of_a_write_that_does_not_return_and_of_its_end() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.shell("ip link set lo up");
    let pipe = net.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("own directory");
    // A process that has opened the pipe, and does not read.
    let mut reader = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).expect("own");
    let agent = net
        .agent()
        .set("metrics", METRICS.to_string())
        .set("system_log", "stderr")
        .within(&format!(r#"exec "$@" >{}"#, pipe.display()))
        .spawn();
    eventually("ready on standard error", || agent.stderr().contains("\"message\":\"ready\"").then_some(()));
    // Each record is longer than what the pipe holds.
    for port in 80..84 {
        net.client.deliver((SENSOR_V4, port), &[b'x'; 60_000]);
    }
    let health = || {
        let stream = net.sensor.enter(|| TcpStream::connect(METRICS).expect("metrics are served"));
        request(stream, "GET /healthz HTTP/1.1\r\n\r\n")
    };
    let ill = eventually("it shows", || Some(health()).filter(|answer| answer.contains("503")));
    assert!(ill.contains("the log cannot be written: lines have waited for 1"), "{ill}");
    let page = page(&net, "/metrics");
    assert_eq!((value(&page, "spip_log_faulty"), value(&page, "spip_log_write_failures_total")), (1.0, 0.0));
    eventually("it is said", || agent.stderr().contains("a write to the log has not returned for 1").then_some(()));

    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty());
    nix::fcntl::fcntl(&reader, flags).expect("an open pipe");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    eventually("it is well again", || health().ends_with("ok\n").then_some(()));
    eventually("so it says", || agent.stderr().contains("the log is written again").then_some(()));
    let _ = agent.stop();
    let text = reading.join().expect("the reader").expect("the pipe");
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let ports: Vec<_> = records.map(|record| record["destination_port"].as_u64()).collect();
    assert_eq!(ports.len(), 4, "{ports:?}");
}

#[test]
fn health_tells_of_a_worker_that_is_stuck() {
    let Some(net) = Net::new() else { return };
    net.sensor.shell("ip link set lo up");
    let agent = net.agent().set("metrics", METRICS.to_string()).start();
    let stuck = StuckWorker::of(&agent);
    let ill = eventually("it shows", || Some(page(&net, "/healthz")).filter(|answer| answer.contains("503")));
    assert!(ill.contains("a worker has not answered for 1"), "{ill}");
    stuck.let_go();
    eventually("it is well again", || page(&net, "/healthz").ends_with("ok\n").then_some(()));
    let _ = agent.stop();
}

/// The series of a page, without their values.
fn series(page: &str) -> BTreeSet<String> {
    let body = page.split_once("\r\n\r\n").expect("an answer").1;
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[test]
fn strangers_make_no_series_whatever_they_send() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.shell("ip link set lo up");
    let agent = net
        .agent()
        .set("metrics", METRICS.to_string())
        .set("max_sessions_per_source", 50)
        .set("rejected_interval_seconds", 0.1)
        .set("first_byte_timeout_seconds", 0.5)
        .start();
    let before = series(&page(&net, "/metrics"));
    assert!(before.len() > 100, "{before:?}");
    let hello = |name: &str| {
        // A record of a ClientHello with nothing behind its server name, and one that is cut in the middle of it.
        let name = [&[0, 0, 0, 0][..], name.as_bytes()].concat();
        [&[0x16, 3, 1, 0, u8::try_from(name.len() + 4).expect("short"), 1, 0, 0, name.len() as u8][..], &name].concat()
    };
    let mut inputs: Vec<Vec<u8>> = vec![
        b"GET /\"}\n{x=\"1\"} HTTP/1.1\r\nHost: a\"b\\c\r\nUser-Agent: spip_sessions_total{a=\"b\"} 1\r\n\r\n".to_vec(),
        b"SSH-2.0-one\"two\r\n".to_vec(),
        b"USER root\r\nPASS \"}\r\n".to_vec(),
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00".to_vec(),
        vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10],
        vec![0x16, 3, 1, 0xff, 0xff, 1],
        vec![0; 3_000],
    ];
    inputs.extend((0..20_u32).map(|number| hello(&format!("name-{number}.example"))));
    // Every first byte with something behind it that no protocol has.
    inputs.extend((0..=255_u8).map(|first| [first, !first, first ^ 0x55, b'\n'].repeat(8)));
    for (port, input) in (1_000..).zip(&inputs) {
        net.client.deliver((SENSOR_V4, port), input);
    }
    // More at once than one source may have, none of which says a word.
    let crowd: Vec<_> = (0..60).map(|_| net.connect(7)).collect();
    eventually("all are counted", || {
        let page = page(&net, "/metrics");
        let of = |name: &str| -> f64 {
            let lines = page.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        let ended = of("spip_sessions_total{");
        (ended >= inputs.len() as f64 + 50.0 && of("spip_rejected_connections_total{") >= 10.0).then_some(())
    });
    drop(crowd);
    let after = series(&page(&net, "/metrics"));
    assert_eq!(after, before, "new: {:?}", after.difference(&before).collect::<Vec<_>>());
    let _ = agent.stop();
}

/// A program of Prometheus, or nothing where it is not installed: it is large, and nothing else here needs it.
fn prometheus(program: &str) -> Option<Command> {
    require_program(program, "prometheus").then(|| Command::new(program))
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
