//! SYNs and what becomes of them, in any order: clients decide which are sent, to where, and with which numbers.

use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use spip_agent::log::sensor::Sensor;
use spip_agent::scans::record as scan;
use spip_agent::scans::{Clock, Counts, Hearing, Pending, Sources};
use spip_agent::tools::convert;
use spip_common::event::{KIND_JOINED, KIND_REACHED, KIND_SYN};
use spip_common::packet::mapped;
use spip_common::{Step, Syn, SynEvent};
use spip_record::{Format, Tail};

use super::engine;

/// Nanoseconds between two events.
const APART_NS: u64 = 1_000;

/// Eight bytes are one event. The counts add up and every table is bounded after each, and every SYN that was not
/// completed is in one record.
pub(super) fn scans(bytes: &[u8]) {
    let (first, events) = bytes.split_first().unwrap_or((&0, &[]));
    let mut world = World {
        pending: Pending::new(
            NonZeroUsize::new(usize::from(*first) + 1).unwrap_or(NonZeroUsize::MIN),
            Hearing::new(80, [mapped([198, 51, 100, 1])].into(), 0),
        ),
        sources: Sources::default(),
        now_ns: APART_NS,
        recorded: 0,
    };
    for event in events.as_chunks::<8>().0 {
        world.now_ns += APART_NS;
        world.happen(event);
        world.adds_up();
    }
    world.decide(u64::MAX);
    let Counts { half_open, evicted, pending, .. } = world.adds_up();
    world.end();
    assert_eq!((pending, world.recorded), (0, half_open + evicted));
}

struct World {
    pending: Pending,
    sources: Sources,
    now_ns: u64,
    /// SYNs in records.
    recorded: u64,
}

impl World {
    fn happen(&mut self, event: &[u8; 8]) {
        let [kind, source, number, address, port @ .., flags] = *event;
        let [high, low, source_port] = port;
        let source = mapped([192, 0, 2, source]);
        let destination = mapped([198, 51, 100, address]);
        let (port, source_port) = (u16::from_be_bytes([high, low]), u16::from(source_port));
        let number = u32::from(number);
        let step = |kind| Step {
            kind,
            next_sequence: number.wrapping_add(1),
            source,
            destination,
            source_port,
            destination_port: port,
            doubtful: 0,
        };
        match kind {
            // Mostly SYNs.
            0..=99 => {
                let mut syn = Syn { ip_version: 4, destination, sequence: number, seen_ns: self.now_ns, ..Syn::ZERO };
                (syn.destination_port, syn.source_port, syn.window) = (port, source_port, u16::from(flags));
                syn.options_len = flags & 3;
                let flags = u32::from(flags >> 7);
                self.pending.seen(&SynEvent { kind: KIND_SYN, flags, source, syn });
            }
            100..=169 => self.pending.reached(&step(KIND_REACHED)),
            170..=229 => self.pending.joined(&step(KIND_JOINED)),
            230..=239 => self.decide(self.now_ns.saturating_sub(u64::from(number) * APART_NS)),
            240..=244 => self.pending.doubt(self.now_ns),
            245..=249 => self.pending.untold(u64::from(number), self.now_ns),
            250..=255 => self.end(),
        }
    }

    fn adds_up(&self) -> Counts {
        let counts = self.pending.counts();
        let Counts { seen, joined, half_open, evicted, ignored, pending, .. } = counts;
        assert_eq!(seen, joined + half_open + evicted + ignored + pending, "{counts:?}");
        for table in self.pending.fill().into_iter().chain(self.sources.fill()) {
            assert!(table.entries <= table.most, "{table:?}");
        }
        counts
    }

    fn decide(&mut self, until_ns: u64) {
        self.pending.decide(until_ns, |one| self.sources.add(one));
    }

    /// Ends the interval; its records are lines in every format.
    fn end(&mut self) {
        let clock = Clock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000), self.now_ns);
        for scan in self.sources.end(&clock, self.pending.take_given_up()) {
            self.recorded += scan.count + scan.undecided;
            let [flat, ecs, eve] = [Format::Flat, Format::Ecs, Format::Eve].map(|format| {
                let sensor = Sensor {
                    name: "fuzz".to_owned(),
                    run: "0123456789ab",
                    community_id_seed: 0,
                    format,
                    max_line_bytes: 1 << 30,
                    public: spip_agent::config::PublicAddresses::default(),
                };
                let mut line = Vec::new();
                scan::encode(&scan, &sensor, &mut line);
                line.extend_from_slice(format.tail().write(&mut [0; Tail::BYTES], 1));
                engine::is_line_of(&line, 0);
                line
            });
            for (to, logged) in [(convert::Target::Ecs, ecs), (convert::Target::Eve, eve)] {
                let mut converted = Vec::new();
                assert_eq!(to.line(&flat, &mut converted), Ok(true));
                assert_eq!(converted, logged);
            }
        }
    }
}
