//! The files of a log and a stored position, which anybody may have touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spip_record::log::{Content, Notice, Options, Position, Reader, Start, Step};

/// The longest line that is handed out here.
const LINE_BYTES: usize = 1024;

/// Upper bound of batches that are read: small files can decompress without end.
const STEPS: usize = 64;

/// Lines read of a log, `None` for those that are too long, and the end of the reading.
#[derive(Debug, PartialEq)]
struct Read {
    lines: Vec<Option<Vec<u8>>>,
    position: Position,
    /// Start of the first line.
    first: Option<u64>,
    is_damaged: bool,
    is_whole: bool,
}

/// Bytes that a decompressor knows are a closed file. Others are the current one, behind a line that may be a position.
/// Whatever they are, reading ends, the position survives being stored, and a reader that goes on there repeats nothing.
pub(super) fn log(bytes: &[u8]) {
    let directory = Directory::new();
    let log = directory.0.join("spip.json");
    let ending = match bytes {
        [0x1f, 0x8b, ..] => Some("gz"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zst"),
        _ => None,
    };
    let (position, content) = match (ending, memchr_line(bytes)) {
        (None, Some((first, rest))) => (serde_json::from_slice::<Position>(first).ok(), rest),
        _ => (None, bytes),
    };
    let name = ending.map(|ending| format!("spip.json.20250131T235959.000001Z.{ending}"));
    fs::write(name.map_or(log.clone(), |name| directory.0.join(name)), content).expect("our own directory");

    if let Some(position) = &position {
        read(&log, Some(position), 4096);
    }
    let whole = read(&log, None, 4096);
    if whole.is_whole {
        let stored = serde_json::to_string(&whole.position).expect("a position is JSON");
        let stored: Position = serde_json::from_str(&stored).expect("and is read back");
        assert_eq!(stored, whole.position);
        let again = read(&log, Some(&stored), 4096);
        // Of damaged data, some more may come out at another attempt.
        assert!(again.lines.is_empty() || whole.is_damaged, "{} lines are read twice", again.lines.len());
        let read_bytes = stored.file().map_or(0, |(_, offset)| offset);
        assert!(again.first.is_none_or(|offset| offset >= read_bytes), "{:?} after {read_bytes}", again.first);
        let in_pieces = read(&log, None, 999);
        assert!(!in_pieces.is_whole || whole.is_damaged || in_pieces.lines == whole.lines);
    }
    if ending.is_none() && whole.is_whole {
        let lines = content.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        let lines = lines.map(|line| (line.len() <= LINE_BYTES).then(|| line.to_vec()));
        assert_eq!(whole.lines, lines.collect::<Vec<_>>());
    }
}

fn memchr_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn read(log: &Path, position: Option<&Position>, max_bytes: usize) -> Read {
    let options = Options { start: Start::Oldest, follow: true, max_line_bytes: LINE_BYTES, linger: Duration::ZERO };
    let mut reader = Reader::open(log, options, position);
    let (mut lines, mut first, mut is_damaged) = (Vec::new(), None, false);
    for _ in 0..STEPS {
        match reader.next_batch(max_bytes).expect("our own directory") {
            Step::Batch(batch) => {
                first = first.or_else(|| batch.lines().next().map(|line| line.offset));
                is_damaged |= batch.notices().iter().any(|notice| matches!(notice, Notice::Damaged { .. }));
                lines.extend(batch.lines().map(|line| match line.content {
                    Content::Whole(bytes) | Content::Torn(bytes) => {
                        assert!(bytes.len() <= LINE_BYTES);
                        Some(bytes.to_vec())
                    }
                    Content::TooLong(length) => {
                        assert!(length > LINE_BYTES as u64);
                        None
                    }
                }));
                let is_known = |notice: &Notice| position.is_some() || matches!(notice, Notice::Damaged { .. });
                assert!(batch.notices().iter().all(is_known), "{:?}", batch.notices());
            }
            Step::Idle => return Read { lines, position: reader.position(), first, is_damaged, is_whole: true },
            Step::End => panic!("a followed log has no end"),
        }
    }
    Read { lines, position: reader.position(), first, is_damaged, is_whole: false }
}

/// A directory that goes with the input.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let thread = format!("{:?}", std::thread::current().id());
        let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
        let path = std::env::temp_dir().join(format!("spip-fuzz-log-{}-{thread}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
