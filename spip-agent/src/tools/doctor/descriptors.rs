//! Descriptors and memory: each open connection takes one, and some.

use std::num::NonZeroUsize;

use nix::sys::resource::{Resource, getrlimit};

use super::{Finding, Subject, Topic};
use crate::confine::{descriptors, memory};

/// Below this, a single source may take all of them (`max_sessions_per_source` is 4,096 by default).
const ENOUGH: u64 = 8_192;

/// Usual limit of services with many descriptors (systemd's own limit for them).
const USUAL: u64 = 524_288;

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    vec![limit(subject), memory(subject), system(), backlog()]
}

fn limit(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new(
        "limits.descriptors",
        "each open connection takes one; the agent raises its soft limit to the hard one",
    );
    let (whose, hard, open) = match &subject.running {
        Some(running) => {
            let hard = running.read("limits").and_then(|limits| hard_limit(&limits));
            (format!("process {}", running.pid), hard, running.open_descriptors())
        }
        None => ("this shell".to_owned(), getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard), None),
    };
    let Some(hard) = hard else {
        return topic.skipped(format!("{whose} cannot be read: run as root"));
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let sessions = subject.config.and_then(|config| config.limits.sessions);
    let wanted = sessions.map(|sessions| descriptors::needed(sessions, workers));
    let is_short = sessions.is_some_and(|most| descriptors::shortage(most, hard, workers).is_some());
    let open = open.map(|open| format!(", {open} open now")).unwrap_or_default();
    let found = format!("{hard} for {whose}{open}");
    let remedy = remedy(wanted.unwrap_or_default(), super::sysctl_number("fs/nr_open"));
    match wanted {
        Some(wanted) if is_short => topic.failure(format!("{found}; max_sessions needs {wanted}"), remedy),
        None if hard < ENOUGH => topic.warning(format!("{found}: few for a sensor"), remedy),
        _ => topic.ok(found),
    }
}

/// Returns the command that gives a process as many descriptors as are wanted, or the usual number of a server when
/// that is more. The kernel takes no limit above `most`.
fn remedy(wanted: u64, most: Option<u64>) -> String {
    let limit = wanted.max(USUAL);
    let raised = match most {
        Some(most) if most < limit => format!("sysctl -w fs.nr_open={}; then ", limit.next_multiple_of(8)),
        _ => String::new(),
    };
    format!("{raised}LimitNOFILE={limit} in the systemd unit, or ulimit -Hn {limit} as root before the start")
}

/// The hard limit of `/proc/PID/limits`, the second number of its line.
fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Checks that memory holds the sessions that the configuration asks for; reports how many it holds when it asks for
/// none.
fn memory(subject: &Subject<'_>) -> Finding {
    let topic =
        Topic::new("limits.memory", "when sessions outgrow the memory, the kernel kills the agent with all of them");
    let process = subject.running.as_ref().map_or("self".to_owned(), |running| running.pid.to_string());
    let Some(bytes) = memory::of(&process) else {
        return topic.skipped("/proc/meminfo has no total");
    };
    judged(topic, bytes, subject.config.and_then(|config| config.limits.sessions))
}

fn judged(topic: Topic, bytes: u64, asked: Option<usize>) -> Finding {
    let (megabytes, holds) = (bytes / 1_000_000, memory::sessions(bytes));
    let found = format!("{megabytes} MB; half of it holds {holds} sessions");
    let Some(asked) = asked.filter(|asked| *asked > holds) else { return topic.ok(found) };
    let needed = (asked as u64).saturating_mul(memory::SESSION_BYTES);
    let found = format!("{found}; max_sessions = {asked} may take {} MB", needed / 1_000_000);
    let remedy = format!("max_sessions = {holds} in the configuration, or leave it out; or more memory");
    if needed > bytes { topic.failure(found, remedy) } else { topic.warning(found, remedy) }
}

fn system() -> Finding {
    let topic =
        Topic::new("limits.files", "descriptors of all processes together; beyond the limit no process opens a file");
    let numbers = super::sysctl("fs/file-nr");
    let mut numbers = numbers.iter().flat_map(|text| text.split_ascii_whitespace()).map(str::parse::<u64>);
    let (Some(Ok(used)), Some(Ok(most))) = (numbers.next(), numbers.nth(1)) else {
        return topic.skipped("/proc/sys/fs/file-nr cannot be read");
    };
    let found = format!("{used} of {most} used");
    if used > most / 10 * 8 {
        topic.warning(found, format!("sysctl -w fs.file-max={}", most.saturating_mul(2)))
    } else {
        topic.ok(found)
    }
}

fn backlog() -> Finding {
    let topic = Topic::new(
        "limits.backlog",
        "connections that wait to be accepted; a burst beyond it is refused by the kernel, unrecorded",
    );
    match super::sysctl_number("net/core/somaxconn") {
        None => topic.skipped("net.core.somaxconn cannot be read"),
        Some(most) if most < 1_024 => {
            topic.warning(format!("net.core.somaxconn is {most}"), "sysctl -w net.core.somaxconn=4096")
        }
        Some(most) => topic.ok(format!("net.core.somaxconn is {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sessions_than_memory_holds_are_judged() {
        use crate::tools::doctor::State;
        let state = |asked| judged(Topic::new("limits.memory", ""), 1 << 30, asked).state;
        assert_eq!([None, Some(65_536)].map(state), [State::Ok; 2]);
        assert_eq!([65_537, 131_072, 131_073].map(Some).map(state), [State::Warning, State::Warning, State::Failure]);
    }

    #[test]
    fn the_limit_that_is_advised_is_enough_and_one_that_the_kernel_takes() {
        assert!(remedy(1_000, Some(1_048_576)).starts_with("LimitNOFILE=524288 in the systemd unit"));
        assert!(remedy(1_000_102, Some(1_048_576)).contains("ulimit -Hn 1000102"));
        let remedy = remedy(16_000_102, Some(1_048_576));
        assert!(remedy.starts_with("sysctl -w fs.nr_open=16000104; then LimitNOFILE=16000102"), "{remedy}");
    }

    #[test]
    fn the_hard_limit_is_the_second_number() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 20000                files\n";
        assert_eq!(hard_limit(limits), Some(20_000));
        assert_eq!(hard_limit("Max open files            1024   unlimited  files\n"), Some(u64::MAX));
        assert_eq!(hard_limit(""), None);
    }
}
