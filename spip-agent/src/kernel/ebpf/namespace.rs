//! The network namespace's cookie, by which `sock_ops` leaves the connections of other namespaces alone.
//!
//! User space reads it as `SO_NETNS_COOKIE` (Linux 5.14), the program through a helper that is open to `sock_ops` from
//! about the same time. Only when both are there is the comparison switched on; otherwise the port alone decides, and
//! connections to the same port in a container are recorded under cookies that are never looked up.

use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};

/// `SO_NETNS_COOKIE` of asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the calling thread's network namespace, or 0 where the kernel cannot compare it.
pub(super) fn cookie() -> u64 {
    match is_helper_supported(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie) {
        Ok(true) => own_cookie().unwrap_or(0),
        Ok(false) | Err(_) => 0,
    }
}

#[allow(unsafe_code)]
fn own_cookie() -> Option<u64> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("::1", 0))).ok()?;
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the pointer names a writable integer of the length that is given with it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize == size_of_val(&cookie)).then_some(cookie)
}
