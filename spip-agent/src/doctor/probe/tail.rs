//! Waits for a line of the log: from where it ended when the probe began, across a rotation.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the log is looked at.
const TICK: Duration = Duration::from_millis(20);
/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// The longest line that is kept; the probe's own record is far shorter.
const LINE: usize = 1 << 20;

/// A log that is followed from its present end.
pub(super) struct Tail {
    path: PathBuf,
    file: File,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
}

impl Tail {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), file, rest: Vec::new() })
    }

    /// The first line with `token` in it, if it comes before `end`.
    pub(super) fn wait(&mut self, token: &str, end: Instant) -> Option<String> {
        loop {
            // Asked before the file is read to its end: what was rotated away is read first.
            let rotated = !super::is_same(&self.file, &self.path);
            if let Some(line) = self.read(token) {
                return Some(line);
            }
            if rotated && let Ok(file) = File::open(&self.path) {
                self.file = file;
                self.rest.clear();
                continue;
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(TICK);
        }
    }

    fn read(&mut self, token: &str) -> Option<String> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = self.file.read(&mut chunk).ok().filter(|length| *length > 0)?;
            let mut bytes = chunk.get(..length)?;
            while let Some(end) = memchr::memchr(b'\n', bytes) {
                let (line, after) = bytes.split_at(end);
                self.rest.extend_from_slice(line);
                bytes = after.get(1..).unwrap_or_default();
                if memchr::memmem::find(&self.rest, token.as_bytes()).is_some() {
                    return Some(String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned());
                }
                self.rest.clear();
            }
            if self.rest.len() + bytes.len() <= LINE {
                self.rest.extend_from_slice(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_line_is_found_after_a_rotation_and_never_before_the_start() {
        let path = std::env::temp_dir().join(format!("spip-tail-{}", std::process::id()));
        fs::write(&path, "old token\n").expect("file");
        let mut tail = Tail::open(&path).expect("log");
        assert_eq!(tail.wait("token", Instant::now()), None);
        let mut log = fs::OpenOptions::new().append(true).open(&path).expect("log");
        log.write_all(b"another\nhalf").expect("written");
        let closed = path.with_extension("closed");
        fs::rename(&path, &closed).expect("renamed");
        fs::write(&path, "first\nnew token here\n").expect("file");
        let found = tail.wait("token", Instant::now() + Duration::from_secs(5));
        assert_eq!(found.as_deref(), Some("new token here"));
        fs::remove_file(&path).expect("ours");
        fs::remove_file(&closed).expect("ours");
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_one_line() {
        let path = std::env::temp_dir().join(format!("spip-tail-pieces-{}", std::process::id()));
        let mut log = File::create(&path).expect("file");
        let mut tail = Tail::open(&path).expect("log");
        log.write_all(b"{\"payload\":\"to").expect("written");
        assert_eq!(tail.wait("token", Instant::now()), None);
        log.write_all(b"ken\"}\n").expect("written");
        assert_eq!(tail.wait("token", Instant::now()).as_deref(), Some("{\"payload\":\"token\"}"));
        fs::remove_file(&path).expect("ours");
    }
}
