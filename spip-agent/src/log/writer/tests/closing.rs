//! What a closed file keeps: its bytes on the disk, and what another process still writes to it.

use super::*;
use crate::process::walk::Place;

#[test]
fn a_file_that_is_closed_is_forced_to_the_disk_unless_that_is_left_to_the_kernel() {
    for fsync in [Fsync::Never, Fsync::Interval] {
        let directory = Directory::new();
        let path = directory.file("log");
        let config = config::Log { rotate_bytes: 10_000, keep_files: 0, fsync, ..config(&path) };
        // The interval itself is never reached.
        let pace = Pace { sync: Duration::from_secs(3600), ..fast() };
        let (log, writer) = open_with("log_file", &config, Target::file(&path), &pace).expect("the log opens");
        let thread = writer.spawn().expect("the thread starts");
        block_on(async {
            for number in 0..500 {
                log.record(&record(0, number)).await;
            }
        });
        until("all is written", || log.stats().queued_bytes == 0);
        let stats = log.stats();
        assert!(stats.rotations >= 3, "{stats:?}");
        let expected = if fsync == Fsync::Never { 0 } else { stats.rotations };
        assert_eq!(stats.syncs, expected, "{fsync:?}");
        assert!(end(thread).complete);
    }
}

#[test]
fn a_closed_file_that_another_process_still_writes_to_is_not_replaced() {
    let directory = Directory::new();
    let (plain, partial) = (directory.file("log.20200101T000000.000000Z"), directory.file("part"));
    fs::write(&plain, "{\"a\":1}\n").expect("a closed file");
    fs::write(&partial, "compressed").expect("what it became");
    let from = fs::File::open(&plain).expect("it is there");
    let put = |copied| {
        let place = Place::named(&plain).expect("its directory");
        rotation::put_in_place(&place, &from, copied, &plain, &partial)
    };
    // As many bytes were copied as there were; another agent, which has not noticed yet, adds a line, or one is cut away.
    for copied in [7, 9] {
        let error = put(copied).expect_err("it changes");
        assert!(error.to_string().contains("still changes"), "{error}");
        assert!(plain.exists() && partial.exists());
    }
    put(8).expect("it is as it was copied");
    assert_eq!(directory.names(), ["log.20200101T000000.000000Z.zst"]);
}

#[test]
fn each_setting_of_a_log_that_goes_on_holds_from_a_change_on() {
    let directory = Directory::new();
    let path = directory.file("log");
    let before = config(&path);
    let (log, thread) = started(&before);
    let mut number = 0;
    let mut write = |records: usize| {
        block_on(async {
            for _ in 0..records {
                log.record(&record(0, number)).await;
                number += 1;
            }
        });
        until("it is written", || log.stats().queued_bytes == 0);
    };
    let closed = |ending: &str| {
        let names = directory.names();
        names.iter().filter(|name| name.starts_with("log.2") && name.ends_with(ending)).count()
    };
    write(300);
    assert_eq!((log.stats().rotations, log.stats().syncs, closed("Z")), (0, 0, 0));
    // By size, and all are kept.
    let by_size = config::Log { rotate_bytes: 10_000, keep_files: 0, ..before.clone() };
    log.change(&by_size).expect("the file is there");
    write(300);
    let rotated = log.stats().rotations;
    assert!(rotated >= 3 && log.stats().syncs == 0, "{:?}", log.stats());
    until("all are kept", || closed("Z") as u64 == rotated);
    // Fewer, by number and then by size.
    log.change(&config::Log { keep_files: 2, ..by_size.clone() }).expect("the file is there");
    until("two are left", || closed("Z") == 2);
    log.change(&config::Log { keep_bytes: 1, ..by_size.clone() }).expect("the file is there");
    until("one is left", || closed("Z") == 1);
    log.change(&config::Log { compress: Compress::Zstd, ..by_size.clone() }).expect("the file is there");
    until("it is compressed", || (closed("Z"), closed("Z.zst")) == (0, 1));
    // Not by size any more, but by age.
    log.change(&before).expect("the file is there");
    let rotated = log.stats().rotations;
    write(300);
    assert_eq!(log.stats().rotations, rotated);
    let by_age = config::Log { rotate_age: Some(Duration::from_millis(1)), ..before.clone() };
    log.change(&by_age).expect("the file is there");
    until("it is old", || log.stats().rotations > rotated);
    log.change(&config::Log { fsync: Fsync::Always, ..before.clone() }).expect("the file is there");
    write(1);
    assert!(log.stats().syncs > 0);
    // Under another name, where the next line goes.
    let other = directory.file("other");
    log.change(&config::Log { file: Some(other.clone()), ..before }).expect("its directory is there");
    write(1);
    assert_eq!(lines(&other).len(), 1);
    assert!(end(thread).complete);
}
