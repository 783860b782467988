//! The client of an accepted socket, also where getpeername(2) does not tell: of a connection that was reset meanwhile, and
//! of a client whose port is 0, for which the kernel says that nothing is connected (Linux net/ipv4/af_inet.c,
//! `inet_getname`).
//!
//! For the same reason accept(2) must not be asked for the address: it closes such a connection instead of handing it out.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _};

use socket2::{SockAddr, SockAddrStorage, SockRef};

use super::saved::Saved;

/// The client of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The SYN, where it had to be taken from the kernel for the address: the kernel hands it out once.
    pub(super) saved: Option<Saved>,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { address, saved: None }
    }
}

/// Returns the client of `socket`; nothing where the kernel says it in no way, as of a client with the port 0 whose SYN was
/// answered with a SYN cookie.
pub fn peer(socket: &impl AsFd) -> Option<Peer> {
    let connected = SockRef::from(socket).peer_addr().ok().and_then(|address| address.as_socket());
    if let Some(address) = connected.or_else(|| name(socket)) {
        return Some(address.into());
    }
    let (saved, address) = Saved::take_with_source(socket);
    Some(Peer { address: address?, saved: Some(saved) })
}

/// Asks in the way that also answers for a connection that was reset (`SO_PEERNAME`).
fn name(socket: &impl AsFd) -> Option<SocketAddr> {
    let lengths = [size_of::<libc::sockaddr_in6>(), size_of::<libc::sockaddr_in>()];
    lengths.into_iter().find_map(|bytes| {
        // The kernel takes no length that is more than its answer has.
        let mut length = bytes as libc::socklen_t;
        let mut address = SockAddrStorage::zeroed();
        let (descriptor, option) = (socket.as_fd().as_raw_fd(), libc::SO_PEERNAME);
        let into = (&raw mut address).cast();
        // SAFETY: the address is writable for the length that is given with it, and large enough for either family.
        let told = unsafe { libc::getsockopt(descriptor, libc::SOL_SOCKET, option, into, &raw mut length) };
        // SAFETY: the kernel filled the address and said how long it is.
        (told == 0).then(|| unsafe { SockAddr::new(address, length) }).and_then(|address| address.as_socket())
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_client_of_a_connection_that_was_reset_is_known_in_both_families() {
        for local in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(local).expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let to = if local.starts_with('1') { format!("127.0.0.1:{port}") } else { format!("[::1]:{port}") };
            let client = TcpStream::connect(to).expect("the kernel completes it");
            let from = client.local_addr().expect("connected");
            let (socket, _) = listener.accept().expect("a connection waits");
            assert_eq!(peer(&socket).map(|peer| peer.address), Some(from));
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("the option exists");
            drop(client);
            let end = Instant::now() + Duration::from_secs(60);
            while socket.peer_addr().is_ok() && Instant::now() < end {
                std::thread::yield_now();
            }
            assert!(socket.peer_addr().is_err(), "it was reset");
            assert_eq!(peer(&socket).map(|peer| peer.address), Some(from));
        }
    }
}
