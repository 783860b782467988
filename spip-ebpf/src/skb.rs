//! The bytes of a socket buffer, as the parser wants them.
//!
//! The packet socket is `SOCK_DGRAM`: offset 0 is the IP header, whatever the link layer. The helper that copies also
//! reaches bytes that are not in the linear part of the buffer.

use aya_ebpf::{helpers::bpf_skb_load_bytes, programs::SkBuffContext};
use spip_common::Packet;

/// Longest TCP options.
const OPTIONS: u64 = 40;

/// A packet that starts with its IP header.
pub struct Skb<'a>(pub &'a SkBuffContext);

impl Skb<'_> {
    /// The `EtherType`, in the byte order of the machine; a VLAN tag is already gone.
    #[inline(always)]
    pub fn protocol(&self) -> u16 {
        // The kernel stores 16 bits in network order and hands them out as 32.
        u16::from_be(self.0.skb.protocol() as u16)
    }

    /// To whom the packet is addressed (`PACKET_HOST` and so on).
    #[inline(always)]
    pub fn packet_type(&self) -> u32 {
        // SAFETY: the context is valid while the program runs; the verifier turns the read into the kernel's own.
        unsafe { (*self.0.skb.skb).pkt_type }
    }

    /// Index of the interface.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0.skb.skb).ifindex }
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.load(offset as usize).ok()
    }

    #[inline(always)]
    fn load_options(&self, offset: u32, length: u32, options: &mut [u8; 40]) -> bool {
        // The compiler knows the bounds from the caller and would leave the comparison out; the verifier, which does not
        // follow how it knows, would then refuse the program. A volatile read makes the compiler forget.
        // One less than the length, because verifiers before Linux 6.8 learn nothing from a comparison with zero: of the last
        // byte they know that it is one of 0 to 39, and of a length that is one more, that it is not zero.
        let last = u64::from(length.wrapping_sub(1));
        // SAFETY: the pointer is to a live local variable.
        let last = unsafe { core::ptr::read_volatile(&raw const last) };
        if last >= OPTIONS {
            return false;
        }
        let length = last as u32 + 1;
        // SAFETY: `options` has 40 bytes, and no more than that are asked for.
        let result = unsafe { bpf_skb_load_bytes(self.0.skb.skb.cast(), offset, options.as_mut_ptr().cast(), length) };
        result == 0
    }
}
