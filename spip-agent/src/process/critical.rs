//! Threads that the agent cannot do without, and what happens when one of them panics, or ends although it never
//! should.
//!
//! A sensor that has lost a thread looks alive and is not: deadlines pass unseen, signals are not heard, records pile
//! up. So every thread that lives as long as the agent is started here; when one is lost, that is said on standard
//! error at once, and the agent is asked to stop in order, with the records of what is open, and with a status that
//! tells the service manager to start it again.
//!
//! The process has one such agent, as it has one standard error, so what is known of it is kept in statics: threads are
//! started long before there is anything to ask for a shutdown.

use std::io;
use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::process::rate::Window;
use crate::process::stderr;

/// State of the critical threads of this process.
struct State {
    /// The first one that was lost.
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
    let alarm = Alarm { name: name.to_owned(), ended: None };
    builder.name(name.to_owned()).spawn(move || {
        let _alarm = alarm;
        #[cfg(test)]
        tests::panic_if_asked(&_alarm.name);
        body()
    })
}

/// Starts a thread that ends with the process: should it end before, `body` says why, and it is lost as by a panic.
///
/// # Errors
/// The kernel refuses a thread.
pub fn spawn_endless(name: &str, body: impl FnOnce() -> io::Error + Send + 'static) -> io::Result<()> {
    let alarm = Alarm { name: name.to_owned(), ended: None };
    Builder::new().name(name.to_owned()).spawn(move || {
        // The whole of it, and not the field alone that is written to.
        let mut alarm = alarm;
        #[cfg(test)]
        tests::panic_if_asked(&alarm.name);
        #[cfg(test)]
        if let Some(error) = tests::end_if_asked(&alarm.name) {
            alarm.ended = Some(error);
            return;
        }
        alarm.ended = Some(body());
    })?;
    Ok(())
}

/// Has `stop` called when such a thread is lost; at once, when one is.
pub fn on_loss(stop: impl Fn() + Send + 'static) {
    let mut state = state();
    if state.lost.is_some() {
        stop();
    }
    state.stop = Some(Box::new(stop));
}

/// The first thread that was lost, if one was.
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
        stderr::emergency(&format!("panic in thread {name} at {place}: {reason}; this is a defect of spip-agent"));
    }));
}

