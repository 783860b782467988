//! Whether SYNs still reach the listener: notices a sensor that goes deaf while it runs.
//!
//! A firewall that is reloaded, a flushed chain, another program in front of `sk_lookup`: the machine goes on taking SYNs,
//! and none of them comes to the listener. The packet filter sees both, whatever the technology, so it is the witness.
//! A SYN counts as unanswered when it never reached the listener although another one to its port, and one to its address by
//! its interface, did before. A family is deaf when enough of these came, from enough sources, over long enough, and
//! nothing reached the listener meanwhile; whatever reaches it ends that.
//!
//! No alarm comes of ports that are excluded or that services listen on, of SYNs that the kernel or connection tracking
//! discards (wrong checksums, odd flags, IP options, fragments, impossible sources), of traffic that is forwarded, of a
//! reload's moments, and of silence. A family of which nothing has reached the listener since the start is judged by more
//! evidence, on the addresses that the machine had at the start. SYNs to the listener's own port prove nothing: they
//! come without any rule.
//!
//! Memory is bounded: [`KEPT`] unanswered SYNs a family, [`KEPT_OF_SOURCE`] of one source, [`ADDRESSES`] addresses, one bit a port.

use std::collections::{BTreeSet, HashSet};
use std::net::Ipv6Addr;
use std::num::NonZeroUsize;

use lru::LruCache;
use spip_common::Syn;

use crate::process::ports::Ports;

/// Unanswered SYNs that make a family deaf, and their sources.
const ENOUGH: Enough = Enough { syns: 10, sources: 3, ports: 1, spans: 1 };
/// The same where nothing has reached the listener since the start: rules of the operator's own may lead a few ports only.
const ENOUGH_FROM_START: Enough = Enough { syns: 30, sources: 10, ports: 10, spans: 10 };

/// Unanswered SYNs that are kept for a family.
const KEPT: usize = 64;
/// Of these, from one source: a single one does not take the room of the others.
const KEPT_OF_SOURCE: usize = 4;
/// Addresses that are known to be the agent's.
const ADDRESSES: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// Ports that a message names.
const NAMED_PORTS: usize = 8;

/// Amount of evidence that is needed.
struct Enough {
    syns: usize,
    sources: usize,
    ports: usize,
    /// Multiple of the configured time.
    spans: u64,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Of an address in the form of the maps.
    fn of(address: &[u8; 16]) -> Self {
        if Ipv6Addr::from(*address).to_ipv4_mapped().is_some() { Self::V4 } else { Self::V6 }
    }
}

/// Evidence about a deaf family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deaf {
    /// Time of the first SYN that was missed: nanoseconds of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// Unanswered SYNs that are kept: a lower bound.
    pub syns: usize,
    /// Their sources.
    pub sources: usize,
    /// Their ports, the lowest first, as many as a message names.
    pub ports: Vec<u16>,
    /// Set when anything reached the listener since the start.
    pub heard_before: bool,
}

/// A family that went deaf, or hears again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It went deaf.
    Deaf(Family, Deaf),
    /// It hears again; it was deaf since then, in nanoseconds of `CLOCK_MONOTONIC`.
    Hears(Family, u64),
}

/// Destination of a SYN.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The sender's address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address; IPv4 likewise.
    pub destination: [u8; 16],
    /// The port where it went.
    pub port: u16,
    /// The interface that it came in on.
    pub interface: u32,
}

/// State of both families.
#[derive(Debug)]
pub struct Hearing {
    /// Its own port needs no rule.
    listener_port: u16,
    /// Addresses of the machine at the start, as in the maps.
    own: HashSet<[u8; 16]>,
    now_ns: u64,
    families: [Known; 2],
}

/// State of one family.
#[derive(Debug)]
struct Known {
    /// Ports whose SYNs have reached the listener.
    ports: Ports,
    /// Addresses likewise, each with the interface.
    addresses: LruCache<([u8; 16], u32), ()>,
    /// Time of the last arrival at the listener, or of the start of the observation.
    heard_ns: u64,
    unanswered: Vec<Unanswered>,
    /// Time of the last unanswered SYN, kept or not.
    last_ns: u64,
    deaf: Option<Deaf>,
}

/// A SYN that should have reached the listener.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    source: [u8; 16],
    port: u16,
    seen_ns: u64,
}

impl Hearing {
    /// For a listener, on a machine with these addresses.
    #[must_use]
    pub fn new(listener_port: u16, own: HashSet<[u8; 16]>, now_ns: u64) -> Self {
        let family = || Known {
            ports: Ports::default(),
            addresses: LruCache::new(ADDRESSES),
            heard_ns: now_ns,
            unanswered: Vec::new(),
            last_ns: 0,
            deaf: None,
        };
        Self { listener_port, own, now_ns, families: [family(), family()] }
    }

