//! The listening sockets: one for each worker on the same address, or those that a service manager hands over.
//!
//! `SO_REUSEPORT` lets the kernel spread connections over the workers without a lock between them. It would also let
//! a second agent of the same user join silently, so the address is first tried alone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use crate::origin;

/// Connections that may wait for accept; the kernel cuts it to net.core.somaxconn.
const BACKLOG: libc::c_int = 65_535;

/// Why there is no listening socket.
#[derive(Debug, Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {remedy}")]
    Bind {
        /// `ip` and `port`.
        address: SocketAddr,
        /// What to do about it.
        remedy: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The service manager handed over something else.
    #[error("cannot use the socket that the service manager passed: it has to be one listening TCP socket")]
    Passed(#[source] io::Error),
}

/// The listening sockets, at least one.
pub struct Listeners {
    /// One for each worker.
    pub sockets: Vec<OwnedFd>,
    /// Where they listen.
    pub address: SocketAddr,
    /// Whether the service manager opened them and holds the queue while the agent restarts.
    pub passed: bool,
}

/// Listens on `address` for `workers` workers, or takes the socket that a service manager passed (`LISTEN_FDS`).
///
///
/// # Errors
/// The address cannot be bound, or the passed socket is of no use.
pub fn open(address: SocketAddr, workers: usize) -> Result<Listeners, Error> {
    let listeners = match passed().map_err(Error::Passed)? {
        Some(socket) => share(socket, workers).map_err(Error::Passed)?,
        None => bind_all(address, workers).map_err(|source| Error::Bind {
            address,
            remedy: remedy(&source, address),
            source,
        })?,
    };
    for socket in &listeners.sockets {
        // Urgent bytes are bytes of the client as well; accepted sockets inherit this.
        let _ = SockRef::from(socket).set_out_of_band_inline(true);
        // Without it a fingerprint is missing from some records, which is all that is lost.
        let _ = origin::save_syns(socket);
    }
    Ok(listeners)
}

fn passed() -> io::Result<Option<Socket>> {
    let Some(listener) = ListenFd::from_env().take_tcp_listener(0)? else { return Ok(None) };
    Ok(Some(Socket::from(listener)))
}

/// All workers accept from the one socket that was passed.
fn share(socket: Socket, workers: usize) -> io::Result<Listeners> {
    if !socket.is_listener()? {
        return Err(io::Error::other("the socket does not listen"));
    }
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an Internet socket"))?;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(socket.try_clone()?.into());
    }
    sockets.push(socket.into());
    Ok(Listeners { sockets, address, passed: true })
}

fn bind_all(address: SocketAddr, workers: usize) -> io::Result<Listeners> {
    // Alone, without SO_REUSEPORT: fails when anybody else listens here. Closed again at once.
    drop(bind(address, false)?);
    let sockets = (0..workers).map(|_| bind(address, true).map(OwnedFd::from)).collect::<io::Result<Vec<_>>>()?;
    Ok(Listeners { sockets, address, passed: false })
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if let IpAddr::V6(ip) = address.ip() {
        // `::` takes IPv4 too, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn remedy(error: &io::Error, address: SocketAddr) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "something else listens there; stop it or choose another port",
        io::ErrorKind::AddrNotAvailable => "no interface has this address; correct ip, or use 0.0.0.0 or ::",
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a high port, rules bring every port to it"
        }
        _ => "the kernel refused",
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_second_agent_on_the_same_address_is_refused() {
        let first = open((Ipv4Addr::LOCALHOST, 0).into(), 1).map(|l| l.sockets);
        let first = Socket::from(first.expect("listener").remove(0));
        let address = first.local_addr().expect("address").as_socket().expect("internet");
        let error = open(address, 1).err().expect("refused");
        assert!(error.to_string().contains("something else listens there"), "{error}");
    }

    #[test]
    fn an_address_of_no_interface_is_named() {
        let error = open("192.0.2.1:8080".parse().expect("address"), 2).err().expect("refused");
        assert!(error.to_string().contains("192.0.2.1:8080"), "{error}");
    }
}
