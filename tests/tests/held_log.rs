//! Closed log files that a reader still needs by its marker beside the log: kept beyond the count, never beyond the disk.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use spip_record::log::{Hold, hold_directory};
use spip_tests::{Launch, Net, SENSOR_V4, eventually, read_log};

/// Size at which a file is closed.
const ROTATE_BYTES: u64 = 20_000;

/// Returns the part of the agent's status that is about its log.
fn log_status(net: &Net) -> Value {
    net.status()["agent"]["log"].clone()
}

fn count(net: &Net, key: &str) -> u64 {
    let status = log_status(net);
    status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"))
}

/// Returns the closed files, oldest first.
fn closed(log: &Path) -> Vec<PathBuf> {
    let directory = log.parent().expect("a directory");
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("the test's directory is its own")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"spip.jsonl.2")))
        .collect();
    files.sort();
    files
}

/// Writes the marker as `spip-ship` does: aside, then renamed.
fn mark(log: &Path, hold: &Hold) {
    let place = hold_directory(log);
    fs::create_dir_all(&place).expect("the test's directory is its own");
    fs::write(place.join("nats.new"), format!("{hold}state_dir /var/lib/spip-ship\n")).expect("a marker");
    fs::rename(place.join("nats.new"), place.join("nats")).expect("a marker");
}

/// A log of which a reader needs every file, and an agent that is to write it and keep two.
fn held(net: &Net) -> (PathBuf, Launch<'_>) {
    net.redirect();
    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("the test's directory is its own");
    let log = directory.join("spip.jsonl");
    mark(&log, &Hold::default());
    let launch = net.agent().log_to(&log).set("log_rotate_bytes", ROTATE_BYTES);
    (log, launch.set("log_keep_files", 2).set("log_min_free_bytes", 0))
}

/// Lets clients speak until the agent has closed `files` more.
fn fill(net: &Net, files: u64) {
    let until = count(net, "rotations") + files;
    eventually("the agent closes files", || {
        net.client.deliver((SENSOR_V4, 80), &[b'A'; 2000]);
        (count(net, "rotations") >= until).then_some(())
    });
}

#[test]
fn the_agent_keeps_what_a_reader_needs_and_removes_it_once_it_is_read() {
    let Some(net) = Net::new() else { return };
    let (log, launch) = held(&net);
    let agent = launch.start();
    fill(&net, 8);
    eventually("files are held", || (count(&net, "held_files") >= 6).then_some(()));
    let all = closed(&log);
    assert!(all.len() >= 8 && count(&net, "unread_removed") == 0, "{all:?}");
    // The reader has come to the fifth of them.
    let name = all[4].file_name().expect("a name").to_string_lossy().into_owned();
    let time = name.strip_prefix("spip.jsonl.").expect("its time").to_owned();
    mark(&log, &Hold::parse(format!("read through {time}\n").as_bytes()));
    fill(&net, 1);
    eventually("what is read is removed", || (!all[..5].iter().any(|path| path.exists())).then_some(()));
    assert!(all[5..].iter().all(|path| path.exists()), "what is not read is there: {:?}", closed(&log));
    assert_eq!(count(&net, "unread_removed"), 0);
    let _ = agent.stop();
}

#[test]
fn the_bound_of_the_disk_wins_over_a_reader_and_the_loss_is_counted() {
    const KEEP_BYTES: u64 = 5 * ROTATE_BYTES;
    let Some(net) = Net::new() else { return };
    let (log, launch) = held(&net);
    let agent = launch.set("log_keep_bytes", KEEP_BYTES).start();
    let before = count(&net, "rotations");
    fill(&net, 12);
    eventually("each closed file is there or counted as lost", || {
        let status = log_status(&net);
        let number = |key: &str| status[key].as_u64().expect("a number");
        let bytes: u64 = closed(&log).iter().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len()).sum();
        let is_counted = number("unread_removed") + closed(&log).len() as u64 == number("rotations") - before;
        (is_counted && bytes <= KEEP_BYTES && number("unread_removed") > 0).then_some(())
    });
    let _ = agent.stop();
    // What stays is whole, and without a gap up to the last record.
    let mut numbers = Vec::new();
    for path in closed(&log).iter().chain([&log]) {
        let read = read_log(path);
        read.expect_whole();
        numbers.extend(read.lines.iter().filter_map(|line| line.value["seq"].as_u64()));
    }
    assert!(numbers.len() > 10 && numbers.is_sorted_by(|one, next| one + 1 == *next), "{numbers:?}");
}
