//! The formats of the log, end to end: what a running agent writes in each, what `convert` makes of it, and the examples of
//! the documentation over a real log.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spip_tests::{CLIENT_V4, Line, Net, RawSyn, SENSOR_V4, SENSOR_V6, eventually, payload, program, read_log, schema};

/// Address space in which a file is converted whose lines have 30 MB: the program itself, a line that is read, and what
/// is made of it.
const LIMIT_KB: u32 = 200_000;

/// Records of sessions that [`visited`] leaves: those of eight clients, and one for those that were refused.
const SESSIONS: usize = 9;

/// Records that it leaves: a scan is among them.
const RECORDS: usize = SESSIONS + 1;

/// Clients of many kinds, seven of them over IPv4.
fn visit(net: &Net) {
    for (port, bytes) in [
        (80, &b"GET /a?b=c HTTP/1.1\r\nHost: h:80\r\nUser-Agent: curl/8\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\n\r\n"[..]),
        (22, b"SSH-2.0-Go\r\n"),
        (6379, b"*1\r\n$4\r\nPING\r\n"),
        (21, b"USER anonymous\r\nPASS x@\r\nSYST\r\n"),
        (4444, b"\x00\xff\x7f\x1b[31m\xe2\x80\xae\xc2\x9b\n"),
        (9, b""),
    ] {
        net.client.deliver((SENSOR_V4, port), bytes);
    }
    net.client.deliver((SENSOR_V6, 8080), b"over six");
    let curl = format!(
        "curl -sk --max-time 5 --connect-to ::{SENSOR_V4}: https://www.example.org:8443/x -o /dev/null || true"
    );
    net.client.shell(&curl);
}

/// The log of a visited agent, as a file: clients, a scan of three ports, and three connections that were refused.
fn visited(net: &Net, format: &str) -> PathBuf {
    net.redirect();
    let path = net.path().join(format!("{format}.json"));
    let agent = net
        .agent()
        .set("log_format", format)
        .set("name", "sensor-7")
        .set("ebpf", "required")
        .set("rate_limit_per_second", 0.001)
        .set("rate_limit_burst", 7)
        .set("rejected_interval_seconds", 3600)
        .set("scan_interval_seconds", 3600)
        .log_to(&path)
        .start();
    visit(net);
    eventually("every client is recorded", || (agent.log().sessions().count() == SESSIONS - 1).then_some(()));
    net.client.send_syns([23, 24, 2323].map(|port| RawSyn::new((CLIENT_V4, 40_000), (SENSOR_V4, port))));
    let refused = net.client.connect_all((1..=3).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    agent.wait_all_read();
    drop(refused);
    let _ended = agent.stop();
    path
}

#[test]
fn every_format_is_logged_whole_numbered_and_valid() {
    let Some(_) = Net::new() else { return };
    for (format, seq) in [("flat", "/seq"), ("ecs", "/event/sequence"), ("eve", "/spip/seq")] {
        let net = Net::new().expect("as before");
        let log = read_log(&visited(&net, format));
        log.expect_whole();
        // The harness has done this when the agent ended; here it must have something to do.
        schema::expect_valid(&log);
        assert_eq!(log.sessions().count(), SESSIONS, "{format}");
        let numbers: Vec<_> = log.records().map(|line| line.value.pointer(seq).and_then(Value::as_u64)).collect();
        assert_eq!(numbers, (1..=RECORDS as u64).map(Some).collect::<Vec<_>>(), "{format}");
        for line in &log.lines {
            assert!(!line.text.contains(spip_record::json::is_hidden), "{format}: {:?}", line.text);
        }
        assert!(log.messages().count() > 1, "{format} has system messages");
    }
}

#[test]
fn a_message_has_the_envelope_of_its_format() {
    let Some(net) = Net::new() else { return };
    for (format, keys) in [
        ("ecs", ["/@timestamp", "/ecs/version", "/log/level", "/message"]),
        ("eve", ["/timestamp", "/event_type", "/log_level", "/engine/message"]),
    ] {
        let log = net.agent().set("log_format", format).start().stop().log;
        for line in log.messages() {
            for key in keys {
                assert!(line.value.pointer(key).is_some_and(Value::is_string), "{format} lacks {key}: {}", line.text);
            }
            assert_eq!(line.value["spip"]["record_type"], "log");
        }
    }
}

#[test]
fn a_line_is_never_longer_than_its_bound() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    for format in ["flat", "ecs", "eve"] {
        let agent = net.agent().set("log_format", format).set("max_line_bytes", 65_536).start();
        let bytes = [1; 60_000];
        net.client.deliver((SENSOR_V4, 7000), &bytes);
        net.client.deliver((SENSOR_V4, 7001), b"short");
        let log = agent.stop().log;
        assert!(log.lines.iter().all(|line| line.text.len() < 65_536), "{format}");
        let own = |line: &Line| if format == "flat" { line.value.clone() } else { line.value["spip"].clone() };
        let records: Vec<_> = log.sessions().map(own).collect();
        let long = records.iter().find(|own| own["payload_truncated"] == true).expect("the long one");
        assert_eq!(long["shortened"], json!(["payload", "payload_hex"]));
        let kept = payload(long);
        assert!(kept.len() > 25_000 && bytes.starts_with(&kept), "{} bytes are kept", kept.len());
        let short = records.iter().find(|own| own["payload"] == "short").expect("the short one");
        assert!(short.get("shortened").is_none());
    }
}

