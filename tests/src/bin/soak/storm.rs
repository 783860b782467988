//! Storms beside the steady load: connections, handshakes and half-open SYNs that come all at once from thousands of
//! sources, then a time without.

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use spip_tests::{CROWD_V4, RawSyn, SENSOR_V4};

use crate::load::{self, Shared};

/// Time from the beginning of one storm to that of the next, the same for all threads …
pub(crate) const INTERVAL: Duration = Duration::from_secs(30);
/// … of which it blows for this long.
const LASTS: Duration = Duration::from_secs(2);
/// Threads of each kind.
pub(crate) const THREADS: u32 = 6;
/// Sources of a flood of SYNs, one SYN each.
const FLOODERS: u32 = 2_000;

/// Content of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One line, and gone.
    Short,
    /// A handshake and one request.
    Handshake,
}

/// All kinds; the second comes half an interval later.
pub(crate) const KINDS: [Kind; 2] = [Kind::Short, Kind::Handshake];

/// Makes one connection of a storm, or waits for the next one.
pub(crate) fn blow(shared: &Shared, number: u32, kind: Kind) {
    let offset = if kind == Kind::Handshake { INTERVAL / 2 } else { Duration::ZERO };
    let since = (load::since_epoch() + offset).as_millis() % INTERVAL.as_millis();
    if since >= LASTS.as_millis() {
        return load::rest(shared, Duration::from_millis(100));
    }
    let Some(mut stream) = load::open(shared, number) else { return };
    match kind {
        Kind::Short => drop(stream.write_all(b"storm\r\n")),
        Kind::Handshake => {
            shared.tally.speaks_tls();
            drop(load::tls(stream, shared));
        }
    }
}

/// Half-open SYNs of a flood: the sensor's answers are reset by the client's kernel.
pub(crate) fn syns(number: u32) -> Vec<RawSyn> {
    let one = |flooder: u32| {
        let source = Ipv4Addr::from(CROWD_V4.to_bits() + 20_000 + flooder);
        let mixed = number.wrapping_mul(2_654_435_761).wrapping_add(flooder.wrapping_mul(40_503));
        let port = |bits: u32| 1_024 + u16::try_from(bits % 60_000).unwrap_or_default();
        let mut syn = RawSyn::new((source, port(mixed)), (SENSOR_V4, port(mixed >> 7)));
        syn.sequence = mixed;
        syn
    };
    (0..FLOODERS).map(one).collect()
}
