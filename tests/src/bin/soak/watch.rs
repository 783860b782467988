//! What may not grow: memory, descriptors, threads, entries of maps. Samples, and what they come to.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use spip_tests::Net;

use crate::tally::Tally;

/// Above each column.
pub(crate) const HEADING: &str =
    "      s     sent recorded  pending  RSS kB anon kB descr threads ORIGINS    SYNS  log MB";

/// Memory that may come and go: buffers of the allocator, caches that fill (certificates, sources).
const SLACK_KB: u64 = 4_096;
/// Growth in percent beyond which something is kept that should not be.
const GROWTH: u64 = 10;

/// The process that is watched.
pub(crate) struct Watch {
    pid: u32,
    pins: PathBuf,
    began: Instant,
}

/// One moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    seconds: u64,
    sent: u64,
    recorded: u64,
    pending: usize,
    resident_kb: u64,
    anonymous_kb: u64,
    descriptors: usize,
    threads: u64,
    /// Entries of ORIGINS and SYNS; unknown without bpftool.
    origins: Option<usize>,
    syns: Option<usize>,
    log_bytes: u64,
}

impl Watch {
    pub(crate) fn new(net: &Net, pid: u32) -> Self {
        Self { pid, pins: net.pins(), began: Instant::now() }
    }

    pub(crate) fn sample(&self, tally: &Tally) -> Sample {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let (sent, recorded, log_bytes) = tally.progress();
        Sample {
            seconds: self.began.elapsed().as_secs(),
            sent,
            recorded,
            pending: tally.pending(),
            resident_kb: number("VmRSS"),
            anonymous_kb: number("RssAnon"),
            descriptors: fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count),
            threads: number("Threads"),
            origins: self.entries("ORIGINS"),
            syns: self.entries("SYNS"),
            log_bytes,
        }
    }

    fn entries(&self, map: &str) -> Option<usize> {
        let output =
            Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(self.pins.join(map)).output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        serde_json::from_str::<serde_json::Value>(&text).ok()?.as_array().map(Vec::len)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |entries: Option<usize>| entries.map_or_else(|| "?".to_owned(), |entries| entries.to_string());
        write!(
            f,
            "{:>7} {:>8} {:>8} {:>8} {:>7} {:>7} {:>5} {:>7} {:>7} {:>7} {:>7}",
            self.seconds,
            self.sent,
            self.recorded,
            self.pending,
            self.resident_kb,
            self.anonymous_kb,
            self.descriptors,
            self.threads,
            known(self.origins),
            known(self.syns),
            self.log_bytes / 1_000_000
        )
    }
}

/// All moments, and how far they are apart.
pub(crate) struct Samples {
    all: Vec<Sample>,
    interval: Duration,
}

impl Samples {
    /// About sixty over the whole time, five seconds apart at least.
    pub(crate) fn new(duration: Duration) -> Self {
        Self { all: Vec::new(), interval: (duration / 60).max(Duration::from_secs(5)) }
    }

    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    pub(crate) fn push(&mut self, sample: Sample) {
        self.all.push(sample);
    }

    /// The middle third of the time against the last: what was filled once is full by then.
    pub(crate) fn verdicts(&self, last: &Sample) -> Vec<(bool, String)> {
        let third = self.all.len() / 3;
        let median = |part: &[Sample], of: fn(&Sample) -> u64| {
            let mut values: Vec<u64> = part.iter().map(of).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        let (middle, end) = (&self.all[third..self.all.len() - third], &self.all[self.all.len() - third..]);
        let steady = |name: &str, of: fn(&Sample) -> u64, slack: u64| {
            let (before, after) = (median(middle, of), median(end, of));
            (after <= before + before * GROWTH / 100 + slack, format!("{name}: {before}, then {after} (medians)"))
        };
        let first = &self.all[0];
        vec![
            steady("memory of its own in kB", |sample| sample.anonymous_kb, SLACK_KB),
            steady("resident memory in kB", |sample| sample.resident_kb, SLACK_KB),
            steady("descriptors", |sample| sample.descriptors as u64, 50),
            steady("entries of ORIGINS", |sample| sample.origins.unwrap_or(0) as u64, 50),
            // A certificate's file, the log of a rotation: a few may be open by chance.
            (
                last.descriptors <= first.descriptors + 3,
                format!("descriptors at rest: {} before, {} after", first.descriptors, last.descriptors),
            ),
            (last.threads <= first.threads + 1, format!("threads: {} before, {} after", first.threads, last.threads)),
            (
                last.origins.is_none_or(|entries| entries == 0),
                format!(
                    "entries of ORIGINS at rest: {}",
                    last.origins.map_or("unknown, no bpftool".to_owned(), |n| n.to_string())
                ),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(anonymous: impl Fn(u64) -> u64) -> Vec<(bool, String)> {
        let mut samples = Samples::new(Duration::from_secs(60));
        for step in 0..30 {
            samples.push(Sample { anonymous_kb: anonymous(step), ..Sample::default() });
        }
        samples.verdicts(&Sample::default())
    }

    #[test]
    fn memory_that_fills_once_is_steady_and_memory_that_goes_on_growing_is_not() {
        assert!(samples(|step| 20_000 + 10_000 * step.min(5)).iter().all(|(fine, _)| *fine));
        assert!(!samples(|step| 20_000 + 2_000 * step)[0].0);
    }

    #[test]
    fn descriptors_that_stay_open_are_noticed() {
        let mut watched = Samples::new(Duration::from_secs(60));
        (0..6).for_each(|_| watched.push(Sample { descriptors: 20, ..Sample::default() }));
        let left = Sample { descriptors: 30, ..Sample::default() };
        assert!(watched.verdicts(&left).iter().any(|(fine, text)| !fine && text.starts_with("descriptors at rest")));
    }
}
