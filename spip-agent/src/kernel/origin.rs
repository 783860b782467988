//! Decides where a connection really wanted to go, and from which port it came.
//!
//! 1. The kernel is the judge. It knows the destination from connection tracking (`SO_ORIGINAL_DST`), or, where nothing was
//!    translated, from the socket; and it keeps the SYN that it accepted (`TCP_SAVED_SYN`).
//! 2. The packet filter is a witness, found by the socket's cookie. Where it agrees with the kernel ([`witness`]), the
//!    record has from it the one thing that the kernel does not tell: the client's own source port, which the translation may
//!    have replaced. Where it contradicts, the record has what the kernel knows, and the reason ([`Conflict`]).
//!
//! Where connections are steered there is no translation, and the socket knows both ends. What the packet filter saw is then
//! only needed where the kernel kept no SYN, as under SYN cookies, and at the listener's own port, where it tells a client
//! that asked for that port from one that a rule led there.
//!
//! Who can make which fact say what stands in `docs/origin.md`.

mod peer;
mod saved;
mod warning;
mod witness;

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use socket2::SockRef;
use spip_common::Syn;

use crate::kernel::addr::{ClientAddr, Destination, mapped};
use crate::kernel::ebpf::{self, Origins};
pub use peer::{Peer, peer};
use saved::Saved;
pub use saved::save_syns;
use spip_record::{Conflict, DestinationSource};

/// Source and destination of a connection, known at accept.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client, with the port that it used itself.
    pub client: ClientAddr,
    /// Destination that the client asked for.
    pub destination: Destination,
    /// Source of the destination.
    pub source: DestinationSource,
    /// Reason why the packet filter was not believed, where it saw a SYN.
    pub conflict: Option<Conflict>,
    /// The SYN that opened the connection, where it was seen.
    pub syn: Option<Syn>,
    /// The first bytes of the data that came with it, where they are known.
    pub syn_data: Option<Box<[u8]>>,
}

/// The origin of an accepted socket, and whether looking again may find more.
pub struct Found {
    /// Origin as known now.
    pub origin: Origin,
    /// The cookie under which the kernel side has, or may yet have, an entry.
    pub cookie: Option<u64>,
}

/// Finds the origin of `socket`, whose peer is `peer`; `origins` where the kernel side is attached.
pub fn find(socket: &impl AsFd, peer: Peer, origins: Option<&Origins>) -> Found {
    if let Some(steered) = origins.and_then(Origins::steered) {
        let local = local_address(socket);
        if local.port() != steered {
            return find_steered(socket, peer, local, origins);
        }
        // The listener's own port is also where a rule of the firewall that was left in place would lead.
        let mut found = find_translated(socket, peer, origins);
        found.origin.is_of_socket(ClientAddr::new(peer.address), Destination::new(local));
        return found;
    }
    find_translated(socket, peer, origins)
}

/// Returns the port that `peer` asked for on `socket`, as the kernel knows it.
pub fn destination_port(socket: &impl AsFd, peer: SocketAddr, origins: Option<&Origins>) -> u16 {
    let local = local_address(socket);
    if origins.and_then(Origins::steered).is_some_and(|steered| local.port() != steered) {
        return local.port();
    }
    original_destination(socket, peer).unwrap_or(local).port()
}

impl Origin {
    /// Takes the socket as the source when both ends are those of the socket, so that nothing was translated.
    fn is_of_socket(&mut self, client: ClientAddr, local: Destination) {
        if (self.client, self.destination) == (client, local) {
            self.source = DestinationSource::Socket;
        }
    }
}

/// Of a connection that nothing translated: the socket knows both ends, and nearly always the SYN.
fn find_steered(socket: &impl AsFd, peer: Peer, local: SocketAddr, origins: Option<&Origins>) -> Found {
    // Also where nothing is looked up: by it the entry of a connection that is reset is removed.
    let cookie = cookie(socket);
    let saved = peer.saved.unwrap_or_else(|| Saved::take(socket));
    let mut origin = of_kernel(peer.address, local, DestinationSource::Socket, &saved);
    if saved == Saved::Nothing
        && let Some(seen) = origins.zip(cookie).and_then(|(origins, cookie)| origins.lookup(cookie))
    {
        add_syn(&mut origin, &seen);
    }
    add_data(&mut origin, origins);
    Found { origin, cookie }
}

/// Adds the SYN of an entry that agrees with both ends of a socket whose addresses nothing has translated.
fn add_syn(origin: &mut Origin, seen: &ebpf::Origin) {
    let conflict = witness::conflict(seen, origin.destination, &Saved::Nothing)
        .or((seen.syn.source_port != origin.client.port()).then_some(Conflict::Syn));
    match conflict {
        None => origin.syn = witness::facts(seen, None),
        Some(conflict) => contradict(origin, seen, conflict),
    }
}

