//! Loads the object and attaches its programs, with as much as the machine allows.
//!
//! The programs learn the listener's port, its namespace and whether the observer is there from constants, before the
//! verifier sees them: so the packet socket is made first, and the object is loaded again where the observer turns
//! out to be impossible after all. Likewise without pins, where the maps cannot be made with them.

use std::error::Error as StdError;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aya::maps::{Map, MapData, MapError, MapType, PerCpuArray, RingBuf};
use aya::programs::{CgroupAttachMode, ProgramError, SockOps, SocketFilter, SocketFilterError};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use spip_common::event::RING_BYTES;
use spip_common::map::{
    CLOSED, CONFUSES, COUNTERS, EVENTS, LISTENER_PORT, NETNS_COOKIE, OBSERVER_ATTACHED, ORIGINS, SCANS, SOCK_OPS,
    SYN_ARRIVAL, SYN_DATA, SYN_DATA_ENTRIES, SYN_OBSERVER, SYNS,
};
use spip_common::steer::{
    STEER_ENDPOINTS, STEER_KEPT, STEER_KEPT_ENDS, STEER_KNOWS_LINK, STEER_LINKS, STEER_MAPS, STEER_MAY_LOOPBACK,
    STEER_PORTS, STEER_PREFIXES, STEER_SEED, STEER_SOCKETS, STEER_WORKERS,
};
use spip_common::{Counters, Entry, SynKey};

use super::events::Events;
use super::kernel_log::KernelLog;
use super::origins::OriginMaps;
use super::packet_socket::PacketSocket;
use super::pins::{self, Pins, Shape, Staged};
use super::steer::{self, SteerMaps};
use super::{Attached, Description, Error, Origins, Part, Request, Steer, cgroup, namespace};
use crate::config::EbpfMode;
use crate::kernel::early_demux;

/// The object that the build embedded; empty where there was none.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/spip"));

/// Reports whether an object is built in.
#[cfg(test)]
pub(crate) fn is_built_in() -> bool {
    !OBJECT.is_empty()
}

/// The maps that are pinned while they are loaded, or used again.
const PINNED: [&str; 3] = [SYNS, ORIGINS, COUNTERS];

/// Number of the verifier's last lines that are shown: they say what it refused.
const VERIFIER_LINES: usize = 2;
/// Prefixes of the lines that it adds to every answer.
const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];
/// `CAP_SYS_ADMIN` of linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;
/// `CAP_BPF` of linux/capability.h (Linux 5.8).
const CAP_BPF: u32 = 39;
/// `CAP_PERFMON` of linux/capability.h (Linux 5.8).
const CAP_PERFMON: u32 = 38;

/// Values of the programs' constants.
#[derive(Clone, Copy)]
struct Constants {
    port: u32,
    namespace: u64,
    observer: u32,
    scans: u32,
    confuses: u32,
    log_level: u8,
    /// Number of sockets that connections are steered to; 0 for none.
    workers: u32,
    seed: u32,
    knows_link: u32,
    may_loopback: u32,
}

