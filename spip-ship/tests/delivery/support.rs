//! Servers, logs and shippers of a test. Everything is below one temporary directory and ends with the test; with
//! `SPIP_KEEP` the directory of a failed test stays.

mod servers;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use self::servers::{Cluster, Nats, access, runtime, sink_at};

/// Time that a test waits for an event that must happen. Long, because build machines are slow; a passing test never waits
/// for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// A directory that goes with the test.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("spip-ship-test-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("log")).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log/spip.jsonl")
    }

    /// Writes a configuration with the log of this place and `sinks`.
    pub(crate) fn configure(&self, sinks: &str) -> PathBuf {
        let path = self.path("ship.toml");
        let text = format!("log = {:?}\nstate_dir = {:?}\n{sinks}", self.log(), self.path("state"));
        fs::write(&path, text).expect("a writable directory");
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::env::var_os("SPIP_KEEP").is_some() && thread::panicking() {
            return;
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the program that `variable` names, or says that the test is skipped.
pub(crate) fn peer(variable: &str) -> Option<PathBuf> {
    let program = std::env::var_os(variable);
    if program.is_none() {
        let why = format!("needs {variable}, which `cargo xtask test` sets");
        assert!(std::env::var_os("CI").is_none(), "{why}, and CI must not skip it");
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let _ = std::io::stderr().write_all(format!("skipped: {name} {why}\n").as_bytes());
    }
    program.map(Into::into)
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
        wait_for("the process ends", || self.0.try_wait().expect("a child"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks `probe` until it answers.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// Counts the records of `text` into `counts`.
pub(crate) fn count(text: &str, counts: &mut BTreeMap<(String, String, u64), u32>) {
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if let Some(seq) = value["seq"].as_u64() {
            let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            *counts.entry((word("name"), word("run"), seq)).or_default() += 1;
        }
    }
}

/// Asserts that exactly the records `numbers` of one run are there, each once.
pub(crate) fn assert_each_once(
    counts: &BTreeMap<(String, String, u64), u32>,
    run: &str,
    numbers: std::ops::Range<u64>,
) {
    let of_run = |counts: &BTreeMap<(String, String, u64), u32>| -> BTreeMap<u64, u32> {
        counts.iter().filter(|((_, of, _), _)| of == run).map(|((_, _, seq), count)| (*seq, *count)).collect()
    };
    let counts = of_run(counts);
    let missing: Vec<_> = numbers.clone().filter(|seq| !counts.contains_key(seq)).collect();
    let double: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    let beyond: Vec<_> = counts.keys().filter(|seq| !numbers.contains(seq)).collect();
    assert!(missing.is_empty(), "{} missing, the first {:?}", missing.len(), missing.first());
    assert!(double.is_empty(), "{} double, the first {:?}", double.len(), double.first());
    assert!(beyond.is_empty(), "{} never logged, the first {:?}", beyond.len(), beyond.first());
}

/// Returns lines of records as the agent writes them.
pub(crate) fn records(name: &str, run: &str, numbers: std::ops::Range<u64>) -> String {
    numbers.fold(String::new(), |mut text, seq| {
        let payload = format!("GET /{seq} HTTP/1.1\\r\\nHost: sensor\\r\\n\\r\\n");
        let hex = "474554202f20485454502f312e310d0a0d0a";
        let _ = writeln!(
            text,
            "{{\"timestamp\":1795944926,\"payload\":\"{payload}\",\"payload_hex\":\"{hex}\",\"source_ip\":\"198.51.100.{}\",\
             \"source_port\":40000,\"destination_ip\":\"198.51.100.1\",\"destination_port\":80,\
             \"session_id\":\"8c5f2c9e-0000-4000-8000-{seq:012x}\",\"is_tls\":false,\"schema\":\"spip/1\",\
             \"name\":\"{name}\",\"run\":\"{run}\",\"time\":\"2026-11-29T09:35:26.409060Z\",\"duration_ms\":0,\
             \"duration_us\":983,\"bytes_in\":18,\"bytes_out\":0,\"payload_truncated\":false,\
             \"close_reason\":\"client_closed\",\"destination_source\":\"ebpf\",\
             \"community_id\":\"1:LQU9qZlK+B5F3KDmev6m5PMibrg=\",\"protocol\":\"http\",\"seq\":{seq}}}",
            seq % 250,
        );
        text
    })
}

pub(crate) fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path).expect("a log");
    file.write_all(text.as_bytes()).expect("space");
}

/// Closes the log as the agent does.
pub(crate) fn rotate(log: &Path, number: u32) -> PathBuf {
    let time = format!("20260101T00{:02}{:02}.000001Z", number / 60 % 60, number % 60);
    let closed = PathBuf::from(format!("{}.{time}", log.display()));
    fs::rename(log, &closed).expect("a log");
    closed
}

/// Compresses a closed log as the agent does.
pub(crate) fn compress(closed: &Path) {
    let packed = zstd::encode_all(fs::File::open(closed).expect("a log"), 3).expect("compressed");
    let (target, part) = (format!("{}.zst", closed.display()), format!("{}.zst.part", closed.display()));
    fs::write(&part, packed).expect("space");
    fs::rename(part, target).expect("renamed");
    fs::remove_file(closed).expect("removed");
}

fn ship(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spip-ship"));
    command.arg("--config").arg(config).args(arguments);
    command
}

/// Runs the program to its end; returns whether it succeeded, and its messages.
pub(crate) fn run(config: &Path, arguments: &[&str]) -> (bool, String) {
    let output = ship(config, arguments).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.success(), text)
}

/// Delivers what is there, and asserts that it worked.
pub(crate) fn once(config: &Path) -> String {
    let (succeeded, text) = run(config, &["--once"]);
    assert!(succeeded, "{text}");
    text
}

/// Delivers what is there, and gives up after `seconds` without progress.
pub(crate) fn once_within(config: &Path, seconds: u32) {
    let (succeeded, text) = run(config, &["--once", "--timeout", &seconds.to_string()]);
    assert!(succeeded, "{text}");
}

/// Starts the program; its messages go to `ship.log` beside the configuration.
pub(crate) fn follow(config: &Path) -> Process {
    follow_by(config, None)
}

/// Starts the program with another wall clock.
pub(crate) fn follow_by(config: &Path, clock: Option<&Clock>) -> Process {
    follow_in(Path::new(env!("CARGO_BIN_EXE_spip-ship")), config, clock)
}

/// The same, by a program that starts it elsewhere.
pub(crate) fn follow_in(program: &Path, config: &Path, clock: Option<&Clock>) -> Process {
    let path = config.with_extension("log");
    let output = fs::OpenOptions::new().append(true).create(true).open(path).expect("a writable directory");
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(["--log-level", "debug"]);
    if let Some(clock) = clock {
        command.env("LD_PRELOAD", &clock.library).env("SPIP_TEST_CLOCK", &clock.offset);
    }
    Process(command.stderr(output).spawn().expect("the program starts"))
}

/// A wall clock that is stepped while programs run by it.
pub(crate) struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// Compiles the library that programs get the clock by; `None` where there is no C compiler.
    pub(crate) fn new(place: &Place) -> Option<Self> {
        let clock = Self { library: place.path("clock.so"), offset: place.path("clock.offset") };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/delivery/clock.c");
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-O", "-o"]).arg(&clock.library).arg(source).status();
        if !compiled.is_ok_and(|status| status.success()) {
            println!("there is no C compiler, so the clock is not stepped");
            return None;
        }
        fs::write(&clock.offset, 0_i64.to_ne_bytes()).expect("a writable directory");
        Some(clock)
    }

    /// Steps the clock to so many seconds beside the machine's.
    pub(crate) fn step(&self, seconds: i64) {
        // In place: the programs have mapped the file.
        let mut file = fs::OpenOptions::new().write(true).open(&self.offset).expect("a file");
        file.write_all(&seconds.to_ne_bytes()).expect("written");
    }
}
