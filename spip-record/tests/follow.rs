//! A log is followed while it is rotated, compressed, truncated and removed, and after the reader was restarted.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use spip_record::log::{Batch, Content, Error, Files, Notice, Options, Position, Reader, Start, Step};

const NOW: Options =
    Options { start: Start::Oldest, follow: true, max_line_bytes: 1 << 20, linger: Duration::from_secs(0) };

/// A directory with a log; removed at the end.
struct Log {
    directory: PathBuf,
    path: PathBuf,
}

impl Log {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("spip-log-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory");
        Self { path: directory.join("spip.json"), directory }
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.directory.join(format!("spip.json{ending}"))
    }

    fn append(&self, text: &str) {
        append(&self.path, text);
    }

    /// Closes the current file as the agent does.
    fn rotate(&self, time: u32) -> PathBuf {
        let closed = self.file(&format!(".20250101T000000.{time:06}Z"));
        fs::rename(&self.path, &closed).expect("renamed");
        closed
    }

    fn reader(&self, position: Option<&Position>) -> Reader {
        Reader::open(&self.path, NOW, position)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("a log");
    file.write_all(text.as_bytes()).expect("written");
}

/// Compresses a closed file as the agent does.
fn compress(path: &Path) {
    let name = PathBuf::from(format!("{}.zst", path.display()));
    let content = fs::read(path).expect("a closed file");
    fs::write(&name, zstd::encode_all(&content[..], 3).expect("compressed")).expect("written");
    fs::remove_file(path).expect("removed");
}

/// A line as long as records are, different for each number.
fn line(number: u32) -> String {
    format!("{{\"seq\":{number},\"payload\":\"{}\"}}\n", "x".repeat(40 + number as usize % 90))
}

fn text(batch: &Batch) -> Vec<String> {
    let lines = batch.lines().map(|line| match line.content {
        Content::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned() + "\n",
        Content::Torn(bytes) => format!("torn {}", String::from_utf8_lossy(bytes)),
        Content::TooLong(length) => format!("too long {length}"),
    });
    lines.collect()
}

/// Reads until there is nothing more for now.
fn read(reader: &mut Reader) -> (Vec<String>, Vec<Notice>) {
    let (mut lines, mut notices) = (Vec::new(), Vec::new());
    loop {
        match reader.next_batch(200).expect("a log") {
            Step::Batch(batch) => {
                lines.append(&mut text(&batch));
                notices.extend_from_slice(batch.notices());
            }
            Step::Idle | Step::End => return (lines, notices),
        }
    }
}

fn lines(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(line).collect()
}

/// Stores a position and reads it back, as a restart does.
fn stored(position: &Position) -> Position {
    serde_json::from_str(&serde_json::to_string(position).expect("JSON")).expect("a position")
}

#[test]
fn closed_compressed_and_current_files_are_one_stream() {
    let log = Log::new();
    log.append(&lines(0..10).concat());
    compress(&log.rotate(1));
    log.append(&lines(10..20).concat());
    log.rotate(2);
    log.append(&lines(20..30).concat());
    assert_eq!(read(&mut log.reader(None)), (lines(0..30), vec![]));
}

#[test]
fn an_unfinished_line_is_held_back_until_it_is_whole() {
    let log = Log::new();
    log.append("{\"a\":1}\n{\"b\"");
    let mut reader = log.reader(None);
    assert_eq!(read(&mut reader).0, ["{\"a\":1}\n"]);
    let position = stored(&reader.position());
    log.append(":2}\n");
    assert_eq!(read(&mut reader).0, ["{\"b\":2}\n"]);
    assert_eq!(read(&mut log.reader(Some(&position))).0, ["{\"b\":2}\n"]);
}

#[test]
fn an_unfinished_line_at_the_end_of_a_closed_file_is_torn() {
    let log = Log::new();
    log.append("whole\nhalf");
    let mut reader = log.reader(None);
    assert_eq!(read(&mut reader).0, ["whole\n"]);
    log.rotate(1);
    log.append("next\n");
    assert_eq!(read(&mut reader).0, ["torn half", "next\n"]);
    let mut once = Reader::open(&log.path, Options { follow: false, ..NOW }, None);
    assert_eq!(read(&mut once).0, ["whole\n", "torn half", "next\n"]);
    assert!(matches!(once.next_batch(100), Ok(Step::End)));
}

