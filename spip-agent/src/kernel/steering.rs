//! Steering by `sk_lookup`: what is left alone, kept current while the agent runs.
//!
//! The program in the kernel follows maps; this module decides what they say. It looks at the listening sockets of the
//! namespace four times a second, so that a service that begins to listen has its port well within a second, and one
//! that stops gives it up as soon. In between, and whenever the kernel cannot be asked, the last answer holds. The maps
//! are filled before the program is attached: no service is cut off even for a moment.
//!
//! Exclusions of the start stay until the agent is started again: they are in maps that are frozen, so
//! that an intruder in this process cannot take the ports of services that were there, or those that the operator
//! excluded. A configuration that is read again can exclude more, and not less.
//!
//! With `pin_links` the link outlives the agent. It needs listeners to choose from, and those are gone with the process
//! that opened them, unless a service manager holds them: then connections wait in the kernel's queue for the next
//! agent. Otherwise the next agent is started beside this one, which notices that it was relieved. Where neither is
//! done, ports behave as before until an agent comes; a program of this kind cannot make a client wait.

mod entries;
mod exempt;
mod reasons;
mod table;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde::{Deserialize, Serialize};
use spip_common::steer::{Exclusion, Settings, SteerCounters};
use thiserror::Error;

use crate::config::{self, Config, is_among};
use crate::kernel::ebpf::{self, SteerMaps};
use crate::kernel::listening::{self, Listening};
use crate::kernel::sockets::Sockets;

use entries::Entries;
use exempt::Exempt;
pub use exempt::unknown_users;
pub use reasons::Reason;
use table::{Own, Table};
pub use watch::{Attachment, Description, Watch};

/// The ports that the kernel gives to outgoing connections (ip-sysctl.rst).
const LOCAL_PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Reasons why steering cannot be set up.
#[derive(Debug, Error)]
pub enum Error {
    /// Without it services would be cut off.
    #[error("cannot list the listeners of this machine: {0}")]
    Listening(#[source] std::io::Error),
    /// A map of the kernel side.
    #[error("cannot update the kernel's {0}")]
    Maps(&'static str, #[source] ebpf::Error),
}

/// Sources and destinations of steered connections; everywhere where a list is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Confinement {
    /// `steer_prefixes`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// `steer_interfaces`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// Those of them that are not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_interfaces: Vec<String>,
}

/// Steering, prepared: the maps are filled, and nothing is attached yet.
pub struct Steering {
    maps: SteerMaps,
    own: Own,
    exempt: Exempt,
    settings: config::Steering,
    configured: Vec<(u16, u16)>,
    ssh: BTreeSet<SocketAddr>,
    /// Exclusions of the start.
    kept: Kept,
    /// Services as they are in the maps.
    services: Vec<Listening>,
    /// Services of users that are not exempt, out of reach of all that loopback does not reach.
    overruled: Vec<Listening>,
    table: Table,
    /// Prefixes and interfaces as they are in the maps.
    prefixes: Entries<(Ipv6Addr, u32)>,
    links: Entries<u32>,
    /// Interfaces that are asked for and not there.
    missing: Vec<String>,
    /// Set when the maps have the wanted contents.
    current: bool,
    /// Asked who listens, and which number an interface has; opened before the sandbox closes the way.
    listening: listening::Source,
    interfaces: OwnedFd,
    /// Names of processes, as of the last time that something changed.
    sockets: Option<Sockets>,
}

impl Steering {
    /// Fills the maps: the listeners, who is left alone, and what is wanted.
    ///
    /// # Errors
    /// The kernel does not tell who listens, or refuses to take it.
    pub fn prepare(
        config: &Config,
        mut maps: SteerMaps,
        listeners: &[OwnedFd],
        address: SocketAddr,
    ) -> Result<Self, Error> {
        maps.set_sockets(listeners).map_err(|error| Error::Maps("map of listening sockets", error))?;
        let own = Own { inodes: listeners.iter().filter_map(inode).collect(), address: Some(address) };
        let mut steering = Self {
            maps,
            own,
            exempt: Exempt::of(&config.steering.exempt_services_of),
            settings: config.steering.clone(),
            configured: Vec::new(),
            ssh: BTreeSet::new(),
            kept: Kept::default(),
            services: Vec::new(),
            overruled: Vec::new(),
            table: Table::default(),
            prefixes: Entries::default(),
            links: Entries::default(),
            missing: Vec::new(),
            current: false,
            listening: listening::Source::open().map_err(Error::Listening)?,
            // Of a family that knows no network: sockets of all families answer this question.
            interfaces: UnixDatagram::unbound().map_err(Error::Listening)?.into(),
            sockets: None,
        };
        steering.reload(config)?;
        steering.keep()?;
        Ok(steering)
    }

