//! The agent's end of the status socket.
//!
//! A socket file that is there is replaced when nobody answers behind it, or when this agent relieves the one that
//! does; otherwise the other agent keeps it, and this one runs without. It is made under another name and renamed, so that
//! there is never a moment without one, and removed at the end if it is still this agent's own and the sandbox lets it.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::{Agent, Listener, Log, Programs, Report, Sessions, Steering, named, said};
use crate::accept::Door;
use crate::config::{Config, SteeringMode};
use crate::ebpf::{Attached, Part};
use crate::steering::Watch;
use crate::vital;

/// A client that takes longer to read is left.
const PATIENCE: Duration = Duration::from_secs(1);
/// Clients that may wait for their turn.
const BACKLOG: libc::c_int = 8;
/// After an error of accept, such as a want of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no status socket.
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
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
}

/// The socket, open, and not answered yet. Dropping it removes its name.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// What an answer is made of.
pub struct Sources {
    /// The configuration, and the file it came from.
    pub config: Config,
    /// See `config`.
    pub path: PathBuf,
    /// Where the agent listens.
    pub listen: SocketAddr,
    /// How many threads serve.
    pub workers: usize,
    /// Whether a service manager opened the socket.
    pub passed_socket: bool,
    /// Which families can be steered: IPv4, IPv6.
    pub families: (bool, bool),
    /// Where the link is pinned.
    pub pinned_link: Option<PathBuf>,
    /// Connections, limits, the log.
    pub door: Arc<Door>,
    /// The kernel side, as long as it is there.
    pub attached: Weak<Attached>,
    /// What keeps steering current.
    pub steering: Option<Arc<Watch>>,
    /// When the agent was ready.
    pub started: (Timestamp, Instant),
}

impl Server {
    /// Makes the socket, for its owner alone.
    ///
    /// # Errors
    /// Somebody else has the name, or the kernel refuses.
    pub fn open(path: &Path, takes_over: bool) -> Result<Self, Error> {
        let refused = |source| Error::Refused { path: path.to_path_buf(), source };
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(Error::NotASocket(path.to_path_buf()));
            }
            if !takes_over && UnixStream::connect(path).is_ok() {
                return Err(Error::Taken(path.to_path_buf()));
            }
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(refused)?;
        let temporary = directory.join(format!(".status-{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let listener = listen(&temporary).map_err(refused)?;
        let renamed = fs::symlink_metadata(&temporary).and_then(|found| {
            fs::rename(&temporary, path)?;
            Ok(found.ino())
        });
        let inode = renamed.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            refused(error)
        })?;
        Ok(Self { listener, path: path.to_path_buf(), inode })
    }

    /// Where the socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the thread that answers. It ends with the process.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn spawn(&self, sources: Sources) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        vital::spawn("status", move || {
            loop {
                match listener.accept() {
                    Ok((client, _)) => answer(client, &sources),
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        })?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket that nobody but its owner could ever open: the file gets the mode that the socket has when it is bound.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
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
        Report {
            unreachable: None,
            counters_from: Some("agent".to_owned()),
            kernel: named(kernel.iter().flat_map(spip_common::Counters::named)),
            steered: named(steered.iter().flat_map(spip_common::SteerCounters::named)),
            agent: Some(Agent {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                name: self.config.name.clone(),
                pid: std::process::id(),
                uid: nix::unistd::geteuid().as_raw(),
                started: self.started.0.to_string(),
                uptime_seconds: self.started.1.elapsed().as_secs(),
                config: self.path.display().to_string(),
                listener: Listener {
                    address: self.listen.to_string(),
                    workers: self.workers,
                    passed_socket: self.passed_socket,
                },
                programs: self.programs(attached.as_deref()),
                steering: self.steering(steering),
                sessions: Sessions {
                    open: self.door.limits.open(),
                    sources: self.door.limits.sources(),
                    waiting_syns: attached.as_ref().map(|attached| attached.origins().waiting()),
                },
                log: self.log(),
            }),
        }
    }

    fn programs(&self, attached: Option<&Attached>) -> Programs {
        let Some(attached) = attached else {
            let reason = || "eBPF is not used".to_owned();
            return Programs { syn_observer: reason(), sock_ops: reason(), steer: reason(), cgroup: None, pins: None };
        };
        let description = attached.description();
        let shown = |part: &Part<PathBuf>| match part {
            Part::Present(path) => Some(path.display().to_string()),
            Part::Missing(_) => None,
        };
        let steer = if self.steering.is_some() { "attached" } else { "steering = \"redirect\"" };
        Programs {
            syn_observer: said(&description.observer),
            sock_ops: said(&description.sock_ops),
            steer: steer.to_owned(),
            cgroup: shown(&description.sock_ops),
            pins: shown(&description.pins),
        }
    }

    fn steering(&self, description: Option<crate::steering::Description>) -> Steering {
        if self.config.steering.mode == SteeringMode::Redirect {
            return Steering { mode: "redirect".to_owned(), ..Steering::default() };
        }
        let (ipv4, ipv6) = self.families;
        let families = [("IPv4", ipv4), ("IPv6", ipv6)];
        Steering {
            mode: "sk_lookup".to_owned(),
            families: families.iter().filter(|(_, steered)| *steered).map(|(name, _)| (*name).to_owned()).collect(),
            pinned_link: self.pinned_link.as_ref().map(|path| path.display().to_string()),
            exclusions: description.map(|description| description.reasons).unwrap_or_default(),
        }
    }

    fn log(&self) -> Log {
        let stats = self.door.engine().log.stats();
        let file = self.config.log.file.as_ref();
        Log {
            file: file.map(|path| path.display().to_string()),
            position: file.and_then(|path| fs::metadata(path).ok()).map(|found| found.len()),
            lines: stats.lines,
            bytes: stats.bytes,
            queued_bytes: stats.queued_bytes,
            rotations: stats.rotations,
            write_failures: stats.write_failures,
            abandoned: stats.abandoned,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("spip-status-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_socket_is_its_owners_alone_and_goes_with_its_agent() {
        let directory = Directory::new("owner");
        let path = directory.0.join("run/status.sock");
        let server = Server::open(&path, false).expect("socket");
        assert_eq!(fs::metadata(&path).expect("socket").permissions().mode() & 0o777, 0o600);
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_is_answered_stays_and_a_stale_one_is_replaced() {
        let directory = Directory::new("stale");
        let path = directory.0.join("status.sock");
        let first = Server::open(&path, false).expect("socket");
        assert!(matches!(Server::open(&path, false), Err(Error::Taken(_))));
        // Who relieves the first one has the name from then on, also when the first one ends.
        let second = Server::open(&path, true).expect("socket");
        drop(first);
        assert!(path.exists());
        drop(second);
        // A crash leaves the file without anybody behind it.
        drop(UnixListener::bind(&path).expect("socket"));
        assert!(path.exists());
        Server::open(&path, false).expect("replaced");
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = Directory::new("file");
        fs::create_dir_all(&directory.0).expect("directory");
        let path = directory.0.join("status.sock");
        fs::write(&path, "precious").expect("file");
        assert!(matches!(Server::open(&path, true), Err(Error::NotASocket(_))));
        assert_eq!(fs::read(&path).expect("file"), b"precious");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = Server::open(Path::new("/proc/spip/status.sock"), false).expect_err("procfs").to_string();
        assert!(error.starts_with("cannot make /proc/spip/status.sock"), "{error}");
    }
}
