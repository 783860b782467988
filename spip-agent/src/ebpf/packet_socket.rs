//! The packet socket that `syn_observer` is attached to: every packet that arrives in the network namespace passes the
//! program, none is kept.
//!
//! The socket is made for no protocol, so it receives nothing until it is bound; it is bound only after the program
//! is attached. It sees all interfaces, also those that come later, and is gone when the process is.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use socket2::{Domain, SockAddr, Socket, Type};

/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h (Linux 4.20).
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A packet socket without packets.
#[derive(Debug)]
pub(super) struct PacketSocket(Socket);

impl PacketSocket {
    /// Makes the socket; it receives nothing yet. Needs `CAP_NET_RAW`.
    #[allow(unsafe_code)]
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        let on: libc::c_int = 1;
        // SAFETY: the pointer names a live integer of the length that is given with it.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_IGNORE_OUTGOING,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if result != 0 {
            let error = io::Error::last_os_error();
            // An older kernel copies outgoing packets as well; the program leaves them out by itself.
            if error.raw_os_error() != Some(libc::ENOPROTOOPT) {
                return Err(error);
            }
        }
        Ok(Self(socket))
    }

    /// Lets all packets of all interfaces pass the program that is attached.
    #[allow(unsafe_code)]
    pub(super) fn receive_all(&self) -> io::Result<()> {
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
