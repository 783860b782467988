//! Refused connections: all of them recorded, never a line for each without bound.
//!
//! Refusals are gathered for an interval, one entry for each source and limit. An entry that stands for one
//! connection becomes that connection's record; one that stands for several becomes one record with their count and
//! the times of the first and the last, the latter counted from the first by the monotonic clock. When more sources than [`SOURCES_MAX`] are refused in one interval, the rest
//! is counted together, under the unspecified address.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::kernel::addr::{ClientAddr, Destination};
use crate::kernel::origin::Origin;
use crate::process::ports::Ports;
use crate::session::budget::Budget;
use crate::session::limits::Source;
use crate::session::payload::Payload;
use crate::session::record::{Moment, Repeated, Session};
use crate::tls::Tls;
use spip_record::Limit;
use spip_record::{CloseReason, DestinationSource};

/// Entries of one interval: at about 250 bytes each, and 512 for ports, 3 MiB at most, and as many lines.
pub const SOURCES_MAX: usize = 4_096;

/// Ports that are counted of one entry: 512 bytes.
const PORTS_MAX: u32 = 256;

/// The refusals of the running interval; clones share them.
#[derive(Clone, Default)]
pub struct Rejections(Arc<Mutex<HashMap<Key, Entry>>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// `None` for all that came after the table was full.
    source: Option<Source>,
    limit: Limit,
}

struct Entry {
    first: Moment,
    /// No step of the wall clock brings it before the first.
    last: Instant,
    count: u64,
    origin: Origin,
    ports: Ports,
}

impl Rejections {
    /// Counts one refused connection from `client`; `origin` is asked for only where this is the first of its entry, `port`,
    /// the one that the client asked for, while the entry has fewer than [`PORTS_MAX`].
    pub fn note(
        &self,
        client: SocketAddr,
        limit: Limit,
        at: Moment,
        origin: impl FnOnce() -> Origin,
        port: impl FnOnce() -> u16,
    ) {
        let mut entries = self.entries();
        let own = Key { source: Some(Source::from(client.ip())), limit };
        let is_full = entries.len() >= SOURCES_MAX;
        let key = if is_full && !entries.contains_key(&own) { Key { source: None, limit } } else { own };
        let entry = entries
            .entry(key)
            .and_modify(|entry| {
                entry.count += 1;
                entry.last = entry.last.max(at.steady);
            })
            .or_insert_with(|| Entry {
                first: at,
                last: at.steady,
                count: 1,
                origin: if key.source.is_some() { origin() } else { of_many_sources() },
                ports: Ports::default(),
            });
        if entry.ports.count() < PORTS_MAX {
            entry.ports.insert(port());
        }
    }