fn convert(arguments: &[&str], directory: &Path, stdin: Option<&[u8]>) -> Output {
    let mut child = Command::new(program())
        .arg("convert")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the agent's program starts");
    let mut pipe = child.stdin.take().expect("piped");
    let bytes = stdin.unwrap_or_default().to_vec();
    let writer = std::thread::spawn(move || drop(pipe.write_all(&bytes)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer does not panic");
    output
}

fn valid(output: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(output).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn a_log_becomes_valid_in_the_formats_of_others() {
    let Some(net) = Net::new() else { return };
    let path = visited(&net, "flat");
    let directory = path.parent().expect("a directory");
    let flat: Vec<Value> = read_log(&path).records().map(|line| line.value.clone()).collect();
    for (to, id) in [("ecs", "/event/id"), ("eve", "/spip/session_id")] {
        let output = convert(&["--from", "flat", "--to", to, "flat.json"], directory, None);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let records = valid(&output.stdout);
        assert_eq!(records.len(), RECORDS);
        for (record, flat) in records.iter().zip(&flat) {
            assert_eq!(schema::violations(record), Vec::<String>::new());
            assert_eq!(record.pointer(id), flat.get("session_id"));
        }
    }
    let whole = fs::read(&path).expect("readable");
    for arguments in [&["--to", "zeek"][..], &["--to", "zeek", "--output", "-", "-"]] {
        let output = convert(arguments, directory, Some(&whole));
        assert!(output.status.success());
        assert_eq!(valid(&output.stdout).len(), SESSIONS, "Zeek has no line for a scan");
    }
    assert!(!directory.join("-").exists());

    // Compressed by name on both sides, with the system's own tools as judges.
    net.sensor.shell(&format!("cd {} && gzip -k flat.json", directory.display()));
    let output = convert(&["--to", "eve", "-o", "eve.json.gz", "flat.json.gz", "flat.json"], directory, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = net.sensor.shell(&format!("cd {} && zcat eve.json.gz | wc -l", directory.display()));
    assert_eq!(lines.trim(), (2 * RECORDS).to_string());
}

#[test]
fn bad_lines_are_named_and_the_status_tells() {
    let Some(net) = Net::new() else { return };
    let directory = net.path();
    fs::write(directory.join("bad.json"), "{\"record_type\":\"log\"}\nno json\n{\"timestamp\":1}\n{\"payload")
        .expect("ours");
    let output = convert(&["--to", "ecs", "bad.json", "missing.json"], directory, None);
    assert_eq!(output.status.code(), Some(1));
    let complaints = String::from_utf8_lossy(&output.stderr);
    for place in ["bad.json:2: ", "bad.json:3: ", "bad.json:4: ", "missing.json: cannot be read"] {
        assert!(complaints.contains(place), "{place} is not in {complaints}");
    }
    assert!(!complaints.contains("bad.json:1:"), "{complaints}");
    assert_eq!(output.stdout, b"");
    assert_eq!(convert(&["--to", "csv"], directory, None).status.code(), Some(2));
}

#[test]
fn a_hostile_file_takes_little_memory() {
    let Some(net) = Net::new() else { return };
    let directory = net.path();
    // Lines of 30 MB: one that ends nowhere, one of deep nesting, one of escapes, and lists of many small values in every
    // place that has a list.
    let many = |item: &str, bytes: usize| format!("[{}{item}]", format!("{item},").repeat(bytes / (item.len() + 1)));
    let small = |key: &str, item: &str| format!("{{\"{key}\":{}}}", many(item, 30 << 20));
    let pairs = many("[\"\",\"\"]", 15 << 20);
    let lines = [
        "x".repeat(30 << 20),
        format!("{{\"redis\":{}", "[".repeat(30 << 20)),
        format!("{{\"payload\":\"{}\"}}", "\\u0001".repeat(5 << 20)),
        small("redis", "0"),
        small("syn", "0"),
        small("credentials", "{}"),
        small("shortened", "\"\""),
        small("responses", "\"\""),
        small("turns", r#"{"from":"client","offset":0,"length":0,"ms":0}"#),
        small("tls_supported_protocols", "\"\""),
        format!("{{\"http\":{{\"headers\":{pairs},\"pipelined\":{pairs}}}}}"),
        format!("{{\"record_type\":\"scan\",\"destination_ports\":{}}}", many("\"1\"", 30 << 20)),
        format!("{{\"record_type\":\"scan\",\"tools\":{}}}", many("{\"tool\":\"\",\"count\":0}", 30 << 20)),
    ];
    fs::write(directory.join("hostile.json"), lines.join("\n")).expect("ours");
    let script = format!(
        "cd {} && (ulimit -v {LIMIT_KB}; {} convert --to eve hostile.json >/dev/null 2>err; echo $?; cat err)",
        directory.display(),
        program().display()
    );
    let output = net.sensor.shell(&script);
    assert!(output.starts_with("1\n"), "{output}");
    assert_eq!(output.lines().filter(|line| line.contains("; left out")).count(), lines.len(), "{output}");
}

#[test]
fn progress_is_shown_on_a_terminal_and_on_nothing_else() {
    let Some(net) = Net::new() else { return };
    let directory = net.path();
    let line = fs::read_to_string(visited(&net, "flat")).expect("readable");
    let line = line.lines().find(|line| line.contains("over six")).expect("a record").to_owned() + "\n";
    let lines = line.repeat(256);
    fs::write(directory.join("some.json"), &lines).expect("ours");
    let quiet = convert(&["--to", "eve", "some.json"], directory, None);
    assert_eq!((String::from_utf8_lossy(&quiet.stderr).as_ref(), quiet.status.code()), ("", Some(0)));

    // Python's module makes a terminal for standard error, and its own standard output what is written to that.
    let program = format!(
        "import os, pty, sys\npty.spawn(['sh', '-c', 'exec {} convert --to eve {}/pipe > {}/eve.json'])",
        program().display(),
        directory.display(),
        directory.display()
    );
    nix::unistd::mkfifo(&directory.join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("ours");
    let mut terminal = Command::new("python3")
        .args(["-c", &program])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut shown = terminal.stdout.take().expect("piped");
    let (saw, seen) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let (mut text, mut part) = (String::new(), [0; 4096]);
        while let Ok(count @ 1..) = shown.read(&mut part) {
            text.push_str(&String::from_utf8_lossy(&part[..count]));
            if text.contains(" MB, ") {
                let _ = saw.send(());
            }
        }
        text
    });
    let mut pipe = fs::OpenOptions::new().write(true).open(directory.join("pipe")).expect("somebody reads it");
    let mut count = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.try_recv().is_err() && Instant::now() < deadline {
        pipe.write_all(lines.as_bytes()).expect("it is read");
        count += 256;
    }
    drop(pipe);
    assert!(terminal.wait().expect("it ends").success());
    let text = reader.join().expect("the reader does not panic");
    let first = text.trim_start_matches("\r\u{1b}[K").split('\r').next().unwrap_or_default();
    assert!(first.ends_with(" records, 0 bad lines"), "{text:?}");
    assert!(
        text.ends_with(&format!(
            "\r\u{1b}[K{count} records converted; 0 messages and scans, 0 lines and 0 files left out\r\n"
        )),
        "{text:?}"
    );
    let written = fs::read_to_string(directory.join("eve.json")).expect("it was written");
    assert_eq!(written.lines().count(), count);
}

/// The blocks of a language below a heading of the page.
fn examples(heading: &str, language: &str) -> Vec<String> {
    let page = include_str!("../../docs/queries.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let fence = format!("```{language}\n");
    section.split(&fence).skip(1).filter_map(|block| Some(block.split_once("```")?.0.to_owned())).collect()
}

/// Runs a Python program with packages of these versions from the registry, in an environment of its own below the build
/// directory; `None`, with a reason on the terminal, where they cannot be had.
///
/// # Panics
/// In CI, where they must be had.
fn python(packages: &[(&str, &str)], program: &str, directory: &Path) -> Option<Output> {
    let own = std::env::current_exe().expect("Linux knows the path of a program");
    let tools = own.ancestors().nth(3).expect("cargo's directories are that deep").join("tools");
    let names: Vec<_> = packages.iter().map(|(name, _)| *name).collect();
    let environment = tools.join(format!("python-{}", names[0]));
    let python = environment.join("bin/python");
    let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let check = format!("from importlib.metadata import version\nassert all(version(n) == v for n, v in {packages:?})");
    let has_them = || succeeds(Command::new(&python).args(["-c", &check]));
    if !has_them() {
        let exact: Vec<_> = packages.iter().map(|(name, version)| format!("{name}=={version}")).collect();
        let install = ["-m", "pip", "install", "-q", "--timeout", "20", "--retries", "1"];
        let made = succeeds(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            && succeeds(Command::new(&python).args(install).args(&exact));
        if !made || !has_them() {
            let command = format!("python3 -m venv; pip install {}", exact.join(" "));
            assert!(std::env::var_os("CI").is_none(), "CI must not skip what needs: {command}");
            let line = format!("skipped: {} cannot be installed ({command})\n", names.join(" "));
            let _ = std::io::stderr().write_all(line.as_bytes());
            return None;
        }
    }
    Some(Command::new(&python).args(["-c", program]).current_dir(directory).output().expect("Python starts"))
}

fn succeeded(output: &Output, what: &str) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what} failed: {out}{err}");
    out.into_owned()
}

#[test]
fn the_examples_for_jq_work_on_a_real_log() {
    let Some(net) = Net::new() else { return };
    let log = fs::read_to_string(visited(&net, "flat")).expect("readable");
    let answer = |example: &str, log: &str| {
        fs::write(net.path().join("spip.json"), log).expect("ours");
        let output = Command::new("bash").args(["-euo", "pipefail", "-c", example]).current_dir(net.path()).output();
        succeeded(&output.expect("bash starts"), example)
    };
    let examples = examples("jq", "sh");
    assert!(examples.len() > 5);
    for example in &examples {
        assert!(!answer(example, &log).trim().is_empty(), "{example}");
    }
    let named = |part: &str| examples.iter().find(|example| example.contains(part)).expect("an example");
    assert_eq!(answer(named("rejected"), &log), "{\"rate_limit\":3}\n");

    // Two runs in one file are complete, and a record that is missing in either is counted.
    let is_complete = named("missing");
    let records: Vec<&str> = log.lines().filter(|line| line.contains("\"seq\":")).collect();
    assert!(records.iter().any(|line| line.contains("\"record_type\":\"scan\"")));
    let of = |records: usize, missing: usize| format!("{{\"records\":{records},\"missing\":{missing}}}\n");
    assert_eq!(answer(is_complete, &log), of(RECORDS, 0));
    assert_eq!(answer(is_complete, &log.repeat(2)), of(2 * RECORDS, 0));
    let torn = [&records[..2], &records[4..], &records[1..]].concat().join("\n");
    assert_eq!(answer(is_complete, &torn), of(2 * RECORDS - 3, 3));
}

/// Payload that attacks the reader: a formula, and characters that a terminal obeys or that are invisible.
const HOSTILE: &str =
    "=cmd|'/C calc'!A0\t\u{1b}]0;x\u{7}\u{7f}\u{9b}31m\u{202e}\u{200b}\u{feff}\u{e0041}\u{3164}\u{fe0f}é";

/// A log in which every text that a client has chosen is replaced by that, as a parser gives it back: nothing is escaped
/// but what JSON demands.
fn hostile(log: &str) -> String {
    fn replace(value: &mut Value) {
        match value {
            Value::String(text) => HOSTILE.clone_into(text),
            Value::Array(values) => values.iter_mut().for_each(replace),
            Value::Object(members) => members.values_mut().for_each(replace),
            _ => {}
        }
    }
    let lines = log.lines().map(|line| {
        let mut record: Value = serde_json::from_str(line).expect("JSON");
        for key in ["payload", "http", "credentials", "tls_server_name", "tls_ja4", "ssh_client", "redis"] {
            record.get_mut(key).into_iter().for_each(replace);
        }
        record.to_string() + "\n"
    });
    lines.collect()
}

#[test]
fn every_documented_answer_is_safe_for_a_terminal_and_a_spreadsheet() {
    let Some(net) = Net::new() else { return };
    let log = hostile(&fs::read_to_string(visited(&net, "flat")).expect("readable"));
    assert!(log.contains(HOSTILE.split('\t').next().expect("a formula")));
    fs::write(net.path().join("spip.json"), log).expect("ours");
    for example in examples("jq", "sh") {
        let output = Command::new("bash").args(["-euo", "pipefail", "-c", &example]).current_dir(net.path()).output();
        let answer = succeeded(&output.expect("bash starts"), &example);
        assert!(!answer.is_empty(), "{example}");
        for line in answer.lines() {
            assert!(!line.contains(spip_record::json::is_hidden), "{example}{line:?}");
            // A cell that a program takes apart at tabs, commas or semicolons, with its quotes or without.
            let cells = line.split(['\t', ',', ';']).map(|cell| cell.trim_start_matches(['"', ' ']));
            let is_table = example.contains("@csv") || example.contains("@tsv");
            let formula = cells.clone().find(|cell| is_table && cell.starts_with(['=', '+', '-', '@']));
            assert_eq!(formula, None, "{example}{line:?}");
            assert!(!line.starts_with(['=', '+', '-', '@']), "{example}{line:?}");
        }
    }
    let sheet = fs::read_to_string(net.path().join("spip.csv")).expect("written");
    assert!(sheet.contains("\"'=cmd|"), "{sheet}");
    assert!(!sheet.contains("\"=") && !sheet.contains(|c| c != '\n' && spip_record::json::is_hidden(c)), "{sheet}");

    let program = format!(
        "import duckdb\nfor block in {:?}:\n  for statement in duckdb.extract_statements(block):\n    answer = duckdb.sql(statement.query)\n    for row in answer.fetchall() if answer is not None else []:\n      for cell in row:\n        if isinstance(cell, str):\n          print(cell)\n",
        examples("DuckDB", "sql")
    );
    let Some(output) = python(&[("duckdb", "2.0.1"), ("pytz", "2026.6")], &program, net.path()) else { return };
    let answer = succeeded(&output, "DuckDB");
    assert!(answer.contains("=cmd|"), "{answer}");
    let shown = |c: char| c == '\n' || !spip_record::json::is_hidden(c);
    assert!(answer.chars().all(shown), "{answer:?}");
}

#[test]
fn every_documented_jq_command_over_a_log_escapes_what_it_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages: Vec<_> =
        fs::read_dir(root.join("docs")).expect("pages").map(|page| page.expect("a page").path()).collect();
    pages.push(root.join("README.md"));
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    let mut found = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("text");
        // Each command with what is before it on its line and what follows, to the end of its block or of its span.
        for (at, _) in text.match_indices("jq -") {
            let before = text[..at].rsplit('\n').next().unwrap_or_default();
            let command = text[at..].split("```").next().unwrap_or_default();
            let command = if before.contains('`') { command.split('`').next().unwrap_or_default() } else { command };
            // Maps of the kernel hold numbers.
            if before.contains("bpftool") {
                continue;
            }
            found += 1;
            let options = command["jq -".len()..].split(' ').next().unwrap_or_default();
            let to_file = command.contains(" > spip.csv") || command.contains("| xxd -r -p > payload.bin");
            let is_safe = options.contains('a') && !options.contains('r');
            assert!(is_safe || to_file, "{}: jq -{command}", page.display());
        }
    }
    assert!(found > 10, "{found} commands");
}

#[test]
fn the_examples_for_duckdb_work_on_a_real_log() {
    let Some(net) = Net::new() else { return };
    fs::copy(visited(&net, "flat"), net.path().join("spip.json")).expect("ours");
    let program = format!(
        "import duckdb\nfor block in {:?}:\n  for statement in duckdb.extract_statements(block):\n    answer = duckdb.sql(statement.query)\n    if answer is not None:\n      rows = answer.fetchall()\n      assert rows or statement.type != duckdb.StatementType.SELECT, statement.query\n      print(len(rows))\nprint(duckdb.sql('select count(*) from spip').fetchall()[0][0], duckdb.sql(\"select count(*) from 'spip.parquet'\").fetchall()[0][0])\n",
        examples("DuckDB", "sql")
    );
    let Some(output) = python(&[("duckdb", "2.0.1"), ("pytz", "2026.6")], &program, net.path()) else { return };
    let answer = succeeded(&output, "DuckDB");
    assert!(answer.ends_with(&format!("{SESSIONS} {SESSIONS}\n")), "{answer}");
}

#[test]
fn the_examples_for_clickhouse_work_on_a_real_log() {
    let Some(net) = Net::new() else { return };
    fs::copy(visited(&net, "flat"), net.path().join("spip.json")).expect("ours");
    let program = format!(
        "from chdb import session\ns = session.Session()\ns.query('CREATE DATABASE d ENGINE = Atomic; USE d')\nfor block in {:?}:\n  for statement in filter(str.strip, block.split(';')):\n    s.query(statement)\nprint(s.query('SELECT count() FROM spip', 'CSV'))\n",
        examples("ClickHouse", "sql")
    );
    let Some(output) = python(&[("chdb", "4.4.0"), ("chdb-core", "26.9.0")], &program, net.path()) else { return };
    assert_eq!(succeeded(&output, "ClickHouse").trim(), SESSIONS.to_string());
}
