//! The log as its callers see it, on real files, pipes and full disks.

mod closing;
mod disk;
mod faults;
mod held;
mod order;
mod rotating;
mod streams;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::config::{Compress, Fsync};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!(
            "spip-log-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir(&path).expect("a directory for the test");
        Directory(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Names in the directory, sorted.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// As the configuration has it by default, but small.
fn config(file: &Path) -> config::Log {
    config::Log {
        file: Some(file.to_owned()),
        fsync: Fsync::Never,
        rotate_bytes: 0,
        rotate_age: None,
        keep_files: 10,
        keep_bytes: 0,
        min_free_bytes: None,
        compress: Compress::None,
        format: spip_record::Format::Flat,
        max_line_bytes: 1 << 20,
        queue_bytes: 64 * 1024,
    }
}

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);

fn fast() -> Pace {
    Pace {
        gather: Duration::from_millis(5),
        retry: Duration::from_millis(30),
        sync: Duration::from_millis(20),
        rotate_again: Duration::from_millis(50),
    }
}

/// Opened but not started: nothing leaves the queue.
fn opened(config: &config::Log) -> (Log, Writer) {
    let target = Target::file(config.file.as_deref().expect("a file"));
    open_with("log_file", config, target, &fast()).expect("the log opens")
}

fn started(config: &config::Log) -> (Log, WriterThread) {
    let (log, writer) = opened(config);
    (log, writer.spawn().expect("the thread starts"))
}

fn end(thread: WriterThread) -> Summary {
    thread.finish(Instant::now() + Duration::from_secs(20))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

/// A record of some hundred bytes, open at its end.
fn record(thread: usize, number: usize) -> Vec<u8> {
    let padding = "x".repeat((thread * 7 + number) % 300);
    format!(r#"{{"thread":{thread},"number":{number},"padding":"{padding}""#).into_bytes()
}

fn parse(text: &[u8]) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with(b"\n"), "the last line has no end");
    text.split_inclusive(|&byte| byte == b'\n')
        .map(|line| {
            serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(line)))
        })
        .collect()
}

fn lines(path: &Path) -> Vec<Value> {
    parse(&fs::read(path).expect("the log"))
}

fn numbers(lines: &[Value], key: &str) -> Vec<u64> {
    lines.iter().filter_map(|line| line[key].as_u64()).collect()
}

/// Asserts that `seq` is 1, 2, 3 … `count`, in this order.
fn assert_complete(lines: &[Value], count: u64) {
    assert!(numbers(lines, "seq").into_iter().eq(1..=count), "the sequence has a gap or a wrong order within {count}");
}

/// Looks again and again, for at most a minute: machines that build are slow.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < patience, "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs a thread for which the rights of files count, as root too. Threads that it starts inherit that.
fn without_privileges<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                if nix::unistd::geteuid().is_root() {
                    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
                    nix::unistd::setfsgid(nix::unistd::Gid::from_raw(65534));
                }
                run()
            })
            .join()
            .expect("the thread ends")
    })
}
