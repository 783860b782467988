//! The agent's end of the status socket.
//!
//! Where another agent keeps the socket, this one runs without. It is removed at the end if it is still this agent's
//! own and the sandbox lets it.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use thiserror::Error;

use super::{Agent, Listener, Log, Programs, Report, Sessions, Steering, Step, named, said};
use crate::config::{Config, SteeringMode};
use crate::confine::sandbox;
use crate::kernel::ebpf::{Attached, Part};
use crate::kernel::steering::{Attachment, Watch};
use crate::log::writer;
use crate::observe::metrics;
use crate::observe::socket_file::{self, SocketFile};
use crate::process::critical;
use crate::scans;
use crate::session::accept::Intake;

/// A client that takes longer to read is left.
const PATIENCE: Duration = Duration::from_secs(1);
/// Its user's own, and root's.
const MODE: u32 = 0o600;
/// Clients that may wait for their turn.
const BACKLOG: libc::c_int = 8;
/// After an error of accept, such as a want of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Reasons why there is no status socket.
#[derive(Debug, Error)]
pub enum Error {
    /// Another agent answers there.
    #[error("{0} belongs to another agent that is running: set another status_socket for this one")]
    Taken(PathBuf),
    /// Something else has the name.
    #[error("{0} is no socket: remove it, or set status_socket")]
    NotASocket(PathBuf),
    /// The directory or the socket cannot be made.
    #[error("cannot make {path}: check owner and mode of its directory, or set status_socket")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Error of the kernel.
        #[source]
        source: io::Error,
    },
}

/// The socket, open, and not answered yet. Dropping it removes its name.
#[derive(Debug)]
pub struct Server {
    socket: SocketFile,
}

/// Sources of an answer.
pub struct Sources {
    /// The configuration, and the file it came from.
    pub config: Config,
    /// See `config`.
    pub path: PathBuf,
    /// Address of the listener.
    pub listen: SocketAddr,
    /// Number of worker threads.
    pub workers: usize,
    /// Set when a service manager opened the socket.
    pub passed_socket: bool,
    /// Families that can be steered: IPv4, IPv6.
    pub families: (bool, bool),
    /// Path of the pinned link.
    pub pinned_link: Option<PathBuf>,
    /// Connections, limits, the log.
    pub intake: Arc<Intake>,
    /// The log of the agent's own messages, where they have a file of their own.
    pub messages: Option<writer::Log>,
    /// The kernel side, as long as it is there.
    pub attached: Weak<Attached>,
    /// Reason why there has been no kernel side since the start, if so.
    pub unattached: Option<String>,
    /// Thread that keeps steering current.
    pub steering: Option<Arc<Watch>>,
    /// Rights that the agent has given up.
    pub sandbox: Vec<sandbox::Step>,
    /// Half-open scans, where they are recorded.
    pub scans: Option<Arc<Mutex<scans::Counts>>>,
    /// Deaf address families, where they are known.
    pub deafness: Option<Arc<scans::Deafness>>,
    /// Time at which the agent was ready.
    pub started: (Timestamp, Instant),
}

impl Server {
    /// Makes the socket, for its owner alone. It has its name when it is published.
    ///
    /// # Errors
    /// Another process has the name, or the kernel refuses.
    pub fn open(path: &Path, takes_over: bool) -> Result<Self, Error> {
        let refused = |source| Error::Refused { path: path.to_path_buf(), source };
        let socket = SocketFile::open(path, MODE, BACKLOG, takes_over).map_err(|error| match error {
            socket_file::Error::Taken => Error::Taken(path.to_path_buf()),
            socket_file::Error::NotASocket => Error::NotASocket(path.to_path_buf()),
            socket_file::Error::Refused(source) => refused(source),
        })?;
        Ok(Self { socket })
    }

    /// Gives the socket its name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn publish(&self) -> Result<(), Error> {
        self.socket.publish().map_err(|source| Error::Refused { path: self.path().to_path_buf(), source })
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// The directory of the socket, where this agent has made it.
    #[must_use]
    pub fn made_directory(&self) -> Option<&Path> {
        self.socket.made_directory()
    }

