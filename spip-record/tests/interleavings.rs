//! Whatever a log and its reader go through, every line is read exactly once.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use proptest::prelude::*;
use spip_record::log::{Content, Notice, Options, Position, Reader, Start, Step};

/// Short, so that some lines are too long.
const MAX_LINE_BYTES: usize = 1500;

/// Ways of rotating a log.
#[derive(Clone, Copy, Debug)]
enum Rotation {
    /// By the agent: renamed, with the time.
    Agent,
    /// By logrotate: renamed, with a number.
    Numbered,
    /// By logrotate with `copytruncate`: the file keeps its inode and loses its content.
    CopyTruncate,
}

#[derive(Clone, Debug)]
enum Action {
    /// Writes so many lines of about that length.
    Write {
        lines: u8,
        length: u16,
    },
    /// Writes the beginning of a line.
    Begin,
    Rotate,
    /// Compresses one of the closed files.
    Compress {
        which: prop::sample::Index,
        gzip: bool,
    },
    /// Removes the oldest closed file, if it was read.
    Prune,
    /// Removes the current file, if it was read, as an operator does.
    Remove,
    /// Reads up to so many batches.
    Read {
        batches: u8,
        max_bytes: u16,
    },
    /// Ends the reader and begins another one at the stored position.
    Restart,
    /// Goes on at an earlier position, as after lines that were not acknowledged.
    GoBack {
        which: prop::sample::Index,
    },
}

/// A log, what was written to it, and what was read of it.
struct World {
    directory: PathBuf,
    log: PathBuf,
    rotation: Rotation,
    clock: u32,
    written: Vec<String>,
    /// The beginning of a line that is not whole yet.
    begun: Option<String>,
    /// Number of lines written when each closed file was closed, oldest first, and its name.
    closed: Vec<(usize, PathBuf)>,
    /// The current file was removed once: a reader that was not there cannot know that it had read all of it.
    removed: bool,
    reader: Reader,
    read: Vec<String>,
    /// After how many lines each position was, the last one last.
    positions: Vec<(usize, Option<String>)>,
}

