//! The steady clock of sessions. It is the runtime's, which a test can pause: then a bound of minutes is reached in
//! milliseconds. In a running agent, and outside of a runtime, it is the system's.

use std::time::{Duration, Instant};

/// Returns the time by which sessions are measured.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns how long ago `earlier` was.
#[must_use]
pub fn since(earlier: Instant) -> Duration {
    now().saturating_duration_since(earlier)
}
