//! Rotation by size and age, what is kept, and compression.

use super::*;

/// All lines of the closed files in the order of their names, then those of the open one.
fn all_lines(directory: &Directory) -> Vec<Value> {
    let mut names = directory.names();
    assert_eq!(names.remove(0), "log");
    names.push("log".to_owned());
    names
        .iter()
        .flat_map(|name| {
            let bytes = fs::read(directory.file(name)).expect("a file");
            if name.ends_with(".zst") {
                parse(&zstd::decode_all(&bytes[..]).expect("a whole compressed file"))
            } else {
                parse(&bytes)
            }
        })
        .collect()
}

fn write(log: &Log, records: usize) {
    block_on(async {
        for number in 0..records {
            log.record(&record(0, number)).await;
        }
    });
}

#[test]
fn a_file_that_has_reached_its_size_is_closed_under_a_name_that_sorts_by_time() {
    let directory = Directory::new();
    let (log, thread) = started(&config::Log { rotate_bytes: 50_000, keep_files: 0, ..config(&directory.file("log")) });
    write(&log, 5000);
    let summary = end(thread);
    assert!(summary.complete);
    assert_complete(&all_lines(&directory), 5000);
    let names = directory.names();
    assert_eq!(names.len() as u64, log.stats().rotations + 1);
    assert!(names.len() > 10);
    for name in &names[1..] {
        let length = fs::metadata(directory.file(name)).expect("a file").len();
        assert!((50_000..50_500).contains(&length), "{name} has {length} bytes");
    }
}

#[test]
fn a_file_that_is_old_is_closed_unless_it_is_empty() {
    let directory = Directory::new();
    let (log, thread) =
        started(&config::Log { rotate_age: Some(Duration::from_millis(100)), ..config(&directory.file("log")) });
    thread::sleep(Duration::from_millis(300));
    assert_eq!(directory.names(), ["log"]);
    write(&log, 1);
    // Nothing further is written: age alone closes it.
    until("it is closed", || directory.names().len() == 2);
    write(&log, 1);
    until("the next one is closed", || directory.names().len() == 3);
    assert!(end(thread).complete);
    assert_complete(&all_lines(&directory), 2);
}

#[test]
fn only_so_many_closed_files_are_kept_and_only_our_own_are_removed() {
    let directory = Directory::new();
    let foreign =
        ["log.1", "log.20250131", "log.20250131T235959.000001Z.bak", "log.bak.zst", "other.20250131T235959.000001Z"];
    for name in foreign {
        fs::write(directory.file(name), "not ours\n").expect("a foreign file");
    }
    fs::create_dir(directory.file("log.20200101T000000.000000Z")).expect("a foreign directory");
    fs::write(directory.file("log.20200101T000000.000001Z"), "{}\n").expect("an old file");
    let (log, thread) = started(&config::Log { rotate_bytes: 10_000, keep_files: 3, ..config(&directory.file("log")) });
    write(&log, 2000);
    let ours = || {
        directory
            .names()
            .iter()
            .filter(|name| name.starts_with("log.202") && name.len() == "log.20200101T000000.000001Z".len())
            .count()
    };
    // Three, and the directory that only looks like one.
    until("three are left", || log.stats().queued_bytes == 0 && ours() == 4);
    assert!(end(thread).complete);
    assert!(log.stats().rotations > 10);
    let names = directory.names();
    for name in foreign {
        assert!(names.iter().any(|found| found == name), "{name} is gone");
    }
    assert!(!names.iter().any(|name| name == "log.20200101T000000.000001Z"));
}

#[test]
fn closed_files_are_kept_up_to_a_total_size_but_for_the_newest() {
    let directory = Directory::new();
    let (log, thread) = started(&config::Log {
        rotate_bytes: 10_000,
        keep_files: 0,
        keep_bytes: 35_000,
        ..config(&directory.file("log"))
    });
    write(&log, 2000);
    until("three are left", || log.stats().queued_bytes == 0 && directory.names().len() == 4);
    assert!(end(thread).complete);
    let (log, thread) =
        started(&config::Log { rotate_bytes: 10_000, keep_files: 0, keep_bytes: 1, ..config(&directory.file("log")) });
    write(&log, 200);
    until("one is left", || log.stats().queued_bytes == 0 && directory.names().len() == 2);
    assert!(end(thread).complete);
}

