//! Descriptors: each open connection takes one.

use nix::sys::resource::{Resource, getrlimit};

use super::{Finding, Subject, Topic};
use crate::descriptors::RESERVED;

/// Below this, a single source may take all of them (`max_sessions_per_source` is 4,096 by default).
const ENOUGH: u64 = 8_192;

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    vec![limit(subject), system(), backlog()]
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
        return topic.skipped(format!("{whose} cannot be looked into: run as root"));
    };
    let wanted = subject.config.and_then(|config| config.limits.sessions).map(|sessions| sessions as u64 + RESERVED);
    let open = open.map(|open| format!(", {open} open now")).unwrap_or_default();
    let found = format!("{hard} for {whose}{open}");
    let remedy = "LimitNOFILE=524288 in the systemd unit, or ulimit -Hn 524288 as root before the start";
    match wanted {
        Some(wanted) if hard < wanted => topic.failure(format!("{found}; max_sessions needs {wanted}"), remedy),
        None if hard < ENOUGH => topic.warning(format!("{found}: few for a sensor"), remedy),
        _ => topic.ok(found),
    }
}

/// The hard limit of `/proc/PID/limits`, the second number of its line.
fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn system() -> Finding {
    let topic = Topic::new("limits.files", "descriptors of all processes together; beyond it nobody opens anything");
    let numbers = super::sysctl("fs/file-nr");
    let mut numbers = numbers.iter().flat_map(|text| text.split_ascii_whitespace()).map(str::parse::<u64>);
    let (Some(Ok(used)), Some(Ok(most))) = (numbers.next(), numbers.nth(1)) else {
        return topic.skipped("/proc/sys/fs/file-nr does not say");
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
    fn the_hard_limit_is_the_second_number() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 20000                files\n";
        assert_eq!(hard_limit(limits), Some(20_000));
        assert_eq!(hard_limit("Max open files            1024   unlimited  files\n"), Some(u64::MAX));
        assert_eq!(hard_limit(""), None);
    }
}
