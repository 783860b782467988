//! The pages in a real browser, headless: each loads without an error on its console, what a client sent executes
//! nothing and is there as text, new records appear, and search, pivot and export lead on.
//!
//! Needs Chromium and its driver, which `cargo xtask test` installs and names by environment variables.

#[path = "common/driven.rs"]
mod driven;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use driven::{Place, start};

/// Time that a page may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Payloads of clients that attack the operator's browser. Each would set `window.taken`, or tear the page apart.
const HOSTILE: &[&str] = &[
    "<script>window.taken=1</script>",
    "\"><img src=x onerror=window.taken=1>",
    "'onmouseover='window.taken=1",
    "</title></textarea></pre><svg onload=window.taken=1>",
    "{{constructor.constructor('window.taken=1')()}}${window.taken=1}",
    "javascript:window.taken=1",
    "<!--<script>--><base href=//example.com/>",
    "\u{202e}gnp.exe\u{200b}\u{feff}\u{e0041}",
    "\u{1b}[31mred\u{7}\0",
    "]]><?php echo 1 ?>&lt;b&gt;",
];

/// Returns the program that `variable` names, or says that the test is skipped.
fn peer(variable: &str) -> Option<PathBuf> {
    let program = std::env::var_os(variable);
    if program.is_none() {
        let why = format!("the pages in a browser need {variable}, which `cargo xtask test` sets");
        assert!(std::env::var_os("CI").is_none(), "{why}, and CI must not skip it");
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
    }
    program.map(Into::into)
}

/// A record of now in the flat format, whose texts hold `text`.
fn record(number: u64, text: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let payload = format!("GET /{text} HTTP/1.1\r\nHost: {text}\r\n\r\n");
    let time =
        jiff::Timestamp::from_microsecond(i64::try_from(now.as_micros()).expect("before 294247")).expect("valid");
    let line = json!({
        "timestamp": now.as_secs(), "payload": payload, "payload_hex": hex::encode(&payload),
        "source_ip": format!("198.51.100.{}", 1 + number % 200), "source_port": 40_000, "destination_ip": "192.0.2.1",
        "destination_port": 80, "session_id": format!("00000000-0000-4000-8000-{number:012x}"), "is_tls": false,
        "schema": "spip/1", "name": format!("sensor {text}"), "time": format!("{time:.6}"), "duration_ms": 1, "duration_us": 1_000,
        "first_byte_us": 10, "bytes_in": payload.len(), "bytes_out": 0, "payload_truncated": false,
        "payload_sha256": hex::encode(<sha2::Sha256 as sha2::Digest>::digest(payload.as_bytes())),
        "close_reason": "client_closed", "destination_source": "ebpf", "community_id": "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
        "protocol": "http",
        "http": {"requests": 1, "method": "GET", "target": format!("/{text}"), "version": "1.1", "host": text,
            "user_agent": text, "headers": [["Host", text], ["User-Agent", text]], "body_kept": 0},
        "credentials": [{"user": text, "secret": text}],
        "seq": number,
    });
    format!("{line}\n")
}

/// Asks the driver for what the page wrote to its console.
#[derive(Debug)]
struct Console;

impl WebDriverCompatibleCommand for Console {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(r#"{"type":"browser"}"#.to_owned()))
    }
}

