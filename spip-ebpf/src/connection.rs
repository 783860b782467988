//! A connection as a `sock_ops` program sees it, in the types and the byte order of `spip-common`.
//!
//! The kernel's own fields are in mixed byte order: addresses in network order, the local port in the machine's, the
//! remote port in network order in the upper half of 32 bits (Linux `net/core/filter.c`,
//! `sock_ops_convert_ctx_access`).

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockOpsContext,
};

use crate::maps::NETNS_COOKIE;

/// `AF_INET`.
const AF_INET: u32 = 2;
/// `AF_INET6`.
const AF_INET6: u32 = 10;

/// A TCP connection.
pub struct Connection<'a>(pub &'a SockOpsContext);

impl Connection<'_> {
    /// Reports whether the socket is in the listener's network namespace, as far as this kernel can tell.
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
        let ops = self.0.ops;
        // SAFETY: only the address of a field of the context, which is valid while the program runs.
        let ipv4 = unsafe { &raw const (*ops).remote_ip4 };
        // SAFETY: as above.
        let ipv6 = unsafe { &raw const (*ops).remote_ip6 };
        address(self.0.family(), ipv4, ipv6)
    }

    /// The local address, or `None` for a socket that is neither IPv4 nor IPv6.
    #[inline(always)]
    pub fn local_address(&self) -> Option<[u8; 16]> {
        let ops = self.0.ops;
        // SAFETY: only the address of a field of the context, which is valid while the program runs.
        let ipv4 = unsafe { &raw const (*ops).local_ip4 };
        // SAFETY: as above.
        let ipv6 = unsafe { &raw const (*ops).local_ip6 };
        address(self.0.family(), ipv4, ipv6)
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

/// The address of a socket of this family, of which the context has both forms in network order.
///
/// The verifier knows the fields of the context by constant offsets, and only as words. Ordinary reads are merged with
/// their neighbours, and reads in two branches into one of a computed field; it refuses both. Hence all are read, before
/// anything is decided, and volatile. The unused form is whatever the socket has there.
#[inline(always)]
pub fn address(family: u32, ipv4: *const u32, ipv6: *const [u32; 4]) -> Option<[u8; 16]> {
    let first: *const u32 = ipv6.cast();
    let words = [
        word(ipv4),
        word(first),
        word(first.wrapping_add(1)),
        word(first.wrapping_add(2)),
        word(first.wrapping_add(3)),
    ];
    let [ipv4, a, b, c, d] = words;
    match family {
        AF_INET => Some(bytes([0, 0, 0xffff_u32.to_be(), ipv4])),
        AF_INET6 => Some(bytes([a, b, c, d])),
        _ => None,
    }
}

/// A word of the context.
#[inline(always)]
fn word(field: *const u32) -> u32 {
    // SAFETY: the pointer is to a field of the context.
    unsafe { read_volatile(field) }
}

/// Words in network order as the bytes that they are in memory.
#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 bytes, of which every value is valid.
    unsafe { core::mem::transmute(words) }
}
