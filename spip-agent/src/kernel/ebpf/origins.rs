//! Looks up what the kernel side knows of a connection.
//!
//! A look-up is one system call, made once for each connection, and needs no capability (Linux 5.19 and later). Removal
//! takes its own descriptor behind a lock, so that look-ups never wait.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use spip_common::map::SYN_DATA_BYTES;
use spip_common::{Entry, Syn, SynData, SynKey};

use crate::kernel::addr::mapped;

/// Source and destination of a connection, from its SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The SYN. Without `observed`, only destination, ports, sequence number and time are known.
    pub syn: Syn,
    /// Set when the packet itself was seen, so that all of `syn` is known.
    pub observed: bool,
    /// A client on this machine: destination and source port are what it used, before address translation.
    pub local: bool,
    /// Destination and source port may be those of another SYN, or translated ones: ask another source.
    pub ambiguous: bool,
    /// Number of retransmissions of the SYN.
    pub repeats: u16,
    /// Set when SYNs of the connection were seen that look different.
    pub varied: bool,
}

impl From<Entry> for Origin {
    fn from(entry: Entry) -> Self {
        Self {
            syn: entry.syn,
            observed: entry.observed != 0,
            local: entry.local != 0,
            ambiguous: entry.ambiguous != 0,
            repeats: entry.repeats,
            varied: entry.varied != 0,
        }
    }
}

/// The origins of the listener's connections. Cloning it is cheap, and all clones are the same.
#[derive(Clone)]
pub struct Origins(Arc<Inner>);

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origins").field("steered", &self.0.steered).finish_non_exhaustive()
    }
}

struct Inner {
    origins: HashMap<MapData, u64, Entry>,
    removals: Mutex<HashMap<MapData, u64, Entry>>,
    syns: HashMap<MapData, SynKey, Entry>,
    syn_data: HashMap<MapData, SynKey, SynData>,
    /// Present where a program on the listening sockets looks at it.
    closed: Option<Mutex<Array<MapData, u32>>>,
    steered: Option<u16>,
}

/// The maps that are looked into.
pub(super) struct OriginMaps {
    pub(super) origins: MapData,
    /// The same map by another descriptor.
    pub(super) removals: MapData,
    pub(super) syns: MapData,
    pub(super) syn_data: MapData,
    /// Present where a program on the listening sockets looks at it.
    pub(super) closed: Option<MapData>,
}

impl Origins {
    /// Of the maps of the kernel side.
    pub(super) fn new(maps: OriginMaps, steered: Option<u16>) -> Result<Self, MapError> {
        let OriginMaps { origins, removals, syns, syn_data, closed } = maps;
        Ok(Self(Arc::new(Inner {
            origins: HashMap::try_from(Map::LruHashMap(origins))?,
            removals: Mutex::new(HashMap::try_from(Map::LruHashMap(removals))?),
            syns: HashMap::try_from(Map::LruHashMap(syns))?,
            syn_data: HashMap::try_from(Map::LruHashMap(syn_data))?,
            closed: closed.map(|closed| Array::try_from(Map::Array(closed)).map(Mutex::new)).transpose()?,
            steered,
        })))
    }

    /// The origin of the connection whose socket has this `SO_COOKIE`.
    ///
    /// A socket may reach the accept queue just before the kernel side has written its entry: ask once more, later.
    #[must_use]
    pub fn lookup(&self, cookie: u64) -> Option<Origin> {
        self.0.origins.get(&cookie, 0).ok().map(Origin::from)
    }

    /// The listener's own port where connections are steered to it: at every other port the address of a socket is where
    /// its client went.
    #[must_use]
    pub fn steered(&self) -> Option<u16> {
        self.0.steered
    }

    /// Removes what is kept for a socket. To be called for each connection that was accepted, when nobody asks for its
    /// origin any more. Without it the entry waits for the LRU.
    pub fn forget(&self, cookie: u64) {
        let mut removals = self.0.removals.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing to remove is no error: there is no entry for a connection without a SYN.
        let _ = removals.remove(&cookie);
    }

    /// Has the kernel discard what comes for the listening sockets from now on, the last packet of a handshake included.
    /// Reports whether it does.
    #[must_use]
    pub fn close_listeners(&self) -> bool {
        let Some(closed) = &self.0.closed else { return false };
        closed.lock().unwrap_or_else(PoisonError::into_inner).set(0, 1, 0).is_ok()
    }

    /// The SYN of a connection by its source address and initial sequence number (both in what `TCP_SAVED_SYN`
    /// returns): the join that `sock_ops` makes, for a machine on which only the observer could be attached.
    #[must_use]
    pub fn find(&self, source: IpAddr, sequence: u32) -> Option<Origin> {
        let key = SynKey { source: mapped(source), next_sequence: sequence.wrapping_add(1) };
        let mut origin = self.0.syns.get(&key, 0).ok().map(Origin::from)?;
        // As in the kernel: over loopback, what was seen is what was translated, unless the client's side corrected it.
        origin.ambiguous |= !origin.local && origin.syn.interface == spip_common::map::LOOPBACK_INTERFACE;
        Some(origin)
    }

    /// Returns the first bytes of the data that came with the SYN of `source`; nothing where it had none, or where they are
    /// not known any more.
    #[must_use]
    pub fn syn_data(&self, source: [u8; 16], syn: &Syn) -> Option<Box<[u8]>> {
        if syn.payload_length == 0 {
            return None;
        }
        let data = self.0.syn_data.get(&SynKey::of(&source, syn), 0).ok()?;
        // As many as this SYN has, or they are of another one with its sequence number.
        let is_its = data.kept().len() == usize::from(syn.payload_length).min(SYN_DATA_BYTES);
        is_its.then(|| data.kept().into())
    }

    /// Reports whether a segment followed the SYN of `source` with this initial sequence number to the listening socket, and
    /// acknowledged something. Never for a number that the source used for several SYNs.
    #[must_use]
    pub fn is_acknowledged(&self, source: [u8; 16], sequence: u32) -> bool {
        let key = SynKey { source, next_sequence: sequence.wrapping_add(1) };
        let entry = self.0.syns.get(&key, 0);
        entry.is_ok_and(|entry| entry.ambiguous == 0 && entry.reached & Entry::ACKNOWLEDGED != 0)
    }

    /// Reports whether this process may read the maps: about a key that is not there, the kernel says just that.
    #[must_use]
    pub fn can_look_up(&self) -> bool {
        matches!(self.0.origins.get(&0, 0), Ok(_) | Err(MapError::KeyNotFound))
    }

    /// Counts the SYNs that wait for their connection now. Walks the whole map: for a status page, not for each
    /// session.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.0.syns.keys().filter(Result::is_ok).count() as u64
    }
}