pub(super) fn start(request: &Request<'_>) -> Result<Attached, Error> {
    if OBJECT.is_empty() {
        return Err(Error::NotBuilt);
    }
    // Before Linux 5.11 maps count as locked memory. Where this is refused and needed, loading says so.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);

    let mut constants = Constants {
        port: request.listener.port().into(),
        namespace: namespace::cookie(),
        observer: 0,
        scans: request.scans.into(),
        confuses: (request.steering.is_none() && early_demux::loses_connections() != Some(false)).into(),
        // The kernel side's levels are numbered as those of `log`; 0 lets nothing through.
        log_level: request.log_level.map_or(0, |level| level as u8),
        workers: request.steering.as_ref().map_or(0, |steering| steering.sockets),
        seed: request.steering.as_ref().map_or(0, |steering| steering.seed),
        knows_link: 0,
        may_loopback: request.steering.as_ref().is_some_and(|steering| steering.loopback).into(),
    };
    if constants.workers > 0 {
        constants.knows_link = knows_link(request, &constants).into();
    }
    let mut notes = Vec::new();
    let mut pins = prepare_pins(request, &mut notes);

    let mut loaded = None;
    let observer = match PacketSocket::open() {
        Ok(socket) => {
            constants.observer = 1;
            let (mut ebpf, used) = load(request, &constants, pins)?;
            pins = used;
            match attach_observer(&mut ebpf, &socket) {
                Ok(()) => {
                    loaded = Some(ebpf);
                    Part::Present(socket)
                }
                Err(reason) => Part::Missing(reason),
            }
        }
        Err(error) => Part::Missing(format!("cannot open a packet socket: {}", reason(&error, "CAP_NET_RAW"))),
    };
    let mut ebpf = match loaded {
        Some(ebpf) => ebpf,
        None => {
            constants.observer = 0;
            let (ebpf, used) = load(request, &constants, pins)?;
            pins = used;
            ebpf
        }
    };
    if constants.workers > 0 {
        steer::load(&mut ebpf).map_err(Error::Steering)?;
    }
    let sock_ops = match attach_sock_ops(&mut ebpf, request) {
        Ok(cgroup) => Part::Present(cgroup),
        Err(reason) => Part::Missing(reason),
    };

    let events = match (observer.missing(), sock_ops.missing()) {
        _ if !request.scans => {
            // A socket that a service manager passed may bear the filter of an agent that was killed.
            request.sockets.iter().for_each(|socket| drop(SocketFilter::detach(socket)));
            Part::Missing("scans = false".to_owned())
        }
        (Some(reason), _) | (None, Some(reason)) => Part::Missing(format!("scans need both programs: {reason}")),
        (None, None) => match attach_arrival(&mut ebpf, request) {
            Ok(()) => Part::Present(()),
            Err(reason) => Part::Missing(reason),
        },
    };
    match (observer.missing(), sock_ops.missing()) {
        (Some(observer), Some(sock_ops)) if constants.workers == 0 || request.config.mode == EbpfMode::Required => {
            return Err(Error::Nothing { observer: observer.to_owned(), sock_ops: sock_ops.to_owned() });
        }
        (Some(reason), None) | (None, Some(reason)) if request.config.mode == EbpfMode::Required => {
            return Err(Error::Incomplete(reason.to_owned()));
        }
        _ => {}
    }
    if let (Part::Missing(reason), true, EbpfMode::Required) = (&events, request.scans, request.config.mode) {
        return Err(Error::Incomplete(reason.clone()));
    }

    let (observer, socket) = match observer {
        Part::Present(socket) => (Part::Present(()), Some(socket)),
        Part::Missing(reason) => (Part::Missing(reason), None),
    };
    let (pins, directory) = match pins {
        Ok(pins) => (Part::Present(pins.path().to_path_buf()), Some(Arc::new(pins))),
        Err(error) => (Part::Missing(chain(&error)), None),
    };
    let staged = directory.as_deref().map(|pins| stage(&ebpf, pins, constants.workers > 0, &mut notes));
    let kernel_log = request.log_level.and_then(|_| match KernelLog::new(&mut ebpf) {
        Ok(kernel_log) => Some(kernel_log),
        Err(error) => {
            notes.push(format!("the programs' own messages cannot be read: {}", chain(&error)));
            None
        }
    });
    let (origins, counters) =
        take_maps(&mut ebpf, events.missing().is_none(), (constants.workers > 0).then_some(request.listener.port()))?;
    let steer = match constants.workers {
        0 => None,
        _ => Some(Steer { maps: Some(SteerMaps::take(&mut ebpf)?) }),
    };
    let counters = Arc::new(counters);
    let waiting = match events {
        Part::Present(()) => Some(take_events(&mut ebpf, Arc::clone(&counters))?),
        Part::Missing(_) => None,
    };
    let namespace_filter = constants.namespace != 0;
    Ok(Attached {
        knows_link: constants.knows_link != 0,
        steer,
        description: Description { observer, sock_ops, events, pins, namespace_filter, notes },
        origins,
        counters,
        events: Mutex::new(waiting),
        kernel_log: Mutex::new(kernel_log),
        forwarder: Mutex::new(None),
        ebpf: Mutex::new(ebpf),
        staged: Mutex::new(staged.unwrap_or_default()),
        _socket: socket,
        pins: directory,
    })
}

