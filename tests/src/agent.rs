//! Starts the agent in the sensor's namespace, follows what it writes, and ends it in the ways in which processes end.
//!
//! The binary is what `SPIP_AGENT_BIN` names, else the release build beside the tests, else the debug build: the
//! tests never build it, so that what is tested is what is shipped.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::follow::{Followed, Follower};
use crate::net::{LISTENER, Net};
use crate::records::{Log, contains};
use crate::{PATIENCE, eventually, schema, sockets};

/// `nobody` and `nogroup` of every distribution.
const NOBODY: u32 = 65534;

/// An agent that is about to be started: its configuration and its circumstances.
#[derive(Clone, Debug)]
#[must_use]
pub struct Launch<'net> {
    net: &'net Net,
    settings: BTreeMap<String, Value>,
    text: String,
    unprivileged: bool,
    capabilities: Option<String>,
    descriptors: Option<u64>,
    arguments: Option<Vec<String>>,
    around: Option<String>,
    stdin: Option<Arc<OwnedFd>>,
    has_schema: bool,
}

impl<'net> Launch<'net> {
    pub(crate) fn new(net: &'net Net) -> Self {
        let settings = [
            ("ip", json!("::")),
            ("port", json!(LISTENER)),
            ("bpf_pin_path", json!(net.pins())),
            ("status_socket", json!(net.path().join("run/status.sock"))),
            ("state_dir", json!(net.path().join("state"))),
            // A client or an agent that waits for a processor is not what ends a session or a stop, unless a test says so.
            ("first_byte_timeout_seconds", json!(PATIENCE.as_secs())),
            ("drain_timeout_seconds", json!(60)),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value)).into();
        Self {
            net,
            settings,
            text: String::new(),
            unprivileged: false,
            capabilities: None,
            descriptors: None,
            arguments: None,
            around: None,
            stdin: None,
            has_schema: true,
        }
    }

    /// Sets a key of the configuration. Strings, numbers, truth values and arrays look alike in JSON and TOML.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// Leaves a key out that a test would have.
    pub fn unset(mut self, key: &str) -> Self {
        self.settings.remove(key);
        self
    }

    /// Appends text to the configuration as it is, such as a table.
    pub fn text(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Writes the log to a file instead of standard output.
    pub fn log_to(self, path: &Path) -> Self {
        self.set("log_file", path.to_str().expect("the tests' paths are text"))
    }

    /// Leaves the records unchecked against their schema, for those who measure.
    pub fn without_schema(mut self) -> Self {
        self.has_schema = false;
        self
    }

    /// Runs as `nobody`, without a capability.
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self
    }

    /// Runs as `nobody` with these capabilities (`bpf`, …) and no others, in any set.
    pub fn capabilities(mut self, names: &[&str]) -> Self {
        self.capabilities = Some(names.iter().fold("-all".to_owned(), |list, name| list + ",+" + name));
        self
    }

    /// Lowers the limit of descriptors, the hard one too.
    pub fn descriptors(mut self, count: u64) -> Self {
        self.descriptors = Some(count);
        self
    }

    /// Starts with these arguments instead of `--config FILE`; `{config}` stands for the file.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = Some(arguments.iter().map(|text| (*text).to_owned()).collect());
        self
    }

    /// Starts it through a shell: in `line`, `"$@"` stands for the program with its arguments.
    pub fn within(mut self, line: &str) -> Self {
        self.around = Some(line.to_owned());
        self
    }

    /// Hands a listening socket over as a service manager does (`LISTEN_FDS`, sd_listen_fds(3)).
    pub fn listening(mut self, socket: &TcpListener) -> Self {
        let socket = socket.as_fd().try_clone_to_owned().expect("a descriptor is left");
        self.stdin = Some(Arc::new(socket));
        // The number of the process is only known inside it; descriptor 3 is where the convention begins.
        self.within(r#"exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@""#)
    }

    /// Starts the agent and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends or says nothing, with what it wrote.
    #[must_use]
    pub fn start(self) -> Agent {
        let is_eve = self.settings.get("log_format").is_some_and(|format| format == "eve");
        let agent = self.spawn();
        agent.wait_message(if is_eve { json!({"engine": {"message": "ready"}}) } else { json!({"message": "ready"}) });
        agent
    }

    /// Starts the agent without waiting for anything.
    #[must_use]
    pub fn spawn(self) -> Agent {
        let config = self.config_file();
        let log_file = self.settings.get("log_file").and_then(Value::as_str).map(PathBuf::from);
        // A log that exists holds what others wrote; only what comes now is this agent's.
        let start = log_file.as_ref().and_then(|path| fs::metadata(path).ok()).map_or(0, |data| data.len());
        let stdin = match &self.stdin {
            Some(socket) => Stdio::from(socket.try_clone().expect("a descriptor is left")),
            None => Stdio::null(),
        };
        let mut child = self.net.sensor.enter(|| {
            self.command(&config)
                .stdin(stdin)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the agent's program starts")
        });
        let stdout = Follower::pipe(child.stdout.take().expect("piped"));
        let stderr = Follower::pipe(child.stderr.take().expect("piped"));
        let file = log_file.map(|path| Follower::file(path, start));
        Agent {
            has_schema: self.has_schema,
            namespace: self.net.sensor.handle(),
            child,
            stdout,
            stderr: Some(stderr),
            file,
        }
    }

    /// Runs the program until it ends by itself, as it does when the configuration is wrong.
    ///
    /// # Panics
    /// When it goes on.
    #[must_use]
    pub fn run(self) -> Ended {
        self.spawn().wait()
    }

    /// Writes the configuration to a file that `nobody` can read too.
    fn config_file(&self) -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = self.net.path().join(format!("agent-{}.toml", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let lines = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n"));
        fs::write(&path, lines.collect::<String>() + &self.text).expect("the test's directory is its own");
        path
    }

    fn command(&self, config: &Path) -> Command {
        let mut binary = program();
        if self.unprivileged || self.capabilities.is_some() {
            // The build directory may be out of reach for others than its owner.
            let copy = self.net.path().join("spip-agent");
            if !copy.exists() {
                // By another process: a child that some thread starts meanwhile would inherit a copy that is open for
                // writing, and such a program cannot be started.
                let copied = Command::new("install").args(["-m", "755"]).args([&binary, &copy]).status();
                assert!(copied.is_ok_and(|status| status.success()), "the program can be copied");
            }
            binary = copy;
        }
        let mut words = Vec::new();
        if let Some(line) = &self.around {
            words.extend(["sh", "-c", line, "sh"].map(OsString::from));
        }
        if let Some(count) = self.descriptors {
            words.extend(["prlimit", &format!("--nofile={count}:{count}"), "--"].map(OsString::from));
        }
        if let Some(list) = &self.capabilities {
            let user = ["setpriv".to_owned(), format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
            let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={list}"));
            words.extend(user.into_iter().chain(["--clear-groups".to_owned()]).chain(sets).map(OsString::from));
        }
        words.push(binary.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        match &self.arguments {
            Some(arguments) => {
                let config = config.to_str().expect("the tests' paths are text");
                command.args(arguments.iter().map(|argument| argument.replace("{config}", config)));
            }
            None => {
                command.arg("--config").arg(config);
            }
        }
        if self.unprivileged {
            // From root to another user the kernel takes every capability away.
            command.uid(NOBODY).gid(NOBODY);
        }
        // An SSH session that runs the tests has a port that the agent would leave alone.
        command.env_remove("SSH_CONNECTION");
        command.current_dir("/");
        command
    }
}

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    namespace: crate::Namespace,
    has_schema: bool,
    child: Child,
    stdout: Follower,
    stderr: Option<Follower>,
    file: Option<Follower>,
}

/// An agent that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// All that it logged.
    pub log: Log,
    /// Output on stderr.
    pub stderr: String,
}

impl Agent {
    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the one record that contains `expected`.
    ///
    /// # Panics
    /// When none comes in time, or there is a second one, with the closest records.
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub fn expect_one(&self, expected: Value) -> Value {
        self.expect(1, &expected).remove(0)
    }

    /// Waits until `count` records contain `expected`, and returns them.
    ///
    /// # Panics
    /// When fewer come in time, or there are more, with the closest records.
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub fn expect_count(&self, count: usize, expected: Value) -> Vec<Value> {
        self.expect(count, &expected)
    }

    fn expect(&self, count: usize, expected: &Value) -> Vec<Value> {
        // Every line is compared once, also when thousands come.
        let (mut looked_at, mut found) = (0, Vec::new());
        self.followed().wait(Instant::now() + PATIENCE, |log| {
            let new = &log.lines[looked_at..];
            looked_at = log.lines.len();
            found.extend(
                new.iter()
                    .filter(|line| line.is_asked_for(expected) && contains(&line.value, expected))
                    .map(|line| line.value.clone()),
            );
            (found.len() >= count || !log.torn.is_empty()).then_some(())
        });
        let explain = || self.followed().with(|log| log.explain(expected, count, found.len()));
        assert!(found.len() == count, "{}{}", explain(), self.trace());
        self.followed().with(Log::expect_whole);
        found
    }

    /// Waits for a system message that contains `expected`, and returns the first.
    ///
    /// # Panics
    /// When none comes in time, with those that came.
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub fn wait_message(&self, expected: Value) -> Value {
        let found = self.followed().wait(Instant::now() + PATIENCE, |log| {
            log.messages().map(|line| &line.value).find(|value| contains(value, &expected)).cloned()
        });
        let explain = || self.followed().with(|log| log.explain(&expected, 1, 0));
        found.unwrap_or_else(|| panic!("no such message from pid {}: {}{}", self.pid(), explain(), self.trace()))
    }

    /// Waits until every connection has been accepted and every byte that came has been read.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub fn wait_all_read(&self) {
        eventually("the agent accepts and reads everything", || {
            sockets::all_read(&self.namespace, LISTENER).then_some(())
        });
    }

    /// Waits until the agent holds exactly `count` open connections.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub fn wait_open(&self, count: usize) {
        let open = Cell::new(0);
        let what = fmt::from_fn(|f| write!(f, "{count} connections are open, not {}", open.get()));
        eventually(what, || {
            open.set(sockets::open(&self.namespace, LISTENER));
            (open.get() == count).then_some(())
        });
    }

    /// Descriptors that the process has open.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the agent runs").count()
    }

    /// Memory that the process has in RAM, in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the agent runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process with memory");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kilobytes * 1024
    }

    /// Returns the output on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.as_ref().map(|stderr| stderr.followed.log().text()).unwrap_or_default()
    }

    /// Returns the log so far.
    #[must_use]
    pub fn log(&self) -> Log {
        self.followed().log()
    }

    /// Reports whether the process is still running.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process numbers are below 2^22");
        kill(Pid::from_raw(pid), signal).expect("the agent runs");
    }

    /// Stops it as a debugger does, until SIGCONT, and returns when none of its threads runs any more: the signal alone
    /// leaves them time for one more accept.
    ///
    /// # Panics
    /// When a thread goes on, or the process is gone.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.pid());
        eventually("every thread has stopped", || {
            fs::read_dir(&tasks)
                .expect("the agent runs")
                .all(|task| {
                    let stat = task.and_then(|task| fs::read_to_string(task.path().join("stat")));
                    // The state follows the name, which is in parentheses and may have some.
                    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
                })
                .then_some(())
        });
    }

    /// Ends it as an operator does, with SIGTERM.
    ///
    /// # Panics
    /// When it goes on, or ends with anything but 0.
    #[must_use]
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        let ended = self.wait();
        assert!(ended.status.success(), "the agent ended with {}\n{}", ended.status, ended.stderr);
        ended.log.expect_whole();
        ended
    }

    /// Ends it without a warning. The log may end in half a line.
    #[must_use]
    pub fn kill(self) -> Ended {
        self.signal(Signal::SIGKILL);
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it goes on.
    #[must_use]
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        // The pipe ends with the process; no other process holds its other end.
        self.stdout.followed.wait(deadline, |_| None::<()>);
        let status = loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("the agent goes on{}", self.trace()),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let stderr = self.stderr.take().expect("taken here only").finish().text();
        let log = match self.file.take() {
            Some(file) => file.finish(),
            None => self.stdout.followed.log(),
        };
        if self.has_schema {
            schema::expect_valid(&log);
            self.has_schema = false;
        }
        Ended { status, log, stderr }
    }

    fn followed(&self) -> &Followed {
        &self.file.as_ref().unwrap_or(&self.stdout).followed
    }

    /// Returns the context that a failure shows beside the records.
    fn trace(&self) -> String {
        format!("\nstderr: {}", self.stderr())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A test that fails already has said why.
        if self.has_schema && !std::thread::panicking() {
            self.followed().with(schema::expect_valid);
        }
    }
}

/// The program under test.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("SPIP_AGENT_BIN") {
        return path.into();
    }
    // The tests' own program lies in <target>/<profile>/deps.
    let own = std::env::current_exe().expect("Linux knows the path of a program");
    let target = own.ancestors().nth(3).expect("cargo's directories are that deep");
    ["release", "debug"]
        .map(|profile| target.join(profile).join("spip-agent"))
        .into_iter()
        .find(|path| File::open(path).is_ok())
        .unwrap_or_else(|| panic!("no agent below {}: run `cargo xtask build`", target.display()))
}
