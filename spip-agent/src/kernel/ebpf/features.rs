//! eBPF features of this kernel, found by trying: each feature by a program or map of two instructions,
//! and all of it by loading the programs themselves, unpinned and attached to nothing.
//!
//! Versions are never compared: distributions carry features back, and lockdown or a sandbox takes them away.

use aya::maps::MapType;
use aya::programs::{Program, ProgramError, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};

use super::{Error, Request, loader};

/// Something that the programs are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Short, for scripts.
    pub name: &'static str,
    /// Purpose, which is lost without it.
    pub purpose: &'static str,
    /// From which kernel on it is usually there.
    pub since: &'static str,
    /// State, or the reason why it cannot be determined.
    pub state: Result<bool, String>,
}

/// Verdict of the verifier about one program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verdict {
    /// Name of the program.
    pub program: String,
    /// Reason of a refusal.
    pub refused: Option<String>,
}

/// Tries every feature that the programs use.
#[must_use]
pub fn features() -> Vec<Feature> {
    let program = |kind| is_program_supported(kind).map_err(|error| loader::reason(&error, "CAP_BPF"));
    let map = |kind| is_map_supported(kind).map_err(|error| loader::reason(&error, "CAP_BPF"));
    let helper = |kind, helper| is_helper_supported(kind, helper).map_err(|error| loader::reason(&error, "CAP_BPF"));
    let feature = |name, since, purpose, state| Feature { name, purpose, since, state };
    vec![
        feature("socket_filter", "3.19", "true source ports behind NAT, and scans", program(ProgramType::SocketFilter)),
        feature("sock_ops", "4.13", "true source ports behind NAT, and scans", program(ProgramType::SockOps)),
        feature("sk_lookup", "5.9", "steering = \"sk_lookup\"", program(ProgramType::SkLookup)),
        feature("lru_hash", "4.10", "every use of eBPF", map(MapType::LruHash)),
        feature("ring_buffer", "5.8", "every use of eBPF", map(MapType::RingBuf)),
        feature("sock_map", "4.14", "steering = \"sk_lookup\"", map(MapType::SockMap)),
        feature(
            "socket_cookie",
            "4.19",
            "true source ports behind NAT",
            helper(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_socket_cookie),
        ),
        feature(
            "netns_cookie",
            "5.14",
            "telling connections of containers apart from those of the sensor",
            helper(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie),
        ),
    ]
}

/// Has the verifier look at every program, with maps of the configured size. Nothing is attached, nothing stays.
///
/// # Errors
/// The object cannot be loaded at all.
pub fn trial(config: &crate::config::Ebpf, steers: bool) -> Result<Vec<Verdict>, Error> {
    let request = Request::trial(config, steers);
    let mut ebpf = loader::load_for_trial(&request)?;
    let mut results: Vec<_> = ebpf
        .programs_mut()
        // Without steering, the agent does not load this one either.
        .filter(|(_, program)| steers || !matches!(program, Program::SkLookup(_)))
        .map(|(name, program)| Verdict {
            program: name.to_owned(),
            refused: load(program).err().map(|error| loader::reason(&error, CAPABILITIES)),
        })
        .collect();
    results.sort();
    Ok(results)
}

const CAPABILITIES: &str = "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SocketFilter(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
