//! The listening sockets: one for each worker on the same address, or those that a service manager hands over.
//!
//! `SO_REUSEPORT` lets the kernel spread connections over the workers without a lock between them. It would also let
//! a second agent of the same user join silently, so the address is first tried alone, except by an agent that is about
//! to take over from one that still listens.
//!
//! With steering, the address only has to be unused, and the socket takes IPv4 and IPv6, because steering brings both. Only a single IPv6 address makes a socket that the
//! kernel keeps to IPv6 (Linux `__inet6_bind`): then IPv4 is not steered, which [`Listeners::families`] says.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use crate::kernel::origin;

/// Connections that may wait for accept; the kernel cuts it to net.core.somaxconn.
const BACKLOG: libc::c_int = 65_535;

/// Reasons why there is no listening socket.
#[derive(Debug, Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {remedy}")]
    Bind {
        /// `ip` and `port`.
        address: SocketAddr,
        /// Remedy.
        remedy: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The service manager handed over one that listens elsewhere.
    #[error(
        "the service manager passed a socket on port {passed}, but port = {port}, where all connections are led: make \
         ListenStream= of spip-agent.socket (systemctl edit --full spip-agent.socket) and port in the configuration the same"
    )]
    OtherPort {
        /// Port of the socket.
        passed: u16,
        /// Port of the configuration.
        port: u16,
    },
    /// The service manager handed over several. Each worker accepts from one socket, and steering chooses among the
    /// workers' sockets whatever the family: connections to the others would complete and wait for ever.
    #[error(
        "the service manager passed {count} sockets, and one is used: leave one ListenStream= in spip-agent.socket \
         (systemctl edit --full spip-agent.socket); ListenStream=[::]:{port} with BindIPv6Only=both takes IPv4 and IPv6"
    )]
    Several {
        /// Number of sockets.
        count: usize,
        /// Port of the configuration.
        port: u16,
    },
    /// The service manager handed over something else.
    #[error("cannot use the socket that the service manager passed: it has to be one listening TCP socket")]
    Passed(#[source] io::Error),
}

/// The listening sockets, at least one.
pub struct Listeners {
    /// One for each worker.
    pub sockets: Vec<OwnedFd>,
    /// Address that they listen on.
    pub address: SocketAddr,
    /// Set when the service manager opened them and holds the queue while the agent restarts.
    pub passed: bool,
    /// Families of steered connections that they can take: IPv4, IPv6.
    pub families: (bool, bool),
}

impl Listeners {
    /// Describes how a passed socket differs from the configuration, which rules and doctor go by.
    #[must_use]
    pub fn differs(&self, configured: IpAddr) -> Option<String> {
        if !self.passed {
            return None;
        }
        let own = self.address.ip();
        if own.to_canonical() != configured.to_canonical() {
            return Some(format!(
                "the service manager passed a socket on {own}, which holds, but ip = \"{configured}\", which rules and doctor \
                 go by: make ListenStream= of spip-agent.socket and ip in the configuration the same"
            ));
        }
        let both = configured == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        (both && !self.families.0).then(|| {
            "the service manager passed a socket that takes no IPv4, but ip = \"::\" is for both: set BindIPv6Only=both in \
             spip-agent.socket, or net.ipv6.bindv6only=0"
                .to_owned()
        })
    }
}

/// Distribution of connections over the sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// They are steered there, of both families.
    pub steered: bool,
    /// Another agent may still listen on the address.
    pub takes_over: bool,
}

