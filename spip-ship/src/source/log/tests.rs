//! Batches that are cut out of a log in a directory of the test.

use std::fs;

use super::*;

struct Log {
    directory: PathBuf,
    path: PathBuf,
}

impl Log {
    fn new(name: &str, text: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("spip-ship-log-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a temporary directory");
        let path = directory.join("spip.jsonl");
        fs::write(&path, text).expect("a writable directory");
        Self { directory, path }
    }

    fn open(&self) -> LogSource {
        LogSource::open(&self.path, None, true)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn record(name: &str, run: &str, seq: u64) -> String {
    format!("{{\"name\":\"{name}\",\"run\":\"{run}\",\"seq\":{seq}}}\n")
}

fn limits(bytes: usize) -> Limits {
    Limits { bytes, time: Duration::from_secs(1) }
}

/// Returns all batches from where the source is, to the end.
fn batches(source: &mut LogSource, limits: Limits) -> Vec<Batch> {
    let mut batches = Vec::new();
    while let Next::Batch(batch) = source.next(limits, None, Duration::ZERO).expect("a readable log") {
        batches.push(batch);
    }
    batches
}

fn text(batches: &[Batch]) -> String {
    let parts = batches.iter().flat_map(|batch| &batch.parts);
    parts.map(|part| String::from_utf8(part.bytes.clone()).expect("text")).collect()
}

#[test]
fn a_batch_has_lines_of_one_sensor_and_one_run() {
    let message = "{\"message\":\"ready\",\"record_type\":\"log\"}\n";
    let whole = record("a", "1", 1) + message + &record("a", "1", 2) + &record("a", "2", 1) + &record("b", "2", 1);
    let log = Log::new("sensors", &whole);
    let found = batches(&mut log.open(), limits(1 << 20));
    let heads: Vec<_> = found
        .iter()
        .flat_map(|batch| &batch.parts)
        .map(|part| (part.sensor.as_str(), part.run.as_str(), part.first_seq, part.last_seq, part.count))
        .collect();
    assert_eq!(
        heads,
        [("a", "1", Some(1), Some(2), 3), ("a", "2", Some(1), Some(1), 1), ("b", "2", Some(1), Some(1), 1),]
    );
    assert_eq!(text(&found), whole);
    assert_eq!(found.iter().map(Batch::lines_read).collect::<Vec<_>>(), [3, 1, 1]);
}

#[test]
fn from_the_place_behind_any_batch_the_rest_comes_and_nothing_twice() {
    let whole: String = (1..40).map(|seq| record("a", "1", seq)).collect();
    let log = Log::new("places", &whole);
    let all = batches(&mut log.open(), limits(100));
    assert!(all.len() > 10, "{}", all.len());
    for (number, batch) in all.iter().enumerate() {
        assert!(batch.bytes() <= 100, "{} bytes", batch.bytes());
        let mut source = log.open();
        source.seek(&batch.end).expect("a place of this log");
        let rest = batches(&mut source, limits(1 << 20));
        assert_eq!(text(&all[..=number]) + &text(&rest), whole, "behind batch {number}");
        assert_eq!(rest.last().map_or(39, |last| last.end.total), 39);
    }
}

#[test]
fn a_batch_that_was_cut_before_has_as_many_lines_whatever_the_limits_are_now() {
    let whole: String = (1..10).map(|seq| record(if seq < 3 { "a" } else { "b" }, "1", seq)).collect();
    let log = Log::new("exact", &whole);
    let mut source = log.open();
    let Ok(Next::Batch(batch)) = source.next(limits(1), Some(5), Duration::ZERO) else { panic!("a batch") };
    assert_eq!((batch.lines_read(), batch.count()), (5, 5));
    assert_eq!(text(&batches(&mut source, limits(1 << 20))).lines().count(), 4);
}

#[test]
fn lines_that_are_no_records_are_bounded_in_number_and_in_what_is_kept_of_each() {
    let long = "x".repeat(REJECT_BYTES + 1);
    let log = Log::new("rejects", &(long + "\n" + &"no record\n".repeat(MAX_REJECTS) + &record("a", "1", 1)));
    let found = batches(&mut log.open(), limits(1 << 20));
    assert_eq!(found[0].rejects.len(), MAX_REJECTS);
    assert_eq!(found[0].rejects[0].line.len(), REJECT_BYTES);
    assert_eq!((found.len(), found[1].rejects.len(), found[1].count()), (2, 1, 1));
    assert_eq!(found[1].end.total, MAX_REJECTS as u64 + 2);
}

#[test]
fn a_last_line_without_its_end_stays_for_the_next_time() {
    let log = Log::new("torn", &(record("a", "1", 1) + "{\"name\":\"a\",\"seq\":2"));
    let mut source = log.open();
    let found = batches(&mut source, limits(1 << 20));
    assert_eq!(text(&found), record("a", "1", 1));
    assert!(found[0].rejects.is_empty());
    fs::write(&log.path, record("a", "1", 1) + "{\"name\":\"a\",\"seq\":2}\n").expect("writable");
    let mut source = log.open();
    source.seek(&found[0].end).expect("a place of this log");
    assert_eq!(text(&batches(&mut source, limits(1 << 20))), "{\"name\":\"a\",\"seq\":2}\n");
}

#[test]
fn system_messages_before_the_first_record_go_under_its_name() {
    let message = "{\"message\":\"starting\",\"record_type\":\"log\"}\n";
    let log = Log::new("before", &(message.to_owned() + &record("named", "1", 1)));
    let found = batches(&mut log.open(), limits(1 << 20));
    assert_eq!((found.len(), found[0].parts[0].sensor.as_str(), found[0].count()), (1, "named", 2));
    // Where there is no record yet, the last sensor of the state.
    let log = Log::new("assumed", message);
    let mut source = log.open();
    source.assume_sensor(Some("known"));
    assert_eq!(batches(&mut source, limits(1 << 20))[0].parts[0].sensor, "known");
}
