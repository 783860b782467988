//! The program `steer` and its maps, as far as aya is concerned: filled, attached, pinned, changed, read.
//!
//! The maps are new at each start, also where pins of former ones exist: a new agent fills its own completely before
//! its program is attached, and an old one that still runs never shares a map with it. What is pinned is replaced
//! by renaming, when the new agent takes over and not before: there is always one or the other under a name, and never
//! nothing.
//!
//! What is left alone for good is in two maps that are frozen once they are filled: an intruder who has this process, with
//! all its descriptors, can write the others and not these.
//!
//! A link that is owned goes with the process. A pinned link stays until its pin goes: the next agent attaches its own
//! program beside, then renames its pin over the old one, and with the last name of the old link its program is gone.
//! In between both are attached; the kernel takes the choice of the first that has a socket.

use std::fs::{self, File};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SockMap};
use aya::programs::SkLookup;
use aya::programs::links::FdLink;
use spip_common::steer::{
    Endpoint, Exclusion, STEER, STEER_COUNTERS, STEER_ENDPOINTS, STEER_KEPT, STEER_KEPT_ENDS, STEER_LINKS, STEER_PORTS,
    STEER_PREFIXES, STEER_SETTINGS, STEER_SOCKETS, Settings, SteerCounters,
};

use super::Error;
use super::loader::{chain, reason};
use super::pins::{Pins, remove, temporary};

/// The namespace of this process, to which the program is attached.
pub(super) const OWN_NAMESPACE: &str = "/proc/self/ns/net";

/// `BPF_MAP_FREEZE` of linux/bpf.h.
const BPF_MAP_FREEZE: libc::c_long = 22;

/// The maps of steering, to be filled before [`super::Attached::steer`] and changed after.
pub struct SteerMaps {
    sockets: SockMap<MapData>,
    ports: Array<MapData, Exclusion>,
    endpoints: HashMap<MapData, Endpoint, u32>,
    kept: Frozen<Array<MapData, Exclusion>>,
    kept_ends: Frozen<HashMap<MapData, Endpoint, u32>>,
    prefixes: LpmTrie<MapData, [u8; 16], u32>,
    links: HashMap<MapData, u32, u32>,
    settings: Array<MapData, Settings>,
    counters: PerCpuArray<MapData, SteerCounters>,
}

