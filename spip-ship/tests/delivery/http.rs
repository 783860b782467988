//! Into HTTP servers: NDJSON, the bulk API, ClickHouse.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Place, Process, append, assert_each_once, count, follow, once, once_within, peer, records, run, wait_for,
};
use crate::web::{Request, Web};

/// Seconds without progress after which a delivery has failed. These servers refuse on schedule, which takes half a minute of
/// pauses where nothing else goes wrong, and more on a busy machine.
const SLOW: u32 = 600;

fn sink(kind: &str, url: &str, more: &str) -> String {
    format!("[[sink]]\nkind = {kind:?}\nurl = {url:?}\nbatch_bytes = 16384\nbatch_milliseconds = 100\n{more}")
}

#[test]
fn ndjson_is_posted_with_a_key_by_which_a_repeated_request_is_recognised() {
    let place = Place::new();
    append(&place.log(), &records("s", "r", 1..201));
    append(&place.log(), "{\"name\":\"s\",\"poison\":true,\"run\":\"r\",\"seq\":201}\n");
    append(&place.log(), &records("s", "r", 202..301));
    // Stores by key, is cut after every third request, too busy at every fifth, and chokes on one line.
    let stored: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let (keys, mut number) = (Arc::clone(&stored), 0);
    let server = Web::start(move |request| {
        number += 1;
        if request.body.contains("poison") {
            return (422, "poison".to_owned());
        }
        if number % 5 == 0 {
            return (503, "busy".to_owned());
        }
        let key = request.header("Idempotency-Key").expect("a key").to_owned();
        keys.lock().expect("no panic").insert(key, request.body.clone());
        if number % 3 == 0 { (0, String::new()) } else { (200, String::new()) }
    });
    let secret = place.path("token");
    fs::write(&secret, "s3cret\n").expect("a file");
    let config = place.configure(&sink("http", &server.url, &format!("token_file = {secret:?}\n")));
    once_within(&config, SLOW);
    let mut counts = BTreeMap::new();
    for body in stored.lock().expect("no panic").values() {
        count(body, &mut counts);
    }
    counts.insert(("s".to_owned(), "r".to_owned(), 201), 1);
    assert_each_once(&counts, "r", 1..301);
    let quarantine = fs::read_to_string(place.path("state/http.quarantine.jsonl")).expect("a quarantine");
    assert!(quarantine.lines().count() == 1 && quarantine.contains("poison") && quarantine.contains("422"));
    let (_, text) = run(&config, &["status"]);
    assert!(text.contains("shipped 299 lines, 1 in quarantine"), "{text}");
    assert!(server.requests().iter().all(|request| request.header("Authorization") == Some("Bearer s3cret")));
}

#[test]
fn a_shipper_that_is_killed_sends_the_batch_that_was_under_way_with_the_same_key() {
    let place = Place::new();
    let stored: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let keys = Arc::clone(&stored);
    let server = Web::start(move |request| {
        let key = request.header("Idempotency-Key").expect("a key").to_owned();
        let before = keys.lock().expect("no panic").insert(key, request.body.clone());
        assert!(before.is_none_or(|before| before == request.body), "one key for two bodies");
        thread::sleep(Duration::from_millis(7));
        (200, String::new())
    });
    let config = place.configure(&sink("http", &server.url, ""));
    for round in 0..12 {
        append(&place.log(), &records("s", "r", 1 + round * 100..101 + round * 100));
        let mut shipper = follow(&config);
        thread::sleep(Duration::from_millis(60 + 23 * (round % 5)));
        shipper.kill();
    }
    once(&config);
    let mut counts = BTreeMap::new();
    for body in stored.lock().expect("no panic").values() {
        count(body, &mut counts);
    }
    assert_each_once(&counts, "r", 1..1201);
}