/// The shapes of the maps that are pinned.
fn shapes(request: &Request<'_>) -> [(&'static str, Shape); 3] {
    let lru = |key: usize, max_entries| Shape {
        map_type: MapType::LruHash,
        key_size: key as u32,
        value_size: size_of::<Entry>() as u32,
        max_entries,
    };
    let counters = Shape {
        map_type: MapType::PerCpuArray,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<Counters>() as u32,
        max_entries: 1,
    };
    [
        (SYNS, lru(size_of::<SynKey>(), request.config.syn_entries)),
        (ORIGINS, lru(size_of::<u64>(), request.config.origin_entries)),
        (COUNTERS, counters),
    ]
}

/// Takes the directory of pins, and clears it of maps of other shapes.
fn prepare_pins(request: &Request<'_>, notes: &mut Vec<String>) -> Result<Pins, pins::Error> {
    let takes_over = request.steering.as_ref().is_some_and(|steering| steering.takes_over);
    let pins = Pins::open(&request.config.pin_path, takes_over)?;
    if pins.are_owned() {
        for (map, shape) in shapes(request) {
            notes.extend(pins.prepare(map, shape)?);
        }
    }
    Ok(pins)
}

/// Pins what was not pinned while it was loaded: the maps of steering, which are never used again, and all of them
/// where the pins that are there belong to the agent that is relieved.
fn stage(ebpf: &Ebpf, pins: &Pins, steered: bool, notes: &mut Vec<String>) -> Staged {
    let mut maps: Vec<&str> = if pins.are_owned() { Vec::new() } else { PINNED.to_vec() };
    if steered {
        maps.extend(STEER_MAPS);
    }
    let (staged, unpinned) = Staged::pin(ebpf, pins, &maps);
    notes.extend(unpinned);
    staged
}

/// Loads the object, and its maps with pins where that is possible.
fn load(
    request: &Request<'_>,
    constants: &Constants,
    pins: Result<Pins, pins::Error>,
) -> Result<(Ebpf, Result<Pins, pins::Error>), Error> {
    let pins = match pins {
        Ok(pins) => match load_with(request, constants, Some(&pins)) {
            Ok(ebpf) => return Ok((ebpf, Ok(pins))),
            Err(error) => {
                Err(pins::Error::Refused { path: pins.path().to_path_buf(), reason: reason(&error, "CAP_BPF") })
            }
        },
        Err(error) => Err(error),
    };
    match load_with(request, constants, None) {
        Ok(ebpf) => Ok((ebpf, pins)),
        Err(error) => Err(Error::Load(reason(&error, "CAP_BPF"))),
    }
}

/// Loads the object as for a start, unpinned: `trial` has its programs looked at.
pub(super) fn load_for_trial(request: &Request<'_>) -> Result<Ebpf, Error> {
    if OBJECT.is_empty() {
        return Err(Error::NotBuilt);
    }
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let namespace = namespace::cookie();
    let workers = request.steering.as_ref().map_or(0, |steering| steering.sockets);
    let mut constants = Constants {
        port: 1,
        namespace,
        observer: 1,
        scans: 1,
        confuses: 0,
        log_level: 0,
        workers,
        seed: 0,
        knows_link: 0,
        may_loopback: 0,
    };
    if workers > 0 {
        constants.knows_link = knows_link(request, &constants).into();
    }
    load_with(request, &constants, None).map_err(|error| Error::Load(reason(&error, "CAP_BPF")))
}

