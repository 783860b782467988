//! The agent as a service: what it tells its manager, what it takes up while it runs, where it says what it has done,
//! and that it works under the settings of its unit.

mod metrics;
mod reload;
mod unit;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::json;
use spip_tests::{Agent, LISTENER, Launch, Net, PATIENCE, SENSOR_V4, eventually};

/// A service manager, as far as the agent sees it.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(net: &Net) -> Self {
        let path = net.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("own directory");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        Self { socket, path }
    }

    fn around<'net>(&self, launch: Launch<'net>, more: &str) -> Launch<'net> {
        launch.within(&format!(r#"NOTIFY_SOCKET={} {more} exec "$@""#, self.path.display()))
    }

    fn heard(&self) -> String {
        let mut text = [0; 1024];
        let length = self.socket.recv(&mut text).expect("the agent says something");
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    /// The next message that begins so.
    fn wait(&self, beginning: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = self.heard();
            if heard.starts_with(beginning) {
                return heard;
            }
            assert!(Instant::now() < deadline, "{beginning} never comes, but {heard}");
        }
    }
}

/// One worker, stopped alone, as a system call that does not return would: by a tracer, the calling thread.
struct StuckWorker(Pid);

impl StuckWorker {
    fn of(agent: &Agent) -> Self {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent runs").flatten();
        let worker = tasks
            .map(|task| task.path())
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0"));
        let worker = worker.and_then(|path| path.file_name()?.to_str()?.parse().ok()).expect("a worker");
        let worker = Pid::from_raw(worker);
        ptrace::seize(worker, ptrace::Options::empty()).expect("root may");
        ptrace::interrupt(worker).expect("seized");
        waitpid(worker, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self(worker)
    }

    fn let_go(self) {
        ptrace::detach(self.0, None).expect("seized");
    }
}

#[test]
fn the_manager_hears_of_start_watchdog_reload_and_stop() {
    let Some(net) = Net::new() else { return };
    let manager = Manager::new(&net);
    let launch = net.agent().set("sandbox", "required").set("drain_timeout_seconds", 5);
    let agent = manager.around(launch, "WATCHDOG_USEC=8000000").start();
    let ready = manager.wait("READY=1");
    assert!(ready.contains("\nSTATUS=listening on "), "{ready}");
    // Said four times in the time in which the manager must have heard it once: a busy machine does not make it late.
    let mut last = Instant::now();
    for _ in 0..3 {
        assert_eq!(manager.heard(), "WATCHDOG=1");
        assert!(last.elapsed() < Duration::from_secs(8), "too late: {:?}", last.elapsed());
        last = Instant::now();
    }
    agent.signal(Signal::SIGHUP);
    let reloading = manager.wait("RELOADING=1\nMONOTONIC_USEC=");
    let since: u64 = reloading.rsplit('=').next().and_then(|number| number.parse().ok()).expect("microseconds");
    assert!(since > 0);
    manager.wait("READY=1");
    // A mistake is said until it is mended.
    for (port, refused) in [("0".to_owned(), true), (LISTENER.to_string(), false)] {
        reload::change(&net, &[("port", &port)]);
        agent.signal(Signal::SIGHUP);
        manager.wait("RELOADING=1");
        let ready = manager.wait("READY=1\nSTATUS=listening on ");
        assert_eq!(ready.contains("; the last reload was rejected"), refused, "{ready}");
    }
    agent.signal(Signal::SIGTERM);
    let stopping = manager.wait("STOPPING=1");
    // What is left of the time that draining may take, and some for the last steps.
    let time: u64 = stopping.rsplit('=').next().and_then(|number| number.parse().ok()).expect("microseconds");
    assert!((5_000_000..=10_000_000).contains(&time), "{stopping}");
    assert!(agent.wait().status.success());
}

#[test]
fn a_worker_that_is_stuck_starves_the_watchdog() {
    let Some(net) = Net::new() else { return };
    let manager = Manager::new(&net);
    let agent = manager.around(net.agent(), "WATCHDOG_USEC=400000").start();
    manager.wait("WATCHDOG=1");
    let stuck = StuckWorker::of(&agent);
    manager.socket.set_read_timeout(Some(Duration::from_millis(600))).expect("a time");
    // What was said while the last beat was young enough.
    let quiet = (0..5).any(|_| manager.socket.recv(&mut [0; 100]).is_err());
    assert!(quiet, "the watchdog goes on being fed");
    stuck.let_go();
    manager.socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    manager.wait("WATCHDOG=1");
    let _ = agent.stop();
}

#[test]
fn an_agent_that_cannot_tell_its_manager_does_not_start() {
    let Some(net) = Net::new() else { return };
    let ended = net.agent().within(r#"NOTIFY_SOCKET=/nonexistent/notify exec "$@""#).run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("NOTIFY_SOCKET=/nonexistent/notify"), "{}", ended.stderr);
}

#[test]
fn messages_go_where_system_log_says_and_levels_hold_by_target() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("system_log", "stderr").set("log_level", "warn, agent=info").spawn();
    eventually("ready on standard error", || agent.stderr().contains("\"message\":\"ready\"").then_some(()));
    net.client.deliver((SENSOR_V4, 80), b"x");
    agent.expect_one(json!({"payload": "x"}));
    let ended = agent.stop();
    assert_eq!(ended.log.messages().count(), 0, "{}", ended.log.text());
    assert!(!ended.stderr.contains("\"target\":\"sandbox\""), "{}", ended.stderr);

    let directory = net.path().join("logs");
    fs::create_dir(&directory).expect("own directory");
    let messages = directory.join("messages.json");
    let path = messages.to_str().expect("text");
    let agent = net.agent().set("sandbox", "required").set("system_log", path).spawn();
    let said = |text: &str| fs::read_to_string(&messages).is_ok_and(|messages| messages.contains(text));
    eventually("ready in the file", || said("\"message\":\"ready\"").then_some(()));
    fs::rename(&messages, directory.join("moved")).expect("logrotate may");
    agent.signal(Signal::SIGHUP);
    eventually("the file is opened again", || said("reopened the log").then_some(()));
    net.client.deliver((SENSOR_V4, 81), b"y");
    agent.expect_one(json!({"payload": "y"}));
    let ended = agent.stop();
    assert_eq!((ended.log.messages().count(), ended.stderr.as_str()), (0, ""));
    assert!(said("\"message\":\"stopped\""));
}