/// Adds the data that came with the SYN.
fn add_data(origin: &mut Origin, origins: Option<&Origins>) {
    if let (Some(origins), Some(syn)) = (origins, &origin.syn) {
        origin.syn_data = origins.syn_data(mapped(origin.client.ip()), syn);
    }
}

fn find_translated(socket: &impl AsFd, peer: Peer, origins: Option<&Origins>) -> Found {
    let cookie = origins.and_then(|_| cookie(socket));
    let saved = peer.saved.unwrap_or_else(|| Saved::take(socket));
    let (destination, source) = match original_destination(socket, peer.address) {
        Some(address) => (address, DestinationSource::Conntrack),
        None => (local_address(socket), DestinationSource::Socket),
    };
    let mut origin = of_kernel(peer.address, destination, source, &saved);
    if let Some(seen) = origins.zip(cookie).and_then(|(origins, cookie)| origins.lookup(cookie)) {
        hear(&mut origin, &seen, &saved);
    }
    add_data(&mut origin, origins);
    Found { origin, cookie }
}

/// Returns the origin as the kernel knows it, whatever the packet filter saw.
fn of_kernel(peer: SocketAddr, destination: SocketAddr, source: DestinationSource, saved: &Saved) -> Origin {
    Origin {
        client: ClientAddr::new(peer),
        destination: Destination::new(destination),
        source,
        // A SYN that the kernel took and that cannot be read here agrees with nothing.
        conflict: (*saved == Saved::Unreadable).then_some(Conflict::Syn),
        syn: saved.syn(),
        syn_data: None,
    }
}

/// Completes what the kernel knows by what the packet filter saw, where that agrees.
fn hear(origin: &mut Origin, seen: &ebpf::Origin, saved: &Saved) {
    match witness::conflict(seen, origin.destination, saved) {
        None => {
            origin.client = ClientAddr::new(SocketAddr::new(origin.client.ip(), seen.syn.source_port));
            origin.source = DestinationSource::Ebpf;
            origin.syn = witness::facts(seen, origin.syn);
        }
        Some(conflict) => contradict(origin, seen, conflict),
    }
}

fn contradict(origin: &mut Origin, seen: &ebpf::Origin, conflict: Conflict) {
    origin.conflict = Some(conflict);
    warning::warn(conflict, origin, SocketAddr::new(seen.syn.destination_ip(), seen.syn.destination_port));
}

/// Removes the origin of a connection that nobody will ask for.
pub fn forget(socket: &impl AsFd, origins: &Origins) {
    if let Some(cookie) = cookie(socket) {
        origins.forget(cookie);
    }
}

/// Looks the cookie up once more: a socket may reach the accept queue just before the kernel side has written its entry.
pub fn retry(origin: &mut Origin, cookie: u64, origins: &Origins) {
    if matches!(origin.source, DestinationSource::Ebpf | DestinationSource::Proxy) || origin.conflict.is_some() {
        return;
    }
    let steered = origins.steered().filter(|_| origin.source == DestinationSource::Socket);
    let at_listener = steered.is_none_or(|listener| origin.destination.port() == listener);
    if !at_listener && origin.syn.is_some() {
        return;
    }
    let Some(seen) = origins.lookup(cookie) else { return };
    if at_listener {
        let (client, destination) = (origin.client, origin.destination);
        hear(origin, &seen, &origin.syn.map_or(Saved::Nothing, Saved::Syn));
        if steered.is_some() {
            origin.is_of_socket(client, destination);
        }
    } else {
        add_syn(origin, &seen);
    }
    add_data(origin, Some(origins));
}

fn cookie(socket: &impl AsFd) -> Option<u64> {
    SockRef::from(socket).cookie().ok()
}

fn local_address(socket: &impl AsFd) -> SocketAddr {
    let local = SockRef::from(socket).local_addr().ok().and_then(|address| address.as_socket());
    // A socket that was accepted has a local address as long as it is open.
    local.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
}

/// `SO_ORIGINAL_DST`: at `SOL_IP` for IPv4, also for v4-mapped peers of a dual-stack listener; at `SOL_IPV6` for IPv6.
fn original_destination(socket: &impl AsFd, peer: SocketAddr) -> Option<SocketAddr> {
    if peer.ip().to_canonical().is_ipv4() {
        let raw: libc::sockaddr_in = socket_option(socket, libc::SOL_IP, libc::SO_ORIGINAL_DST)?;
        let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
        Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
    } else {
        let raw: libc::sockaddr_in6 = socket_option(socket, libc::SOL_IPV6, libc::IP6T_SO_ORIGINAL_DST)?;
        let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
        Some(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), 0, 0).into())
    }
}

/// Reads a socket option that is a plain structure of the kernel; nothing where the kernel has none to give.
fn socket_option<T: Copy>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer names a writable value of the length that is given with it.
    let result = unsafe { libc::getsockopt(descriptor, level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result != 0 || (length as usize) < size_of::<T>() {
        return None;
    }
    // SAFETY: the kernel filled the whole structure, and every bit pattern of it is valid.
    Some(unsafe { value.assume_init() })
}
