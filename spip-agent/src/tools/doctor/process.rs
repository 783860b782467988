//! The agent that runs here: the one that answers at the status socket, whatever its program is called, else one that is
//! found in `/proc` by the name of its program. Either has to be in this network namespace.
//!
//! A process that cannot be looked into is not an agent for this purpose; what then cannot be said is said by the
//! checks that would need it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::observe::status;

/// Name of the program, as the kernel cuts it to 15 bytes.
const NAME: &str = "spip-agent";

/// A running agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) pid: u32,
}

/// The agent of this network namespace, and what it says of itself at the `status_socket` of the configuration, or why
/// it says nothing.
pub(super) fn find(socket: Option<Option<&Path>>) -> (Option<Running>, Result<status::Agent, String>) {
    let Some(namespace) = namespace("thread-self") else {
        return (None, Err("/proc does not say in which network namespace this is".to_owned()));
    };
    let answer = match socket {
        None => Err("no configuration says where its status_socket is".to_owned()),
        Some(None) => Err("status_socket = \"off\"".to_owned()),
        Some(Some(socket)) => answer(socket, &namespace),
    };
    match answer {
        Ok((running, agent)) => (Some(running), Ok(agent)),
        Err(reason) => (by_name(&namespace), Err(reason)),
    }
}

fn answer(socket: &Path, namespace: &Path) -> Result<(Running, status::Agent), String> {
    let (report, pid) = status::ask_process(socket)?;
    let agent = report.agent.ok_or("the agent sends no status")?;
    let (running, shown) = (Running { pid }, socket.display());
    match self::namespace(&pid.to_string()) {
        Some(own) if own == namespace => Ok((running, agent)),
        Some(_) => Err(format!("the agent at {shown}, process {pid}, is in another network namespace")),
        None => Err(format!("the agent at {shown}, process {pid}, cannot be read: run as root")),
    }
}

/// Of several, the one with the lowest number.
fn by_name(namespace: &Path) -> Option<Running> {
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let agents = processes.filter(|pid| *pid != std::process::id() && is_agent(*pid, namespace));
    agents.min().map(|pid| Running { pid })
}

/// The network namespace of a process.
fn namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(Path::new("/proc").join(process).join("ns/net")).ok()
}

impl Running {
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
    named && self::namespace(&pid.to_string()).is_some_and(|own| own == namespace) && has_socket(&directory)
}

fn has_socket(directory: &Path) -> bool {
    let descriptors = fs::read_dir(directory.join("fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|link| link.to_string_lossy().starts_with("socket:"))
}
