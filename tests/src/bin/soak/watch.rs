//! Samples of memory, descriptors, threads and entries of maps, none of which may grow.
//!
//! Two looks at it: how fast it grows while the load goes on, and whether it is more at rest after the load than it was
//! at rest when the load had filled what is filled once.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use spip_tests::{Namespace, Net};

use crate::Verdict;
use crate::slope;
use crate::tally::Tally;

/// Above each column.
pub(crate) const HEADING: &str =
    "      s     sent recorded  pending  RSS kB anon kB descr threads ORIGINS    SYNS  log MB   CPU s";

/// Growth of memory that is the allocator's way of finding room. In the forty minutes that are judged of an hour it is
/// four bytes for each connection: something that is kept of each is larger.
const SLACK_KB: f64 = 2_048.0;
/// The same for descriptors and entries: how many are open at once is a matter of chance.
const SLACK_COUNT: f64 = 15.0;

/// The process that is watched.
pub(crate) struct Watch {
    pid: u32,
    pins: PathBuf,
    sensor: Namespace,
    began: Instant,
}

/// One moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) recorded: u64,
    pub(crate) pending: usize,
    pub(crate) resident_kb: u64,
    pub(crate) anonymous_kb: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
    pub(crate) origins: usize,
    pub(crate) syns: usize,
    pub(crate) log_bytes: u64,
    /// Processor time of the agent, in user mode and in the kernel.
    pub(crate) cpu_seconds: f64,
    /// Connections that the kernel of the sensor's namespace has established, of whatever program.
    pub(crate) established: u64,
}

impl Watch {
    pub(crate) fn new(net: &Net, pid: u32) -> Self {
        Self { pid, pins: net.pins(), sensor: net.sensor.handle(), began: Instant::now() }
    }

    /// Takes a sample; an error when something cannot be measured.
    pub(crate) fn sample(&self, tally: &Tally) -> Result<Sample, String> {
        let status = self.proc("status")?;
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            number.ok_or_else(|| format!("the kernel does not tell {key} of the agent"))
        };
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid));
        let (sent, recorded, log_bytes) = tally.progress();
        Ok(Sample {
            seconds: self.began.elapsed().as_secs_f64(),
            sent,
            recorded,
            pending: tally.pending(),
            resident_kb: number("VmRSS")?,
            anonymous_kb: number("RssAnon")?,
            descriptors: descriptors.map_err(|error| format!("descriptors of the agent: {error}"))?.count(),
            threads: number("Threads")?,
            origins: entries(&self.pins, "ORIGINS")?,
            syns: entries(&self.pins, "SYNS")?,
            log_bytes,
            cpu_seconds: cpu_seconds(&self.proc("stat")?).ok_or("the kernel does not tell the agent's time")?,
            established: self.sensor.enter(established)?,
        })
    }

    fn proc(&self, file: &str) -> Result<String, String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid))
            .map_err(|error| format!("{file} of the agent: {error}"))
    }
}

/// Counts the entries of a map that is pinned below `pins`.
fn entries(pins: &Path, map: &str) -> Result<usize, String> {
    let path = pins.join(map);
    let output = Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(&path).output();
    let output = output.map_err(|error| format!("bpftool: {error}; maps are watched with it, so install it"))?;
    let said = || String::from_utf8_lossy(&output.stdout).trim().chars().take(200).collect::<String>();
    if !output.status.success() {
        return Err(format!("bpftool cannot read {}: {}", path.display(), said()));
    }
    let entries = serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout);
    entries.map(|entries| entries.len()).map_err(|error| format!("bpftool says of {map}: {error}: {}", said()))
}

/// Reads user and system time from `/proc/PID/stat`, whose second field may hold anything in its parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(ticks as f64 / a_second as f64)
}

/// Reads `PassiveOpens` of this thread's network namespace.
fn established() -> Result<u64, String> {
    let text =
        fs::read_to_string("/proc/thread-self/net/snmp").map_err(|error| format!("the kernel's counters: {error}"))?;
    passive_opens(&text).ok_or_else(|| "the kernel does not tell PassiveOpens".to_owned())
}

/// Reads the counter from a line of names and the line of values below it.
fn passive_opens(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let at = lines.next()?.split(' ').position(|name| name == "PassiveOpens")?;
    lines.next()?.split(' ').nth(at)?.parse().ok()
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7.0} {:>8} {:>8} {:>8} {:>7} {:>7} {:>5} {:>7} {:>7} {:>7} {:>7} {:>7.0}",
            self.seconds,
            self.sent,
            self.recorded,
            self.pending,
            self.resident_kb,
            self.anonymous_kb,
            self.descriptors,
            self.threads,
            self.origins,
            self.syns,
            self.log_bytes / 1_000_000,
            self.cpu_seconds
        )
    }
}

