//! The program as it is started: follows a log that is written, rotated and compressed while it is killed again and again,
//! and counts every record once.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod enrich;
mod store;
mod support;

use std::path::Path;
use std::time::Duration;

use support::{Scratch, View, append, lines, report};

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
fn the_service_manager_hears_that_the_page_answers_and_that_it_works() {
    let scratch = Scratch::new("manager");
    let (log, state, socket) = (scratch.0.join("spip.json"), scratch.0.join("state"), scratch.0.join("notify"));
    append(&log, &lines(1, 3, Some("r")));
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_spip-view"));
    command.args(["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "300000").env_remove("WATCHDOG_PID");
    let view = View::of(command.stdin(std::process::Stdio::null()));
    let hear = || {
        let mut message = [0; 100];
        let bytes = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..bytes]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    view.wait_for(2);
    assert_eq!((hear().as_str(), hear().as_str()), ("WATCHDOG=1", "WATCHDOG=1"));
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
fn the_report_of_a_log_counts_gaps_and_leaves_out_duplicates_and_lines_that_are_no_records() {
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