/// Reports whether one more panic is described now: clients may have found out how to cause them.
fn describes_another() -> bool {
    /// Nothing panics while it is locked.
    static DESCRIBED: Mutex<Window> = Mutex::new(Window::beginning(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    DESCRIBED.lock().unwrap_or_else(PoisonError::into_inner).admits(now_ms)
}

/// Goes off when the thread that owns it is lost.
struct Alarm {
    name: String,
    /// Error of an end that should not have been.
    ended: Option<io::Error>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let name = &self.name;
        let text = match &self.ended {
            _ if thread::panicking() => format!("the thread {name} is lost by a panic: the agent stops"),
            Some(why) => format!("the thread {name} has ended ({why}): the agent stops"),
            None => return,
        };
        stderr::emergency(&text);
        let mut state = state();
        state.lost.get_or_insert_with(|| name.clone());
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
    use std::io;
    use std::path::Path;
    use std::process::Command;

    use crate::config::Config;
    use crate::start::app::{self, Options};

    /// Names the thread that has to panic, in a process of its own.
    const PANIC: &str = "SPIP_TEST_PANIC";
    /// Names the thread that has to end.
    const END: &str = "SPIP_TEST_END";
    /// The directory of that process.
    const DIRECTORY: &str = "SPIP_TEST_PANIC_DIRECTORY";
    /// Additional configuration of this test.
    const CONFIG: &str = "SPIP_TEST_PANIC_CONFIG";

    fn is_asked(variable: &str, name: &str) -> bool {
        std::env::var_os(variable).is_some_and(|asked| asked == name)
    }

    pub(super) fn panic_if_asked(name: &str) {
        assert!(!is_asked(PANIC, name), "asked for by the test");
    }

    pub(super) fn end_if_asked(name: &str) -> Option<io::Error> {
        is_asked(END, name).then(|| io::Error::other("asked for by the test"))
    }

    /// Runs an agent that loses the thread `name` as soon as it starts: nothing else ends this one. Says how that was
    /// told.
    fn expect_loss(how: &str, name: &str, config: &str) -> String {
        let directory = std::env::temp_dir().join(format!("spip-critical-{}-{how}-{name}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        let output = Command::new(std::env::current_exe().expect("own path"))
            .args(["--ignored", "--exact", "process::critical::tests::agent_of_the_test", "--nocapture"])
            .env(how, name)
            .env(DIRECTORY, &directory)
            .env(CONFIG, config)
            .output()
            .expect("the test starts itself");
        fs::remove_dir_all(&directory).expect("the directory goes");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(7), "{name}: {said}{}", String::from_utf8_lossy(&output.stdout));
        let last = said.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
        assert!(last.contains(&format!("the thread {name} ended unexpectedly")), "{name}: {said}");
        assert!(said.contains("asked for by the test"), "{name}: {said}");
        said
    }

    fn expect_loss_by_panic(name: &str, config: &str) {
        let said = expect_loss(PANIC, name, config);
        assert!(said.contains(&format!("the thread {name} is lost by a panic: the agent stops")), "{name}: {said}");
    }

    #[test]
    fn an_agent_that_loses_a_thread_ends_with_a_failure_and_names_it() {
        for name in ["signals", "service", "worker-0", "spip-log", "spip-log-files", "metrics", "status", "payloads"] {
            expect_loss_by_panic(name, "ebpf = \"off\"\n");
        }
    }

    #[test]
    fn so_does_one_that_loses_a_thread_of_its_kernel_side() {
        if !nix::unistd::geteuid().is_root() || !crate::kernel::ebpf::is_built_in() {
            assert!(std::env::var_os("CI").is_none(), "needs root, and an agent with eBPF");
            return eprintln!("skipped: needs root, and an agent with eBPF (cargo xtask build-ebpf)");
        }
        for name in ["steering", "scans", "ebpf-log"] {
            expect_loss_by_panic(name, "ebpf = \"required\"\nsteering = \"sk_lookup\"\n");
        }
    }

    #[test]
    fn a_thread_that_ends_although_it_should_not_is_lost_as_well() {
        for name in ["signals", "metrics", "status"] {
            let said = expect_loss(END, name, "ebpf = \"off\"\n");
            let told = format!("the thread {name} has ended (asked for by the test): the agent stops");
            assert!(said.contains(&told), "{name}: {said}");
        }
    }

    #[test]
    #[ignore = "run by the other tests, in a process of its own"]
    fn agent_of_the_test() {
        let directory = std::env::var_os(DIRECTORY).expect("run by the other tests");
        let directory = Path::new(&directory);
        let more = std::env::var(CONFIG).expect("run by the other tests");
        let path = directory.join("spip.toml");
        if more.contains("sk_lookup") {
            // Nothing is steered on this machine: the agent's threads have the namespace of this one.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("iproute2");
            assert!(up.success(), "loopback of an own namespace");
        }
        // A loopback address of this process alone: no port of it is anybody else's.
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let a = 64 + a % 64;
        let text = format!(
            "ip = \"127.{a}.{b}.{c}\"\nport = 12345\nsandbox = \"off\"\nlog_file = \"{directory}/log\"\n\
             log_rotate_bytes = 1000000\nmetrics = \"{directory}/metrics.sock\"\n\
             status_socket = \"{directory}/status.sock\"\nstate_dir = \"{directory}/state\"\n\
             payload_dir = \"{directory}/payloads\"\nbpf_pin_path = \"{directory}/pins\"\n{more}",
            directory = directory.display(),
        );
        fs::write(&path, text).expect("own directory");
        let loaded = Config::load(&path).expect("valid");
        let options = Options { path, ebpf_log: Some(log::Level::Info) };
        let error = app::run(&loaded, options).expect_err("a thread is lost");
        crate::process::stderr::emergency(&format!("{error:#}"));
        std::process::exit(7);
    }
}
