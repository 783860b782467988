//! Closed files that a reader of the log still needs.

use super::*;

/// The closed files of the log, oldest first.
fn closed(directory: &Directory) -> Vec<String> {
    directory.names().into_iter().filter(|name| name.starts_with("log.2")).collect()
}

/// Writes about ten files of 10,000 bytes, and waits until they are closed and pruned.
fn fill(log: &Log, config: &config::Log) {
    let before = log.stats().rotations;
    block_on(async {
        for number in 0..700 {
            log.record(&record(0, number)).await;
        }
    });
    until("everything is written", || log.stats().queued_bytes == 0);
    assert!(log.stats().rotations >= before + 8, "{:?}", log.stats());
    // The thread of closed files prunes once more when it receives the same configuration again.
    log.change(config).expect("the same file");
}

fn marker(directory: &Directory, text: &str) {
    let place = directory.file("log.hold");
    let _ = fs::create_dir(&place);
    fs::write(place.join("nats"), text).expect("a marker");
}

#[test]
fn what_a_reader_needs_stays_beyond_the_count_until_it_is_read() {
    let directory = Directory::new();
    marker(&directory, "read through -\n");
    let config =
        config::Log { rotate_bytes: 10_000, keep_files: 3, min_free_bytes: Some(0), ..config(&directory.file("log")) };
    let (log, thread) = started(&config);
    fill(&log, &config);
    until("all are held", || log.stats().held_files + 3 == log.stats().rotations);
    let all = closed(&directory);
    assert_eq!(all.len() as u64, log.stats().rotations);
    // The reader has come to the fifth of them.
    let time = all[4].strip_prefix("log.").expect("its name");
    marker(&directory, &format!("read through {time}\nstate_dir /x\n"));
    log.change(&config).expect("the same file");
    until("what is read is removed", || closed(&directory).len() == all.len() - 5);
    assert_eq!(closed(&directory), all[5..]);
    // Without a marker the count decides alone.
    fs::remove_dir_all(directory.file("log.hold")).expect("the marker");
    log.change(&config).expect("the same file");
    until("three are left", || closed(&directory) == all[all.len() - 3..] && log.stats().held_files == 0);
    assert_eq!(log.stats().unread_removed, 0);
    assert!(end(thread).complete);
}

#[test]
fn the_bound_on_size_wins_over_a_reader_and_the_loss_is_counted() {
    let directory = Directory::new();
    marker(&directory, "");
    let config = config::Log {
        rotate_bytes: 10_000,
        keep_files: 2,
        keep_bytes: 45_000,
        min_free_bytes: Some(0),
        ..config(&directory.file("log"))
    };
    let (log, thread) = started(&config);
    fill(&log, &config);
    until("four are left", || closed(&directory).len() == 4);
    until("they are counted", || {
        let stats = log.stats();
        (stats.held_files, stats.unread_removed) == (2, stats.rotations - 4)
    });
    assert!(end(thread).complete);
}

#[test]
fn the_free_room_of_the_disk_wins_over_a_reader() {
    let directory = Directory::new();
    marker(&directory, "read through -\n");
    let config = config::Log {
        rotate_bytes: 10_000,
        keep_files: 2,
        // No disk has so much.
        min_free_bytes: Some(1 << 60),
        ..config(&directory.file("log"))
    };
    let (log, thread) = started(&config);
    fill(&log, &config);
    until("two are left", || closed(&directory).len() == 2 && log.stats().held_files == 0);
    assert_eq!(log.stats().unread_removed, log.stats().rotations - 2);
    assert!(end(thread).complete);
}