/// Listens on `address` for `workers` workers, or takes the socket that a service manager passed (`LISTEN_FDS`).
///
/// # Errors
/// The address cannot be bound, or the passed socket is of no use.
pub fn open(address: SocketAddr, workers: usize, sharing: Sharing) -> Result<Listeners, Error> {
    let listeners = match passed(address.port())? {
        Some(socket) => from_manager(socket, address.port(), workers)?,
        None => bind_all(address, workers, sharing).map_err(|source| Error::Bind {
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

/// Checks that an address is one of this machine, on which a socket can be bound; keeps no socket and takes no port.
///
/// # Errors
/// The kernel's answer.
pub fn try_address(ip: IpAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address((ip, 0).into()), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(ip, 0).into())
}

fn passed(port: u16) -> Result<Option<Socket>, Error> {
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => Ok(passed.take_tcp_listener(0).map_err(Error::Passed)?.map(Socket::from)),
        count => Err(Error::Several { count, port }),
    }
}

/// The socket that was passed. One on another port would be deaf without a word: rules lead to the configured one.
fn from_manager(socket: Socket, port: u16, workers: usize) -> Result<Listeners, Error> {
    let listeners = share(socket, workers).map_err(Error::Passed)?;
    match listeners.address.port() {
        passed if passed == port => Ok(listeners),
        passed => Err(Error::OtherPort { passed, port }),
    }
}

/// All workers accept from the one socket that was passed.
fn share(socket: Socket, workers: usize) -> io::Result<Listeners> {
    if !socket.is_listener()? {
        return Err(io::Error::other("the socket does not listen"));
    }
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an Internet socket"))?;
    let families = families(&socket)?;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 1..workers {
        sockets.push(socket.try_clone()?.into());
    }
    sockets.push(socket.into());
    Ok(Listeners { sockets, address, passed: true, families })
}

fn bind_all(address: SocketAddr, workers: usize, sharing: Sharing) -> io::Result<Listeners> {
    if !sharing.takes_over {
        // Alone, without SO_REUSEPORT: fails when anybody else listens here. Closed again at once.
        drop(bind(address, false, sharing.steered)?);
    }
    let sockets = (0..workers).map(|_| bind(address, true, sharing.steered)).collect::<io::Result<Vec<_>>>()?;
    let families = sockets.first().map(families).transpose()?.unwrap_or_default();
    Ok(Listeners { sockets: sockets.into_iter().map(OwnedFd::from).collect(), address, passed: false, families })
}

fn bind(address: SocketAddr, reuse_port: bool, steered: bool) -> io::Result<Socket> {
    // An IPv6 socket that is bound to a mapped IPv4 address listens on that one, and takes both when it is steered to.
    let socket = match steered.then(|| open_ipv6(mapped(address))) {
        Some(Ok((socket, address))) => return listen(socket, address, reuse_port, false),
        // A kernel without IPv6 has no IPv6 connections either.
        Some(Err(error)) if address.is_ipv6() => return Err(error),
        _ => Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?,
    };
    // `::` takes IPv4 too, whatever net.ipv6.bindv6only says.
    listen(socket, address, reuse_port, !address.ip().is_unspecified())
}

fn open_ipv6(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    Ok((Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), Some(Protocol::TCP))?, address))
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn listen(socket: Socket, address: SocketAddr, reuse_port: bool, only_v6: bool) -> io::Result<Socket> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Returns the families that a socket takes when connections are steered to it, whatever it is bound to.
fn families(socket: &Socket) -> io::Result<(bool, bool)> {
    Ok(match socket.domain()? {
        Domain::IPV6 => (!socket.only_v6()?, true),
        _ => (true, false),
    })
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

    fn listeners(address: SocketAddr, workers: usize, sharing: Sharing) -> Result<Listeners, Error> {
        open(address, workers, sharing)
    }

    fn bound(listeners: &Listeners) -> SocketAddr {
        SockRef::from(&listeners.sockets[0]).local_addr().expect("address").as_socket().expect("internet")
    }

    #[test]
    fn a_second_agent_on_the_same_address_is_refused_unless_it_takes_over() {
        let first = listeners((Ipv4Addr::LOCALHOST, 0).into(), 1, Sharing::default()).expect("listener");
        let address = bound(&first);
        let error = listeners(address, 1, Sharing::default()).err().expect("refused");
        assert!(error.to_string().contains("something else listens there"), "{error}");
        let takes_over = Sharing { takes_over: true, ..Sharing::default() };
        assert_eq!(bound(&listeners(address, 2, takes_over).expect("joined")), address);
    }

    #[test]
    fn a_socket_to_steer_to_takes_both_families_and_listens_where_it_was_told() {
        let steered = Sharing { steered: true, takes_over: false };
        for (address, ipv4) in [("127.0.0.1:0", true), ("0.0.0.0:0", true), ("[::]:0", true), ("[::1]:0", false)] {
            let listeners = listeners(address.parse().expect("address"), 2, steered).expect(address);
            assert_eq!(listeners.families, (ipv4, true), "{address}");
            let told: SocketAddr = address.parse().expect("address");
            assert_eq!(bound(&listeners).ip().to_canonical(), told.ip());
        }
    }

    #[test]
    fn a_socket_that_was_passed_has_to_listen_on_the_configured_port() {
        let passed = || {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let port = listener.local_addr().expect("address").port();
            (Socket::from(listener), port)
        };
        let (socket, port) = passed();
        let listeners = from_manager(socket, port, 3).expect("the same port");
        assert!(listeners.passed && listeners.sockets.len() == 3 && bound(&listeners).port() == port);
        let (socket, port) = passed();
        let error = from_manager(socket, port ^ 1, 3).err().expect("another port").to_string();
        for text in [format!("port {port}, but port = {}", port ^ 1), "ListenStream=".to_owned()] {
            assert!(error.contains(&text), "{error}");
        }
    }

    #[test]
    fn a_passed_socket_that_is_not_as_configured_is_told_of() {
        let of = |address: &str, families| Listeners {
            sockets: Vec::new(),
            address: address.parse().expect("address"),
            passed: true,
            families,
        };
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let both = (true, true);
        assert_eq!(of("[::]:1", both).differs(ip("::")), None);
        assert_eq!(of("[::ffff:127.0.0.1]:1", both).differs(ip("127.0.0.1")), None);
        assert_eq!(Listeners { passed: false, ..of("[::1]:1", both) }.differs(ip("::")), None);
        let told = of("0.0.0.0:1", (true, false)).differs(ip("::")).expect("another address");
        assert!(told.contains("on 0.0.0.0") && told.contains("ip = \"::\""), "{told}");
        let told = of("[::]:1", (false, true)).differs(ip("::")).expect("one family");
        assert!(told.contains("BindIPv6Only=both"), "{told}");
    }

    #[test]
    fn an_address_of_no_interface_is_named() {
        let error =
            listeners("192.0.2.1:8080".parse().expect("address"), 2, Sharing::default()).err().expect("refused");
        assert!(error.to_string().contains("192.0.2.1:8080"), "{error}");
    }
}
