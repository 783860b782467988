//! The kernel side as the agent sees it: loads the programs, attaches them, and answers where a connection was going.
//!
//! This module alone knows aya. The programs and their maps are described in `spip-common` and `spip-ebpf`.
//!
//! It decides how much is possible and says what is missing. Both programs are wanted; one alone is used where the
//! configuration does not require eBPF: `sock_ops` without the observer still knows what this machine's own clients
//! asked for, the observer without `sock_ops` still answers [`Origins::find`]. Pins are made where they can be. Nothing here
//! changes the machine beyond the lifetime of [`Attached`], except that pinned maps stay: after a crash they are used
//! again, and removing the directory frees them.
//!
//! Must be called in the listener's network namespace, and before capabilities are dropped; look-ups go on without.

mod cgroup;
mod events;
mod features;
mod kernel_log;
mod loader;
mod namespace;
mod origins;
mod packet_socket;
mod pins;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{MapData, MapError, PerCpuArray};
use spip_common::Counters;

pub use events::{Event, Events, Lost};
pub use features::{Feature, Verdict, features, trial};
use kernel_log::{Forwarder, KernelLog};
pub use origins::{Origin, Origins};
use packet_socket::PacketSocket;
use pins::Pins;

/// What the agent asks for.
#[derive(Debug)]
pub struct Request<'a> {
    /// Entries, paths, and whether eBPF is required.
    pub config: &'a crate::config::Ebpf,
    /// Where the agent listens, with its final port.
    pub listener: SocketAddr,
    /// The listening sockets.
    pub sockets: &'a [OwnedFd],
    /// Whether the agent wants to know of scans.
    pub scans: bool,
    /// What the programs say of themselves; nothing by default.
    pub log_level: Option<log::Level>,
}

impl<'a> Request<'a> {
    /// For a trial, of which nothing stays.
    fn trial(config: &'a crate::config::Ebpf) -> Self {
        let listener = SocketAddr::from(([0, 0, 0, 0], 1));
        Self { config, listener, sockets: &[], scans: true, log_level: None }
    }
}

/// Why the kernel side cannot be used. Each says what is missing, and what it takes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no object in this binary.
    #[error("this agent was built without eBPF: run `cargo xtask build-ebpf`, then build it again")]
    NotBuilt,
    /// Programs and maps could not be made.
    #[error("cannot load the eBPF maps: {0}")]
    Load(String),
    /// Neither program could be attached.
    #[error("{observer}; {sock_ops}")]
    Nothing {
        /// What the observer lacks.
        observer: String,
        /// What `sock_ops` lacks.
        sock_ops: String,
    },
    /// One program could not be attached, and eBPF is required.
    #[error("{0}")]
    Incomplete(String),
    /// The maps are not what they should be.
    #[error("cannot read the eBPF maps")]
    Maps(#[from] MapError),
}

/// Something that is there, or the reason why it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<T> {
    /// It is there.
    Present(T),
    /// It is not, and why.
    Missing(String),
}

impl<T> Part<T> {
    /// The reason, where it is missing.
    #[must_use]
    pub fn missing(&self) -> Option<&str> {
        match self {
            Self::Present(_) => None,
            Self::Missing(reason) => Some(reason),
        }
    }
}

/// What was attached, and what was not.
#[derive(Clone, Debug)]
pub struct Description {
    /// The observer of SYNs.
    pub observer: Part<()>,
    /// The program that watches connections, and the cgroup that it is attached to.
    pub sock_ops: Part<PathBuf>,
    /// Whether [`Events`] come: what scans are made of.
    pub events: Part<()>,
    /// The directory in which the maps are pinned.
    pub pins: Part<PathBuf>,
    /// Whether connections of other network namespaces are told apart.
    pub namespace_filter: bool,
    /// What was done with pins that were found.
    pub notes: Vec<String>,
}

/// The kernel side, at work until this is dropped.
pub struct Attached {
    description: Description,
    origins: Origins,
    counters: Arc<PerCpuArray<MapData, Counters>>,
    events: Mutex<Option<Events>>,
    kernel_log: Mutex<Option<KernelLog>>,
    forwarder: Mutex<Option<Forwarder>>,
    /// Holds programs and links.
    _ebpf: Ebpf,
    /// Holds the observer.
    _socket: Option<PacketSocket>,
    /// Holds the directory of pins.
    _pins: Option<Pins>,
}

/// The cgroup v2 directory that the programs would be attached to.
///
/// # Errors
///
/// In words for the operator: why there is none.
pub fn cgroup_directory(configured: Option<&std::path::Path>) -> Result<PathBuf, String> {
    cgroup::find(configured).map_err(|error| loader::chain(&error))
}

/// Loads and attaches the kernel side.
///
/// # Errors
///
/// When nothing of it can be used; when anything of it cannot and the configuration requires eBPF. Whether an error
/// is the end of the agent is the caller's decision.
pub fn start(request: &Request<'_>) -> Result<Attached, Error> {
    loader::start(request)
}

impl Attached {
    /// The look-up of origins.
    #[must_use]
    pub fn origins(&self) -> Origins {
        self.origins.clone()
    }

    /// The counters, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn counters(&self) -> Result<Counters, Error> {
        Ok(sum(&self.counters)?)
    }

    /// What the programs tell of SYNs, where the agent asked for it and it can be had; once.
    #[must_use]
    pub fn take_events(&self) -> Option<Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What was attached, and what was not.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Says at start what the kernel side does: one message for what is there, one for each part that is missing.
    pub fn announce(&self) {
        let Description { observer, sock_ops, events, pins, namespace_filter, notes } = &self.description;
        let cgroup = match sock_ops {
            Part::Present(path) => path.display().to_string(),
            Part::Missing(_) => String::new(),
        };
        let directory = match pins {
            Part::Present(path) => path.display().to_string(),
            Part::Missing(_) => String::new(),
        };
        log::info!(
            target: "ebpf",
            syn_observer = observer.missing().is_none(),
            sock_ops = sock_ops.missing().is_none(),
            cgroup = cgroup.as_str(),
            pins = directory.as_str(),
            namespace_filter = *namespace_filter,
            scans = events.missing().is_none();
            "eBPF is attached"
        );
        for reason in [observer.missing(), sock_ops.missing()].into_iter().flatten() {
            log::warn!(target: "ebpf", "eBPF is incomplete: {reason}");
        }
        if let Some(reason) = events.missing() {
            log::info!(target: "ebpf", "scans are not recorded: {reason}");
        }
        if let Some(reason) = pins.missing() {
            log::info!(target: "ebpf", "the eBPF maps are not pinned: {reason}");
        }
        for note in notes {
            log::info!(target: "ebpf", "{note}");
        }
    }

    /// Starts to forward the programs' own messages to the log, where a level was asked for. The thread that does it
    /// ends with `self`.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn forward_messages(&self) -> io::Result<()> {
        let waiting = self.kernel_log.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(kernel_log) = waiting {
            let forwarder = kernel_log.forward()?;
            *self.forwarder.lock().unwrap_or_else(PoisonError::into_inner) = Some(forwarder);
        }
        Ok(())
    }
}

/// The counters of all CPUs together.
fn sum(counters: &PerCpuArray<MapData, Counters>) -> Result<Counters, MapError> {
    let all = counters.get(&0, 0)?;
    Ok(all.iter().fold(Counters::default(), Counters::plus))
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").field("description", &self.description).finish_non_exhaustive()
    }
}