fn load_with(request: &Request<'_>, constants: &Constants, pins: Option<&Pins>) -> Result<Ebpf, aya::EbpfError> {
    let mut loader = EbpfLoader::new();
    // An unused ring buffer still has one page.
    let ring = if request.scans { RING_BYTES } else { 4096 };
    loader
        .map_max_entries(EVENTS, ring)
        .map_max_entries(SYNS, request.config.syn_entries)
        .map_max_entries(ORIGINS, request.config.origin_entries)
        .map_max_entries(SYN_DATA, if constants.observer == 0 { 1 } else { SYN_DATA_ENTRIES })
        .override_global(LISTENER_PORT, &constants.port, true)
        .override_global(NETNS_COOKIE, &constants.namespace, true)
        .override_global(OBSERVER_ATTACHED, &constants.observer, true)
        .override_global(SCANS, &constants.scans, true)
        .override_global(CONFUSES, &constants.confuses, true)
        .override_global(aya_log::LEVEL, &constants.log_level, false);
    let steered = |entries: u32| if constants.workers == 0 { 1 } else { entries };
    loader
        .map_max_entries(STEER_SOCKETS, constants.workers.max(1))
        .map_max_entries(STEER_PORTS, steered(spip_common::steer::PORTS))
        .map_max_entries(STEER_ENDPOINTS, steered(spip_common::steer::MAX_ENDPOINTS))
        .map_max_entries(STEER_KEPT, steered(spip_common::steer::PORTS))
        .map_max_entries(STEER_KEPT_ENDS, steered(spip_common::steer::MAX_ENDPOINTS))
        .map_max_entries(STEER_PREFIXES, steered(spip_common::steer::PREFIX_ENTRIES))
        .map_max_entries(STEER_LINKS, steered(spip_common::steer::LINK_ENTRIES))
        .override_global(STEER_WORKERS, &constants.workers, true)
        .override_global(STEER_SEED, &constants.seed, true)
        .override_global(STEER_KNOWS_LINK, &constants.knows_link, true)
        .override_global(STEER_MAY_LOOPBACK, &constants.may_loopback, true);
    if let Some(pins) = pins.filter(|pins| pins.are_owned()) {
        for map in PINNED {
            loader.map_pin_path(map, pins.pin(map));
        }
    }
    loader.load(OBJECT)
}

/// Tries whether the kernel tells `steer` by which interface a packet came: it loads the program that asks, or does
/// not.
fn knows_link(request: &Request<'_>, constants: &Constants) -> bool {
    let probe = Constants { knows_link: 1, ..*constants };
    load_with(request, &probe, None).is_ok_and(|mut ebpf| steer::load(&mut ebpf).is_ok())
}

/// Attaches the observer, then lets packets come.
fn attach_observer(ebpf: &mut Ebpf, socket: &PacketSocket) -> Result<(), String> {
    let refused =
        |error: &ProgramError| format!("cannot load the program {SYN_OBSERVER}: {}", reason(error, "CAP_BPF"));
    let program = ebpf.program_mut(SYN_OBSERVER).ok_or(format!("the object has no program {SYN_OBSERVER}"))?;
    let program: &mut SocketFilter = program.try_into().map_err(|error| refused(&error))?;
    program.load().map_err(|error| refused(&error))?;
    let attach = |error: &(dyn StdError + 'static)| {
        format!("cannot attach {SYN_OBSERVER} to a packet socket: {}", reason(error, "CAP_NET_RAW"))
    };
    program.attach(socket.as_fd()).map_err(|error| attach(&error))?;
    socket.receive_all().map_err(|error| attach(&error))
}