    /// Leaves alone for good what is left alone now.
    fn keep(&mut self) -> Result<(), Error> {
        let Self { table, configured, ssh, services, settings, .. } = self;
        self.kept = Kept {
            configured: configured.clone(),
            ssh: ssh.clone(),
            services: services.clone(),
            loopback: settings.loopback,
        };
        let ports = table.ports.iter().map(|(port, exclusion)| (*port, *exclusion));
        let endpoints = table.endpoints.iter().map(|(endpoint, reason)| (*endpoint, *reason));
        self.maps.keep(ports, endpoints).map_err(|error| Error::Maps("map of fixed exclusions", error))
    }

    /// Takes over what a configuration says; also looks for the operator's SSH connections anew.
    ///
    /// # Errors
    /// As [`Steering::prepare`]; what could be changed is, and [`Steering::refresh`] tries the rest again.
    pub fn reload(&mut self, config: &Config) -> Result<(), Error> {
        self.name_owners();
        self.ssh = ssh_ends(std::env::var("SSH_CONNECTION").ok().as_deref(), self.sockets.as_ref());
        self.ssh.extend(&self.kept.ssh);
        self.configured.clone_from(&config.exclude_ports);
        self.configured.extend(self.kept.configured.iter().filter(|range| !config.exclude_ports.contains(range)));
        self.settings.clone_from(&config.steering);
        self.current = false;
        self.refresh().map(drop)
    }

    /// Returns the changes in `config` that take a restart of the agent: ports that were excluded at the start, and
    /// loopback.
    #[must_use]
    pub fn takes_restart(&self, config: &Config) -> Option<String> {
        let steered = |range: &&(u16, u16)| {
            let mut ports = range.0..=range.1;
            ports.any(|port| !is_among(&config.exclude_ports, port))
        };
        let ranges: Vec<String> = self.kept.configured.iter().filter(steered).map(|range| shown(*range)).collect();
        let ports = (!ranges.is_empty()).then(|| format!("exclude_ports without {}", ranges.join(", ")));
        let loopback = (config.steering.loopback && !self.kept.loopback).then(|| "steer_loopback".to_owned());
        let all: Vec<String> = ports.into_iter().chain(loopback).collect();
        (!all.is_empty()).then(|| all.join(" and "))
    }

    /// Looks again who listens and which interfaces there are; true when services have changed.
    ///
    /// # Errors
    /// The kernel does not tell, or refuses to take it.
    pub fn refresh(&mut self) -> Result<bool, Error> {
        let (links, missing) = self.find_links();
        self.missing = missing;
        let services = self.find_services().map_err(Error::Listening)?;
        let changed = services != self.services;
        if !changed && self.current && self.links.are(&links) {
            return Ok(false);
        }
        self.current = false;
        // Before anything more is steered.
        self.exclude(services).map_err(|error| Error::Maps("map of exclusions", error))?;
        self.steer_where_wanted(&links)?;
        self.current = true;
        Ok(changed)
    }

    /// Returns the confinement of steering.
    #[must_use]
    pub fn confinement(&self) -> Confinement {
        Confinement {
            prefixes: self.settings.prefixes.iter().map(ToString::to_string).collect(),
            interfaces: self.settings.interfaces.clone(),
            missing_interfaces: self.missing.clone(),
        }
    }

    /// Interfaces that are asked for and not there.
    #[must_use]
    pub fn missing_interfaces(&self) -> &[String] {
        &self.missing
    }

    /// Everything that is left alone.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        reasons::reasons(&self.configured, &self.ssh, &self.services, self.sockets.as_ref())
    }

    /// The same in one line, for a message.
    #[must_use]
    pub fn exclusions(&self) -> String {
        reasons::line(&self.reasons())
    }

    /// Returns the services that lose their ports to the agent in one line, because `exempt_services_of` does not name their users;
    /// `None` when there are none.
    #[must_use]
    pub fn overruled(&self) -> Option<String> {
        let reasons = reasons::reasons(&[], &BTreeSet::new(), &self.overruled, self.sockets.as_ref());
        (!reasons.is_empty()).then(|| reasons::line(&reasons))
    }

    /// The ports from which this machine connects out, when clients could occupy all of them: a connection that is
    /// steered occupies its port, and the kernel gives an outgoing connection a port that nothing occupies (Linux
    /// `__inet_inherit_port`, `__inet_hash_connect`).
    #[must_use]
    pub fn all_outgoing_ports(&self) -> Option<(u16, u16)> {
        let (from, to) = outgoing_ports()?;
        let kept = self.table.ports.range(from..=to).any(|(_, exclusion)| exclusion.everywhere != 0);
        (!kept).then_some((from, to))
    }

