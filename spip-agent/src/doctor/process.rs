//! The agent that runs here, found in `/proc`: by the name of its program and by its network namespace.
//!
//! A process that cannot be looked into is not an agent for this purpose; what then cannot be said is said by the
//! checks that would need it.

use std::fs;
use std::path::{Path, PathBuf};

/// Name of the program, as the kernel cuts it to 15 bytes.
const NAME: &str = "spip-agent";

/// A running agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) pid: u32,
}

impl Running {
    /// The agent of this network namespace; of several, the one with the lowest number.
    pub(super) fn find() -> Option<Self> {
        let namespace = fs::read_link("/proc/thread-self/ns/net").ok()?;
        let mut found: Vec<u32> = fs::read_dir("/proc")
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != std::process::id() && is_agent(*pid, &namespace))
            .collect();
        found.sort_unstable();
        found.first().map(|pid| Self { pid: *pid })
    }

    /// A file of its directory in `/proc`.
    pub(super) fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path(file)).ok()
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(file)
    }

    /// A line of `status`, such as `CapEff`, without its name.
    pub(super) fn status(&self, key: &str) -> Option<String> {
        self.read("status")?.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
    }

    /// Descriptors that it has open.
    pub(super) fn open_descriptors(&self) -> Option<usize> {
        fs::read_dir(self.path("fd")).ok().map(Iterator::count)
    }
}

fn is_agent(pid: u32, namespace: &Path) -> bool {
    let directory = Path::new("/proc").join(pid.to_string());
    let named = fs::read_to_string(directory.join("comm")).is_ok_and(|name| name.trim_end() == NAME);
    // A doctor or a `rules` of another terminal has the same name; what serves has a socket, and they have none.
    named && fs::read_link(directory.join("ns/net")).is_ok_and(|own| own == namespace) && has_socket(&directory)
}

fn has_socket(directory: &Path) -> bool {
    let descriptors = fs::read_dir(directory.join("fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|link| link.to_string_lossy().starts_with("socket:"))
}