impl SteerMaps {
    /// Of a loaded object, whose programs keep their own hold on the maps.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| missing(name));
        Ok(Self {
            sockets: SockMap::try_from(map(STEER_SOCKETS)?)?,
            ports: Array::try_from(map(STEER_PORTS)?)?,
            endpoints: HashMap::try_from(map(STEER_ENDPOINTS)?)?,
            kept: Frozen::of(map(STEER_KEPT)?)?,
            kept_ends: Frozen::of(map(STEER_KEPT_ENDS)?)?,
            prefixes: LpmTrie::try_from(map(STEER_PREFIXES)?)?,
            links: HashMap::try_from(map(STEER_LINKS)?)?,
            settings: Array::try_from(map(STEER_SETTINGS)?)?,
            counters: PerCpuArray::try_from(map(STEER_COUNTERS)?)?,
        })
    }

    /// The sockets to choose from, in the order of the workers.
    ///
    /// # Errors
    /// The kernel refuses one; only listening TCP sockets are taken.
    pub fn set_sockets(&mut self, sockets: &[OwnedFd]) -> Result<(), Error> {
        for (index, socket) in (0..).zip(sockets) {
            self.sockets.set(index, &socket.as_raw_fd(), 0)?;
        }
        Ok(())
    }

    /// Sets the addresses on which a port is left alone.
    ///
    /// # Errors
    /// The kernel refuses to change the map.
    pub fn set_port(&mut self, port: u16, exclusion: Exclusion) -> Result<(), Error> {
        Ok(self.ports.set(port.into(), exclusion, 0)?)
    }

    /// Adds a service on one address, or takes it away.
    ///
    /// # Errors
    /// The kernel refuses to change the map, also because it is full.
    pub fn set_endpoint(&mut self, endpoint: Endpoint, reason: Option<u8>) -> Result<(), Error> {
        Ok(match reason {
            Some(reason) => self.endpoints.insert(endpoint, u32::from(reason), 0),
            None => absent_is_fine(self.endpoints.remove(&endpoint)),
        }?)
    }

    /// Leaves these alone for good, and closes the maps that say so: to be called once.
    ///
    /// # Errors
    /// The kernel refuses to fill or to freeze a map.
    pub fn keep(
        &mut self,
        ports: impl IntoIterator<Item = (u16, Exclusion)>,
        endpoints: impl IntoIterator<Item = (Endpoint, u8)>,
    ) -> Result<(), Error> {
        for (port, exclusion) in ports {
            self.kept.map.set(port.into(), exclusion, 0)?;
        }
        for (endpoint, reason) in endpoints {
            self.kept_ends.map.insert(endpoint, u32::from(reason), 0)?;
        }
        self.kept.freeze(STEER_KEPT)?;
        self.kept_ends.freeze(STEER_KEPT_ENDS)
    }

    /// Adds a prefix to steer, or takes it away.
    ///
    /// # Errors
    /// The kernel refuses to change the map.
    pub fn set_prefix(&mut self, (address, bits): (Ipv6Addr, u32), wanted: bool) -> Result<(), Error> {
        let key = Key::new(bits, address.octets());
        let changed =
            if wanted { self.prefixes.insert(&key, 1, 0) } else { absent_is_fine(self.prefixes.remove(&key)) };
        Ok(changed?)
    }

    /// Adds an interface to steer, or takes it away.
    ///
    /// # Errors
    /// The kernel refuses to change the map.
    pub fn set_link(&mut self, index: u32, wanted: bool) -> Result<(), Error> {
        let changed = if wanted { self.links.insert(index, 1, 0) } else { absent_is_fine(self.links.remove(&index)) };
        Ok(changed?)
    }

    /// Everything else that is wanted.
    ///
    /// # Errors
    /// The kernel refuses to change the map.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), Error> {
        Ok(self.settings.set(0, settings, 0)?)
    }

    /// Returns the counters, summed over all CPUs.
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    pub fn counters(&self) -> Result<SteerCounters, Error> {
        let all = self.counters.get(&0, 0)?;
        Ok(all.iter().fold(SteerCounters::default(), SteerCounters::plus))
    }
}

/// A map that is filled once.
struct Frozen<T> {
    map: T,
    descriptor: OwnedFd,
}

impl<T: TryFrom<Map, Error = MapError>> Frozen<T> {
    fn of(map: Map) -> Result<Self, MapError> {
        let (Map::Array(data) | Map::HashMap(data)) = &map else {
            return Err(MapError::InvalidMapType { map_type: 0 });
        };
        let descriptor = data.fd().as_fd().try_clone_to_owned()?;
        Ok(Self { map: T::try_from(map)?, descriptor })
    }
}

impl<T> Frozen<T> {
    /// Has the kernel refuse every write from user space from now on (`BPF_MAP_FREEZE`).
    #[allow(unsafe_code)]
    fn freeze(&self, name: &str) -> Result<(), Error> {
        // `union bpf_attr` of this command is the map's descriptor alone.
        let attributes = u32::try_from(self.descriptor.as_raw_fd()).unwrap_or(u32::MAX);
        let (address, size) = (&raw const attributes, size_of_val(&attributes));
        // SAFETY: the pointer names a live value of the size that is given with it, which the kernel only reads.
        let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_FREEZE, address, size) };
        let refused = |error: io::Error| {
            Error::Steering(format!(
                "cannot freeze the map {name}: {}",
                reason(&error, "CAP_BPF, and Linux 5.2 or later")
            ))
        };
        if result == 0 { Ok(()) } else { Err(refused(io::Error::last_os_error())) }
    }
}

