//! Maps of steering: exclusions, settings, counters. Shared by the program `steer`, the
//! agent that fills the maps, and everybody who reads them with bpftool.
//!
//! The program sees only the first packet of a connection (and strays that belong to none), so each question is asked
//! once a connection. Ports are an array with a fixed place for each, because every connection asks it; the other
//! tables are asked only when [`Settings`] or the port's entry say that there is something in them.

/// The program that chooses a socket for a new connection.
pub const STEER: &str = "steer";

/// The listening sockets of the agent, one for each worker, at indices from 0.
pub const STEER_SOCKETS: &str = "STEER_SOCKETS";
/// [`Exclusion`] of each port, at the port's number.
pub const STEER_PORTS: &str = "STEER_PORTS";
/// Address and port ([`Endpoint`]) of services that are bound to one address; the value is [`Exclusion::reason`].
pub const STEER_ENDPOINTS: &str = "STEER_ENDPOINTS";
/// Local prefixes to steer, longest first: the data of a key is an address as on the wire, IPv4 as `::ffff:a.b.c.d`.
pub const STEER_PREFIXES: &str = "STEER_PREFIXES";
/// Indices of the interfaces to steer; the value is always 1.
pub const STEER_LINKS: &str = "STEER_LINKS";
/// [`Settings`], at index 0.
pub const STEER_SETTINGS: &str = "STEER_SETTINGS";
/// [`SteerCounters`], one set per CPU, at index 0.
pub const STEER_COUNTERS: &str = "STEER_COUNTERS";

/// [`Exclusion`] of each port as it was at the start of the agent, at the port's number. Filled before the program is
/// attached, then frozen: no process can write it, whatever its privileges (`BPF_MAP_FREEZE`, Linux 5.2).
pub const STEER_KEPT: &str = "STEER_KEPT";
/// Contents of [`STEER_ENDPOINTS`] at the start, frozen likewise.
pub const STEER_KEPT_ENDS: &str = "STEER_KEPT_ENDS";

/// All maps above that are pinned. A pinned socket map would keep nothing alive: a listener that closes leaves it.
pub const STEER_MAPS: [&str; 9] = [
    STEER_SOCKETS,
    STEER_PORTS,
    STEER_ENDPOINTS,
    STEER_PREFIXES,
    STEER_LINKS,
    STEER_SETTINGS,
    STEER_COUNTERS,
    STEER_KEPT,
    STEER_KEPT_ENDS,
];

/// Constant (u32): how many sockets [`STEER_SOCKETS`] has; 0 when steering is off.
pub const STEER_WORKERS: &str = "STEER_WORKERS";
/// Constant (u32): what connections are spread over the sockets with, so that no client can choose a worker.
pub const STEER_SEED: &str = "STEER_SEED";
/// Constant (u32): 1 where the kernel tells the program by which interface a packet came (Linux 5.17, commit
/// f89315650ba3). Elsewhere loopback is known by the addresses alone.
pub const STEER_KNOWS_LINK: &str = "STEER_KNOWS_LINK";

/// Constant (u32): 1 where clients on this machine may be steered at all; [`Settings::loopback`] then decides.
pub const STEER_MAY_LOOPBACK: &str = "STEER_MAY_LOOPBACK";

/// Ports there are.
pub const PORTS: u32 = 65_536;
/// Most sockets, and so workers.
pub const MAX_SOCKETS: u32 = 1_024;
/// Most services on single addresses.
pub const MAX_ENDPOINTS: u32 = 4_096;
/// Most prefixes in the configuration.
pub const MAX_PREFIXES: u32 = 1_024;
/// Most interfaces in the configuration.
pub const MAX_LINKS: u32 = 256;
/// Entries of [`STEER_PREFIXES`]: new ones enter before old ones leave.
pub const PREFIX_ENTRIES: u32 = MAX_PREFIXES * 2;
/// Entries of [`STEER_LINKS`], likewise.
pub const LINK_ENTRIES: u32 = MAX_LINKS * 2;

/// The addresses on which a port is left alone. All zero: the port is steered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exclusion {
    /// 1: left alone for every address and every client.
    pub everywhere: u8,
    /// 1: left alone for clients on this machine; something listens on a loopback address.
    pub loopback: u8,
    /// 1: left alone on the addresses that [`STEER_ENDPOINTS`] has with this port.
    pub endpoints: u8,
    /// Reason: one of the constants below, of the strongest of the three.
    pub reason: u8,
}

impl Exclusion {
    /// Reason: not excluded.
    pub const NONE: u8 = 0;
    /// Reason: `exclude_ports`.
    pub const CONFIGURED: u8 = 1;
    /// Reason: the operator's SSH connection.
    pub const SSH: u8 = 2;
    /// Reason: something listens.
    pub const SERVICE: u8 = 3;
}

const _: () = assert!(size_of::<Exclusion>() == 4);

/// One address and port of this machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The port.
    pub port: u32,
}

const _: () = assert!(size_of::<Endpoint>() == 20 && align_of::<Endpoint>() == 4);

/// Settings of the program. They change while it runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// 1: clients on this machine are steered, too.
    pub loopback: u32,
    /// Entries of [`STEER_PREFIXES`]; with 0 every address is steered.
    pub prefixes: u32,
    /// 1: only the interfaces of [`STEER_LINKS`] are steered, and loopback where it is asked for.
    pub links: u32,
}

