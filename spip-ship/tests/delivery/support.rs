//! Servers, logs and shippers of a test. Everything is below one temporary directory and ends with the test; with
//! `SPIP_KEEP` the directory of a failed test stays.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use spip_ship::config::NatsAccess;
use spip_ship::nats::Connection;

/// Time that a test waits for an event that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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

/// A NATS server with JetStream.
pub(crate) struct Nats {
    program: PathBuf,
    directory: PathBuf,
    pub(crate) port: u16,
    process: Option<Process>,
    more: String,
}

impl Nats {
    pub(crate) fn start(program: &Path, place: &Place, more: &str) -> Self {
        let mut server = Self {
            program: program.to_owned(),
            directory: place.path("nats"),
            port: free_port(),
            process: None,
            more: more.to_owned(),
        };
        server.run();
        server
    }

    pub(crate) fn run(&mut self) {
        fs::create_dir_all(&self.directory).expect("a temporary directory");
        let file = self.directory.join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n{}",
            self.port, self.directory, self.more
        );
        fs::write(&file, text).expect("a writable directory");
        let output = fs::File::create(self.directory.join("output")).expect("a writable directory");
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("the server starts");
        self.process = Some(Process(child));
        wait_for("the server listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    pub(crate) fn sink(&self) -> String {
        sink_at(self.port)
    }

    /// Returns every message of the stream `SPIP`: subject, headers and lines.
    pub(crate) fn messages(&self) -> Vec<Message> {
        messages(self.port)
    }

    /// Changes what is set of the stream `SPIP`.
    pub(crate) fn update_stream(&self, changes: &serde_json::Value) {
        let runtime = runtime();
        let mut connection = Connection::new(access(self.port), runtime.handle().clone(), None);
        let info: serde_json::Value = connection.api("STREAM.INFO.SPIP", &serde_json::Value::Null).expect("a stream");
        let mut config = info["config"].clone();
        for (key, value) in changes.as_object().expect("an object") {
            config[key] = value.clone();
        }
        let _: serde_json::Value = connection.api("STREAM.UPDATE.SPIP", &config).expect("changed");
    }

    /// Removes a message of the stream.
    pub(crate) fn delete(&self, seq: u64) {
        let runtime = runtime();
        let mut connection = Connection::new(access(self.port), runtime.handle().clone(), None);
        let _: serde_json::Value =
            connection.api("STREAM.MSG.DELETE.SPIP", &serde_json::json!({ "seq": seq })).expect("removed");
    }

    /// Removes the last message of the stream, as a server does that loses power before it wrote it.
    pub(crate) fn delete_last(&self) {
        let runtime = runtime();
        let mut connection = Connection::new(access(self.port), runtime.handle().clone(), None);
        let info: serde_json::Value = connection.api("STREAM.INFO.SPIP", &serde_json::Value::Null).expect("a stream");
        let seq = info["state"]["last_seq"].clone();
        let _: serde_json::Value =
            connection.api("STREAM.MSG.DELETE.SPIP", &serde_json::json!({ "seq": seq })).expect("removed");
    }

    /// Counts what is stored, if there is a stream yet.
    pub(crate) fn stored_or_nothing(&self) -> BTreeMap<(String, String, u64), u32> {
        let runtime = runtime();
        let mut connection = Connection::new(access(self.port), runtime.handle().clone(), None);
        match connection.api::<serde_json::Value>("STREAM.INFO.SPIP", &serde_json::Value::Null) {
            Ok(info) if info["state"]["last_seq"].as_u64() > Some(0) => self.stored(),
            _ => BTreeMap::new(),
        }
    }

    /// Counts what is stored: how often each (`name`, `run`, `seq`).
    pub(crate) fn stored(&self) -> BTreeMap<(String, String, u64), u32> {
        let mut counts = BTreeMap::new();
        for message in self.messages() {
            count(&message.lines, &mut counts);
        }
        counts
    }
}

/// Three NATS servers that keep every message three times.
pub(crate) struct Cluster {
    program: PathBuf,
    directory: PathBuf,
    ports: Vec<(u16, u16)>,
    members: Vec<Option<Process>>,
}

impl Cluster {
    pub(crate) fn start(program: &Path, place: &Place) -> Self {
        let mut cluster = Self {
            program: program.to_owned(),
            directory: place.path("cluster"),
            ports: (0..3).map(|_| (free_port(), free_port())).collect(),
            members: vec![None, None, None],
        };
        (0..3).for_each(|member| cluster.run(member));
        wait_for("the cluster has a leader", || {
            let runtime = runtime();
            let mut connection = Connection::new(access(cluster.port(0)), runtime.handle().clone(), None);
            connection.api::<serde_json::Value>("INFO", &serde_json::Value::Null).ok()
        });
        cluster
    }

    pub(crate) fn port(&self, member: usize) -> u16 {
        self.ports[member].0
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.ports.iter().map(|(port, _)| format!("nats://127.0.0.1:{port}")).collect()
    }