#[test]
fn a_file_that_was_renamed_and_compressed_meanwhile_is_found_again() {
    let log = Log::new();
    log.append(&lines(0..50).concat());
    let mut reader = log.reader(None);
    let Step::Batch(batch) = reader.next_batch(2000).expect("lines") else { panic!("no lines") };
    let (read_lines, position) = (text(&batch).len() as u32, stored(batch.position()));
    assert!(read_lines < 50);
    compress(&log.rotate(1));
    log.append(&lines(50..60).concat());
    assert_eq!(read(&mut log.reader(Some(&position))), (lines(read_lines..60), vec![]));
    // The reader that went on has the file open.
    assert_eq!(read(&mut reader), (lines(read_lines..60), vec![]));
}

#[test]
fn a_copied_and_truncated_file_is_read_once() {
    let log = Log::new();
    log.append(&lines(0..10).concat());
    let mut reader = log.reader(None);
    assert_eq!(read(&mut reader).0, lines(0..10));
    let position = stored(&reader.position());
    log.append(&lines(10..15).concat());
    fs::copy(&log.path, log.file(".1")).expect("copied");
    File::options().write(true).open(&log.path).expect("log").set_len(0).expect("truncated");
    // As long as it was before, so that the length tells nothing.
    log.append(&lines(15..40).concat());
    assert_eq!(read(&mut reader), (lines(10..40), vec![]));
    assert_eq!(read(&mut log.reader(Some(&position))), (lines(10..40), vec![]));
}

#[test]
fn a_truncation_without_a_copy_is_reported() {
    let log = Log::new();
    log.append(&lines(0..10).concat());
    let mut reader = log.reader(None);
    assert_eq!(read(&mut reader).0, lines(0..10));
    let length = fs::metadata(&log.path).expect("log").len();
    fs::write(&log.path, lines(20..25).concat()).expect("written");
    let truncated = Notice::Truncated { path: log.path.clone(), read_bytes: length };
    assert_eq!(read(&mut reader), (lines(20..25), vec![truncated]));
}

#[test]
fn a_file_that_begins_as_it_did_and_goes_on_otherwise_is_read_again_and_that_is_reported() {
    let log = Log::new();
    log.append(&lines(0..60).concat());
    let mut reader = log.reader(None);
    assert_eq!(read(&mut reader).0, lines(0..60));
    let position = stored(&reader.position());
    drop(reader);
    let read_bytes = fs::metadata(&log.path).expect("log").len();
    // Written over in place, and longer than before: neither its number nor its length tells.
    let others = || lines((0..30).chain(100..160));
    fs::write(&log.path, others().concat()).expect("written");
    let rewritten = Notice::Rewritten { path: log.path.clone(), read_bytes };
    assert_eq!(read(&mut log.reader(Some(&position))), (others(), vec![rewritten]));
}

#[test]
fn a_removed_log_is_read_to_its_end_and_the_new_one_from_its_beginning() {
    let log = Log::new();
    log.append(&lines(0..5).concat());
    let mut reader = log.reader(None);
    assert_eq!(read(&mut reader).0, lines(0..5));
    log.append(&lines(5..7).concat());
    fs::remove_file(&log.path).expect("removed");
    assert_eq!(read(&mut reader), (lines(5..7), vec![]));
    log.append(&lines(7..9).concat());
    assert_eq!(read(&mut reader), (lines(7..9), vec![]));
}

#[test]
fn a_file_that_vanished_before_it_was_read_is_reported() {
    let log = Log::new();
    log.append(&lines(0..50).concat());
    let position = {
        let mut reader = log.reader(None);
        let Step::Batch(batch) = reader.next_batch(2000).expect("lines") else { panic!("no lines") };
        stored(batch.position())
    };
    let closed = log.rotate(1);
    log.append(&lines(50..60).concat());
    log.rotate(2);
    log.append(&lines(60..70).concat());
    fs::remove_file(closed).expect("removed");
    let (read_lines, notices) = read(&mut log.reader(Some(&position)));
    assert_eq!(read_lines, lines(50..70));
    assert!(matches!(&notices[..], [Notice::Lost { size_bytes: None, .. }]), "{notices:?}");
}