#[test]
fn a_server_that_refuses_everything_blocks_and_quarantines_nothing() {
    let place = Place::new();
    append(&place.log(), &records("s", "r", 1..301));
    let server = Web::start(|_| (400, "no such path".to_owned()));
    let config = place.configure(&sink("http", &server.url, ""));
    let (succeeded, text) = run(&config, &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.contains("refuses every line") && text.contains("no such path"), "{text}");
    assert!(!place.path("state/http.quarantine.jsonl").exists());
    let redirecting = Web::start(|_| (302, String::new()));
    let config = place.configure(&sink("http", &redirecting.url, ""));
    let (succeeded, text) = run(&config, &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.contains("redirects are not followed"), "{text}");
}

/// Answers each request with `head`, and then with `piece` without end. Returns the server's URL.
fn endless(head: &'static str, piece: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let _ = client.read(&mut [0; 64 * 1024]);
            let _ = client.write_all(head.as_bytes());
            while client.write_all(piece.as_bytes()).is_ok() {}
        }
    });
    url
}

#[test]
fn answers_without_end_are_given_up_and_nothing_is_dropped() {
    let place = Place::new();
    append(&place.log(), &records("s", "r", 1..11));
    let header = format!("X-More: {}\r\n", "a".repeat(1_000));
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (url, refusal) in [
        (endless("HTTP/1.1 200 OK\r\n", header), "header is too big"),
        (endless(chunked, chunk), "larger than request limit"),
        (endless("", "HTTP/1.1 100 Continue\r\n\r\n".to_owned()), "too big"),
    ] {
        let config = place.configure(&sink("http", &url, ""));
        let (succeeded, text) = run(&config, &["--once", "--timeout", "1"]);
        assert!(!succeeded && text.contains(refusal), "{refusal}: {text}");
    }
    let (_, text) = run(&place.configure(&sink("http", "http://127.0.0.1:1", "")), &["status"]);
    assert!(text.contains("shipped 0 lines, 0 in quarantine"), "{text}");
}

/// The bulk API as its documentation has it: strict about what it is given.
pub(crate) struct Elastic {
    pub(crate) documents: BTreeMap<String, Value>,
    pub(crate) number: u32,
}

impl Elastic {
    pub(crate) fn answer(&mut self, request: &Request) -> (u16, String) {
        self.number += 1;
        assert_eq!(request.path, "/logs-spip-default/_bulk");
        assert_eq!(request.header("Content-Type"), Some("application/x-ndjson"));
        assert!(request.body.ends_with('\n'), "the body ends with a line feed");
        if request.body.len() > 20_000 {
            return (413, "too large".to_owned());
        }
        if self.number.is_multiple_of(4) {
            return (0, String::new());
        }
        let mut lines = request.body.lines();
        let mut items = Vec::new();
        while let Some(action) = lines.next() {
            let action: Value = serde_json::from_str(action).expect("an action");
            let id = action["create"]["_id"].as_str().expect("an id").to_owned();
            let document: Value = serde_json::from_str(lines.next().expect("a document")).expect("JSON");
            assert!(document["@timestamp"].is_string(), "a data stream needs @timestamp");
            let is_busy = self.number % 7 == 3 && items.len() % 5 == 0;
            let status = if self.documents.contains_key(&id) {
                409
            } else if is_busy {
                429
            } else if document["source"]["ip"] == "198.51.100.77" {
                400
            } else {
                201
            };
            if status == 201 {
                self.documents.insert(id.clone(), document);
            }
            let mut item = json!({ "_index": "logs-spip-default", "_id": id, "status": status });
            if status > 299 {
                item["error"] = json!({ "type": "document_parsing_exception", "reason": "made by the test" });
            }
            items.push(json!({ "create": item }));
        }
        let errors = items.iter().any(|item| item["create"]["status"].as_u64() > Some(299));
        (200, json!({ "took": 1, "errors": errors, "items": items }).to_string())
    }
}

