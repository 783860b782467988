//! Follows what an agent writes, in a thread of its own, line by line as it comes.
//!
//! A pipe ends by itself. A file is followed by name, as `tail -F` does: when another file has taken its place, the
//! old one is read to its end first. Nothing announces that a file has grown, so it is looked at every few
//! milliseconds.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::records::Log;

/// Between two looks at a file.
const PAUSE: Duration = Duration::from_millis(3);

/// The log so far, shared between the thread that reads and the test that waits.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    log: Log,
    /// Last bytes without the end of a line.
    partial: Vec<u8>,
    ended: bool,
    /// Nothing will be written any more: what is there now is all.
    last_look: bool,
}

impl Followed {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `probe` answers, the writer has ended, or the deadline has passed; the last answer.
    pub(crate) fn wait<T>(&self, deadline: Instant, mut probe: impl FnMut(&Log) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        loop {
            let answer = probe(&state.log);
            let left = deadline.saturating_duration_since(Instant::now());
            if answer.is_some() || state.ended || left.is_zero() {
                return answer;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> Log {
        self.lock().log.clone()
    }

    /// Looks at what has come so far, without copying it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.lock().log)
    }

    fn take(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.partial.extend_from_slice(bytes);
        if state.partial.ends_with(b"\n") {
            let line = std::mem::take(&mut state.partial);
            state.log.push(&String::from_utf8_lossy(&line));
            self.changed.notify_all();
        }
    }

    fn end(&self) {
        let mut state = self.lock();
        if !state.partial.is_empty() {
            let line = String::from_utf8_lossy(&std::mem::take(&mut state.partial)).into_owned();
            state.log.torn.push(line);
        }
        state.ended = true;
        self.changed.notify_all();
    }
}

/// A log that is being followed.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) followed: Arc<Followed>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Follows a pipe until it ends.
    pub(crate) fn pipe(source: impl Read + Send + 'static) -> Self {
        let followed = Arc::new(Followed::default());
        let shared = Arc::clone(&followed);
        let thread = std::thread::spawn(move || {
            let mut reader = BufReader::new(source);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                shared.take(&line);
                line.clear();
            }
            shared.end();
        });
        Self { followed, thread: Some(thread) }
    }

    /// Follows a file from `start` on, until [`Follower::finish`].
    pub(crate) fn file(path: PathBuf, start: u64) -> Self {
        let followed = Arc::new(Followed::default());
        let shared = Arc::clone(&followed);
        let thread = std::thread::spawn(move || {
            follow_file(&shared, &path, start);
            shared.end();
        });
        Self { followed, thread: Some(thread) }
    }

    /// The writer is gone: reads what is left and ends.
    pub(crate) fn finish(mut self) -> Log {
        self.followed.lock().last_look = true;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the reading thread does not panic");
        }
        self.followed.log()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.followed.lock().last_look = true;
    }
}

fn follow_file(shared: &Followed, path: &Path, mut start: u64) {
    loop {
        let last = shared.lock().last_look;
        if let Ok(mut file) = File::open(path) {
            let _ = file.seek(SeekFrom::Start(start));
            if read_until_replaced(shared, file, path) {
                start = 0;
                continue;
            }
            return;
        }
        if last {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Reads until another file has the name (true) or nothing more will come (false).
fn read_until_replaced(shared: &Followed, file: File, path: &Path) -> bool {
    let number = file.metadata().map(|data| data.ino()).unwrap_or_default();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        // Asked before reading: what was written before the answer is read after it. A name without a file is no
        // replacement: the agent may still hold the old one.
        let last = shared.lock().last_look;
        let replaced = std::fs::metadata(path).is_ok_and(|data| data.ino() != number);
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            shared.take(&line);
            line.clear();
        }
        if replaced || last {
            return replaced;
        }
        std::thread::sleep(PAUSE);
    }
}
