//! `spip-agent status`: what an agent is doing, asked of itself and of the kernel.
//!
//! The running agent answers on a socket in the file system, which only its own user and root can open. The answer is
//! one JSON document, written to each client; nothing is ever read from a client, and one is served at a time, for a
//! second at most. Where the agent cannot be asked (it is gone, belongs to another user, or does not answer), the
//! kernel's counters are read from the pinned maps.
//!
//! The socket says what only the agent knows; it changes nothing, and no client can make it do so.

mod client;
mod server;
mod table;

pub use client::{ask, ask_process, from_pins};
pub use server::{Error, Server, Sources};
pub use table::page;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::confine::sandbox::{self, StepResult};
use crate::kernel::ebpf::Part;
use crate::kernel::steering::{Confinement, Reason};
use crate::scans::Missed;

/// Everything that is known. Keys are the field names, and those that are unknown are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// State of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// Reason why the agent did not answer, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// Source of `kernel` and `steered`: `agent` or `pins`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters_from: Option<String>,
    /// The kernel side's counters, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kernel: BTreeMap<String, u64>,
    /// The counters of steering, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub steered: BTreeMap<String, u64>,
}

/// An agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// Name of the sensor.
    pub name: String,
    /// Process number, in the namespace of the agent.
    pub pid: u32,
    /// User number.
    pub uid: u32,
    /// Time at which the agent was ready, RFC 3339.
    pub started: String,
    /// Whole seconds since then.
    pub uptime_seconds: u64,
    /// The configuration file.
    pub config: String,
    /// Listener.
    pub listener: Listener,
    /// Programs in the kernel.
    pub programs: Programs,
    /// Steering of connections to other ports.
    pub steering: Steering,
    /// Rights that it has given up, step by step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sandbox: Vec<Step>,
    /// Connections.
    pub sessions: Sessions,
    /// Address families of which no SYN reaches the listener, though some should.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deaf: Vec<Missed>,
    /// Counts of SYNs by their fate; absent when scans are not recorded (`programs.syn_arrival` has the reason).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scans: BTreeMap<String, u64>,
    /// The log.
    pub log: Log,
    /// The log of its own messages, where they have a file of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_log: Option<Log>,
}

/// Listener of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// Address and port.
    pub address: String,
    /// Number of worker threads.
    pub workers: usize,
    /// Set when a service manager opened the socket.
    pub passed_socket: bool,
}

/// Programs in the kernel: `attached`, or why they are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Programs {
    /// Sees SYNs.
    pub syn_observer: String,
    /// Sees connections.
    pub sock_ops: String,
    /// Sees SYNs that reach the listener: what scans are made of.
    pub syn_arrival: String,
    /// Leads connections to the agent.
    pub steer: String,
    /// The cgroup of `sock_ops`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The directory of pinned maps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pins: Option<String>,
}

/// Steering of connections to other ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Steering {
    /// `redirect` or `sk_lookup`.
    pub mode: String,
    /// Families that are steered; with `redirect` it is not the agent's to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<String>,
    /// The pinned link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned_link: Option<String>,
    /// Confinement of steering.
    #[serde(flatten)]
    pub confinement: Confinement,
    /// Exclusions, each with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclusions: Vec<Reason>,
}

/// A step of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// `user`, `capabilities`, `no_new_privs`, `landlock`, `seccomp`; `sandbox` where there is none.
    pub name: String,
    /// `done`, `skipped` or `missing`.
    pub result: String,
    /// Result, or the reason why the step was not taken, or not wholly.
    pub detail: String,
}

impl From<&sandbox::Step> for Step {
    fn from(step: &sandbox::Step) -> Self {
        let (result, detail) = match &step.result {
            StepResult::Done(what) => ("done", what.as_str()),
            StepResult::Skipped(why) => ("skipped", *why),
            StepResult::Missing(why) => ("missing", why.as_str()),
        };
        Self { name: step.name.to_owned(), result: result.to_owned(), detail: detail.to_owned() }
    }
}

/// Connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sessions {
    /// Open now.
    pub open: usize,
    /// Sources that are remembered for the limits.
    pub sources: usize,
    /// Connections that wait in SYNS to be established; absent without eBPF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_syns: Option<u64>,
    /// Refused since the start, by the limit that did it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// Recorded since the start although the kernel contradicts the SYN that the packet filter saw, by the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub origin_conflicts: BTreeMap<String, u64>,
    /// Accepts that failed because of the connection.
    pub accept_errors: u64,
    /// Accepts that failed for lack of descriptors or memory.
    pub accept_shortages: u64,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// The file; absent for standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Size of the file now: where the next line goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Lines written since the start.
    pub lines: u64,
    /// Bytes written since the start.
    pub bytes: u64,
    /// Bytes that wait in memory.
    pub queued_bytes: u64,
    /// Files closed by rotation.
    pub rotations: u64,
    /// Closed files that are kept beyond `log_keep_files`, because a reader needs them.
    pub held_files: u64,
    /// Closed files that were removed although a reader needed them.
    pub unread_removed: u64,
    /// Reason why nothing can be written now; absent when the log can be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Number of times that an error stopped writing.
    pub write_failures: u64,
    /// Records that were given up.
    pub abandoned: u64,
}

fn said<T>(part: &Part<T>) -> String {
    part.missing().map_or_else(|| "attached".to_owned(), str::to_owned)
}

fn named(counters: impl IntoIterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}