/// All moments under load that are judged.
#[derive(Default)]
pub(crate) struct Samples(pub(crate) Vec<Sample>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Reports whether something grew for as long as the load lasted.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let times: Vec<f64> = self.0.iter().map(|sample| sample.seconds).collect();
        let hours = times.last().zip(times.first()).map_or(0.0, |(last, first)| (last - first) / 3_600.0);
        let steady = |name: &str, of: fn(&Sample) -> u64, slack: f64| {
            let values: Vec<f64> = self.0.iter().map(|sample| of(sample) as f64).collect();
            let Some(growth) = slope::growth(&times, &values) else {
                return (false, format!("{name}: {} samples are too few to say whether it grows", values.len()));
            };
            let last = values.last().copied().unwrap_or_default();
            let rate = growth / hours;
            (growth <= slack, format!("{name}: {last:.0}, by trend {growth:+.0} under load, {rate:+.0} an hour"))
        };
        let origins = self.0.iter().map(|sample| sample.origins).max().unwrap_or(0);
        vec![
            steady("memory of its own in kB", |sample| sample.anonymous_kb, SLACK_KB),
            steady("resident memory in kB", |sample| sample.resident_kb, SLACK_KB),
            steady("descriptors", |sample| sample.descriptors as u64, SLACK_COUNT),
            steady("entries of ORIGINS", |sample| sample.origins as u64, SLACK_COUNT),
            (origins > 0, format!("entries of ORIGINS under load: up to {origins}")),
        ]
    }
}

/// Compares the agent at rest: before the load, after its warm-up, and at the end. Half-open SYNs, and those of
/// connections to others, are the only ones that stay in SYNS.
pub(crate) fn rests(fresh: &Sample, warm: &Sample, last: &Sample, others: u64) -> Vec<Verdict> {
    let kept = |name: &str, of: fn(&Sample) -> u64| {
        let (warm, last) = (of(warm), of(last));
        (last as f64 <= warm as f64 + SLACK_KB, format!("{name} at rest: {warm} warm, {last} at the end"))
    };
    vec![
        kept("memory of its own in kB", |sample| sample.anonymous_kb),
        kept("resident memory in kB", |sample| sample.resident_kb),
        // A file that a rotation closes may be open by chance.
        (
            last.descriptors <= fresh.descriptors + 3,
            format!("descriptors at rest: {} before, {} at the end", fresh.descriptors, last.descriptors),
        ),
        (last.threads <= fresh.threads + 1, format!("threads: {} before, {} at the end", fresh.threads, last.threads)),
        (
            warm.origins + last.origins == 0,
            format!("entries of ORIGINS at rest: {} warm, {}", warm.origins, last.origins),
        ),
        (
            last.syns as u64 <= others,
            format!("entries of SYNS at rest: {}, of {others} SYNs that became no connection to the agent", last.syns),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(anonymous: impl Fn(u32) -> u64) -> Vec<Verdict> {
        let mut samples = Samples::default();
        for step in 0..40 {
            let (seconds, anonymous_kb) = (f64::from(step) * 60.0, anonymous(step));
            samples.push(Sample { seconds, anonymous_kb, origins: 1, ..Sample::default() });
        }
        samples.verdicts()
    }

    #[test]
    fn memory_that_comes_and_goes_is_steady_and_memory_that_goes_on_growing_is_not() {
        assert!(judged(|step| 20_000 + 1_000 * u64::from(step % 3)).iter().all(|(fine, _)| *fine));
        // Six megabytes an hour, beside what comes and goes.
        assert!(!judged(|step| 20_000 + 100 * u64::from(step) + 1_000 * u64::from(step % 3))[0].0);
    }

    #[test]
    fn too_few_samples_and_maps_that_were_never_filled_fail() {
        let mut samples = Samples::default();
        samples.push(Sample::default());
        assert!(samples.verdicts().iter().all(|(fine, _)| !fine), "{:?}", samples.verdicts());
    }

    #[test]
    fn what_is_kept_at_rest_is_noticed() {
        let rest = Sample { descriptors: 20, threads: 9, syns: 5, ..Sample::default() };
        let fails = |last: &Sample| {
            let verdicts = rests(&rest, &rest, last, 10);
            verdicts.into_iter().filter(|(fine, _)| !fine).map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert!(fails(&rest).is_empty());
        let left = Sample { descriptors: 30, threads: 12, origins: 1, syns: 11, anonymous_kb: 3_000, ..rest.clone() };
        assert_eq!(fails(&left).len(), 5, "{:?}", fails(&left));
    }

    #[test]
    fn maps_that_cannot_be_read_are_no_empty_maps() {
        let error = entries(&PathBuf::from("/nonexistent"), "ORIGINS").expect_err("no map");
        assert!(error.contains("bpftool"), "{error}");
    }

    #[test]
    fn times_and_counters_are_found_where_the_kernel_writes_them() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 9 9 20 0 12 0 100 1 1";
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).expect("POSIX").expect("Linux");
        assert_eq!(cpu_seconds(stat), Some(400.0 / ticks as f64));
        assert_eq!(cpu_seconds("7 (a"), None);
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 5 17\nUdp: x\n";
        assert_eq!(passive_opens(snmp), Some(17));
        assert_eq!(passive_opens("Tcp: RtoMin\nTcp: 200\n"), None);
    }
}
