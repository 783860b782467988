//! The packet socket that `syn_observer` is attached to: every packet that arrives in the network namespace passes the
//! program, none is kept.
//!
//! The socket is made for no protocol, so it receives nothing until it is bound; it is bound only after the program
//! is attached. It sees all interfaces, also those that come later, and is gone when the process is. From then on the
//! program can be neither taken off nor replaced: an attacker with the socket reads no packet by it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use socket2::{Domain, SockAddr, Socket, Type};

/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h (Linux 4.20).
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A packet socket without packets.
#[derive(Debug)]
pub(crate) struct PacketSocket(Socket);

impl PacketSocket {
    /// Makes the socket; it receives nothing yet. Needs `CAP_NET_RAW`.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        match switch_on(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING) {
            // An older kernel copies outgoing packets as well; the program leaves them out by itself.
            Err(error) if error.raw_os_error() != Some(libc::ENOPROTOOPT) => return Err(error),
            _ => {}
        }
        Ok(Self(socket))
    }

    /// Lets all packets of all interfaces pass the program that is attached, which stays there.
    #[allow(unsafe_code)]
    pub(crate) fn receive_all(&self) -> io::Result<()> {
        switch_on(&self.0, libc::SOL_SOCKET, libc::SO_LOCK_FILTER)?;
        let initialize = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
            let address = storage.cast::<libc::sockaddr_ll>();
            // SAFETY: the storage is zeroed, and larger and stricter aligned than any socket address.
            let address = unsafe { &mut *address };
            address.sll_family = libc::AF_PACKET as libc::c_ushort;
            address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
            // SAFETY: the pointer comes with the storage and names its length.
            unsafe { *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t };
            Ok(())
        };
        // SAFETY: the closure writes a whole address of the family that it names, and its length.
        let ((), address) = unsafe { SockAddr::try_init(initialize) }?;
        self.0.bind(&address)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[allow(unsafe_code)]
fn switch_on(socket: &Socket, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer names a live integer of the length that is given with it.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