    /// Starts the thread that answers. It ends with the process.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn spawn(&self, sources: Sources) -> io::Result<()> {
        let listener = self.socket.listener()?;
        critical::spawn_endless("status", move || {
            loop {
                match listener.accept() {
                    Ok((client, _)) => answer(client, &sources),
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        })
    }
}

/// A client that goes or does not read gets less than the whole; it is its loss alone.
fn answer(mut client: UnixStream, sources: &Sources) {
    if let Ok(mut document) = serde_json::to_vec(&sources.report())
        && client.set_write_timeout(Some(PATIENCE)).is_ok()
    {
        document.push(b'\n');
        let _ = client.write_all(&document);
    }
}

impl Sources {
    fn report(&self) -> Report {
        let attached = self.attached.upgrade();
        let steering = self.steering.as_ref().and_then(|steering| steering.describe());
        let kernel = attached.as_ref().and_then(|attached| attached.counters().ok());
        let steered = steering.as_ref().and_then(|steering| steering.counters);
        let scans = self.scans.as_ref().map(|counts| *counts.lock().unwrap_or_else(PoisonError::into_inner));
        let (engine, faults) = (self.intake.engine(), self.intake.faults());
        Report {
            unreachable: None,
            counters_from: Some("agent".to_owned()),
            kernel: named(kernel.iter().flat_map(spip_common::Counters::named)),
            steered: named(steered.iter().flat_map(spip_common::SteerCounters::named)),
            agent: Some(Agent {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                name: engine.sensor.name.clone(),
                pid: std::process::id(),
                uid: nix::unistd::geteuid().as_raw(),
                started: format!("{:.6}", self.started.0),
                uptime_seconds: self.started.1.elapsed().as_secs(),
                config: self.path.display().to_string(),
                listener: Listener {
                    address: self.listen.to_string(),
                    workers: self.workers,
                    passed_socket: self.passed_socket,
                },
                programs: self.programs(attached.as_deref(), steering.as_ref()),
                steering: self.steering(steering),
                sandbox: self.sandbox.iter().map(Step::from).collect(),
                sessions: Sessions {
                    open: self.intake.limits.open(),
                    sources: self.intake.limits.sources(),
                    waiting_syns: attached.as_ref().map(|attached| attached.origins().waiting()),
                    refused: named(metrics::rejected()),
                    origin_conflicts: named(metrics::conflicts()),
                    accept_errors: faults.errors,
                    accept_shortages: faults.shortages,
                },
                deaf: self.deafness.as_ref().map(|deafness| deafness.all()).unwrap_or_default(),
                scans: named(scans.iter().flat_map(scans::Counts::named)),
                log: log(&engine.log),
                system_log: self.messages.as_ref().map(log),
            }),
        }
    }

    fn programs(
        &self,
        attached: Option<&Attached>,
        steering: Option<&crate::kernel::steering::Description>,
    ) -> Programs {
        let Some(attached) = attached else {
            let why = self.unattached.as_deref().unwrap_or("the agent stops");
            let reason = || format!("eBPF is not used: {why}");
            return Programs {
                syn_observer: reason(),
                sock_ops: reason(),
                syn_arrival: reason(),
                steer: reason(),
                cgroup: None,
                pins: None,
            };
        };
        let description = attached.description();
        let shown = |part: &Part<PathBuf>| match part {
            Part::Present(path) => Some(path.display().to_string()),
            Part::Missing(_) => None,
        };
        let steer = match steering.map(|steering| steering.attachment) {
            _ if self.steering.is_none() => "steering = \"redirect\"",
            None => "unknown: the thread that keeps it current does not answer",
            Some(Attachment::Attached) => "attached",
            Some(Attachment::Removed) => "removed: the pinned link is gone, restart the agent to steer again",
            Some(Attachment::Relieved) => "relieved: another agent steers",
        };
        Programs {
            syn_observer: said(&description.observer),
            sock_ops: said(&description.sock_ops),
            syn_arrival: said(&description.events),
            steer: steer.to_owned(),
            cgroup: shown(&description.sock_ops),
            pins: shown(&description.pins),
        }
    }

    fn steering(&self, description: Option<crate::kernel::steering::Description>) -> Steering {
        if self.config.steering.mode == SteeringMode::Redirect {
            return Steering { mode: "redirect".to_owned(), ..Steering::default() };
        }
        let attached = description.as_ref().is_none_or(|steering| steering.attachment == Attachment::Attached);
        let (confinement, exclusions) = description
            .filter(|_| attached)
            .map(|description| (description.confinement, description.reasons))
            .unwrap_or_default();
        let (ipv4, ipv6) = self.families;
        let families = [("IPv4", ipv4), ("IPv6", ipv6)];
        Steering {
            mode: "sk_lookup".to_owned(),
            families: families
                .iter()
                .filter(|(_, steered)| *steered && attached)
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            pinned_link: self.pinned_link.as_ref().filter(|_| attached).map(|path| path.display().to_string()),
            confinement,
            exclusions,
        }
    }
}

/// The log as it is since the last SIGHUP.
fn log(log: &writer::Log) -> Log {
    let (stats, file) = (log.stats(), log.file());
    Log {
        position: file.as_ref().and_then(|path| fs::metadata(path).ok()).map(|found| found.len()),
        file: file.map(|path| path.display().to_string()),
        lines: stats.lines,
        bytes: stats.bytes,
        queued_bytes: stats.queued_bytes,
        rotations: stats.rotations,
        held_files: stats.held_files,
        unread_removed: stats.unread_removed,
        fault: log.fault(),
        write_failures: stats.write_failures,
        abandoned: stats.abandoned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = Server::open(Path::new("/proc/spip/status.sock"), false).expect_err("procfs").to_string();
        assert!(error.starts_with("cannot make /proc/spip/status.sock"), "{error}");
    }
}