    /// Sets the time of what is told next.
    pub fn at(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Notes a SYN that has reached the listener.
    pub fn reached(&mut self, arrival: &Arrival) {
        if arrival.port == self.listener_port {
            return;
        }
        let now_ns = self.now_ns;
        let family = self.family(&arrival.destination);
        family.ports.insert(arrival.port);
        family.addresses.put((arrival.destination, arrival.interface), ());
        family.hears(now_ns);
    }

    /// Notes that one of several SYNs has reached the listener, and it is not known which: those to `ports`.
    pub fn reached_one_of(&mut self, destination: &[u8; 16], mut ports: impl Iterator<Item = u16>) {
        if ports.all(|port| port != self.listener_port) {
            let now_ns = self.now_ns;
            self.family(destination).hears(now_ns);
        }
    }

    /// Notes a SYN that never reached the listener, when it was given up.
    pub fn unanswered(&mut self, arrival: &Arrival, seen_ns: u64) {
        if arrival.port == self.listener_port || !is_possible(&arrival.source) || self.own.contains(&arrival.source) {
            return;
        }
        let is_own = self.own.contains(&arrival.destination);
        let Known { ports, addresses, heard_ns, unanswered, last_ns, .. } = self.family(&arrival.destination);
        let expected = if ports.is_empty() {
            is_own
        } else {
            ports.contains(arrival.port) && addresses.contains(&(arrival.destination, arrival.interface))
        };
        if !expected || seen_ns <= *heard_ns {
            return;
        }
        *last_ns = seen_ns.max(*last_ns);
        let of_source = unanswered.iter().filter(|one| one.source == arrival.source).count();
        if unanswered.len() < KEPT && of_source < KEPT_OF_SOURCE {
            unanswered.push(Unanswered { source: arrival.source, port: arrival.port, seen_ns });
        }
    }

    /// Forgets what counts against hearing: the kernel could not tell what reached the listener.
    pub fn cannot_know(&mut self) {
        let now_ns = self.now_ns;
        self.families.iter_mut().for_each(|family| family.forget(now_ns));
    }

    /// Reports whether a family may be deaf, so that it is worth asking who else listens.
    #[must_use]
    pub fn is_in_doubt(&self, after_ns: u64) -> bool {
        self.families.iter().any(|family| family.deaf.is_some() || family.evidence(self.now_ns, after_ns).is_some())
    }

    /// Judges both families: `after_ns` is how long nothing may have reached the listener, and `is_left_alone` says whether
    /// a port is not the agent's.
    pub fn judge(&mut self, after_ns: u64, is_left_alone: impl Fn(u16) -> bool) -> Vec<Change> {
        let now_ns = self.now_ns;
        let mut changes = Vec::new();
        for (name, family) in Family::ALL.into_iter().zip(&mut self.families) {
            family.unanswered.retain(|one| !is_left_alone(one.port));
            let before = family.deaf.take();
            family.deaf = match (&before, family.evidence(now_ns, after_ns)) {
                // It stays so until something is heard, or its ports are no longer the agent's.
                (Some(deaf), None) if !family.unanswered.is_empty() => Some(deaf.clone()),
                (_, found) => found,
            };
            match (before, &family.deaf) {
                (None, Some(deaf)) => changes.push(Change::Deaf(name, deaf.clone())),
                (Some(before), None) => changes.push(Change::Hears(name, before.since_ns)),
                _ => {}
            }
        }
        changes
    }

    /// Returns the evidence about the deaf families.
    pub fn deaf(&self) -> impl Iterator<Item = (Family, &Deaf)> {
        Family::ALL.into_iter().zip(&self.families).filter_map(|(name, family)| Some((name, family.deaf.as_ref()?)))
    }

    fn family(&mut self, address: &[u8; 16]) -> &mut Known {
        &mut self.families[Family::of(address) as usize]
    }
}

impl Known {
    fn hears(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
        self.unanswered.clear();
    }

    /// Forgets what was counted; a deaf family stays so until it hears.
    fn forget(&mut self, now_ns: u64) {
        if self.deaf.is_none() {
            self.hears(now_ns);
        }
    }

    /// Returns the evidence, if it is enough to call the family deaf.
    fn evidence(&self, now_ns: u64, after_ns: u64) -> Option<Deaf> {
        let heard_before = !self.ports.is_empty();
        let enough = if heard_before { ENOUGH } else { ENOUGH_FROM_START };
        let since_ns = self.unanswered.iter().map(|one| one.seen_ns).min()?;
        let after_ns = after_ns.saturating_mul(enough.spans);
        // A burst and then silence is a moment of deafness, as of a reload, and nothing is known of the time after.
        let is_long =
            now_ns.saturating_sub(since_ns) >= after_ns && self.last_ns.saturating_sub(since_ns) >= after_ns / 2;
        let sources: HashSet<_> = self.unanswered.iter().map(|one| one.source).collect();
        let ports: BTreeSet<_> = self.unanswered.iter().map(|one| one.port).collect();
        let is_much =
            self.unanswered.len() >= enough.syns && sources.len() >= enough.sources && ports.len() >= enough.ports;
        (is_long && is_much).then(|| Deaf {
            since_ns,
            syns: self.unanswered.len(),
            sources: sources.len(),
            ports: ports.into_iter().take(NAMED_PORTS).collect(),
            heard_before,
        })
    }
}

/// Reports whether a SYN with these headers goes through connection tracking and to a listener as any other: others may be
/// discarded on the way for what they are.
#[must_use]
pub(super) fn is_plain(syn: &Syn) -> bool {
    const ODD: u8 = Syn::FIN | Syn::RST | Syn::ACK;
    syn.tcp_flags & ODD == 0
        && syn.ip_options_len == 0
        && syn.ip_flags & Syn::MF == 0
        && syn.source_port != 0
        && syn.destination_port != 0
}

/// Reports whether a packet from this address is taken in from outside (Linux discards martians in `ip_route_input_slow` and
/// `ip6_rcv_core`).
fn is_possible(source: &[u8; 16]) -> bool {
    match (Family::of(source), source) {
        (Family::V4, [.., first, _, _, _]) => !matches!(first, 0 | 127 | 224..),
        (_, [first, rest @ ..]) => *first != 0xff && (*first != 0 || rest[..11].iter().any(|byte| *byte != 0)),
    }
}

#[cfg(test)]
mod tests;