#[test]
fn a_closed_file_that_is_pruned_while_an_older_one_is_read_is_reported_with_its_size() {
    let log = Log::new();
    for time in 0..3 {
        log.append(&lines(time * 10..time * 10 + 10).concat());
        log.rotate(time);
    }
    log.append(&line(99));
    let mut reader = log.reader(None);
    let Step::Batch(first) = reader.next_batch(100).expect("lines") else { panic!("no lines") };
    let lost = log.file(".20250101T000000.000001Z");
    let size = fs::metadata(&lost).expect("closed").len();
    fs::remove_file(&lost).expect("removed");
    let (rest, notices) = read(&mut reader);
    assert_eq!([text(&first), rest].concat(), lines((0..10).chain(20..30).chain([99])));
    assert_eq!(notices, [Notice::Lost { path: lost, read_bytes: 0, size_bytes: Some(size) }]);
}

#[test]
fn a_reused_inode_is_not_mistaken() {
    let log = Log::new();
    log.append(&lines(0..10).concat());
    let position = {
        let mut reader = log.reader(None);
        assert_eq!(read(&mut reader).0, lines(0..10));
        stored(&reader.position())
    };
    // The inode is the same for certain: another file under another name, and this one with other content.
    let content = fs::read(&log.path).expect("log");
    fs::write(log.file(".20250101T000000.000001Z.zst"), zstd::encode_all(&content[..], 3).expect("compressed"))
        .expect("written");
    fs::write(&log.path, lines(10..30).concat()).expect("written");
    assert_eq!(read(&mut log.reader(Some(&position))), (lines(10..30), vec![]));
}

#[test]
fn lines_that_are_too_long_are_passed_over_and_said() {
    let log = Log::new();
    let long = "y".repeat(3_000_000);
    log.append(&format!("before\n{long}\nafter\n"));
    let mut reader = log.reader(None);
    assert_eq!(read(&mut reader).0, ["before\n", "too long 3000000", "after\n"]);
    let position = stored(&reader.position());
    log.append("more\n");
    assert_eq!(read(&mut log.reader(Some(&position))), (vec!["more\n".to_owned()], vec![]));
}

#[test]
fn a_reader_from_the_end_sees_only_what_comes() {
    let log = Log::new();
    log.append(&lines(0..3).concat());
    log.rotate(1);
    log.append(&format!("{}{{\"half\"", lines(3..6).concat()));
    let mut reader = Reader::open(&log.path, Options { start: Start::End, ..NOW }, None);
    assert_eq!(read(&mut reader).0, Vec::<String>::new());
    let position = stored(&reader.position());
    log.append(":1}\n");
    log.rotate(2);
    log.append(&line(7));
    let expected = vec!["{\"half\":1}\n".to_owned(), line(7)];
    assert_eq!(read(&mut reader), (expected.clone(), vec![]));
    assert_eq!(read(&mut log.reader(Some(&position))), (expected, vec![]));
}

