//! What a `sock_ops` program can see of a connection, in the types and the byte order of `spip-common`.
//!
//! The kernel's own fields are in mixed byte order: addresses in network order, the local port in the machine's, the
//! remote port in network order in the upper half of 32 bits (Linux `net/core/filter.c`, `sock_ops_convert_ctx_access`).

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockOpsContext,
};
use spip_common::packet::mapped;

use crate::maps::NETNS_COOKIE;

/// `AF_INET`.
const AF_INET: u32 = 2;
/// `AF_INET6`.
const AF_INET6: u32 = 10;

/// A TCP connection.
pub struct Connection<'a>(pub &'a SockOpsContext);

impl Connection<'_> {
    /// Whether the socket is in the listener's network namespace, as far as this kernel can tell.
    #[inline(always)]
    pub fn is_in_our_namespace(&self) -> bool {
        let ours = NETNS_COOKIE.load();
        if ours == 0 {
            return true;
        }
        // SAFETY: the helper takes the program's own context, which is valid while the program runs.
        let theirs = unsafe { bpf_get_netns_cookie(self.0.as_ptr()) };
        theirs == ours
    }

    /// The cookie that user space gets by `SO_COOKIE`.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_get_socket_cookie(self.0.as_ptr()) }
    }

    /// The remote address, or `None` for a socket that is neither IPv4 nor IPv6.
    #[inline(always)]
    pub fn remote_address(&self) -> Option<[u8; 16]> {
        match self.0.family() {
            AF_INET => Some(mapped(self.0.remote_ip4().to_ne_bytes())),
            AF_INET6 => Some(bytes(self.0.remote_ip6())),
            _ => None,
        }
    }

    /// The local address, or `None` for a socket that is neither IPv4 nor IPv6.
    #[inline(always)]
    pub fn local_address(&self) -> Option<[u8; 16]> {
        match self.0.family() {
            AF_INET => Some(mapped(self.0.local_ip4().to_ne_bytes())),
            AF_INET6 => Some(bytes(self.0.local_ip6())),
            _ => None,
        }
    }

    /// The local port.
    #[inline(always)]
    pub fn local_port(&self) -> u32 {
        self.0.local_port()
    }

    /// The remote port.
    #[inline(always)]
    pub fn remote_port(&self) -> u16 {
        u32::from_be(self.0.remote_port()) as u16
    }

    /// The next sequence number expected; when a connection has just been accepted, the client's initial one + 1.
    #[inline(always)]
    pub fn next_expected(&self) -> u32 {
        // SAFETY: the context is valid while the program runs; the verifier turns the read into the kernel's own.
        unsafe { (*self.0.ops).rcv_nxt }
    }

    /// The oldest sequence number that is not acknowledged; when a connection has just been made, our initial one + 1.
    ///
    /// Unlike the next one to send it does not count data that went with the SYN (TCP Fast Open) and was not taken.
    #[inline(always)]
    pub fn oldest_unacknowledged(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0.ops).snd_una }
    }
}

/// Four words in network order as bytes. Word by word: the verifier does not allow a copy out of the context.
#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    [
        a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2],
        d[3],
    ]
}
