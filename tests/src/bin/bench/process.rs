//! Processor time and memory of a process, from the kernel.

use std::fs;
use std::time::Duration;

/// Processor time that a process has used.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// In its own code.
    pub(crate) user: Duration,
    /// In the kernel, on its behalf.
    pub(crate) system: Duration,
}

impl Cpu {
    /// Both.
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    /// Returns the use since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

/// Processor time of all threads, in the kernel's ticks of 10 ms.
pub(crate) fn cpu(pid: u32) -> Cpu {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The second field is a name in brackets that may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks = |index: usize| Duration::from_millis(fields[index].parse::<u64>().expect("ticks") * 10);
    Cpu { user: ticks(11), system: ticks(12) }
}

/// A line of /proc/PID/status in kB: `VmRSS`, `VmHWM`, `RssAnon`.
pub(crate) fn memory_kb(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