    /// Looks up whose the services are. Costs a walk through all processes, and is closed to an agent in its sandbox:
    /// then what was known at the start is all that is known.
    fn name_owners(&mut self) {
        if let Ok(found) = Sockets::read(Path::new("/proc"))
            && (found.complete || self.sockets.is_none())
        {
            self.sockets = Some(found);
        }
    }

    /// Returns the counters of the program.
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    pub fn counters(&self) -> Result<SteerCounters, Error> {
        self.maps.counters().map_err(|error| Error::Maps("to show its counters", error))
    }

    fn find_services(&mut self) -> std::io::Result<Vec<Listening>> {
        let mut found = self.listening.all()?;
        found.retain(|found| !self.own.is(found));
        self.overruled = found.extract_if(.., |service| !self.exempt.has(service)).collect();
        self.overruled.retain(|service| !service.ip.is_loopback() || self.settings.loopback);
        // They are sorted. A service that was there at the start keeps its port when it ends.
        let place = |service: &Listening| (service.port, service.ip);
        let ended = self.kept.services.iter().copied();
        let ended: Vec<_> = ended.filter(|kept| found.binary_search_by_key(&place(kept), place).is_err()).collect();
        if !ended.is_empty() {
            found.extend(ended);
            found.sort_unstable();
        }
        Ok(found)
    }

    /// Brings the maps to what is to be left alone now. What is added comes first: at no moment is a service cut off
    /// because another one ended.
    fn exclude(&mut self, services: Vec<Listening>) -> Result<(), ebpf::Error> {
        let table = Table::new(&self.configured, &self.ssh, &services);
        for (endpoint, reason) in &table.endpoints {
            if self.table.endpoints.get(endpoint) != Some(reason) {
                self.maps.set_endpoint(*endpoint, Some(*reason))?;
                self.table.endpoints.insert(*endpoint, *reason);
            }
        }
        for (port, exclusion) in &table.ports {
            if self.table.ports.get(port) != Some(exclusion) {
                self.maps.set_port(*port, *exclusion)?;
                self.table.ports.insert(*port, *exclusion);
            }
        }
        for port in gone(&self.table.ports, &table.ports) {
            self.maps.set_port(port, Exclusion::default())?;
            self.table.ports.remove(&port);
        }
        for endpoint in gone(&self.table.endpoints, &table.endpoints) {
            self.maps.set_endpoint(endpoint, None)?;
            self.table.endpoints.remove(&endpoint);
        }
        self.services = services;
        Ok(())
    }

    /// Brings the maps to what is wanted now, as far as the kernel takes it. What is added comes first here, too, and
    /// what goes leaves when it is no longer wanted.
    fn steer_where_wanted(&mut self, links: &BTreeSet<u32>) -> Result<(), Error> {
        let Self { maps, settings, prefixes, links: standing_links, .. } = self;
        let wanted = settings.prefixes.iter().map(|prefix| prefix.mapped()).collect();
        let added = prefixes.add(&wanted, |prefix| maps.set_prefix(prefix, true));
        let added_links = standing_links.add(links, |link| maps.set_link(link, true));
        let set = maps.set_settings(Settings {
            loopback: settings.loopback.into(),
            prefixes: u32::try_from(wanted.len()).unwrap_or(u32::MAX),
            links: (!settings.interfaces.is_empty()).into(),
        });
        let removed = prefixes.remove_others(&wanted, |prefix| maps.set_prefix(prefix, false));
        let removed_links = standing_links.remove_others(links, |link| maps.set_link(link, false));
        added.and(removed).map_err(|error| Error::Maps("steer_prefixes", error))?;
        added_links.and(removed_links).map_err(|error| Error::Maps("steer_interfaces", error))?;
        set.map_err(|error| Error::Maps("what is wanted", error))
    }

    /// Interfaces come and go, and come back with another index.
    fn find_links(&self) -> (BTreeSet<u32>, Vec<String>) {
        let (mut links, mut missing) = (BTreeSet::new(), Vec::new());
        for name in &self.settings.interfaces {
            match interface_index(&self.interfaces, name) {
                Some(index) => {
                    links.insert(index);
                }
                None => missing.push(name.clone()),
            }
        }
        (links, missing)
    }
}

/// Exclusions of the start, which hold until the next one.
#[derive(Debug, Default)]
struct Kept {
    configured: Vec<(u16, u16)>,
    ssh: BTreeSet<SocketAddr>,
    services: Vec<Listening>,
    /// Set when clients on this machine were to be steered.
    loopback: bool,
}