    /// Ends the interval: the records of everything that was refused in it.
    pub fn drain(&self) -> impl Iterator<Item = Session> + use<> {
        let entries = std::mem::take(&mut *self.entries());
        entries.into_iter().map(|(key, entry)| entry.into_session(key.limit))
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn into_session(self, limit: Limit) -> Session {
        let repeated = (self.count > 1).then(|| {
            let lasted = self.last.saturating_duration_since(self.first.steady);
            let first = self.first.wall;
            Repeated { count: self.count, first, last: first.checked_add(lasted).unwrap_or(first), ports: self.ports }
        });
        Session {
            id: Uuid::new_v4(),
            accepted: self.first,
            duration: Duration::ZERO,
            origin: self.origin,
            payload: Payload::new(0, Budget::new(0)),
            tls: Tls::NotTls,
            bytes_out: 0,
            stored: None,
            talk: None,
            close_reason: CloseReason::Rejected(limit),
            repeated: repeated.map(Box::new),
            proxy: None,
        }
    }
}

fn of_many_sources() -> Origin {
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Origin {
        client: ClientAddr::new(unspecified),
        destination: Destination::new(unspecified),
        source: DestinationSource::Socket,
        conflict: None,
        syn: None,
        syn_data: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(rejections: &Rejections, address: [u8; 4], limit: Limit) {
        let client = SocketAddr::from((address, 40_000));
        rejections.note(
            client,
            limit,
            Moment::now(),
            || Origin { client: ClientAddr::new(client), ..of_many_sources() },
            || 80,
        );
    }

    #[test]
    fn one_refusal_is_one_record_without_a_count() {
        let rejections = Rejections::default();
        refuse(&rejections, [192, 0, 2, 1], Limit::Rate);
        let records: Vec<_> = rejections.drain().collect();
        assert_eq!(records.len(), 1);
        assert!(records[0].repeated.is_none());
        assert_eq!(records[0].close_reason, CloseReason::Rejected(Limit::Rate));
        assert_eq!(rejections.drain().count(), 0, "an interval is drained once");
    }

    #[test]
    fn refusals_of_one_source_are_summarised_by_limit() {
        let rejections = Rejections::default();
        for _ in 0..7 {
            refuse(&rejections, [192, 0, 2, 1], Limit::Rate);
        }
        refuse(&rejections, [192, 0, 2, 1], Limit::Sessions);
        let mut counts: Vec<_> = rejections.drain().map(|r| r.repeated.map_or(1, |r| r.count)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 7]);
    }

    #[test]
    fn the_ports_that_refused_connections_asked_for_are_kept_up_to_a_bound() {
        let rejections = Rejections::default();
        let client = SocketAddr::from(([192, 0, 2, 1], 40_000));
        for port in (1..=1000).chain(1..=1000) {
            rejections.note(client, Limit::Rate, Moment::now(), of_many_sources, || port);
        }
        let records: Vec<_> = rejections.drain().collect();
        let repeated = records[0].repeated.as_deref().expect("one record for all");
        assert_eq!(repeated.count, 2000);
        assert_eq!(repeated.ports.ranges().collect::<Vec<_>>(), [(1, 256)]);
    }

    #[test]
    fn a_step_of_the_clock_does_not_bring_the_last_before_the_first() {
        let start = Moment::now();
        let hour = Duration::from_secs(3600);
        for wall in [start.wall - hour, start.wall + hour] {
            let rejections = Rejections::default();
            let late = Moment { wall, steady: start.steady + Duration::from_secs(2) };
            // Workers take turns: the one that came first may be noted last.
            let early = Moment { wall, steady: start.steady + Duration::from_secs(1) };
            for at in [start, late, early] {
                let client = SocketAddr::from(([192, 0, 2, 1], 40_000));
                rejections.note(client, Limit::Rate, at, of_many_sources, || 80);
            }
            let repeated = rejections.drain().next().and_then(|record| record.repeated).expect("three are one record");
            assert_eq!((repeated.count, repeated.first), (3, start.wall));
            assert_eq!(repeated.last, start.wall + Duration::from_secs(2));
        }
    }

    #[test]
    fn a_flood_of_sources_stays_bounded_and_counted() {
        let rejections = Rejections::default();
        for n in 1..=20_000_u32 {
            refuse(&rejections, n.to_be_bytes(), Limit::Sessions);
        }
        // One that has its own entry keeps it.
        for _ in 0..4 {
            refuse(&rejections, [0, 0, 0, 1], Limit::Sessions);
        }
        let records: Vec<_> = rejections.drain().collect();
        assert_eq!(records.len(), SOURCES_MAX + 1);
        let count = |record: &Session| record.repeated.as_ref().map_or(1, |repeated| repeated.count);
        assert_eq!(records.iter().map(count).sum::<u64>(), 20_004);
        let of = |address: [u8; 4]| {
            records.iter().find(|r| r.origin.client.ip() == std::net::IpAddr::from(address)).map(count)
        };
        assert_eq!(of([0, 0, 0, 1]), Some(5));
        assert_eq!(of([0, 0, 0, 0]), Some(20_000 - SOURCES_MAX as u64), "the rest together");
    }
}