/// Opens a page and looks whether anything in it was executed or complained.
async fn open(client: &Client, address: &str) -> String {
    client.goto(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    let console = client.issue_cmd(Console).await.expect("the console");
    assert_eq!(console, json!([]), "{address}");
    let found = client
        .execute(
            "return [typeof window.taken, document.querySelectorAll('main script, main img, main iframe, base').length, \
             [...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length, \
             document.querySelectorAll('main, header nav, footer').length]",
            vec![],
        )
        .await
        .expect("a script of the test");
    assert_eq!(found, json!(["undefined", 0, 0, 3]), "{address}");
    client.find(Locator::Css("main")).await.expect("a page has one").text().await.expect("text")
}

#[test]
fn every_page_shows_hostile_records_as_text_and_follows_what_arrives() {
    let (Some(chromium), Some(driver)) = (peer("SPIP_CHROMIUM"), peer("SPIP_CHROMEDRIVER")) else { return };
    let place = Place(std::env::temp_dir().join(format!("spip-view-browser-{}", std::process::id())));
    let _ = fs::remove_dir_all(&place.0);
    fs::create_dir_all(place.0.join("log")).expect("a temporary directory");
    let log = place.0.join("log/spip.jsonl");
    let mut text: String = HOSTILE.iter().zip(1..).map(|(text, number)| record(number, text)).collect();
    text.push_str(&record(100, &"x".repeat(60_000)));
    fs::write(&log, text).expect("a writable directory");

    let (_view, address) = start(
        Command::new(env!("CARGO_BIN_EXE_spip-view"))
            .args(["--listen", "127.0.0.1:0", "--log"])
            .arg(&log)
            .arg("--state-dir")
            .arg(place.0.join("state")),
        "the page is at ",
    )
    .expect("the page is served");
    let address = address.trim_end_matches('/').to_owned();
    let (_driver, port) =
        start(Command::new(driver).arg("--port=0"), "started successfully on port ").expect("a driver");
    let port: u16 = port.trim_end_matches('.').parse().expect("a port");
    let options = json!({
        "binary": chromium,
        "args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
            format!("--user-data-dir={}", place.0.join("browser").display())],
    });
    let capabilities = json!({"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
    let Value::Object(capabilities) = capabilities else { unreachable!("it is one") };

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("a session of the browser");
        // The store takes the log within moments of the start.
        let deadline = std::time::Instant::now() + PATIENCE;
        while !open(&client, &format!("{address}/search")).await.contains("11 sessions") {
            assert!(std::time::Instant::now() < deadline, "the records do not arrive");
        }
        let lists = ["/", "/new", "/tags", "/countries", "/networks", "/sources", "/ports", "/payloads", "/clients", "/campaigns", "/credentials", "/scans", "/health"];
        for path in lists {
            let text = open(&client, &format!("{address}{path}")).await;
            assert!(!text.is_empty(), "{path}");
            if matches!(path, "/" | "/new" | "/payloads" | "/clients" | "/credentials") {
                assert!(text.contains("<script>window.taken="), "{path} shows it as text: {text}");
            }
            assert!(!text.contains('\u{202e}') && !text.contains('\u{200b}'), "{path}");
        }
        // Every page of one thing that the lists lead to.
        let lists = [("/search", 6), ("/clients", 6), ("/payloads", 6), ("/networks", 1)];
        for (list, least) in lists {
            open(&client, &format!("{address}{list}")).await;
            let script = "return [...document.querySelectorAll('main td a')].slice(0, 40).map(a => a.href)";
            let found = client.execute(script, vec![]).await.expect("links");
            let found: Vec<String> = serde_json::from_value(found).expect("addresses");
            assert!(found.len() >= least, "{list}: {found:?}");
            for link in found {
                assert!(link.starts_with(&address), "{link} leads away");
                open(&client, &link).await;
            }
        }

        // What is logged appears by itself, and can be paused.
        open(&client, &format!("{address}/")).await;
        let first = format!("arrives-{}", std::process::id());
        append(&log, &record(201, &first));
        wait_for(&client, &format!("return document.getElementById('live').textContent.includes('/{first}')")).await;
        client.find(Locator::Css("#live-pause")).await.expect("a button").click().await.expect("a click");
        append(&log, &record(202, "<b>while paused</b>"));
        wait_for(&client, "return document.getElementById('live-state').textContent.includes('held back')").await;
        let shown = client.execute("return document.getElementById('live').textContent", vec![]).await.expect("text");
        assert!(!shown.as_str().expect("text").contains("while paused"));

        // A query from the bar of a page, completed by its list, then the source and back to search.
        open(&client, &format!("{address}/search")).await;
        let query = client.find(Locator::Css("input[name=q]")).await.expect("the query");
        query.send_keys("sourc").await.expect("keys");
        wait_for(&client, "return !document.getElementById('fields').hidden").await;
        query.send_keys("\u{e015}\u{e007}").await.expect("down and enter");
        query.send_keys("198.51.100.2\u{e007}").await.expect("keys");
        wait_for(&client, "return location.search.includes('source%3A198.51.100.2')").await;
        let text = client.find(Locator::Css("main")).await.expect("a page").text().await.expect("text");
        assert!(text.contains("2 sessions"), "{text}");
        client.find(Locator::Css("main tbody td a.x")).await.expect("the source").click().await.expect("a click");
        wait_for(&client, "return location.pathname === '/sources/198.51.100.2'").await;

        // A mistake is shown with its place, and executes nothing either.
        let text = open_refused(&client, &format!("{address}/search?q=nofield%3A%3Cscript%3E")).await;
        assert!(text.contains("This cannot be shown") && text.contains('^'), "{text}");

        // Exports and the data of a page.
        open(&client, &format!("{address}/search")).await;
        let fetched = client
            .execute_async(
                "const done = arguments[0]; Promise.all([...document.querySelectorAll('main a[href*=export]')]\
                 .map(a => fetch(a.href).then(r => r.text().then(t => [r.headers.get('content-disposition'), t.split('\\n').length]))))\
                 .then(done)",
                vec![],
            )
            .await
            .expect("exports");
        let exports: Vec<(String, usize)> = serde_json::from_value(fetched).expect("two of them");
        assert_eq!(exports.len(), 2);
        assert!(exports.iter().all(|(disposition, lines)| disposition.starts_with("attachment") && *lines >= 13), "{exports:?}");
        client.close().await.expect("the browser ends");
    });
}

fn append(log: &PathBuf, line: &str) {
    let mut file: File = OpenOptions::new().append(true).open(log).expect("the log");
    file.write_all(line.as_bytes()).expect("a writable log");
}

/// Waits until `script` returns true.
async fn wait_for(client: &Client, script: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while client.execute(script, vec![]).await.unwrap_or_default() != json!(true) {
        assert!(std::time::Instant::now() < deadline, "waited in vain: {script}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Opens a page that is refused: the console names its status, and nothing else.
async fn open_refused(client: &Client, address: &str) -> String {
    client.goto(address).await.expect("a page in any case");
    let console = client.issue_cmd(Console).await.expect("the console");
    for entry in console.as_array().expect("a list") {
        assert!(entry["message"].as_str().is_some_and(|text| text.contains("400")), "{entry}");
    }
    assert_eq!(client.execute("return typeof window.taken", vec![]).await.expect("a script"), json!("undefined"));
    client.find(Locator::Css("main")).await.expect("a page has one").text().await.expect("text")
}