/// A range of ports as it is written.
fn shown((from, to): (u16, u16)) -> String {
    if from == to { from.to_string() } else { format!("{from}-{to}") }
}

/// Returns the entries that are no longer wanted.
fn gone<K: Copy + Ord, V>(standing: &BTreeMap<K, V>, wanted: &BTreeMap<K, V>) -> Vec<K> {
    standing.keys().filter(|key| !wanted.contains_key(key)).copied().collect()
}

/// The number of an interface, asked on a socket that is open (netdevice(7)); none when there is no such interface.
fn interface_index(socket: &OwnedFd, name: &str) -> Option<u32> {
    // SAFETY: the structure holds integers, arrays of them and a pointer; zero is a value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: names in the configuration are shorter.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the pointer names a whole request, which the kernel reads and fills.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request) };
    if result != 0 {
        return None;
    }
    // SAFETY: the kernel has filled this member of the union.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    u32::try_from(index).ok()
}

/// The ports from which this machine connects out.
#[must_use]
pub fn outgoing_ports() -> Option<(u16, u16)> {
    port_range(&std::fs::read_to_string(LOCAL_PORT_RANGE).ok()?)
}

/// Two numbers, as the kernel writes a range.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (from, to) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (from <= to).then_some((from, to))
}

/// Local ends of SSH connections: of the session in which the agent was started, and of all that some sshd holds.
fn ssh_ends(ssh_connection: Option<&str>, sockets: Option<&Sockets>) -> BTreeSet<SocketAddr> {
    let open = sockets.map(|sockets| sockets.ssh_sessions.as_slice()).unwrap_or_default();
    ssh_connection.and_then(own_end).into_iter().chain(open.iter().copied()).collect()
}

/// The server's end in `SSH_CONNECTION`, which is client address and port, then server address and port. Where the
/// address cannot be read the port is to be left alone on all of them: the operator must not be locked out.
fn own_end(ssh_connection: &str) -> Option<SocketAddr> {
    let mut words = ssh_connection.split(' ').skip(2);
    let (address, port) = (words.next()?, words.next()?.parse().ok()?);
    // A link-local address names its interface behind a percent sign.
    let address = address.split('%').next().and_then(|address| address.parse().ok());
    Some(SocketAddr::new(address.map_or(Ipv6Addr::UNSPECIFIED.into(), |ip: IpAddr| ip.to_canonical()), port))
}

/// The number of a socket, by which the kernel lists it.
fn inode(socket: &OwnedFd) -> Option<u32> {
    let found = nix::sys::stat::fstat(socket).ok()?;
    debug_assert!(socket.as_raw_fd() >= 0);
    u32::try_from(found.st_ino).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_have_numbers() {
        let socket = OwnedFd::from(UnixDatagram::unbound().expect("socket"));
        assert_eq!(interface_index(&socket, "lo"), Some(1));
        assert_eq!(interface_index(&socket, "no-such-link"), None);
        assert_eq!(interface_index(&socket, &"x".repeat(40)), None);
    }

    #[test]
    fn the_range_of_outgoing_ports_is_read_as_the_kernel_writes_it() {
        assert_eq!(port_range("32768\t60999\n"), Some((32_768, 60_999)));
        for text in ["", "1", "9 1", "x 1", "1 70000"] {
            assert_eq!(port_range(text), None, "{text}");
        }
    }

    #[test]
    fn the_operators_ssh_connections_come_from_the_session_and_from_open_ones() {
        let end = |text: &str| text.parse::<SocketAddr>().expect("address");
        let sockets = Sockets { ssh_sessions: vec![end("192.0.2.3:2222")], ..Sockets::default() };
        let ends = ssh_ends(Some("192.0.2.7 50000 192.0.2.1 22"), Some(&sockets));
        assert_eq!(ends, [end("192.0.2.1:22"), end("192.0.2.3:2222")].into());
        for (text, expected) in [
            ("fe80::7%eth0 50000 fe80::1%eth0 22", "[fe80::1]:22"),
            ("::ffff:192.0.2.7 50000 ::ffff:192.0.2.1 22", "192.0.2.1:22"),
            ("UNKNOWN 65535 UNKNOWN 22", "[::]:22"),
        ] {
            assert_eq!(ssh_ends(Some(text), None), [end(expected)].into(), "{text}");
        }
        for text in ["nonsense", "", "1 2 3", "192.0.2.9 50000 192.0.2.1 99999"] {
            assert_eq!(ssh_ends(Some(text), None), BTreeSet::new(), "{text}");
        }
    }
}
