//! A stolen sensor's credential: whatever it publishes under its own name, the hub lives in bounded memory, and every other
//! sensor's records arrive.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use spip_ship::nats::Connection;

use crate::http::{Clickhouse, Elastic};
use crate::support::{Nats, Place, access, append, follow, once, peer, records, runtime, wait_for};
use crate::web::Web;

/// Bytes that a message may have once it is decompressed.
const MESSAGE: usize = 64 << 20;

/// Publishes `text` under the thief's name, compressed.
fn publish(server: &Nats, text: &[u8]) {
    let runtime = runtime();
    let mut thief = Connection::new(access(server.port), runtime.handle().clone(), None);
    let mut headers = HeaderMap::new();
    headers.insert("Content-Encoding", "zstd");
    let payload = zstd::bulk::compress(text, 3).expect("compressed");
    assert!(payload.len() < 1 << 20, "the server takes 1 MiB, not {}", payload.len());
    let said = thief.request("spip.records.thief", Some(headers), payload.into(), Duration::from_secs(30));
    let said = String::from_utf8_lossy(&said.expect("stored").payload).into_owned();
    assert!(said.contains("\"seq\""), "{said}");
}

/// Messages that take as much memory or time as their bounds allow.
fn large() -> Vec<Vec<u8>> {
    let filled = |head: &str, piece: &str, tail: &str| {
        let mut text = head.as_bytes().to_vec();
        text.extend(piece.as_bytes().repeat((MESSAGE - head.len() - tail.len()) / piece.len()));
        text.extend(tail.as_bytes());
        text
    };
    let log = "{\"timestamp\":1,\"record_type\":\"log\",\"level\":\"info\",\"name\":\"thief\",\"run\":\"r\",\"k\":";
    let session = records("thief", "r", 1..2).replace("\"payload\":\"", "\"payload\":\"\\n").replace("}\n", "");
    vec![
        // More than is read, and as much as is.
        vec![b'\n'; MESSAGE * 4],
        vec![b'\n'; MESSAGE],
        // Lines that are no records, and those of another name.
        filled("", &format!("{}\n", "x".repeat(400)), ""),
        filled("", &format!("{{\"name\":\"victim\",\"run\":\"r\",\"seq\":1,\"pad\":\"{}\"}}\n", "x".repeat(400)), ""),
        // One line of many values, of many keys, of one text; a text that has to be unescaped.
        filled(&format!("{log}["), "[],", "[]]}\n"),
        filled(&format!("{log}{{"), "\"k\":0,", "\"k\":0}}\n"),
        filled(&format!("{log}\""), "x", "\"}\n"),
        filled(&format!("{log}\""), "\\\"", "\"}\n"),
        filled(&format!("{session},\"x\":["), "0,", "0]}\n"),
        filled(&format!("{session},\"x\":\""), "\\n", "\"}\n"),
        filled("{\"name\":\"", "\\\"", "\"}\n"),
        filled("", "[", ""),
        // Records of 300 bytes, as many as a message may have.
        records("thief", "r", 1..150_000).replace("\"payload_hex\"", "\"payload_hec\"").into_bytes(),
    ]
}

/// Batches of lines that an engine has no form for, or would refuse.
fn poison() -> Vec<Vec<u8>> {
    let pad = "x".repeat(1_000);
    let batch = |keys: &dyn Fn(u64) -> String| {
        let line =
            |seq| format!("{{\"name\":\"thief\",\"run\":\"p\",\"seq\":{seq},\"pad\":\"{pad}\",{}}}\n", keys(seq));
        (1..200).map(line).collect::<String>().into_bytes()
    };
    vec![
        batch(&|_| "\"source_port\":70000".to_owned()),
        batch(&|_| "\"source_ip\":\"x\"".to_owned()),
        batch(&|_| "\"time\":\"x\"".to_owned()),
        batch(&|_| "\"timestamp\":-5".to_owned()),
        batch(&|_| "\"time\":\"9999-12-31T23:59:59Z\"".to_owned()),
        batch(&|seq| format!("\"time\":\"{}-{:02}-01T00:00:00Z\"", 1980 + seq / 12, 1 + seq % 12)),
        batch(&|_| "\"record_type\":\"other\"".to_owned()),
        batch(&|seq| format!("\"record_type\":\"log\",\"timestamp\":1,\"port\":{{\"k{seq}\":1}}")),
        batch(&|_| "\"record_type\":\"log\",\"timestamp\":1,\"time\":\"x\"".to_owned()),
    ]
}

