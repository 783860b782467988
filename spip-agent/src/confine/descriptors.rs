//! The descriptor limit, and the number of sessions that it allows: each open connection takes one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors reserved for listeners, maps, logs, runtimes, and the certificates of a reload. Half of them are used at
/// rest.
const RESERVED: u64 = 100;

/// There are too few to serve anybody.
#[derive(Debug, thiserror::Error)]
#[error("{0} descriptors are too few to serve a connection: raise the limit (ulimit -n)")]
pub struct TooFew(u64);

/// Raises the soft limit of this process to the hard one; what it is then.
#[must_use]
pub fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1_024 };
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// Returns the number of descriptors that so many sessions take, with those of the agent itself.
#[must_use]
pub fn needed(sessions: usize, workers: usize) -> u64 {
    (sessions as u64).saturating_add(RESERVED + workers as u64)
}

/// Returns the reason why there cannot be as many sessions as `max_sessions` allows, if so: the oldest idle ones then
/// make room before.
#[must_use]
pub fn shortage(max_sessions: usize, descriptors: u64, workers: usize) -> Option<String> {
    let allowed = sessions(descriptors, workers).unwrap_or_default();
    (max_sessions > allowed).then(|| {
        let needed = needed(max_sessions, workers);
        format!(
            "max_sessions = {max_sessions} takes {needed} descriptors, and {descriptors} are all that there are, for {allowed} \
             sessions: raise the limit (LimitNOFILE in the systemd unit, ulimit -Hn) and restart the agent"
        )
    })
}

/// Returns the number of sessions under a limit of `descriptors`, beside the runtimes of `workers`.
///
/// # Errors
/// There is nothing left for any.
pub fn sessions(descriptors: u64, workers: usize) -> Result<usize, TooFew> {
    // Where there are few, most are needed at rest.
    let reserved = RESERVED.min(descriptors / 4 * 3) + workers as u64;
    match descriptors.saturating_sub(reserved) {
        0 => Err(TooFew(descriptors)),
        sessions => Ok(usize::try_from(sessions).unwrap_or(usize::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sessions_than_descriptors_are_a_shortage() {
        assert_eq!(shortage(19_898, 20_000, 2), None);
        let reason = shortage(19_899, 20_000, 2).expect("one more than there can be");
        assert!(reason.contains("max_sessions = 19899 takes 20001 descriptors, and 20000"), "{reason}");
        assert!(shortage(1, 8, 2).is_some());
    }

    #[test]
    fn sessions_have_what_the_agent_does_not_need_at_rest() {
        assert_eq!(sessions(20_000, 2).ok(), Some(19_898));
        assert_eq!(sessions(64, 2).ok(), Some(14));
        assert_eq!(sessions(u64::MAX, 2).ok(), usize::try_from(u64::MAX - 102).ok());
        let none = sessions(8, 2).expect_err("all are needed").to_string();
        assert!(none.starts_with("8 descriptors are too few"), "{none}");
    }
}
