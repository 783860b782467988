//! Events from the kernel side to the agent, for scans: each SYN that it sees, that it reached the listener,
//! that its connection was established. They travel through one ring buffer, so they arrive in the order in which they
//! were sent: a SYN before what becomes of it.
//!
//! A SYN is told once; retransmissions and copies on other interfaces are not, nor are the SYNs of this machine's own
//! clients. What becomes of it is told by two views of the same packet that address translation may separate: source
//! address and sequence number are the same in both, destination and ports may have been replaced.

use crate::Syn;

/// [`SynEvent`].
pub const KIND_SYN: u32 = 1;
/// A [`Step`]: a SYN has reached the listening socket. Retransmissions are told again.
pub const KIND_REACHED: u32 = 2;
/// A [`Step`]: the connection that a SYN began is established.
pub const KIND_JOINED: u32 = 3;

/// [`SynEvent::flags`]: another SYN has the same source and sequence number: then retransmissions cannot be told apart
/// here, and are told again.
pub const SHARED: u32 = 1;
/// [`SynEvent::flags`]: the SYN that was seen under its key before has a wrong checksum, and this one does not: that one has
/// arrived nowhere.
pub const REPLACES: u32 = 2;
/// [`SynEvent::flags`]: the TCP checksum is wrong, as far as the filter can tell: the kernel discards the packet.
pub const WRONG_CHECKSUM: u32 = 4;

/// Bytes of the ring buffer: a power of two, and of whole pages. Room for 30,000 SYNs.
pub const RING_BYTES: u32 = 4 << 20;
/// Bytes of the ring that SYNs may not fill. A lost SYN is a scan less; a lost step would make a scan of a connection.
pub const RING_RESERVE_BYTES: u32 = RING_BYTES / 4;
/// The reader is woken when this many bytes wait; it looks by itself several times a second.
pub const RING_WAKE_BYTES: u32 = RING_BYTES / 16;

/// A SYN from another machine, seen for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynEvent {
    /// [`KIND_SYN`].
    pub kind: u32,
    /// Any of [`SHARED`], [`REPLACES`] and [`WRONG_CHECKSUM`].
    pub flags: u32,
    /// The sender's address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// The SYN.
    pub syn: Syn,
}

const _: () = assert!(size_of::<SynEvent>() == 128 && align_of::<SynEvent>() == 8);

/// The fate of a SYN, with the addresses and ports that address translation left.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// [`KIND_REACHED`] or [`KIND_JOINED`].
    pub kind: u32,
    /// The sequence number that follows the SYN: initial sequence number + 1.
    pub next_sequence: u32,
    /// The sender's address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// The address of the listener's side; IPv4 likewise.
    pub destination: [u8; 16],
    /// The sender's port.
    pub source_port: u16,
    /// The port of the listener's side.
    pub destination_port: u16,
    /// 1 when the SYN that is at the listening socket is not, or may not be, the one that was seen under its key.
    pub doubtful: u32,
}

const _: () = assert!(size_of::<Step>() == 48 && align_of::<Step>() == 4);

// SAFETY: `repr(C)`, only integers and arrays of them, no padding: any bytes are a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for SynEvent {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Step {}
