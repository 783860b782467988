//! The descriptors and the memory of the machine, read once before the sandbox closes the way, and the bounds on sessions
//! that follow from them under a configuration.

use std::num::NonZeroUsize;
use std::thread;

use anyhow::Result;

use crate::config::Config;
use crate::confine::{descriptors, memory};
use crate::session::limits::{Bound, BoundFrom};

/// Resources of the sessions.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Descriptors that the process may open.
    pub descriptors: u64,
    /// Bytes of memory, where the system tells.
    pub memory: Option<u64>,
    /// Number of worker threads.
    pub workers: usize,
}

impl Resources {
    /// Raises the limit of descriptors as far as it goes, and reads what there is.
    #[must_use]
    pub fn claim() -> Self {
        Self {
            descriptors: descriptors::raise_limit(),
            memory: memory::of("self"),
            workers: thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }

    /// Returns `max_sessions`, or what descriptors and memory allow.
    ///
    /// # Errors
    /// There are too few descriptors for any session.
    pub fn session_limit(&self, config: &Config) -> Result<Bound> {
        if let Some(sessions) = config.limits.sessions {
            return Ok(Bound { sessions, from: BoundFrom::Configuration });
        }
        let by_descriptors = descriptors::sessions(self.descriptors, self.workers)?;
        Ok(match self.memory.map(memory::sessions) {
            Some(sessions) if sessions < by_descriptors => Bound { sessions, from: BoundFrom::Memory },
            _ => Bound { sessions: by_descriptors, from: BoundFrom::Descriptors },
        })
    }

    /// Returns `payload_memory_bytes`, or what the memory of the machine allows.
    #[must_use]
    pub fn payload_memory(&self, config: &Config) -> usize {
        let limits = &config.limits;
        limits.payload_memory_bytes.unwrap_or_else(|| memory::held(self.memory, limits.payload_bytes))
    }

    /// Warns where descriptors run out before `max_sessions` is reached.
    pub fn warn_of_shortage(&self, config: &Config) {
        let sessions = config.limits.sessions;
        let shortage = sessions.and_then(|most| descriptors::shortage(most, self.descriptors, self.workers));
        if let Some(shortage) = shortage {
            log::warn!(target: "config", "{shortage}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_scarcer_of_descriptors_and_memory_bounds_the_sessions_unless_the_operator_does() {
        let bound = |limits: &str, descriptors, memory| {
            let text = format!("ip = \"127.0.0.1\"\nport = 1\n{limits}");
            let config = Config::from_str(&text, Path::new("spip.toml")).expect("valid").config;
            let resources = Resources { descriptors, memory, workers: 2 };
            let Bound { sessions, from } = resources.session_limit(&config).expect("some");
            (sessions, from.name())
        };
        assert_eq!(bound("", 1_048_576, Some(1 << 30)), (65_536, "memory"));
        assert_eq!(bound("", 20_000, Some(1 << 30)), (19_898, "descriptors"));
        assert_eq!(bound("", 20_000, None), (19_898, "descriptors"));
        assert_eq!(bound("max_sessions = 7", 20_000, Some(1 << 30)), (7, "configuration"));
        // The unit file's limit, on a machine of 2 GB.
        assert!(bound("", 1_048_576, Some(1_800_000_000)).0 > 100_000);
    }
}