#[test]
fn documents_are_created_once_refused_ones_are_kept_and_busy_ones_sent_again() {
    let place = Place::new();
    append(
        &place.log(),
        "{\"timestamp\":1,\"level\":\"INFO\",\"message\":\"ready\",\"target\":\"spip\",\"record_type\":\"log\"}\n",
    );
    append(&place.log(), &records("s", "r", 1..401));
    let elastic = Arc::new(Mutex::new(Elastic { documents: BTreeMap::new(), number: 0 }));
    let answering = Arc::clone(&elastic);
    let server = Web::start(move |request| answering.lock().expect("no panic").answer(request));
    let config = place.configure(&sink("elasticsearch", &server.url, "").replace("16384", "65536"));
    once_within(&config, SLOW);
    let elastic = elastic.lock().expect("no panic");
    // 77 and 327 have the address that is refused.
    let numbers: BTreeSet<_> =
        elastic.documents.values().filter_map(|document| document["event"]["sequence"].as_u64()).collect();
    let expected: BTreeSet<_> = (1..401).filter(|seq| seq % 250 != 77).collect();
    assert_eq!(numbers, expected);
    assert_eq!(elastic.documents.len(), 399, "and the system message");
    let quarantine = fs::read_to_string(place.path("state/elasticsearch.quarantine.jsonl")).expect("a quarantine");
    assert_eq!(quarantine.lines().count(), 2, "{quarantine}");
    let (_, text) = run(&config, &["status"]);
    assert!(text.contains("shipped 399 lines, 2 in quarantine"), "{text}");
}

pub(crate) struct Clickhouse {
    port: u16,
    _process: Process,
}

