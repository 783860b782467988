//! The program as it is started: follows a log that is written, rotated and compressed while it is killed again and again,
//! and counts every record once.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A directory that vanishes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spip-view-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program; killed when the value goes.
struct View {
    child: Child,
    address: String,
}

impl View {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spip-view"))
            .args(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).expect("an address").trim().trim_end_matches('/').to_owned();
        Self { child, address }
    }

    fn get(&self, path: &str) -> serde_json::Value {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    fn sessions(&self) -> u64 {
        self.get("/api/v1/search?range=all&limit=1")["total"]["value"].as_u64().unwrap()
    }

    fn wait_for(&self, sessions: u64) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.sessions() != sessions {
            assert!(
                Instant::now() < until,
                "{} of {sessions} sessions; {}",
                self.sessions(),
                self.get("/api/v1/health")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SIGKILL: nothing can be tidied up.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of sessions `from..to`, over two days, five sources and ten ports.
fn lines(from: u64, to: u64, run: Option<&str>) -> String {
    let mut out = String::new();
    for seq in from..to {
        let second = 1_767_225_600 + seq * 60;
        let (day, rest) = ((second - 1_767_225_600) / 86_400, second % 86_400);
        let time = format!("2026-01-{:02}T{:02}:{:02}:{:02}.000000Z", day + 1, rest / 3600, rest / 60 % 60, rest % 60);
        let run = run.map_or_else(String::new, |run| format!("\"run\":\"{run}\","));
        writeln!(
            out,
            "{{\"timestamp\":{second},\"payload\":\"hi {seq}\",\"payload_hex\":\"{}\",\"source_ip\":\"198.51.100.{}\",\"source_port\":40000,\
             \"destination_ip\":\"192.0.2.1\",\"destination_port\":{},\"session_id\":\"8c5f2c9e-1122-4344-8556-{seq:012x}\",\"is_tls\":false,\
             \"schema\":\"spip/1\",\"name\":\"test\",{run}\"time\":\"{time}\",\"duration_ms\":1,\"duration_us\":1000,\"bytes_in\":5,\"bytes_out\":0,\
             \"payload_truncated\":false,\"payload_sha256\":\"{seq:064x}\",\"close_reason\":\"client_closed\",\"destination_source\":\"ebpf\",\
             \"community_id\":\"1:LQU9qZlK+B5F3KDmev6m5PMibrg=\",\"protocol\":\"unknown\",\"seq\":{seq}}}",
            hex(format!("hi {seq}").as_bytes()),
            seq % 5,
            seq % 10 + 1,
        )
        .unwrap();
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn report(arguments: &[&str]) -> serde_json::Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_spip-view")).arg("report").args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_report_looks_at_the_store_that_a_running_page_writes() {
    let scratch = Scratch::new("beside");
    let (log, state) = (scratch.0.join("spip.json"), scratch.0.join("state"));
    append(&log, &lines(1, 11, Some("r")));
    let (log, state) = (log.to_str().unwrap(), state.to_str().unwrap());
    let view = View::start(&["--log", log, "--state-dir", state]);
    view.wait_for(10);
    // As the daily report does: the page's configuration, and its store.
    assert_eq!(report(&["--log", log, "--state-dir", state, "--day", "2026-01-01"])["sessions"], 10);
    append(Path::new(log), &lines(11, 13, Some("r")));
    view.wait_for(12);
}

#[test]
fn killed_again_and_again_it_counts_every_record_once() {
    // Without a run nothing recognises a record that comes twice: positions alone have to be right.
    let scratch = Scratch::new("kill");
    let (log, state) = (scratch.0.join("spip.json"), scratch.0.join("state"));
    let arguments = ["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let mut written = 1;
    append(&log, &lines(1, 2, None));
    for round in 0..8_u64 {
        let view = View::start(&arguments);
        for _ in 0..4 {
            append(&log, &lines(written + 1, written + 60, None));
            written += 59;
            std::thread::sleep(Duration::from_millis(20 + round * 13));
        }
        if round == 3 {
            std::fs::rename(&log, scratch.0.join("spip.json.20260102T000000.000001Z")).unwrap();
            append(&log, &lines(written + 1, written + 2, None));
            written += 1;
        }
        drop(view);
    }
    let view = View::start(&arguments);
    view.wait_for(written);
    drop(view);
    let report = report(&["--state-dir", state.to_str().unwrap()]);
    assert_eq!(report["sessions"], written);
    assert_eq!(report["connections"], written);
    assert_eq!(report["payloads"], written);
    assert_eq!((&report["sources"], &report["ports"]), (&5.into(), &10.into()));
    assert_eq!(report["gaps"], 0);
}

#[test]
fn a_record_is_seen_as_soon_as_it_is_logged() {
    let scratch = Scratch::new("prompt");
    let (log, state) = (scratch.0.join("spip.json"), scratch.0.join("state"));
    append(&log, "");
    let view = View::start(&["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap()]);
    view.wait_for(0);
    append(&log, &lines(1, 2, Some("a")));
    view.wait_for(1);
    let id = view.get("/api/v1/search?range=all")["sessions"][0]["id"].as_str().unwrap().to_owned();
    let session = view.get(&format!("/api/v1/sessions/{id}"));
    assert_eq!(session["payload_text"], "hi 1");
    assert_eq!(session["record"].as_str().unwrap(), lines(1, 2, Some("a")).trim_end());
}

#[test]
fn the_report_of_a_log_tells_gaps_duplicates_and_lines_that_are_none() {
    let scratch = Scratch::new("report");
    let log = scratch.0.join("spip.json");
    append(&log, &lines(1, 10, Some("a")));
    append(
        &log,
        "no record\n{\"timestamp\":1,\"level\":\"warn\",\"message\":\"m\",\"target\":\"t\",\"record_type\":\"log\"}\n",
    );
    append(&log, &lines(13, 15, Some("a")));
    append(&log, &lines(5, 8, Some("a")));
    append(&log, &lines(2, 3, Some("b")));
    let report = report(&["--log", log.to_str().unwrap()]);
    // 10 to 12 of run a, and 1 of run b are missing; 5 to 7 came twice.
    assert_eq!(report["sessions"], 9 + 2 + 1);
    assert_eq!(report["gaps"], 3 + 1);
}

#[test]
fn a_damaged_store_is_moved_aside_and_built_again_from_the_log() {
    let scratch = Scratch::new("damaged");
    let (log, state) = (scratch.0.join("spip.json"), scratch.0.join("state"));
    let arguments = ["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    append(&log, &lines(1, 50, None));
    let view = View::start(&arguments);
    view.wait_for(49);
    drop(view);
    std::fs::write(state.join("catalog.sqlite"), vec![0x55; 100_000]).unwrap();
    let _ = std::fs::remove_file(state.join("catalog.sqlite-wal"));
    let view = View::start(&arguments);
    view.wait_for(49);
    let health = view.get("/api/v1/health");
    assert!(health["events"][0]["text"].as_str().unwrap().contains("built again"), "{health}");
    assert!(state.join("catalog.sqlite.damaged").exists());
}

#[test]
fn records_that_are_not_kept_are_found_in_the_log_also_after_it_was_rotated_and_compressed() {
    let scratch = Scratch::new("place");
    let (log, state) = (scratch.0.join("spip.json"), scratch.0.join("state"));
    let arguments = ["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap(), "--records", "log"];
    append(&log, &lines(1, 200, Some("a")));
    let view = View::start(&arguments);
    view.wait_for(199);
    append(&log, &lines(200, 400, Some("a")));
    view.wait_for(399);
    let record = |view: &View, seq: u64| {
        let found = view.get(&format!("/api/v1/search?range=all&q=payload:%22hi%20{seq}%22"));
        let id = found["sessions"][0]["id"].as_str().unwrap();
        let page = view.get(&format!("/api/v1/sessions/{id}"));
        page["record"].as_str().is_some_and(|record| record.contains(&format!("\"seq\":{seq}}}")))
    };
    for seq in [1, 150, 199, 200, 399] {
        assert!(record(&view, seq), "{seq}");
    }
    let rotated = scratch.0.join("spip.json.20260102T000000.000001Z");
    std::fs::rename(&log, &rotated).unwrap();
    append(&log, &lines(400, 410, Some("a")));
    view.wait_for(409);
    let text = std::fs::read(&rotated).unwrap();
    let compressed = scratch.0.join("spip.json.20260102T000000.000001Z.zst");
    std::fs::write(&compressed, zstd::encode_all(&text[..], 3).unwrap()).unwrap();
    std::fs::remove_file(&rotated).unwrap();
    for seq in [1, 199, 399, 405] {
        assert!(record(&view, seq), "{seq} after rotation");
    }
    // Gone for good: that is said, and no other record is shown in its place.
    std::fs::remove_file(&compressed).unwrap();
    let id = view.get("/api/v1/search?range=all&limit=1&q=port:2")["sessions"][0]["id"].as_str().unwrap().to_owned();
    let page = view.get(&format!("/api/v1/sessions/{id}"));
    assert!(page["record"].is_null() && page["missing"].as_str().is_some_and(|why| !why.is_empty()), "{page}");
}

/// Rules, lists and data on addresses of an operator.
fn enrichment(directory: &Path) {
    for name in ["geo", "scanners", "rules"] {
        std::fs::create_dir_all(directory.join(name)).unwrap();
    }
    std::fs::write(directory.join("geo/asn.csv"), "128.0.0.0,128.0.0.255,64500,Example Net\n").unwrap();
    std::fs::write(directory.join("geo/country.csv"), "128.0.0.0,128.0.0.255,SE\n").unwrap();
    std::fs::write(directory.join("scanners/survey.txt"), "# kind: research\n128.0.0.1\n").unwrap();
    let rule = "alert tcp any any -> any any (msg:\"Greeting with 7\"; content:\"hi \"; content:\"7\"; \
                reference:cve,2026-0007; classtype:attempted-admin; sid:1000007; rev:1;)\n";
    std::fs::write(directory.join("rules/own.rules"), rule).unwrap();
}

/// Lines of sources that are looked up: addresses of documentation belong to nobody.
fn public(from: u64, to: u64) -> String {
    lines(from, to, Some("a")).replace("198.51.100.", "128.0.0.")
}

#[test]
fn data_and_rules_are_looked_up_when_records_arrive_and_again_by_retag() {
    let scratch = Scratch::new("enrich");
    let (log, state, data) = (scratch.0.join("spip.json"), scratch.0.join("state"), scratch.0.join("data"));
    let with = |name: &str| data.join(name).to_str().unwrap().to_owned();
    append(&log, &public(1, 101));
    let plain = ["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let view = View::start(&plain);
    view.wait_for(100);
    let countries = view.get("/api/v1/countries?range=all");
    assert_eq!((&countries["has_data"], &countries["unknown"]), (&false.into(), &100.into()));
    drop(view);

    enrichment(&data);
    let named = ["--geo", &with("geo"), "--scanners", &with("scanners"), "--rules", &with("rules")];
    let output = Command::new(env!("CARGO_BIN_EXE_spip-view"))
        .args(["retag", "--state-dir", state.to_str().unwrap()])
        .args(named)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("2026-01-01: 100 sessions, day 1 of 1"));

    // What came before is tagged by that, what comes now when it comes: both count alike.
    append(&log, &public(101, 201));
    let arguments: Vec<&str> = plain.iter().copied().chain(named).collect();
    let view = View::start(&arguments);
    view.wait_for(200);
    let total = |query: &str| {
        view.get(&format!("/api/v1/search?range=all&limit=1&q={query}"))["total"]["value"].as_u64().unwrap()
    };
    let sevens = (1..201_u64).filter(|seq| seq.to_string().contains('7')).count() as u64;
    for query in ["tag:1000007", "tag~greeting", "cve:CVE-2026-0007", "cve:cve-2026-0007", "greeting"] {
        assert_eq!(total(query), sevens, "{query}");
    }
    for query in ["country:SE", "country:se", "asn:64500", "asn:AS64500", "network~example"] {
        assert_eq!(total(query), 200, "{query}");
    }
    assert_eq!(total("scanner:survey"), 40);
    let tags = view.get("/api/v1/tags?range=all");
    assert_eq!(tags["tags"][0]["connections"], sevens);
    assert_eq!(tags["tags"][0]["cve"][0], "CVE-2026-0007");
    assert_eq!(tags["cves"]["items"][0]["count"], sevens);
    assert_eq!(view.get("/api/v1/countries?range=all")["countries"][0]["count"], 200);
    let networks = view.get("/api/v1/networks?range=all");
    assert_eq!(networks["networks"]["items"][0]["label"], "AS64500 Example Net");
    assert_eq!(networks["scanners"]["items"][0]["count"], 40);

    // One switch leaves the scanner out of every number.
    assert_eq!(view.get("/api/v1/search?range=all&without=listed")["total"]["value"], 160);
    assert_eq!(view.get("/api/v1/sources?range=all&without=listed")["total"]["value"], 4);
    let left = view.get("/api/v1/tags?range=all&without=listed")["tags"][0]["connections"].as_u64().unwrap();
    let listed = (1..201_u64).filter(|seq| seq.to_string().contains('7') && seq % 5 == 1).count() as u64;
    assert_eq!(left, sevens - listed);

    // New shows tags first.
    assert_eq!(view.get("/api/v1/new?range=all")["sections"][0]["kind"], "tag");
    drop(view);
    let report = report(&["--state-dir", state.to_str().unwrap()]);
    assert_eq!(report["top"]["tags"][0]["count"], sevens);
    assert_eq!(report["top"]["countries"][0]["value"], "SE");
}
