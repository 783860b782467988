//! Where a connection really wanted to go, and from which port it came: asked of three sources in turn.
//!
//! 1. What the packet filter saw in the SYN, found by the socket's cookie: the client's own source port and the
//!    destination before any translation, on every kind of rule.
//! 2. The kernel's connection tracking (`SO_ORIGINAL_DST`): the right destination, but the source port is the one that
//!    the translation may have put in the place of the client's.
//! 3. The address of the socket itself: right where nothing was translated.
//!
//! Where connections are steered there is no translation, and the third source is asked first: two system calls instead of
//! a look-up. What the packet filter saw is then only needed where the kernel kept no SYN, as under SYN cookies, and at the
//! listener's own port, where it tells a client that asked for that port from one that a rule led there.
//!
//! A SYN that cannot be told apart from another with the same key is not believed: connection tracking decides then.

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use socket2::SockRef;
use spip_common::Syn;

use crate::addr::{ClientAddr, Destination};
use crate::ebpf::{self, Origins};
use crate::record::Origin;
use spip_record::DestinationSource;

/// `TCP_SAVE_SYN` of linux/tcp.h: a listener keeps the headers of each SYN for the accepted socket.
const TCP_SAVE_SYN: libc::c_int = 27;
/// `TCP_SAVED_SYN` of linux/tcp.h: takes those headers from the accepted socket, once.
const TCP_SAVED_SYN: libc::c_int = 28;
/// The longest headers that a SYN can have: IPv6 with extension headers in one packet's worth, and TCP's 60 bytes.
const SAVED_SYN_BYTES: usize = 512;

/// The origin of an accepted socket, and whether looking again may find more.
pub struct Found {
    /// What is known now.
    pub origin: Origin,
    /// The cookie under which the kernel side has, or may yet have, an entry.
    pub cookie: Option<u64>,
}

/// Finds the origin of `socket`, whose peer is `peer`; `origins` where the kernel side is attached.
pub fn find(socket: &impl AsFd, peer: SocketAddr, origins: Option<&Origins>) -> Found {
    if let Some(steered) = origins.and_then(Origins::steered) {
        let local = local_address(socket);
        if local.port() != steered {
            return find_steered(socket, peer, local, origins);
        }
        // The listener's own port is also where a rule of the firewall that was left in place would lead.
        let mut found = find_translated(socket, peer, origins);
        found.origin.is_of_socket(ClientAddr::new(peer), Destination::new(local));
        return found;
    }
    find_translated(socket, peer, origins)
}

impl Origin {
    /// Where both ends are those of the socket, nothing was translated, and the socket itself is the source.
    fn is_of_socket(&mut self, client: ClientAddr, local: Destination) {
        if (self.client, self.destination) == (client, local) {
            self.source = DestinationSource::Socket;
        }
    }
}

/// Of a connection that nothing translated: the socket knows both ends, and nearly always the SYN.
fn find_steered(socket: &impl AsFd, peer: SocketAddr, local: SocketAddr, origins: Option<&Origins>) -> Found {
    let saved = saved_syn(socket);
    // Also where nothing is looked up: by it the entry of a connection that is reset is removed.
    let cookie = cookie(socket);
    let seen = origins.zip(cookie).filter(|_| saved.is_none());
    let seen = seen.and_then(|(origins, cookie)| origins.lookup(cookie)).and_then(seen_syn);
    let origin = Origin {
        client: ClientAddr::new(peer),
        destination: Destination::new(local),
        source: DestinationSource::Socket,
        syn: saved.or(seen),
    };
    Found { origin, cookie }
}

/// The SYN of an entry that can be believed.
fn seen_syn(seen: ebpf::Origin) -> Option<Syn> {
    (seen.observed && !seen.ambiguous).then_some(seen.syn)
}

fn find_translated(socket: &impl AsFd, peer: SocketAddr, origins: Option<&Origins>) -> Found {
    let cookie = origins.and_then(|_| cookie(socket));
    let seen = origins.zip(cookie).and_then(|(origins, cookie)| origins.lookup(cookie));
    let origin = match seen {
        Some(seen) if !seen.ambiguous => from_syn(peer, &seen, || saved_syn(socket)),
        _ => from_socket(socket, peer),
    };
    Found { origin, cookie }
}

/// Looks the cookie up once more: a socket may reach the accept queue just before the kernel side has written its entry.
pub fn retry(origin: &mut Origin, cookie: u64, origins: &Origins) {
    if origin.source == DestinationSource::Ebpf {
        return;
    }
    // What the socket said of itself, where it was asked first.
    let own = origins.steered().filter(|_| origin.source == DestinationSource::Socket);
    if own.is_some_and(|listener| origin.destination.socket().port() != listener) {
        origin.syn = origin.syn.or_else(|| origins.lookup(cookie).and_then(seen_syn));
        return;
    }
    if let Some(seen) = origins.lookup(cookie).filter(|seen| !seen.ambiguous) {
        let (syn, client, destination) = (origin.syn, origin.client, origin.destination);
        *origin = from_syn(client.socket(), &seen, || syn);
        if own.is_some() {
            origin.is_of_socket(client, destination);
        }
    }
}

/// Where no packet was observed, as of a local client while the filter could not be attached, `saved` may have the SYN.
fn from_syn(peer: SocketAddr, seen: &ebpf::Origin, saved: impl FnOnce() -> Option<Syn>) -> Origin {
    let syn = &seen.syn;
    Origin {
        client: ClientAddr::new(SocketAddr::new(peer.ip(), syn.source_port)),
        destination: Destination::new(SocketAddr::new(syn.destination_ip(), syn.destination_port)),
        source: DestinationSource::Ebpf,
        syn: if seen.observed { Some(*syn) } else { saved() },
    }
}

fn from_socket(socket: &impl AsFd, peer: SocketAddr) -> Origin {
    let (destination, source) = match original_destination(socket, peer) {
        Some(address) => (address, DestinationSource::Conntrack),
        None => (local_address(socket), DestinationSource::Socket),
    };
    Origin { client: ClientAddr::new(peer), destination: Destination::new(destination), source, syn: saved_syn(socket) }
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

/// Asks `listener` to keep the headers of each SYN: the fallback for the fingerprint where the packet filter saw none.
///
/// # Errors
/// The kernel's refusal; `TCP_SAVE_SYN` is there since Linux 4.3.
pub fn save_syns(listener: &impl AsFd) -> std::io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    let descriptor = listener.as_fd().as_raw_fd();
    // SAFETY: the pointer names a live integer of the length that is given with it.
    let result =
        unsafe { libc::setsockopt(descriptor, libc::IPPROTO_TCP, TCP_SAVE_SYN, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn saved_syn(socket: &impl AsFd) -> Option<Syn> {
    let mut headers = [0_u8; SAVED_SYN_BYTES];
    let mut length = headers.len() as libc::socklen_t;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the buffer is writable for the length that is given with it.
    let result = unsafe {
        libc::getsockopt(descriptor, libc::IPPROTO_TCP, TCP_SAVED_SYN, headers.as_mut_ptr().cast(), &raw mut length)
    };
    let headers = headers.get(..length as usize)?;
    if result == 0 && !headers.is_empty() {
        spip_common::packet::parse_headers(headers, 0).ok().map(|parsed| parsed.syn)
    } else {
        None
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