impl World {
    fn new(rotation: Rotation) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("spip-interleavings-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a directory");
        let log = directory.join("spip.json");
        Self {
            reader: open(&log, None),
            directory,
            log,
            rotation,
            clock: 0,
            written: Vec::new(),
            begun: None,
            closed: Vec::new(),
            removed: false,
            read: Vec::new(),
            positions: vec![(0, None)],
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Write { lines, length } => {
                for _ in 0..*lines {
                    self.write(*length);
                }
            }
            Action::Begin => {
                if self.begun.is_none() {
                    let line = self.line(200);
                    append(&self.log, &line[..100]);
                    self.begun = Some(line);
                }
            }
            Action::Rotate => self.rotate(),
            Action::Compress { which, gzip } => self.compress(which, *gzip),
            Action::Prune => {
                // Up to and with the one that the stored position is in: nothing of the log knows it any more.
                let stored = self.positions.last().expect("a position").0;
                if self.closed.first().is_some_and(|(lines, _)| *lines < stored) {
                    let (_, name) = self.closed.remove(0);
                    fs::remove_file(name).expect("a closed file");
                    self.positions.drain(..self.positions.len() - 1);
                }
            }
            Action::Remove => {
                self.end_line();
                self.read_all();
                let _ = fs::remove_file(&self.log);
                self.removed = true;
                self.positions.drain(..self.positions.len() - 1);
            }
            Action::Read { batches, max_bytes } => {
                for _ in 0..*batches {
                    if !self.read_batch(usize::from(*max_bytes)) {
                        break;
                    }
                }
            }
            Action::Restart => {
                let position = self.positions.last().and_then(|(_, position)| position.clone());
                self.reader = open(&self.log, position.as_deref());
            }
            Action::GoBack { which } => {
                let (lines, position) = self.positions[which.index(self.positions.len())].clone();
                self.positions.retain(|(other, _)| *other <= lines);
                self.read.truncate(lines);
                match position {
                    Some(position) => self.reader.seek(&serde_json::from_str(&position).expect("a position")),
                    None => self.reader = open(&self.log, None),
                }
            }
        }
    }

    fn line(&self, length: u16) -> String {
        format!("{{\"seq\":{},\"payload\":\"{}\"}}\n", self.written.len(), "x".repeat(length.into()))
    }

    fn end_line(&mut self) {
        if let Some(line) = self.begun.take() {
            append(&self.log, &line[100..]);
            self.written.push(line);
        }
    }

    fn write(&mut self, length: u16) {
        if self.begun.is_some() {
            return self.end_line();
        }
        let line = self.line(length);
        append(&self.log, &line);
        self.written.push(line);
    }

    fn rotate(&mut self) {
        self.end_line();
        if !self.log.exists() {
            return;
        }
        self.clock += 1;
        let name = match self.rotation {
            Rotation::Agent => self.directory.join(format!("spip.json.20250101T000000.{:06}Z", self.clock)),
            Rotation::Numbered | Rotation::CopyTruncate => {
                for (index, (_, path)) in self.closed.iter_mut().rev().enumerate().collect::<Vec<_>>().into_iter().rev()
                {
                    let ending = path
                        .extension()
                        .and_then(|ending| ending.to_str())
                        .filter(|ending| ending.len() > 1 && ending.parse::<u32>().is_err());
                    let ending = ending.map(|ending| format!(".{ending}")).unwrap_or_default();
                    let next = self.directory.join(format!("spip.json.{}{ending}", index + 2));
                    fs::rename(&path, &next).expect("renamed");
                    *path = next;
                }
                self.directory.join("spip.json.1")
            }
        };
        match self.rotation {
            Rotation::CopyTruncate => {
                fs::copy(&self.log, &name).expect("copied");
                File::options().write(true).open(&self.log).expect("log").set_len(0).expect("truncated");
            }
            Rotation::Agent | Rotation::Numbered => fs::rename(&self.log, &name).expect("renamed"),
        }
        self.closed.push((self.written.len(), name));
    }

    fn compress(&mut self, which: &prop::sample::Index, gzip: bool) {
        if self.closed.is_empty() {
            return;
        }
        let index = which.index(self.closed.len());
        let path = self.closed[index].1.clone();
        if path.extension().is_some_and(|ending| ending == "gz" || ending == "zst") {
            return;
        }
        let content = fs::read(&path).expect("a closed file");
        let (ending, compressed) = if gzip {
            let mut compressed = Vec::new();
            flate2::read::GzEncoder::new(&content[..], flate2::Compression::fast())
                .read_to_end(&mut compressed)
                .expect("compressed");
            ("gz", compressed)
        } else {
            ("zst", zstd::encode_all(&content[..], 1).expect("compressed"))
        };
        let name = PathBuf::from(format!("{}.{ending}", path.display()));
        fs::write(&name, compressed).expect("written");
        fs::remove_file(&path).expect("removed");
        self.closed[index].1 = name;
    }

    /// Reads a batch and stores the position after it; false if there was nothing.
    fn read_batch(&mut self, max_bytes: usize) -> bool {
        match self.reader.next_batch(max_bytes).expect("a log") {
            Step::Batch(batch) => {
                let are_expected =
                    self.removed && batch.notices().iter().all(|notice| matches!(notice, Notice::Lost { .. }));
                assert!(are_expected || batch.notices().is_empty(), "{:?}", batch.notices());
                self.read.extend(batch.lines().map(|line| match line.content {
                    Content::Whole(bytes) => String::from_utf8(bytes.to_vec()).expect("ours") + "\n",
                    Content::Torn(_) => "torn".to_owned(),
                    Content::TooLong(length) => format!("too long: {length}"),
                }));
                let position = serde_json::to_string(batch.position()).expect("JSON");
                self.positions.push((self.read.len(), Some(position)));
                true
            }
            Step::Idle => false,
            Step::End => panic!("a followed log has no end"),
        }
    }

    fn read_all(&mut self) {
        while self.read_batch(700) {}
    }

    fn check(&mut self) {
        self.end_line();
        self.write(10);
        self.read_all();
        let expected: Vec<String> = self
            .written
            .iter()
            .map(|line| {
                let length = line.len() - 1;
                if length > MAX_LINE_BYTES { format!("too long: {length}") } else { line.clone() }
            })
            .collect();
        assert_eq!(self.read, expected);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn open(log: &Path, position: Option<&str>) -> Reader {
    let position: Option<Position> = position.map(|position| serde_json::from_str(position).expect("a position"));
    let options =
        Options { start: Start::Oldest, follow: true, max_line_bytes: MAX_LINE_BYTES, linger: Duration::ZERO };
    Reader::open(log, options, position.as_ref())
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("a log");
    file.write_all(text.as_bytes()).expect("written");
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (1_u8..8, prop_oneof![9 => 0_u16..400, 1 => 1400_u16..5000]).prop_map(|(lines, length)| Action::Write { lines, length }),
        1 => Just(Action::Begin),
        4 => Just(Action::Rotate),
        3 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, gzip)| Action::Compress { which, gzip }),
        2 => Just(Action::Prune),
        1 => Just(Action::Remove),
        6 => (1_u8..6, 1_u16..3000).prop_map(|(batches, max_bytes)| Action::Read { batches, max_bytes }),
        3 => Just(Action::Restart),
        1 => any::<prop::sample::Index>().prop_map(|which| Action::GoBack { which }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_read_exactly_once(
        rotation in prop_oneof![Just(Rotation::Agent), Just(Rotation::Numbered), Just(Rotation::CopyTruncate)],
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let mut world = World::new(rotation);
        for action in &actions {
            world.act(action);
        }
        world.check();
    }
}
