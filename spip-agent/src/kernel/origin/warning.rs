//! Warns of connections whose packet filter's SYN the kernel contradicts: at once of the first, then once an interval of
//! how many there were, however many come. The counts by reason are those of the records.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kernel::origin::Origin;
use spip_record::Conflict;

/// Time between two warnings.
const INTERVAL: Duration = Duration::from_secs(60);

/// The process's own.
static WARNINGS: Warnings = Warnings(Mutex::new((None, 0)));

/// Time of the last warning, and number of connections since.
struct Warnings(Mutex<(Option<Instant>, u64)>);

/// Warns, unless there was a warning within the interval. `claimed` is what the packet filter saw.
pub(super) fn warn(conflict: Conflict, origin: &Origin, claimed: std::net::SocketAddr) {
    // Tools that use one sequence number for many SYNs are no contradiction.
    if conflict == Conflict::Ambiguous {
        return;
    }
    if let Some(count) = WARNINGS.due(Instant::now()) {
        log::warn!(target: "origin",
            connections = count, reason = conflict.name(), source = origin.client.to_string().as_str(),
            destination = origin.destination.to_string().as_str(), claimed = claimed.to_string().as_str();
            "a SYN that the packet filter saw contradicts what the kernel knows of the connection: the kernel is believed; \
             either the client forges SYNs, or something translates addresses without connection tracking");
    }
}

impl Warnings {
    /// Counts a connection; how many there were since the last warning, where it is time for one.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, count) = &mut *state;
        *count += 1;
        if last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_warned_of_at_once_and_those_after_it_once_an_interval() {
        let warnings = Warnings(Mutex::new((None, 0)));
        let start = Instant::now();
        assert_eq!(warnings.due(start), Some(1));
        for second in 1..60 {
            assert_eq!(warnings.due(start + Duration::from_secs(second)), None);
        }
        assert_eq!(warnings.due(start + INTERVAL), Some(60));
        assert_eq!(warnings.due(start + INTERVAL * 2), Some(1));
    }
}