#[test]
fn closed_files_are_compressed_and_what_a_kill_left_is_mended() {
    let directory = Directory::new();
    let left = directory.file("log.20200101T000000.000000Z");
    fs::write(&left, "{\"left\":true}\n").expect("a file");
    fs::write(directory.file("log.20200101T000000.000000Z.zst.part"), "half").expect("a part");
    fs::write(directory.file("log.20190101T000000.000000Z.zst.part"), "half").expect("a part");
    let (log, thread) = started(&config::Log {
        rotate_bytes: 20_000,
        keep_files: 0,
        compress: Compress::Zstd,
        fsync: Fsync::Interval,
        ..config(&directory.file("log"))
    });
    write(&log, 1000);
    until("all are compressed", || {
        let names = directory.names();
        log.stats().queued_bytes == 0
            && names.len() as u64 == log.stats().rotations + 2
            && names[1..].iter().all(|name| name.ends_with("Z.zst"))
    });
    assert!(end(thread).complete);
    let lines = all_lines(&directory);
    assert_eq!(lines[0]["left"], true);
    assert_complete(&lines[1..], 1000);
}

#[test]
fn a_closed_file_that_cannot_be_compressed_stays() {
    let directory = Directory::new();
    // A directory stands where the part would be.
    let archive = rotation::Archive::new(
        &config::Log { rotate_bytes: 1, compress: Compress::Zstd, ..config(&directory.file("other")) },
        &Target::file(&directory.file("other")),
        Arc::default(),
    )
    .expect("it rotates");
    let plain = directory.file("other.20200101T000000.000000Z");
    fs::write(&plain, "{}\n").expect("a file");
    fs::create_dir(directory.file("other.20200101T000000.000000Z.zst.part")).expect("a directory");
    archive.tidy(false);
    assert_eq!(fs::read(&plain).expect("still there"), b"{}\n");
}

#[test]
fn a_log_that_cannot_be_renamed_goes_on() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let directory = Directory::new();
    let path = directory.file("log");
    fs::write(&path, "").expect("the file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("rights");
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).expect("rights");
        chown(&directory.0, Some(0), Some(0)).expect("owner");
    } else {
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o555)).expect("rights");
    }
    without_privileges(|| {
        let (log, thread) = started(&config::Log { rotate_bytes: 10_000, ..config(&path) });
        write(&log, 1000);
        assert!(end(thread).complete);
        assert_eq!(log.stats().rotations, 0);
        assert_eq!(log.stats().write_failures, 0);
    });
    assert_complete(&lines(&path), 1000);
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).expect("rights");
}

#[test]
fn an_agent_that_shares_the_file_follows_a_rotation() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (owner, owner_thread) = started(&config::Log { rotate_bytes: 20_000, keep_files: 0, ..config(&path) });
    let (guest, guest_thread) = started(&config(&path));
    thread::scope(|scope| {
        for (log, number) in [(&owner, 1), (&guest, 2)] {
            scope.spawn(move || {
                block_on(async {
                    for index in 0..5000 {
                        log.record(&record(number, index)).await;
                    }
                });
            });
        }
    });
    assert!(end(owner_thread).complete && end(guest_thread).complete);
    let lines = all_lines(&directory);
    for number in [1, 2] {
        let mut own: Vec<u64> =
            lines.iter().filter(|line| line["thread"] == number).filter_map(|line| line["number"].as_u64()).collect();
        // The guest may write its last lines before a rotation after the owner's first ones after it.
        own.sort_unstable();
        assert!(own.into_iter().eq(0..5000), "lines of agent {number} are missing");
    }
}
