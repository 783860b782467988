//! Payloads in files of their own, as an operator finds them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use spip_tests::{Net, SENSOR_V4, eventually, payload};

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|number| (number % 250) as u8 ^ seed).collect()
}

#[test]
fn a_long_payload_is_kept_once_and_its_record_has_hash_and_preview() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let directory = net.path().join("payloads");
    let agent = net
        .agent()
        .set("payload_dir", directory.to_str().expect("text"))
        .set("payload_store_min_bytes", 1_000)
        .set("payload_preview_bytes", 10)
        .start();
    let (long, short) = (bytes(1, 5_000), bytes(2, 999));
    for port in [5000, 5001, 5002] {
        net.client.deliver((SENSOR_V4, port), &long);
    }
    net.client.deliver((SENSOR_V4, 5003), &short);

    let hash = hex::encode(Sha256::digest(&long));
    let records = agent.expect_count(3, json!({"payload_stored": true, "payload_sha256": hash, "bytes_in": 5_000}));
    for record in records {
        assert_eq!(payload(&record), long[..10], "{record}");
        assert_eq!(record["payload_truncated"], false, "nothing was lost: {record}");
    }
    let record = agent.expect_one(json!({"destination_port": 5003}));
    assert_eq!((payload(&record), &record["payload_stored"]), (short, &Value::Null));
    let ended = agent.stop();
    assert_eq!(names(&directory), [hash.as_str()]);
    let path = directory.join(&hash);
    assert_eq!(fs::read(&path).expect("a file"), long);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o640);
    assert!(ended.log.messages().any(|line| line.value["stored"] == 1), "the end says what was stored");
}

#[test]
fn the_facts_of_a_stored_payload_are_those_of_all_of_it() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let directory = net.path().join("payloads");
    let agent = net
        .agent()
        .set("payload_dir", directory.to_str().expect("text"))
        .set("payload_store_min_bytes", 10)
        .set("payload_preview_bytes", 0)
        .start();
    net.client.deliver((SENSOR_V4, 80), b"GET /stored HTTP/1.1\r\nHost: h\r\nUser-Agent: probe\r\n\r\n");
    agent.expect_one(json!({
        "payload": "", "payload_hex": "", "payload_stored": true, "protocol": "http",
        "http": {"target": "/stored", "user_agent": "probe"},
    }));
}

#[test]
fn the_budget_is_kept_over_a_restart_and_the_oldest_go() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let directory = net.path().join("payloads");
    let launch = net
        .agent()
        .set("payload_dir", directory.to_str().expect("text"))
        .set("payload_store_min_bytes", 1)
        // Room on the disk counts: five of four blocks each fit, six do not.
        .set("payload_store_max_bytes", 90_000);
    for round in 0..2 {
        let agent = launch.clone().start();
        for number in 0..8 {
            net.client.deliver((SENSOR_V4, 6000), &bytes(round * 8 + number, 16_000));
        }
        agent.expect_count(8, json!({"payload_stored": true}));
        let _ = agent.stop();
        let newest = (round * 8 + 3..round * 8 + 8).map(|number| hex::encode(Sha256::digest(bytes(number, 16_000))));
        let mut newest: Vec<_> = newest.collect();
        newest.sort();
        let mut there = names(&directory);
        there.sort();
        assert_eq!(there, newest, "five fit, and the oldest go");
    }
}

#[test]
fn a_full_disk_costs_the_files_and_no_record() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let disk = net.small_disk(16 * 1024);
    let directory = disk.join("payloads");
    let agent =
        net.agent().set("payload_dir", directory.to_str().expect("text")).set("payload_store_min_bytes", 1).start();
    for number in 0..20 {
        net.client.deliver((SENSOR_V4, 7000 + u16::from(number)), &bytes(number, 4_000));
    }
    agent.wait_message(json!({"level": "warn", "target": "payloads"}));
    agent.expect_count(20, json!({"bytes_in": 4_000}));
    let log = agent.stop().log;
    assert_eq!(
        log.messages()
            .filter(|line| line.value["message"].as_str().is_some_and(|text| text.starts_with("cannot store payloads")))
            .count(),
        1
    );
    eventually("no part of a file stays", || names(&directory).iter().all(|name| name.len() == 64).then_some(()));
    let end = log.messages().find(|line| line.value["carried"].is_u64()).expect("the end counts");
    let lost = end.value["lost"].as_u64().expect("a number");
    let stored = log.connections(json!({"payload_stored": true}));
    assert!(lost > 0);
    assert_eq!(stored, names(&directory).len() as u64 + lost, "each record without a file is counted: {end:?}");
}

#[test]
fn a_file_that_was_shipped_away_or_cut_short_is_written_again() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let directory = net.path().join("payloads");
    let payload = bytes(1, 3_000);
    let file = directory.join(hex::encode(Sha256::digest(&payload)));
    fs::create_dir(&directory).expect("a directory");
    fs::write(&file, &payload[..100]).expect("a file that was cut short");
    let agent = net
        .agent()
        .set("sandbox", "required")
        .set("payload_dir", directory.to_str().expect("text"))
        .set("payload_store_min_bytes", 500)
        .start();
    for port in [8000, 8001] {
        net.client.deliver((SENSOR_V4, port), &payload);
        agent.expect_one(json!({"destination_port": port, "payload_stored": true}));
        eventually("the file is there", || (fs::read(&file).ok()? == payload).then_some(()));
        fs::remove_file(&file).expect("shipped");
    }
    let _ = agent.stop();
}
