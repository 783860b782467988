//! The kernel side as the agent sees it: loads the programs, attaches them, and answers where a connection was going.
//!
//! This module alone knows aya. The programs and their maps are described in `spip-common` and `spip-ebpf`.
//!
//! It decides how much is possible and says what is missing. Both programs are wanted; one alone is used where the
//! configuration does not require eBPF: `sock_ops` without the observer still knows what this machine's own clients
//! asked for, the observer without `sock_ops` still answers [`Origins::find`]. Pins are made where they can be. Nothing
//! here changes the machine beyond the lifetime of [`Attached`], except that pinned maps stay: after a crash they are
//! used again, and removing the directory frees them.
//!
//! A third program, `steer`, leads connections to the listener where that is asked for: the maps are handed to the
//! caller that knows what goes in, and only then is the program attached. Without it such an agent has no connections,
//! so there is no going on without it.
//!
//! Must be called in the listener's network namespace, and before capabilities are dropped; look-ups go on without.

mod attached_programs;
mod cgroup;
mod events;
mod features;
mod kernel_log;
mod loader;
mod namespace;
mod origins;
mod packet_socket;
mod pins;
mod steer;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError, PerCpuArray};
use spip_common::steer::STEER_COUNTERS;
use spip_common::{Counters, SteerCounters, map};

pub use events::{Event, Events, Lost};
pub use features::{Feature, Verdict, features, trial};
use kernel_log::{Forwarder, KernelLog};
#[cfg(test)]
pub(crate) use loader::is_built_in;
pub use origins::{Origin, Origins};
pub(crate) use packet_socket::PacketSocket;
use pins::{Pins, Staged};
pub use steer::{PinState, PinnedSteering, SteerMaps};

/// Read at each look into a map that has a value for each CPU: it says how many values there are.
pub const CPUS: &str = "/sys/devices/system/cpu/possible";

/// Request of the agent to the kernel side.
#[derive(Debug)]
pub struct Request<'a> {
    /// Entries, paths, and whether eBPF is required.
    pub config: &'a crate::config::Ebpf,
    /// Address of the listener, with its final port.
    pub listener: SocketAddr,
    /// The listening sockets.
    pub sockets: &'a [OwnedFd],
    /// Records scans.
    pub scans: bool,
    /// Level of the programs' own messages; none by default.
    pub log_level: Option<log::Level>,
    /// Steering, where it is asked for.
    pub steering: Option<SteerRequest>,
}

/// Request for steering.
#[derive(Debug)]
pub struct SteerRequest {
    /// Number of sockets to choose from.
    pub sockets: u32,
    /// A number that clients do not know.
    pub seed: u32,
    /// Allows steering of clients on this machine.
    pub loopback: bool,
    /// Set when another agent may still run and is to be replaced.
    pub takes_over: bool,
}

impl<'a> Request<'a> {
    /// For a trial, of which nothing stays.
    fn trial(config: &'a crate::config::Ebpf, steers: bool) -> Self {
        let listener = SocketAddr::from(([0, 0, 0, 0], 1));
        let steering = steers.then_some(SteerRequest { sockets: 1, seed: 0, loopback: false, takes_over: false });
        Self { config, listener, sockets: &[], scans: true, log_level: None, steering }
    }
}

/// Reasons why the kernel side cannot be used: what is missing, and what it takes.
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
        /// Reason why there is no observer.
        observer: String,
        /// Reason why there is no `sock_ops`.
        sock_ops: String,
    },
    /// One program could not be attached, and eBPF is required.
    #[error("{0}")]
    Incomplete(String),
    /// Connections cannot be steered.
    #[error("{0}")]
    Steering(String),
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

/// Attached programs, and the reasons for those that are not.
#[derive(Clone, Debug)]
pub struct Description {
    /// The observer of SYNs.
    pub observer: Part<()>,
    /// The program that watches connections, and the cgroup that it is attached to.
    pub sock_ops: Part<PathBuf>,
    /// Source of [`Events`], which scans are made of.
    pub events: Part<()>,
    /// The directory in which the maps are pinned.
    pub pins: Part<PathBuf>,
    /// Set when connections of other network namespaces are told apart.
    pub namespace_filter: bool,
    /// Notes on pins that were found.
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
    /// Set when `steer` knows by which interface a packet came.
    knows_link: bool,
    /// Present where connections are to be steered.
    steer: Option<Steer>,
    /// Holds programs and links.
    ebpf: Mutex<Ebpf>,
    /// Pins that wait for this agent to take over.
    staged: Mutex<Staged>,
    /// Holds the observer.
    _socket: Option<PacketSocket>,
    /// Holds the directory of pins.
    pins: Option<Arc<Pins>>,
}

/// Reads the counters of the programs, for as long as they are attached and after.
#[derive(Clone)]
pub struct KernelCounters(Arc<PerCpuArray<MapData, Counters>>);

impl KernelCounters {
    /// Their sums over all CPUs; nothing where the kernel refuses to read them.
    #[must_use]
    pub fn read(&self) -> Option<Counters> {
        sum(&self.0).ok()
    }
}