/// Attaches `sock_ops` to the cgroup; which one it is.
fn attach_sock_ops(ebpf: &mut Ebpf, request: &Request<'_>) -> Result<PathBuf, String> {
    let refused = |error: &ProgramError| {
        format!("cannot load the program {SOCK_OPS}: {}", reason(error, "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"))
    };
    let path = cgroup::find(request.config.cgroup_path.as_deref()).map_err(|error| chain(&error))?;
    let cgroup = cgroup::open(&path).map_err(|error| chain(&error))?;
    let program = ebpf.program_mut(SOCK_OPS).ok_or(format!("the object has no program {SOCK_OPS}"))?;
    let program: &mut SockOps = program.try_into().map_err(|error| refused(&error))?;
    program.load().map_err(|error| refused(&error))?;
    // Links are several to a cgroup whatever the mode; with links, the other modes are refused.
    program
        .attach(cgroup, CgroupAttachMode::Single)
        .map_err(|error| format!("cannot attach to cgroup {}: {}", path.display(), reason(&error, "CAP_NET_ADMIN")))?;
    Ok(path)
}

/// Attaches `syn_arrival` to each listening socket.
fn attach_arrival(ebpf: &mut Ebpf, request: &Request<'_>) -> Result<(), String> {
    let refused = |error: &ProgramError| format!("cannot load the program {SYN_ARRIVAL}: {}", reason(error, "CAP_BPF"));
    let program = ebpf.program_mut(SYN_ARRIVAL).ok_or(format!("the object has no program {SYN_ARRIVAL}"))?;
    let program: &mut SocketFilter = program.try_into().map_err(|error| refused(&error))?;
    program.load().map_err(|error| refused(&error))?;
    for socket in request.sockets {
        program.attach(socket).map_err(|error| {
            format!("cannot attach {SYN_ARRIVAL} to the listening socket: {}", reason(&error, "no lock on its filter"))
        })?;
    }
    Ok(())
}

/// Takes the ring buffer, to be read.
fn take_events(ebpf: &mut Ebpf, counters: Arc<PerCpuArray<MapData, Counters>>) -> Result<Events, Error> {
    let ring = ebpf.take_map(EVENTS).ok_or(MapError::InvalidName { name: EVENTS.to_owned() })?;
    Ok(Events::new(RingBuf::try_from(ring)?, counters))
}

/// Takes the maps that the agent reads out of the object; the programs keep their own hold on them.
fn take_maps(
    ebpf: &mut Ebpf,
    closes: bool,
    steered: Option<u16>,
) -> Result<(Origins, PerCpuArray<MapData, Counters>), Error> {
    let mut take = |name: &str| ebpf.take_map(name).ok_or(MapError::InvalidName { name: name.to_owned() });
    let data = |map: Map, name: &str| match map {
        Map::LruHashMap(data) | Map::Array(data) => Ok(data),
        _ => Err(MapError::InvalidName { name: name.to_owned() }),
    };
    let origins = data(take(ORIGINS)?, ORIGINS)?;
    let syns = data(take(SYNS)?, SYNS)?;
    let syn_data = data(take(SYN_DATA)?, SYN_DATA)?;
    let closed = closes.then(|| data(take(CLOSED)?, CLOSED)).transpose()?;
    let descriptor = origins.fd().as_fd().try_clone_to_owned().map_err(MapError::IoError)?;
    let removals = MapData::from_fd(descriptor)?;
    let counters = PerCpuArray::try_from(take(COUNTERS)?)?;
    let maps = OriginMaps { origins, removals, syns, syn_data, closed };
    Ok((Origins::new(maps, steered)?, counters))
}