fn missing(name: &str) -> MapError {
    MapError::InvalidName { name: name.to_owned() }
}

/// Reports whether the kernel's error means that there was nothing to remove.
fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    }
}

/// Loads the program, attached to nothing yet.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), String> {
    let refused = |error: &(dyn std::error::Error + 'static)| {
        format!("cannot load the program {STEER}: {}", reason(error, "CAP_BPF and CAP_NET_ADMIN"))
    };
    let program = ebpf.program_mut(STEER).ok_or(format!("the object has no program {STEER}"))?;
    let program: &mut SkLookup = program.try_into().map_err(|error: aya::programs::ProgramError| refused(&error))?;
    program.load().map_err(|error| refused(&error))
}

/// Attaches the program to the network namespace of this process, and pins its link under `name` if there is a directory.
pub(super) fn attach(ebpf: &mut Ebpf, pin: Option<(String, Arc<Pins>)>) -> Result<Option<PinnedSteering>, String> {
    let namespace = File::open(OWN_NAMESPACE).map_err(|error| format!("cannot open {OWN_NAMESPACE}: {error}"))?;
    let refused = |error: &(dyn std::error::Error + 'static)| {
        format!("cannot attach {STEER} to the network namespace: {}", reason(error, "CAP_NET_ADMIN"))
    };
    let program = ebpf.program_mut(STEER).ok_or(format!("the object has no program {STEER}"))?;
    let program: &mut SkLookup = program.try_into().map_err(|error: aya::programs::ProgramError| refused(&error))?;
    let id = program.attach(&namespace).map_err(|error| refused(&error))?;
    let Some((name, pins)) = pin else { return Ok(None) };
    let link = program.take_link(id).map_err(|error| refused(&error))?;
    let path = pins.path().join(&name);
    let failed = |error: String| format!("cannot pin the link {}: {error}", path.display());
    let (place, temporary) = (pins.place(), temporary(&name));
    remove(place, &temporary).map_err(|error| failed(error.to_string()))?;
    // The descriptor goes with the value; the pin holds the link from now on.
    FdLink::from(link).pin(place.anchored(&temporary)).map_err(|error| failed(chain(&error)))?;
    let inode = place.look(&temporary).map_err(|error| failed(error.to_string()))?.st_ino;
    place.rename(&temporary, name.as_ref()).map_err(|error| {
        let _ = remove(place, &temporary);
        failed(error.to_string())
    })?;
    Ok(Some(PinnedSteering { path, inode, pins }))
}

/// A link that outlives the process.
#[derive(Debug)]
pub struct PinnedSteering {
    path: PathBuf,
    inode: u64,
    /// Holds the directory open: the way to it may be closed to the user that the agent becomes.
    pins: Arc<Pins>,
}

/// State of a pin's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinState {
    /// This agent's link, as far as anybody can tell.
    Ours,
    /// The link of an agent that came later.
    Replaced,
    /// Nothing: the link is gone.
    Gone,
}

impl PinnedSteering {
    /// Returns the path of the pin.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the present state of the path.
    #[must_use]
    pub fn state(&self) -> PinState {
        let name = self.path.file_name().unwrap_or_default();
        match self.pins.place().look(name) {
            Ok(found) if found.st_ino == self.inode => {
                // The agent that was relieved goes a little later.
                self.pins.claim();
                PinState::Ours
            }
            Ok(_) => PinState::Replaced,
            Err(error) if error.kind() == io::ErrorKind::NotFound => PinState::Gone,
            Err(_) => PinState::Ours,
        }
    }
}

/// Returns the path at which the link of this network namespace is pinned in `directory`: agents of several namespaces
/// may share it.
pub(super) fn pin_path(directory: &Path) -> io::Result<PathBuf> {
    Ok(directory.join(pin_name()?))
}

/// The name of that pin.
pub(super) fn pin_name() -> io::Result<String> {
    Ok(format!("{STEER}_{}", fs::metadata(OWN_NAMESPACE)?.ino()))
}