    pub(crate) fn run(&mut self, member: usize) {
        let directory = self.directory.join(member.to_string());
        fs::create_dir_all(&directory).expect("a temporary directory");
        let routes: Vec<_> = self.ports.iter().map(|(_, route)| format!("nats://127.0.0.1:{route}")).collect();
        let (port, route) = self.ports[member];
        let text = format!(
            "server_name: n{member}\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {directory:?}, sync_interval: always }}\n\
             cluster {{ name: c, listen: \"127.0.0.1:{route}\", routes: {routes:?} }}\n"
        );
        let file = directory.join("nats.conf");
        fs::write(&file, text).expect("a writable directory");
        let output = fs::OpenOptions::new().append(true).create(true).open(directory.join("output"));
        let output = output.expect("a writable directory");
        let child = Command::new(&self.program).arg("-c").arg(&file).stdout(Stdio::null()).stderr(output).spawn();
        self.members[member] = Some(Process(child.expect("the server starts")));
        wait_for("the server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    }

    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member] = None;
    }

    /// Lists the messages of `sensor` that repeat a record, each with the one that had it before: sequence, time and headers.
    pub(crate) fn repeated(&self, sensor: &str) -> String {
        let mut first = BTreeMap::new();
        let mut text = String::new();
        let messages = messages(self.port(0));
        for (at, message) in messages.iter().enumerate() {
            if message.subject != format!("spip.records.{sensor}") {
                continue;
            }
            let mut counts = BTreeMap::new();
            count(&message.lines, &mut counts);
            let earlier = counts.keys().filter_map(|key| first.get(key).copied()).min();
            if let Some(earlier) = earlier {
                let show = |at: usize| {
                    let Message { seq, time, headers, .. } = &messages[at];
                    format!("{seq} {time}\n    {}\n", headers.trim().replace("\r\n", "\n    "))
                };
                let _ = writeln!(text, "stored: {}repeated: {}", show(earlier), show(at));
            }
            counts.into_keys().for_each(|key| {
                first.entry(key).or_insert(at);
            });
        }
        text
    }
}

pub(crate) fn sink_at(port: u16) -> String {
    format!("[[sink]]\nkind = \"nats\"\nurl = \"nats://127.0.0.1:{port}\"\nstream = \"SPIP\"\nbatch_bytes = 8192\n")
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

pub(crate) fn access(port: u16) -> NatsAccess {
    NatsAccess {
        urls: vec![format!("nats://127.0.0.1:{port}")],
        stream: "SPIP".to_owned(),
        subject_prefix: "spip.records".to_owned(),
        domain: None,
        credentials: None,
        nkey: None,
        user: None,
        password: None,
        token: None,
        ca: None,
        certificate: None,
    }
}

pub(crate) struct Message {
    pub(crate) seq: u64,
    pub(crate) time: String,
    pub(crate) subject: String,
    pub(crate) headers: String,
    pub(crate) lines: String,
}

fn messages(port: u16) -> Vec<Message> {
    let runtime = runtime();
    let mut connection = Connection::new(access(port), runtime.handle().clone(), None);
    let info: serde_json::Value = connection.api("STREAM.INFO.SPIP", &serde_json::Value::Null).expect("a stream");
    let last = info["state"]["last_seq"].as_u64().expect("a number");
    let first = info["state"]["first_seq"].as_u64().expect("a number");
    (first..=last).filter_map(|seq| message(&mut connection, seq)).collect()
}

fn message(connection: &mut Connection, seq: u64) -> Option<Message> {
    let answer: serde_json::Value = match connection.api("STREAM.MSG.GET.SPIP", &serde_json::json!({ "seq": seq })) {
        Ok(answer) => answer,
        // Removed: the number stays free.
        Err(spip_ship::nats::Error::Api(error)) if error.err_code == 10043 || error.err_code == 10037 => return None,
        Err(error) => panic!("message {seq}: {error}"),
    };
    let message = &answer["message"];
    let decode = |key: &str| {
        let text = message[key].as_str().unwrap_or_default();
        base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
    };
    let headers = String::from_utf8(decode("hdrs")).expect("UTF-8");
    let payload = decode("data");
    let payload = if headers.contains("Content-Encoding: zstd") {
        zstd::decode_all(payload.as_slice()).expect("zstd")
    } else {
        payload
    };
    Some(Message {
        seq,
        time: message["time"].as_str().unwrap_or_default().to_owned(),
        subject: message["subject"].as_str().expect("a subject").to_owned(),
        headers,
        lines: String::from_utf8(payload).expect("UTF-8"),
    })
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
    let closed = PathBuf::from(format!("{}.20260101T0000{:02}.000001Z", log.display(), number % 60));
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
    let path = config.with_extension("log");
    let output = fs::OpenOptions::new().append(true).create(true).open(path).expect("a writable directory");
    let mut command = ship(config, &["--log-level", "debug"]);
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
