//! The maps: their names, keys and values; and the names of programs and of the constants that the loader sets.
//!
//! Map names have at most 15 characters, because the kernel keeps no more (`BPF_OBJ_NAME_LEN`).

use crate::Syn;

/// SYNs that were seen and not yet joined to a connection: [`SynKey`] to [`Entry`], least recently used goes first.
pub const SYNS: &str = "SYNS";
/// Data that came with SYNs: [`SynKey`] to [`SynData`], least recently used goes first.
pub const SYN_DATA: &str = "SYN_DATA";
/// Origins of connections that the listener has: socket cookie (u64) to [`Entry`], least recently used goes first.
pub const ORIGINS: &str = "ORIGINS";
/// [`Counters`](crate::Counters), one set per CPU, at index 0.
pub const COUNTERS: &str = "COUNTERS";
/// At index 0 a u32: 1 when the listening sockets take no packet any more; unused where scans are off.
pub const CLOSED: &str = "CLOSED";
/// Ring buffer of [`SynEvent`](crate::SynEvent) and [`Step`](crate::Step); unused where scans are off.
pub const EVENTS: &str = "EVENTS";

/// The program that watches packets.
pub const SYN_OBSERVER: &str = "syn_observer";
/// The program that watches connections.
pub const SOCK_OPS: &str = "sock_ops";
/// The program that watches SYNs arrive at the listening sockets.
pub const SYN_ARRIVAL: &str = "syn_arrival";

/// Constant (u32): the listener's port. Connections to other ports are left alone at once.
pub const LISTENER_PORT: &str = "LISTENER_PORT";
/// Constant (u64): cookie of the network namespace that the listener is in (`SO_NETNS_COOKIE`), or 0 where the kernel
/// cannot tell a `sock_ops` program its namespace; then all namespaces below the cgroup are looked at.
pub const NETNS_COOKIE: &str = "NETNS_COOKIE";
/// Constant (u32): 1 when the observer is attached, so that an unknown local client has nothing to correct.
pub const OBSERVER_ATTACHED: &str = "OBSERVER_ATTACHED";
/// Constant (u32): 1 when the agent wants to know of scans.
pub const SCANS: &str = "SCANS";
/// Constant (u32): 1 where the kernel may take a SYN for a packet of another connection from the same port.
pub const CONFUSES: &str = "CONFUSES";

/// Entries of SYNS and of ORIGINS unless the configuration says otherwise.
pub const DEFAULT_ENTRIES: u32 = 65_536;

/// Bytes of a SYN's data that are kept.
pub const SYN_DATA_BYTES: usize = 512;
/// Entries of SYN_DATA: hardly any SYN has data, and a flood of those that have costs 600 kB.
pub const SYN_DATA_ENTRIES: u32 = 1_024;

/// Time within which a SYN may be a retransmission: Linux gives up a connection after 127 s (`tcp_syn_retries` = 6). A
/// later one is a scanner that uses the same numbers again.
pub const RETRANSMISSION_NS: u64 = 180 * 1_000_000_000;

/// Index of the loopback interface, in every network namespace (`LOOPBACK_IFINDEX` in the kernel).
pub const LOOPBACK_INTERFACE: u32 = 1;

/// Facts that a SYN and its connection share on both sides of address translation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SynKey {
    /// The sender's address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// The sequence number that follows the SYN: initial sequence number + 1.
    pub next_sequence: u32,
}

const _: () = assert!(size_of::<SynKey>() == 20 && align_of::<SynKey>() == 4);

impl SynKey {
    /// The key of a SYN from `source`.
    #[inline(always)]
    #[must_use]
    pub fn of(source: &[u8; 16], syn: &Syn) -> Self {
        Self { source: *source, next_sequence: syn.sequence.wrapping_add(1) }
    }
}

/// A SYN, and how far it can be trusted. Value of both [`SYNS`] and [`ORIGINS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The SYN. Where `observed` is 0, only destination, ports, sequence number and time are known.
    pub syn: Syn,
    /// Number of retransmissions seen.
    pub repeats: u16,
    /// 1 when the observer saw the packet.
    pub observed: u8,
    /// 1 when a client on this machine sent it, and destination and source port are what that client used.
    pub local: u8,
    /// Not 0 when destination and source port may be another SYN's, or translated ones: ask someone else. [`Entry::SHARED`] and
    /// [`Entry::CUT`] say why. Where neither `observed` nor `local` is 1, only the sequence number is known.
    pub ambiguous: u8,
    /// Any of [`Entry::ARRIVED`] and [`Entry::ACKNOWLEDGED`]; only written and looked at where scans are recorded.
    pub reached: u8,
    /// 1 when the TCP checksum is wrong, as far as the filter can tell: a SYN whose checksum is right takes its place.
    pub wrong_checksum: u8,
    /// 1 when SYNs of the same connection were seen that look different: which of them was accepted is not known here.
    pub varied: u8,
}

const _: () = assert!(size_of::<Entry>() == 112 && align_of::<Entry>() == 8);

impl Entry {
    /// [`Entry::ambiguous`]: SYNs to several destinations were seen under the key, or one whose ends were translated.
    pub const SHARED: u8 = 1;
    /// [`Entry::ambiguous`]: a first fragment was seen under the key, which may hide a SYN.
    pub const CUT: u8 = 2;

    /// [`Entry::reached`]: a SYN under the key has arrived at a listening socket of the agent's.
    pub const ARRIVED: u8 = 1;
    /// [`Entry::reached`]: a segment that follows the SYN and acknowledges something has arrived there, too. It completes the
    /// handshake, unless it acknowledges something else than the answer to the SYN.
    pub const ACKNOWLEDGED: u8 = 2;

    /// Of a SYN of which nothing is known.
    pub const EMPTY: Self = Self {
        syn: Syn::ZERO,
        repeats: 0,
        observed: 0,
        local: 0,
        ambiguous: 0,
        reached: 0,
        wrong_checksum: 0,
        varied: 0,
    };
}

/// Data that came with a SYN.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynData {
    /// Number of bytes that are kept, 1 to [`SYN_DATA_BYTES`].
    pub length: u32,
    /// The bytes; what follows them is of other SYNs.
    pub bytes: [u8; SYN_DATA_BYTES],
}

const _: () = assert!(size_of::<SynData>() == SYN_DATA_BYTES + 4 && align_of::<SynData>() == 4);

impl SynData {
    /// Returns the bytes that are kept.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        self.bytes.get(..length).unwrap_or_default()
    }
}

// SAFETY: `repr(C)`, only integers and arrays of them, no padding: any bytes are a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for SynKey {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for SynData {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Entry {}
