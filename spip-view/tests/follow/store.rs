//! What befalls a store: a full disk, another version, clocks that step, sensors of the same name, hostile variety.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Scratch, View, append, lines};

/// Waits until the page *Health* says something that this program did.
fn wait_for_event(view: &View, text: &str) {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let health = view.get("/api/v1/health");
        let events = health["events"].as_array().unwrap();
        if events.iter().any(|event| event["text"].as_str().unwrap().contains(text)) {
            return;
        }
        assert!(Instant::now() < until, "{text:?} is not said: {health}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_full_disk_stops_the_store_and_not_the_page_and_is_over_when_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a small disk needs root");
        return;
    }
    let scratch = Scratch::new("full");
    let (log, disk) = (scratch.0.join("spip.json"), scratch.0.join("disk"));
    std::fs::create_dir(&disk).unwrap();
    append(&log, &lines(1, 51, Some("a")));
    // A mount namespace of its own: the disk goes with the program. 64 MiB more than what is left to others.
    let script = format!(
        "mount -t tmpfs -o size=320m tmpfs {0} && exec \"$0\" --listen 127.0.0.1:0 --sandbox off --log {1} --state-dir {0}/state",
        disk.display(),
        log.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, env!("CARGO_BIN_EXE_spip-view")]);
    let view = View::of(command.stdin(Stdio::null()));
    view.wait_for(50);

    // Seen from here, the disk is in the program's own view of the file system.
    let filler = std::path::PathBuf::from(format!("/proc/{}/root{}/filler", view.child.id(), disk.display()));
    let fill = |mib: usize| {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&filler).unwrap();
        let block = vec![0_u8; 1 << 20];
        (0..mib).take_while(|_| file.write_all(&block).is_ok()).count()
    };
    fill(100);
    wait_for_event(&view, "records are read and not kept");
    append(&log, &lines(51, 101, Some("a")));
    // To the last byte: nothing can be written, and the page answers.
    assert!(fill(1_000) < 400);
    append(&log, &lines(101, 151, Some("a")));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(view.sessions(), 50);

    std::fs::remove_file(&filler).unwrap();
    wait_for_event(&view, "there is room again");
    append(&log, &lines(151, 171, Some("a")));
    let until = Instant::now() + Duration::from_secs(60);
    while view.sessions() < 70 {
        assert!(Instant::now() < until, "{} sessions: {}", view.sessions(), view.get("/api/v1/health"));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_store_of_an_older_version_is_moved_aside_and_built_again_from_the_log() {
    let scratch = Scratch::new("version");
    let (log, state) = (scratch.0.join("spip.json"), scratch.0.join("state"));
    let arguments = ["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    append(&log, &lines(1, 50, Some("a")));
    let view = View::start(&arguments);
    view.wait_for(49);
    drop(view);
    let catalog = rusqlite::Connection::open(state.join("catalog.sqlite")).unwrap();
    catalog.execute_batch("PRAGMA user_version = 3; PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
    drop(catalog);
    // A report does not write: it names what is wrong and the remedy.
    let output = Command::new(env!("CARGO_BIN_EXE_spip-view"))
        .args(["report", "--state-dir", state.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("has version 3") && said.contains("build it anew"), "{said}");

    let view = View::start(&arguments);
    view.wait_for(49);
    wait_for_event(&view, "has version 3");
    assert!(state.join("catalog.sqlite.damaged").exists() && state.join("days.damaged").exists());
}

#[test]
fn clocks_that_step_put_each_record_on_its_own_day() {
    let scratch = Scratch::new("clock");
    let (log, state) = (scratch.0.join("spip.json"), scratch.0.join("state"));
    append(&log, &lines(1, 11, Some("a")));
    // Years ahead, back again, and before the first.
    append(&log, &lines(11, 21, Some("a")).replace("2026-01-01T", "2099-06-01T"));
    append(&log, &lines(21, 31, Some("a")));
    append(&log, &lines(31, 41, Some("a")).replace("2026-01-01T", "1970-01-01T"));
    append(&log, &lines(41, 51, Some("a")));
    let view = View::start(&["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap()]);
    view.wait_for(50);
    let of = |day: &str| {
        let page = view.get(&format!("/api/v1/search?from={day}&to={day}T23:59:59Z&limit=1"));
        page["total"]["value"].as_u64().unwrap()
    };
    assert_eq!((of("1970-01-01"), of("2026-01-01"), of("2099-06-01")), (10, 30, 10));
    assert_eq!(view.get("/api/v1/health")["sensors"][0]["missing"], 0);
}

#[test]
fn two_sensors_of_one_name_are_counted_both() {
    let scratch = Scratch::new("same");
    let (one, two, state) = (scratch.0.join("one.json"), scratch.0.join("two.json"), scratch.0.join("state"));
    append(&one, &lines(1, 101, Some("a")));
    append(&two, &lines(1, 51, Some("b")));
    let arguments = ["--log", one.to_str().unwrap(), two.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let view = View::start(&arguments);
    view.wait_for(150);
    append(&one, &lines(101, 111, Some("a")));
    append(&two, &lines(51, 61, Some("b")));
    view.wait_for(170);
    // Rows of a day are there a moment before what the catalog counts.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let health = view.get("/api/v1/health");
        assert_eq!(health["sensors"].as_array().unwrap().len(), 1);
        let runs = health["sensors"][0]["runs"].as_array().unwrap();
        let mut records: Vec<_> = runs.iter().map(|run| run["records"].as_u64().unwrap()).collect();
        records.sort_unstable();
        if records == [60, 110] {
            assert_eq!(health["sensors"][0]["missing"], 0, "{health}");
            break;
        }
        assert!(Instant::now() < until, "{health}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A million pairs of port and source; CONTRIBUTING.md has the command.
#[test]
#[ignore = "takes minutes in a debug build"]
fn a_million_pairs_of_port_and_source_stay_within_bounds() {
    let scratch = Scratch::new("million");
    let (log, state) = (scratch.0.join("spip.json"), scratch.0.join("state"));
    for part in 0..100_u64 {
        let mut text = String::new();
        for line in lines(part * 10_000 + 1, (part + 1) * 10_000 + 1, Some("a")).lines() {
            let seq: u64 = line.rsplit("\"seq\":").next().unwrap().trim_end_matches('}').parse().unwrap();
            let source = format!("\"source_ip\":\"100.{}.{}.{}\"", seq >> 16 & 255, seq >> 8 & 255, seq & 255);
            // Minutes of 694 days are more than are kept: all of it within one day.
            let second = seq * 86_399 / 1_000_000;
            let time = format!(
                "\"time\":\"2026-01-01T{:02}:{:02}:{:02}.000000Z\"",
                second / 3600,
                second / 60 % 60,
                second % 60
            );
            let begin = line.find("\"time\":\"").unwrap();
            let end = begin + line[begin..].find(',').unwrap();
            let line = format!("{}{time}{}", &line[..begin], &line[end..]);
            let line = line.replace(&format!("\"source_ip\":\"198.51.100.{}\"", seq % 5), &source);
            let port = format!("\"destination_port\":{},", seq % 10 + 1);
            text.push_str(&line.replace(&port, &format!("\"destination_port\":{},", seq % 65_535 + 1)));
            text.push('\n');
        }
        append(&log, &text);
    }
    let view = View::start(&["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap()]);
    let until = Instant::now() + Duration::from_secs(3_600);
    while view.sessions() < 1_000_000 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_secs(1));
    }
    for page in ["ports", "sources", "now", "campaigns", "scans", "search?q=port:1-100"] {
        let separator = if page.contains('?') { '&' } else { '?' };
        let page = if page == "now" { "" } else { page };
        view.get(&format!("/api/v1/{}{separator}range=all", if page.is_empty() { "now" } else { page }));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", view.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").trim().parse().unwrap();
    println!("{peak} kB at most");
    assert!(peak < 400_000, "{peak} kB");
}
