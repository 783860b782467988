//! Threads that the agent cannot do without, and what happens when one of them panics.
//!
//! A sensor that has lost a thread looks alive and is not: deadlines pass unseen, signals are not heard, records pile
//! up. So every thread that lives as long as the agent is started here; when one panics, that is said on standard error
//! at once, and the agent is asked to stop in order, with the records of what is open, and with a status that tells the
//! service manager to start it again.
//!
//! The process has one such agent, as it has one standard error, so what is known of it is kept in statics: threads are
//! started long before there is somebody who could be asked to stop.

use std::io;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::messages;

/// Panics that are described within one second; strangers may have found out how to cause them.
const DESCRIBED_A_SECOND: u64 = 10;

/// What is known of the threads of this process.
struct State {
    /// The first one that panicked.
    lost: Option<String>,
    /// Asks the agent to stop.
    stop: Option<Box<dyn Fn() + Send>>,
}

static STATE: Mutex<State> = Mutex::new(State { lost: None, stop: None });

/// Starts a thread that the agent cannot do without. Names have at most 15 characters, as the kernel keeps no more.
///
/// # Errors
/// The kernel refuses a thread.
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    spawn_with(Builder::new(), name, body)
}

/// As [`spawn`], with what else `builder` says of the thread.
///
/// # Errors
/// The kernel refuses a thread.
pub fn spawn_with<T: Send + 'static>(
    builder: Builder,
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let alarm = Alarm(name.to_owned());
    builder.name(name.to_owned()).spawn(move || {
        let _alarm = alarm;
        #[cfg(test)]
        tests::panic_if_asked(&_alarm.0);
        body()
    })
}

/// Has `stop` called when such a thread panics; at once, when one has.
pub fn on_loss(stop: impl Fn() + Send + 'static) {
    let mut state = state();
    if state.lost.is_some() {
        stop();
    }
    state.stop = Some(Box::new(stop));
}

/// The first thread that panicked, if one did.
#[must_use]
pub fn lost() -> Option<String> {
    state().lost.clone()
}

/// Has panics described on standard error in the form of a system message, whatever thread or session they end. The log
/// is left alone: its own lock may be held by the one that panics.
pub fn describe_panics() {
    panic::set_hook(Box::new(|info| {
        if !describes_another() {
            return;
        }
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let reason = info.payload_as_str().unwrap_or("no reason");
        messages::emergency(&format!("panic in thread {name} at {place}: {reason}; this is a defect of spip-agent"));
    }));
}

fn describes_another() -> bool {
    /// The second, shifted, and how many were described in it.
    static DESCRIBED: AtomicU64 = AtomicU64::new(0);
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let next = |described: u64| if described >> 16 == second { described + 1 } else { second << 16 };
    let before = DESCRIBED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |d| Some(next(d))).unwrap_or_default();
    next(before) & 0xffff < DESCRIBED_A_SECOND
}

/// Goes off when the thread that owns it panics.
struct Alarm(String);

impl Drop for Alarm {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        messages::emergency(&format!("the thread {} is lost by a panic: the agent stops", self.0));
        let mut state = state();
        state.lost.get_or_insert_with(|| self.0.clone());
        if let Some(stop) = &state.stop {
            stop();
        }
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Output};

    use crate::app::{self, Options};
    use crate::config::Config;

    /// Names the thread that has to panic, in a process of its own.
    const VARIABLE: &str = "SPIP_TEST_PANIC";
    /// The directory of that process.
    const DIRECTORY: &str = "SPIP_TEST_PANIC_DIRECTORY";

    pub(super) fn panic_if_asked(name: &str) {
        let asked = std::env::var_os(VARIABLE).is_some_and(|asked| asked == name);
        assert!(!asked, "asked for by the test");
    }

    /// Runs an agent in which the thread `name` panics as soon as it starts.
    fn agent_without(name: &str) -> Output {
        let directory = std::env::temp_dir().join(format!("spip-vital-{}-{name}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        let output = Command::new(std::env::current_exe().expect("own path"))
            .args(["--ignored", "--exact", "vital::tests::agent_of_the_test", "--nocapture"])
            .env(VARIABLE, name)
            .env(DIRECTORY, &directory)
            .output()
            .expect("the test starts itself");
        fs::remove_dir_all(&directory).expect("the directory goes");
        output
    }

    #[test]
    fn an_agent_that_loses_a_thread_ends_with_a_failure_and_names_it() {
        for name in ["signals", "service", "worker-0", "spip-log", "spip-log-files", "metrics"] {
            let output = agent_without(name);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(7), "{name}: {said}{}", String::from_utf8_lossy(&output.stdout));
            let lost = format!("the thread {name} is lost by a panic: the agent stops");
            assert!(said.contains(&lost) && said.contains("asked for by the test"), "{name}: {said}");
            let last = said.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
            assert!(last.contains(&format!("it lost its thread {name}")), "{name}: {said}");
        }
    }

    #[test]
    #[ignore = "run by an_agent_that_loses_a_thread_ends_with_a_failure_and_names_it, in a process of its own"]
    fn agent_of_the_test() {
        let directory = std::env::var_os(DIRECTORY).expect("run by the other test");
        let path = Path::new(&directory).join("spip.toml");
        // A free port; nobody else takes it before the agent does, or the status differs.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let text = format!(
            "ip = \"127.0.0.1\"\nport = {}\nebpf = \"off\"\nsandbox = \"off\"\nlog_file = \"{}/log\"\n\
             log_rotate_bytes = 1000000\nmetrics = \"{}/metrics.sock\"\n",
            port.expect("a free port").port(),
            Path::new(&directory).display(),
            Path::new(&directory).display(),
        );
        fs::write(&path, text).expect("own directory");
        let loaded = Config::load(&path).expect("valid");
        let error = app::run(&loaded.config, &loaded.warnings, Options { path, ebpf_log: None });
        let error = error.expect_err("a thread is lost");
        crate::messages::emergency(&format!("{error:#}"));
        std::process::exit(7);
    }
}