impl Clickhouse {
    pub(crate) fn start(python: &std::path::Path, place: &Place) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/delivery/clickhouse_server.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(place.path("clickhouse"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a port");
        Self { port: line.trim().parse().expect("a port"), _process: Process(child) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn ask(&self, query: &str) -> Vec<Value> {
        let mut answer = ureq::post(&format!("{}/", self.url())).send(query).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[test]
fn clickhouse_has_each_record_once_whatever_was_killed() {
    let Some(python) = peer("SPIP_CHDB_PYTHON") else { return };
    let place = Place::new();
    let server = Clickhouse::start(&python, &place);
    let config = place.configure(&sink("clickhouse", &server.url(), ""));
    append(&place.log(), "{\"timestamp\":1,\"level\":\"INFO\",\"message\":\"ready\",\"record_type\":\"log\"}\n");
    for round in 0..10 {
        append(&place.log(), &records("s", "r", 1 + round * 100..101 + round * 100));
        let mut shipper = follow(&config);
        thread::sleep(Duration::from_millis(80 + 61 * (round % 5)));
        shipper.kill();
    }
    once(&config);
    // Without FINAL: repeated inserts were discarded when they came.
    let rows = server.ask("SELECT count() AS n, uniqExact(name, run, seq) AS u, max(seq) AS m FROM spip_records WHERE record_type = 'session'");
    assert_eq!(
        (rows[0]["n"].as_u64(), rows[0]["u"].as_u64(), rows[0]["m"].as_u64()),
        (Some(1000), Some(1000), Some(1000))
    );
    let (whole, text) = run(&config, &["verify"]);
    assert!(whole, "{text}");
    server.ask("ALTER TABLE spip_records DELETE WHERE seq IN (5, 6, 900) SETTINGS mutations_sync = 1");
    let (whole, text) = run(&config, &["verify"]);
    assert!(!whole && text.contains("missing 5 to 6") && text.contains("missing 900 to 900"), "{text}");
    let (sent, text) = run(&config, &["replay", "--since", "2026-01-01T00:00:00Z"]);
    assert!(sent && text.contains("sent 3 records again"), "{text}");
    assert!(run(&config, &["verify"]).0);
    let rows = server.ask("SELECT record, source_ip, source_port FROM spip_records WHERE seq = 7");
    assert_eq!(rows[0]["record"].as_str().expect("text"), records("s", "r", 7..8).trim_end());
    assert_eq!(
        (rows[0]["source_ip"].as_str(), rows[0]["source_port"].as_u64()),
        (Some("::ffff:198.51.100.7"), Some(40000))
    );
    let rows = server.ask("SELECT count() AS n FROM spip_records WHERE record_type = 'log'");
    assert_eq!(rows[0]["n"].as_u64(), Some(1));
}

#[test]
fn clickhouse_is_verified_beside_a_running_shipper() {
    let Some(python) = peer("SPIP_CHDB_PYTHON") else { return };
    let place = Place::new();
    let server = Clickhouse::start(&python, &place);
    let config = place.configure(&sink("clickhouse", &server.url(), ""));
    append(&place.log(), &records("s", "r", 1..301));
    let mut shipper = follow(&config);
    let state = place.path("state/clickhouse.state");
    for last in [300, 400, 500] {
        let has_all = || fs::read_to_string(&state).ok()?.contains(&format!("\"shipped\":{last},")).then_some(());
        wait_for("the server acknowledged everything", has_all);
        // The shipper keeps its connection.
        let (whole, text) = run(&config, &["verify"]);
        assert!(whole && text.contains("everything is there, once"), "{text}");
        append(&place.log(), &records("s", "r", last + 1..last + 101));
    }
    assert!(shipper.terminate().success());
}

#[test]
fn every_panel_of_the_dashboard_is_a_query_that_the_table_answers() {
    let Some(python) = peer("SPIP_CHDB_PYTHON") else { return };
    let place = Place::new();
    let server = Clickhouse::start(&python, &place);
    append(&place.log(), "{\"timestamp\":1,\"level\":\"WARN\",\"message\":\"disk full\",\"record_type\":\"log\"}\n");
    append(&place.log(), &records("s", "r", 1..11));
    append(&place.log(), &records("s", "r", 13..21));
    once(&place.configure(&sink("clickhouse", &server.url(), "")));
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/grafana/clickhouse.json")).expect("a file");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() >= 10);
    for panel in panels {
        let query = panel["targets"][0]["rawSql"].as_str().expect("a query");
        let query = query
            .replace("$__timeFilter(time)", "1")
            .replace("$__timeInterval(time)", "toStartOfMinute(time)")
            .replace("${sensor:sqlstring}", "'s'");
        assert!(!query.contains('$'), "a macro is left: {query}");
        let rows = server.ask(&format!("{query} FORMAT JSONEachRow"));
        let title = panel["title"].as_str().expect("a title");
        let has_rows = !["Payloads seen by several sensors", "TLS fingerprints"].contains(&title);
        assert_eq!(rows.is_empty(), !has_rows, "{title}: {rows:?}");
        if title.starts_with("Gaps") {
            assert_eq!(rows[0]["missing"].to_string().trim_matches('"'), "2", "{rows:?}");
        }
    }
}

#[test]
fn a_table_that_keeps_repeated_inserts_is_refused_and_one_of_an_earlier_version_completed() {
    let Some(python) = peer("SPIP_CHDB_PYTHON") else { return };
    let place = Place::new();
    let server = Clickhouse::start(&python, &place);
    let config = place.configure(&sink("clickhouse", &server.url(), ""));
    append(&place.log(), &records("s", "r", 1..11));
    once(&config);
    server.ask("ALTER TABLE spip_records MODIFY SETTING non_replicated_deduplication_window = 0");
    append(&place.log(), &records("s", "r", 11..21));
    let (succeeded, text) = run(&config, &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.contains("MODIFY SETTING non_replicated_deduplication_window"), "{text}");
    server.ask("ALTER TABLE spip_records MODIFY SETTING non_replicated_deduplication_window = 100");
    server.ask("ALTER TABLE spip_records DROP COLUMN ssh_hassh");
    let text = once(&config);
    assert!(text.contains("added the column ssh_hassh"), "{text}");
    wait_for("the rows are there", || {
        (server.ask("SELECT count() AS n FROM spip_records")[0]["n"].as_u64() == Some(20)).then_some(())
    });
}