/// Lets a hub with `sink` take what a thief publishes, until the records of another sensor behind it have arrived.
fn survives(sink: &str, messages: &[Vec<u8>], stored: &mut dyn FnMut() -> u64) {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let (place, victim) = (Place::new(), Place::new());
    let server = Nats::start(&program, &place, "");
    let hub = place.path("hub.toml");
    let text = format!(
        "state_dir = {:?}\n[source]\nkind = \"nats\"\nurl = \"nats://127.0.0.1:{}\"\nstream = \"SPIP\"\n{sink}",
        place.path("hub-state"),
        server.port,
    );
    fs::write(&hub, text).expect("a file");
    let config = victim.configure(&server.sink());
    append(&victim.log(), &records("victim", "r", 1..6));
    once(&config);
    let mut process = follow(&hub);
    for (number, message) in messages.iter().enumerate() {
        publish(&server, message);
        // Each in a batch of its own, and something of another sensor behind it.
        let last = 10 + 5 * number as u64;
        append(&victim.log(), &records("victim", "r", last - 4..last + 1));
        once(&config);
        // The stand-in of Elasticsearch refuses one address, that of record 77.
        let expected = last - u64::from(last >= 77 && sink.contains("elasticsearch"));
        wait_for(&format!("what is behind message {number}"), || {
            if let Some(status) = process.0.try_wait().expect("a child") {
                let messages = fs::read_to_string(hub.with_extension("log")).unwrap_or_default();
                panic!("message {number} ended the hub: {status}\n{messages}");
            }
            (stored() >= expected).then_some(())
        });
    }
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).expect("it runs");
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak").to_owned();
    println!("the hub took at most {peak}");
    assert!(process.terminate().success());
}

fn files(messages: &[Vec<u8>]) {
    let place = Place::new();
    let path = place.path("hub/victim/spip.jsonl");
    survives(
        &format!("[[sink]]\nkind = \"files\"\npath = {:?}\nbatch_milliseconds = 100\n", place.path("hub")),
        messages,
        &mut || fs::read_to_string(&path).map_or(0, |text| text.lines().count() as u64),
    );
}

fn clickhouse(messages: &[Vec<u8>]) {
    let Some(python) = peer("SPIP_CHDB_PYTHON") else { return };
    let place = Place::new();
    let server = Clickhouse::start(&python, &place);
    survives(
        &format!("[[sink]]\nkind = \"clickhouse\"\nurl = {:?}\nbatch_milliseconds = 100\n", server.url()),
        messages,
        &mut || {
            if server.ask("EXISTS TABLE spip_records")[0]["result"].as_u64() != Some(1) {
                return 0;
            }
            let rows = server.ask("SELECT uniqExact(seq) AS n FROM spip_records WHERE name = 'victim'");
            rows[0]["n"].as_u64().unwrap_or_default()
        },
    );
}

fn elasticsearch(messages: &[Vec<u8>]) {
    let elastic = Arc::new(Mutex::new(Elastic { documents: BTreeMap::new(), number: 0 }));
    let answering = Arc::clone(&elastic);
    let server = Web::start(move |request| answering.lock().expect("no panic").answer(request));
    survives(
        &format!("[[sink]]\nkind = \"elasticsearch\"\nurl = {:?}\nbatch_milliseconds = 100\n", server.url),
        messages,
        &mut || {
            let documents = &elastic.lock().expect("no panic").documents;
            documents.values().filter(|document| document["observer"]["name"] == "victim").count() as u64
        },
    );
}

#[test]
fn lines_of_a_thief_that_an_engine_refuses_block_no_other_sensor() {
    files(&poison());
    clickhouse(&poison());
    elasticsearch(&poison());
}

#[test]
fn large_messages_of_a_thief_end_no_hub() {
    let mut large = large();
    files(&large[..5]);
    elasticsearch(&large.split_off(4)[..1]);
}

#[test]
#[ignore = "takes half a minute even in release: cargo test --release -p spip-ship --test delivery -- --ignored thief, with the peers of cargo xtask test"]
fn every_large_message_of_a_thief_ends_no_hub() {
    files(&large());
    clickhouse(&large());
    elasticsearch(&large());
}