#[test]
fn a_damaged_compressed_file_gives_what_is_whole_and_the_log_goes_on() {
    let log = Log::new();
    log.append(&lines(0..20_000).concat());
    let closed = log.rotate(1);
    compress(&closed);
    let compressed = log.file(".20250101T000000.000001Z.zst");
    let length = fs::metadata(&compressed).expect("compressed").len();
    File::options().write(true).open(&compressed).expect("file").set_len(length / 2).expect("cut");
    log.append(&line(99_999));
    let (lines, notices) = read(&mut log.reader(None));
    assert!(lines.len() > 1000 && lines.starts_with(&self::lines(0..1000)));
    assert_eq!(lines.last(), Some(&line(99_999)));
    assert!(matches!(&notices[..], [Notice::Damaged { .. }]), "{notices:?}");
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_hold_the_reader_up() {
    let log = Log::new();
    nix::unistd::mkfifo(&log.file(".20250101T000000.000001Z"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    std::os::unix::fs::symlink("/etc/passwd", log.file(".20250101T000000.000002Z")).expect("a link");
    log.append(&line(1));
    assert_eq!(read(&mut log.reader(None)), (lines([1]), vec![]));
}

#[test]
fn a_directory_that_is_not_there_is_an_error_until_it_is() {
    let log = Log::new();
    let path = log.directory.join("later").join("spip.json");
    let mut reader = Reader::open(&path, NOW, None);
    assert!(matches!(reader.next_batch(100), Err(Error::List { .. })));
    fs::create_dir(log.directory.join("later")).expect("a directory");
    assert!(matches!(reader.next_batch(100), Ok(Step::Idle)));
    append(&path, &line(1));
    assert_eq!(read(&mut reader).0, lines([1]));
}

#[test]
fn the_lag_counts_what_is_not_read() {
    let log = Log::new();
    log.append(&lines(0..10).concat());
    compress(&log.rotate(1));
    log.append(&lines(10..20).concat());
    log.rotate(2);
    log.append(&lines(20..25).concat());
    log.rotate(3);
    log.append(&lines(25..30).concat());
    let total: u64 = fs::read_dir(&log.directory)
        .expect("directory")
        .map(|file| file.expect("file").metadata().expect("file").len())
        .sum();
    let mut reader = log.reader(None);
    let lag = reader.lag().expect("lag");
    assert_eq!((lag.bytes, lag.closed_files, lag.compressed_files), (total, 3, 1));
    assert_eq!(read(&mut reader).0.len(), 30);
    assert_eq!(reader.lag().expect("lag"), Default::default());
    log.append(&line(30));
    assert_eq!(reader.lag().expect("lag").bytes, line(30).len() as u64);
}

#[test]
fn a_closed_file_that_is_read_in_part_is_behind_with_its_rest() {
    let log = Log::new();
    log.append(&lines(0..10).concat());
    log.rotate(1);
    log.append(&lines(10..20).concat());
    log.rotate(2);
    log.append(&lines(20..25).concat());
    let mut reader = log.reader(None);
    let Step::Batch(batch) = reader.next_batch(1).expect("a readable log") else { panic!("lines") };
    let handed_out: usize = batch.lines().map(|line| line_length(&line.content)).sum();
    assert!(batch.len() < 10, "{} lines", batch.len());
    let all = lines(0..25).concat().len();
    let lag = reader.lag().expect("lag");
    assert_eq!((lag.bytes, lag.closed_files, lag.compressed_files), ((all - handed_out) as u64, 2, 0));
}

fn line_length(content: &Content<'_>) -> usize {
    match content {
        Content::Whole(bytes) | Content::Torn(bytes) => bytes.len() + 1,
        Content::TooLong(_) => 0,
    }
}

#[test]
fn waiting_ends_when_a_line_is_written() {
    let log = Log::new();
    log.append(&line(1));
    let mut reader = log.reader(None);
    read(&mut reader);
    // The first wait begins to watch.
    reader.wait(Duration::from_secs(30));
    assert_eq!(read(&mut reader).0, Vec::<String>::new());
    log.append(&line(2));
    let started = std::time::Instant::now();
    reader.wait(Duration::from_secs(30));
    assert!(started.elapsed() < Duration::from_millis(900));
    assert_eq!(read(&mut reader).0, lines([2]));
}

#[test]
fn a_file_that_is_still_written_to_after_it_was_renamed_is_read_to_its_end() {
    let log = Log::new();
    log.append(&line(1));
    let mut reader = Reader::open(&log.path, Options { linger: Duration::from_millis(300), ..NOW }, None);
    assert_eq!(read(&mut reader).0, lines([1]));
    let closed = log.rotate(1);
    log.append(&line(3));
    assert_eq!(read(&mut reader).0, Vec::<String>::new());
    append(&closed, &line(2));
    assert_eq!(read(&mut reader).0, lines([2]));
    std::thread::sleep(Duration::from_millis(310));
    assert_eq!(read(&mut reader).0, lines([3]));
}

#[test]
fn copied_files_are_read_once_and_one_that_is_not_there_is_said() {
    let log = Log::new();
    log.append(&lines(0..10).concat());
    compress(&log.rotate(1));
    log.append(&lines(10..20).concat());
    let pattern = Files::expand(&[log.file("*"), log.directory.join("nothing")]).expect("files");
    let size: u64 = pattern.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum();
    let mut files = Files::new(pattern, 1 << 20);
    let (mut lines, mut notices, mut read_bytes) = (Vec::new(), Vec::new(), vec![files.raw_bytes()]);
    while let Step::Batch(batch) = files.next_batch(300) {
        lines.append(&mut text(&batch));
        notices.extend_from_slice(batch.notices());
        read_bytes.push(files.raw_bytes());
    }
    assert!(read_bytes.is_sorted(), "{read_bytes:?}");
    assert_eq!((read_bytes.first(), read_bytes.last()), (Some(&0), Some(&size)));
    assert_eq!(lines, self::lines(0..20));
    assert!(matches!(&notices[..], [Notice::Unreadable { .. }]), "{notices:?}");
}