/// The cgroup v2 directory that the programs would be attached to.
///
/// # Errors
///
/// In words for the operator: why there is none.
pub fn cgroup_directory(configured: Option<&std::path::Path>) -> Result<PathBuf, String> {
    cgroup::find(configured).map_err(|error| loader::chain(&error))
}

/// The attached parts of steering.
struct Steer {
    /// Until they are taken.
    maps: Option<SteerMaps>,
}

/// Returns the mount point of cgroup v2.
#[must_use]
pub fn cgroup_root() -> Option<PathBuf> {
    cgroup::find(None).ok()
}

/// The link that an agent has pinned for this network namespace in `directory`, running or not.
#[must_use]
pub fn pinned_link(directory: &Path) -> Option<PathBuf> {
    steer::pin_path(directory).ok().filter(|path| path.exists())
}

/// Counts the `sk_lookup` programs attached to this network namespace, without that of the link pinned in `directory`.
///
/// # Errors
/// In words for the operator: the kernel does not tell.
pub fn other_steering(directory: &Path) -> Result<usize, String> {
    let all = attached_programs::all().map_err(|error| loader::reason(&error, "CAP_NET_ADMIN"))?;
    let pinned = attached_programs::pinned(directory);
    Ok(all.into_iter().filter(|program| Some(*program) != pinned).count())
}

/// The counters in the maps that an agent has pinned in `directory`, summed over all CPUs; those of steering only where
/// there are some.
///
/// # Errors
/// In words for the operator: there are none, or they cannot be read.
pub fn pinned_counters(directory: &Path) -> Result<(Option<Counters>, Option<SteerCounters>), String> {
    fn counters<T: aya::Pod + Default>(
        path: &Path,
        plus: impl Fn(T, &T) -> T,
    ) -> Result<Option<T>, Box<dyn std::error::Error>> {
        if !path.exists() {
            return Ok(None);
        }
        let map: PerCpuArray<_, T> = Map::PerCpuArray(MapData::from_pin(path)?).try_into()?;
        Ok(Some(map.get(&0, 0)?.iter().fold(T::default(), plus)))
    }
    let shown = directory.display();
    let unreadable = |error: Box<dyn std::error::Error>| {
        format!("cannot read the maps pinned in {shown}: {}", loader::reason(&*error, "CAP_BPF, or to be root"))
    };
    let kernel = counters(&directory.join(map::COUNTERS), Counters::plus).map_err(unreadable)?;
    let steered = counters(&directory.join(STEER_COUNTERS), SteerCounters::plus).map_err(unreadable)?;
    if kernel.is_none() && steered.is_none() {
        return Err(format!("no counters are pinned in {shown}"));
    }
    Ok((kernel, steered))
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

    /// Reads the counters later on.
    #[must_use]
    pub fn kernel_counters(&self) -> KernelCounters {
        KernelCounters(Arc::clone(&self.counters))
    }

    /// Takes the events about SYNs, if the agent asked for them and they are available; once.
    #[must_use]
    pub fn take_events(&self) -> Option<Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns the attached programs, and the reasons for those that are not.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The maps of steering, to be filled; they can be had once.
    #[must_use]
    pub fn take_steer_maps(&mut self) -> Option<SteerMaps> {
        self.steer.as_mut().and_then(|steer| steer.maps.take())
    }

    /// Reports whether `steer` knows by which interface a packet came (Linux 5.17).
    #[must_use]
    pub fn knows_link(&self) -> bool {
        self.knows_link
    }

    /// Begins to steer, by the maps as they are now. With `pin`, the link is pinned in the directory of pins and
    /// outlives the process. From then on this agent's maps have their names there, and an agent that had them is
    /// relieved.
    ///
    /// # Errors
    /// The kernel refuses the link, or its pin.
    pub fn steer(&self, pin: bool) -> Result<Option<PinnedSteering>, Error> {
        let steering = |error: io::Error| Error::Steering(error.to_string());
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match &self.pins {
            Some(pins) => Some((steer::pin_name().map_err(steering)?, Arc::clone(pins))),
            None => None,
        };
        // What an earlier agent with `pin_links` left has no owner where the directory is ours.
        let stale = place.clone().filter(|_| !pin);
        let pinned = steer::attach(&mut ebpf, place.filter(|_| pin)).map_err(Error::Steering)?;
        if let Some((name, pins)) = stale {
            let _ = pins::remove(pins.place(), name.as_ref());
        }
        let published = self.staged.lock().unwrap_or_else(PoisonError::into_inner).publish();
        if let Err(reason) = published {
            log::info!(target: "ebpf", "{reason}");
        }
        Ok(pinned)
    }

    /// Returns the directory of the pins, now or once this agent takes over.
    #[must_use]
    pub fn pins(&self) -> Option<&Path> {
        match &self.description.pins {
            Part::Present(path) => Some(path),
            Part::Missing(_) => None,
        }
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
