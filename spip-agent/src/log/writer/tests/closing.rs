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