const _: () = assert!(size_of::<Settings>() == 12 && align_of::<Settings>() == 4);

/// Counters of look-ups by result. A new connection is one look-up; so is a packet that belongs to no connection, such
/// as those of scans without SYN, and the acknowledgement of a SYN cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounters {
    /// Given to a listener of the agent.
    pub steered: u64,
    /// Passed: the port is excluded, or this port of this address.
    pub excluded: u64,
    /// Passed: from this machine, which is not to be steered.
    pub loopback: u64,
    /// Passed: to an address outside of the prefixes.
    pub elsewhere: u64,
    /// Passed: by another interface.
    pub other_link: u64,
    /// Passed: another program had chosen a socket already.
    pub chosen: u64,
    /// Missed: to be steered, but there was no socket, or the kernel refused the one there was.
    pub missed: u64,
}

impl SteerCounters {
    /// Adds another CPU's counters.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            steered: self.steered.wrapping_add(other.steered),
            excluded: self.excluded.wrapping_add(other.excluded),
            loopback: self.loopback.wrapping_add(other.loopback),
            elsewhere: self.elsewhere.wrapping_add(other.elsewhere),
            other_link: self.other_link.wrapping_add(other.other_link),
            chosen: self.chosen.wrapping_add(other.chosen),
            missed: self.missed.wrapping_add(other.missed),
        }
    }
}

/// Chooses one of `workers` sockets for a connection: the same for each of its packets.
///
/// Murmur3's finaliser over the words that distinguish connections: every bit of the input reaches every bit of the
/// result, so that scans of consecutive ports or addresses are spread evenly.
#[inline(always)]
#[must_use]
pub fn worker(seed: u32, remote: &[u8; 16], remote_port: u32, local_port: u32, workers: u32) -> u32 {
    let word = |at: usize| {
        let bytes = [remote[at], remote[at + 1], remote[at + 2], remote[at + 3]];
        u32::from_ne_bytes(bytes)
    };
    let mut hash = seed ^ (remote_port << 16 | local_port & 0xffff);
    let mut n = 0;
    while n < 4 {
        hash = mix(hash ^ word(n * 4));
        n += 1;
    }
    // A division by zero is no trap for the kernel side, but a nonsense all the same.
    if workers == 0 { 0 } else { hash % workers }
}

#[inline(always)]
fn mix(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

// SAFETY: `repr(C)`, only integers and arrays of them, no padding: any bytes are a valid value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Exclusion {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Endpoint {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Settings {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for SteerCounters {}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];

    #[test]
    fn a_scan_of_all_ports_is_spread_evenly() {
        for workers in [2_u32, 3, 8] {
            let mut counts = [0_u32; 8];
            for port in 1..=65_535 {
                counts[worker(7, &CLIENT, 40_000, port, workers) as usize] += 1;
            }
            let fair = 65_535 / workers;
            for count in counts.iter().take(workers as usize) {
                assert!(count.abs_diff(fair) < fair / 10, "{workers} workers: {counts:?}");
            }
        }
    }

    #[test]
    fn scanners_of_a_network_are_spread_evenly_whichever_part_of_their_address_differs() {
        for byte in [3, 7, 11, 15] {
            let mut counts = [0_u32; 4];
            for network in 0..64 {
                for host in 0..=u8::MAX {
                    let mut remote = CLIENT;
                    (remote[byte], remote[byte - 1]) = (host, network);
                    counts[worker(7, &remote, 40_000, 80, 4) as usize] += 1;
                }
            }
            let fair = 64 * 256 / 4;
            assert!(counts.iter().all(|count| count.abs_diff(fair) < fair / 10), "byte {byte}: {counts:?}");
        }
    }

    #[test]
    fn the_mix_is_the_finaliser_of_murmur3() {
        // As MurmurHash3.cpp computes them (fmix32).
        for (word, mixed) in [(0, 0), (1, 0x514e_28b7), (0x8000_0000, 0x6d3c_65a0), (u32::MAX, 0x81f1_6f39)] {
            assert_eq!(mix(word), mixed, "{word:#x}");
        }
    }

    #[test]
    fn all_packets_of_a_connection_go_to_one_worker_and_the_seed_decides_which() {
        assert_eq!(worker(1, &CLIENT, 40_000, 80, 1024), worker(1, &CLIENT, 40_000, 80, 1024));
        assert_ne!(worker(1, &CLIENT, 40_000, 80, 1024), worker(2, &CLIENT, 40_000, 80, 1024));
    }

    #[test]
    fn without_workers_there_is_no_division() {
        assert_eq!(worker(1, &CLIENT, 1, 1, 0), 0);
    }

    #[test]
    fn counters_are_added_one_by_one() {
        let one = SteerCounters {
            steered: 1,
            excluded: 2,
            loopback: 3,
            elsewhere: 4,
            other_link: 5,
            chosen: 6,
            missed: u64::MAX,
        };
        let sum = one.plus(&one);
        let found = [sum.steered, sum.excluded, sum.loopback, sum.elsewhere, sum.other_link, sum.chosen, sum.missed];
        assert_eq!(found, [2, 4, 6, 8, 10, 12, u64::MAX - 1]);
    }
}