/// Describes an error: the privilege that is missing where the kernel refused for lack of one, the last words of the
/// verifier where it refused a program, or the whole chain of causes.
pub(super) fn reason(error: &(dyn StdError + 'static), privilege: &str) -> String {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(ProgramError::LoadError { io_error, verifier_log }) = current.downcast_ref::<ProgramError>() {
            return load_reason(io_error, &verifier_log.to_string(), privilege);
        }
        if let Some(MapError::CreateError { io_error, .. }) = current.downcast_ref::<MapError>()
            && is_refusal(io_error)
            && has_either(CAP_BPF)
        {
            // Up to Linux 5.10 maps count as locked memory, and the error is the same.
            return "more locked memory than RLIMIT_MEMLOCK allows: LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"
                .to_owned();
        }
        if current.downcast_ref::<io::Error>().is_some_and(is_refusal) {
            return format!("needs {privilege}");
        }
        // Looked for by the outer type: it is transparent, and its source is that of the inner one.
        if let Some(ProgramError::SocketFilterError(SocketFilterError::SetsockoptError { io_error, .. })) =
            current.downcast_ref::<ProgramError>()
            && io_error.raw_os_error() == Some(libc::ENOMEM)
        {
            // The kernel charges a filter's instructions to the socket (`sk_filter_charge`); up to Linux 6.8 it allows
            // 20 kB.
            return "it is larger than net.core.optmem_max allows: sysctl -w net.core.optmem_max=131072".to_owned();
        }
        cause = current.source();
    }
    chain(error)
}

/// Describes why a program was not loaded. The verifier refuses with the same numbers as for a missing capability, but
/// always with a text; and it refuses loops over bytes without `CAP_PERFMON`.
fn load_reason(error: &io::Error, log: &str, privilege: &str) -> String {
    let words: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)))
        .collect();
    if words.is_empty() && is_refusal(error) {
        return format!("needs {privilege}");
    }
    if is_refusal(error) && !has_either(CAP_PERFMON) {
        return "needs CAP_PERFMON".to_owned();
    }
    let last = words.get(words.len().saturating_sub(VERIFIER_LINES)..).unwrap_or_default();
    format!("{error}; the verifier says: {}", last.join("; "))
}

/// Reports whether this thread has a capability, or `CAP_SYS_ADMIN`, which implies those of eBPF; true when that is not
/// known.
fn has_either(capability: u32) -> bool {
    let effective = fs::read_to_string("/proc/thread-self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    effective.is_none_or(|effective| effective & (1 << capability | 1 << CAP_SYS_ADMIN) != 0)
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// An error and its causes in one line.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let next = current.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = current.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_privilege_wherever_it_is_in_the_chain_or_the_limit_that_looks_the_same() {
        let eperm = || io::Error::from_raw_os_error(libc::EPERM);
        let refused = MapError::SyscallError(aya::sys::SyscallError { call: "bpf_map_update_elem", io_error: eperm() });
        assert_eq!(reason(&refused, "CAP_BPF"), "needs CAP_BPF");
        let refused = MapError::CreateError { name: "SYNS".to_owned(), io_error: eperm() };
        let text = reason(&aya::EbpfError::MapError(refused), "CAP_BPF");
        let expected = if has_either(CAP_BPF) { "RLIMIT_MEMLOCK" } else { "needs CAP_BPF" };
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_verifier_that_refuses_is_quoted_without_its_statistics() {
        let log = "0: (b7) r0 = 0\nR1 type=inv expected=ctx\nprocessed 1 insns (limit 1000000)\n\n";
        let error = io::Error::from_raw_os_error(libc::EINVAL);
        let text = load_reason(&error, log, "CAP_BPF");
        assert!(text.ends_with("says: 0: (b7) r0 = 0; R1 type=inv expected=ctx"), "{text}");
    }

    #[test]
    fn a_filter_that_is_larger_than_the_socket_may_have_names_the_setting() {
        let io_error = io::Error::from_raw_os_error(libc::ENOMEM);
        let refused = ProgramError::from(SocketFilterError::SetsockoptError { option: "SO_ATTACH_BPF", io_error });
        assert!(reason(&refused, "CAP_NET_RAW").ends_with("sysctl -w net.core.optmem_max=131072"));
    }

    #[test]
    fn another_error_is_told_with_its_cause() {
        let failed =
            MapError::CreateError { name: "SYNS".to_owned(), io_error: io::Error::from_raw_os_error(libc::ENOMEM) };
        let text = reason(&failed, "CAP_BPF");
        assert!(text.contains("SYNS") && text.contains("memory"), "{text}");
    }
}
