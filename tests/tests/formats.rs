//! The formats of the log, end to end: what a running agent writes in each, what `convert` makes of it, and the examples of
//! the documentation over a real log.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use spip_tests::{Line, Log, Net, SENSOR_V4, SENSOR_V6, eventually, payload, program, read_log, schema};

/// Clients of many kinds, and how many connections they make.
fn visit(net: &Net) -> usize {
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
    8
}

/// The log of a visited agent, as a file.
fn visited(net: &Net, format: &str) -> (PathBuf, usize) {
    net.redirect();
    let path = net.path().join(format!("{format}.json"));
    let agent = net.agent().set("log_format", format).set("name", "sensor-7").log_to(&path).start();
    let count = visit(net);
    eventually("every connection is recorded", || (agent.log().sessions().count() >= count).then_some(()));
    let _ended = agent.stop();
    (path, count)
}

fn raw(log: &Log) -> Vec<&Line> {
    log.sessions().collect()
}

#[test]
fn every_format_is_logged_whole_numbered_and_valid() {
    let Some(_) = Net::new() else { return };
    for (format, seq) in [("flat", "/seq"), ("ecs", "/event/sequence"), ("eve", "/spip/seq")] {
        let net = Net::new().expect("as before");
        let (path, count) = visited(&net, format);
        let log = read_log(&path);
        log.expect_whole();
        // The harness has done this when the agent ended; here it must have something to do.
        schema::expect_valid(&log);
        let records = raw(&log);
        assert_eq!(records.len(), count, "{format}");
        let numbers: Vec<_> = records.iter().map(|line| line.value.pointer(seq).and_then(Value::as_u64)).collect();
        assert_eq!(numbers, (1..=count as u64).map(Some).collect::<Vec<_>>(), "{format}");
        for line in &log.lines {
            let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}');
            assert!(!line.text.contains(hidden), "{format}: {:?}", line.text);
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
    let (path, count) = visited(&net, "flat");
    let directory = path.parent().expect("a directory");
    let flat: Vec<Value> = raw(&read_log(&path)).into_iter().map(|line| line.value.clone()).collect();
    for (to, id) in [("ecs", "/event/id"), ("eve", "/spip/session_id")] {
        let output = convert(&["--from", "flat", "--to", to, "flat.json"], directory, None);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let records = valid(&output.stdout);
        assert_eq!(records.len(), count);
        for (record, flat) in records.iter().zip(&flat) {
            assert_eq!(schema::violations(record), Vec::<String>::new());
            assert_eq!(record.pointer(id), flat.get("session_id"));
        }
    }
    let output = convert(&["--to", "zeek"], directory, Some(&fs::read(&path).expect("readable")));
    assert!(output.status.success());
    assert_eq!(valid(&output.stdout).len(), count);

    // Compressed by name on both sides, with the system's own tools as judges.
    net.sensor.shell(&format!("cd {} && gzip -k flat.json", directory.display()));
    let output = convert(&["--to", "eve", "-o", "eve.json.gz", "flat.json.gz", "flat.json"], directory, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = net.sensor.shell(&format!("cd {} && zcat eve.json.gz | wc -l", directory.display()));
    assert_eq!(lines.trim(), (2 * count).to_string());
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
    // Lines of 30 MB: one that ends nowhere, one of many small values, one of deep nesting, one of escapes.
    let lines = [
        "x".repeat(30 << 20),
        format!("{{\"redis\":[{}0]}}", "0,".repeat(15 << 20)),
        format!("{{\"redis\":{}", "[".repeat(30 << 20)),
        format!("{{\"payload\":\"{}\"}}", "\\u0001".repeat(5 << 20)),
        format!("{{\"credentials\":[{}{{}}]}}", "{},".repeat(9 << 20)),
    ];
    fs::write(directory.join("hostile.json"), lines.join("\n")).expect("ours");
    let script = format!(
        "cd {} && (ulimit -v 1000000; {} convert --to eve hostile.json >/dev/null 2>err; echo $?; cat err)",
        directory.display(),
        program().display()
    );
    let output = net.sensor.shell(&script);
    assert!(output.starts_with("1\n"), "{output}");
    assert_eq!(output.lines().filter(|line| line.contains("; left out")).count(), lines.len(), "{output}");
}

/// The blocks of a language below a heading of the page.
fn examples(heading: &str, language: &str) -> Vec<String> {
    let page = include_str!("../../docs/queries.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let fence = format!("```{language}\n");
    section.split(&fence).skip(1).filter_map(|block| Some(block.split_once("```")?.0.to_owned())).collect()
}

/// Runs a Python program with packages from the registry, in an environment of its own below the build directory; `None`,
/// with a reason on the terminal, where they cannot be had.
fn python(packages: &[&str], program: &str, directory: &Path) -> Option<Output> {
    let own = std::env::current_exe().expect("Linux knows the path of a program");
    let tools = own.ancestors().nth(3).expect("cargo's directories are that deep").join("tools");
    let environment = tools.join(format!("python-{}", packages.join("-")));
    let python = environment.join("bin/python");
    let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let has_them = || succeeds(Command::new(&python).args(["-c", &format!("import {}", packages.join(", "))]));
    if !has_them() {
        let install = ["-m", "pip", "install", "-q", "--timeout", "20", "--retries", "1"];
        let made = succeeds(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            && succeeds(Command::new(&python).args(install).args(packages));
        if !made || !has_them() {
            let names = packages.join(" ");
            let line = format!("skipped: {names} cannot be installed (python3 -m venv; pip install {names})\n");
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
    let (path, _) = visited(&net, "flat");
    fs::copy(&path, net.path().join("spip.json")).expect("ours");
    let examples = examples("jq", "sh");
    assert!(examples.len() > 5);
    for example in examples {
        let output = Command::new("bash").args(["-euo", "pipefail", "-c", &example]).current_dir(net.path()).output();
        let answer = succeeded(&output.expect("bash starts"), &example);
        // Nobody was refused in this log; all other questions have an answer.
        assert_eq!(answer.trim().is_empty(), example.contains("rejected"), "{example}\n{answer}");
        if example.contains("missing:") {
            assert!(answer.contains("\"missing\": 0"), "{answer}");
        }
    }
}

#[test]
fn the_examples_for_duckdb_work_on_a_real_log() {
    let Some(net) = Net::new() else { return };
    let (path, count) = visited(&net, "flat");
    fs::copy(&path, net.path().join("spip.json")).expect("ours");
    let program = format!(
        "import duckdb\nfor block in {:?}:\n  for statement in duckdb.extract_statements(block):\n    answer = duckdb.sql(statement.query)\n    if answer is not None:\n      rows = answer.fetchall()\n      assert rows or statement.type != duckdb.StatementType.SELECT, statement.query\n      print(len(rows))\nprint(duckdb.sql('select count(*) from spip').fetchall()[0][0], duckdb.sql(\"select count(*) from 'spip.parquet'\").fetchall()[0][0])\n",
        examples("DuckDB", "sql")
    );
    let Some(output) = python(&["duckdb", "pytz"], &program, net.path()) else { return };
    let answer = succeeded(&output, "DuckDB");
    assert!(answer.ends_with(&format!("{count} {count}\n")), "{answer}");
}

#[test]
fn the_examples_for_clickhouse_work_on_a_real_log() {
    let Some(net) = Net::new() else { return };
    let (path, count) = visited(&net, "flat");
    fs::copy(&path, net.path().join("spip.json")).expect("ours");
    let program = format!(
        "from chdb import session\ns = session.Session()\ns.query('CREATE DATABASE d ENGINE = Atomic; USE d')\nfor block in {:?}:\n  for statement in filter(str.strip, block.split(';')):\n    s.query(statement)\nprint(s.query('SELECT count() FROM spip', 'CSV'))\n",
        examples("ClickHouse", "sql")
    );
    let Some(output) = python(&["chdb"], &program, net.path()) else { return };
    assert_eq!(succeeded(&output, "ClickHouse").trim(), count.to_string());
}
