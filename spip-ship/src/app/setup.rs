//! Preparations before the process is confined.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use spip_notify::Manager;

use super::Error;
use crate::config::{Config, Kind};
use crate::metrics::server::{STUCK, Shown};
use crate::pause::Stop;

/// Makes the directories that Landlock can open only where they are there.
pub(super) fn make_directories(config: &Config) -> Result<(), Error> {
    let make = |key: &str, path: &Path| {
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
        made.map_err(|error| Error(format!("{key}: cannot make {}: {error}", path.display())))
    };
    make("state_dir", &config.state_dir)?;
    config.sinks.iter().try_for_each(|sink| match &sink.kind {
        Kind::Files(files) => make("sink.path", &files.path),
        _ => Ok(()),
    })
}

/// Takes the state directory for this process: two shippers with one state would send everything twice.
pub(super) fn lock(config: &Config) -> Result<Flock<fs::File>, Error> {
    let path = config.state_dir.join("lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| Error(format!("state_dir: cannot open {}: {error}", path.display())))?;
    let shown = config.state_dir.display();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        Error(match error {
            Errno::EWOULDBLOCK => format!("state_dir: another spip-ship runs with {shown}"),
            error => format!("state_dir: cannot lock {}: {error}", path.display()),
        })
    })
}

/// Opens the port of the metrics.
pub(super) fn listen(config: &Config) -> Result<Option<TcpListener>, Error> {
    let Some(address) = &config.metrics else { return Ok(None) };
    TcpListener::bind(address.as_str())
        .map(Some)
        .map_err(|error| Error(format!("metrics: cannot listen on {address}: {error}")))
}

/// Says that the process is ready, and then that it is alive, as long as every sink's thread is.
pub(super) fn keep_notifying(notifier: Manager, shown: Shown, ended: Stop) -> Result<(), Error> {
    let work = move || {
        notifier.tell("READY=1\nSTATUS=delivers");
        let interval = notifier.watchdog().map_or(Duration::from_secs(10), |watchdog| watchdog / 2);
        while !ended.sleep(interval) {
            let counters = shown.counters();
            if counters.iter().all(|sink| sink.silent_for() < STUCK) {
                notifier.tell("WATCHDOG=1");
            }
            let trouble = counters.iter().find_map(|sink| Some(format!("{}: {}", sink.name, sink.trouble()?)));
            let text = trouble.unwrap_or_else(|| "delivers".to_owned());
            let line: String = text.chars().filter(|letter| !letter.is_control()).collect();
            notifier.tell(&format!("STATUS={line}"));
        }
        notifier.tell("STOPPING=1\nSTATUS=ends");
    };
    let thread = thread::Builder::new().name("notify".to_owned()).spawn(work);
    thread.map(|_| ()).map_err(|error| super::no_thread(&error))
}
