//! The kernel: what eBPF can do here, and what the sandbox can.

use std::path::Path;

use super::{Finding, Subject, Topic, sysctl};
use crate::config::{Config, EbpfMode, SandboxMode};
use crate::confine::sandbox;
use crate::kernel::ebpf::{self, Feature};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const NEWER: &str = "boot a kernel that has it (your distribution's own is built with it); \
                     zgrep BPF /proc/config.gz or grep BPF /boot/config-$(uname -r) says what this one has";

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let mut findings = vec![release(), btf()];
    findings.extend(ebpf(subject.config));
    findings.extend(sandbox(subject.config));
    findings
}

fn release() -> Finding {
    let topic =
        Topic::new("kernel.release", "needs Linux 5.10 or later; features are tried, not derived from the version");
    match nix::sys::utsname::uname() {
        Ok(name) => topic.ok(format!("{} {}", name.release().display(), name.machine().display())),
        Err(error) => topic.skipped(error.to_string()),
    }
}

fn btf() -> Finding {
    let topic = Topic::new(
        "kernel.btf",
        "the kernel's types: bpftool shows structures by name with them; the agent does without",
    );
    topic.ok(if Path::new(BTF).exists() { BTF.to_owned() } else { format!("{BTF} is missing and not needed") })
}

/// The checks of eBPF, as far as the configuration wants it.
fn ebpf(config: Option<&Config>) -> Vec<Finding> {
    let mode = config.map_or(EbpfMode::Auto, |config| config.ebpf.mode);
    if mode == EbpfMode::Off {
        let topic = Topic::new("ebpf.features", "without eBPF, destinations come from connection tracking");
        return vec![topic.skipped("ebpf = \"off\"")];
    }
    let mut findings: Vec<Finding> =
        ebpf::features().into_iter().map(|feature| self::feature(feature, config)).collect();
    findings.push(trial(config, mode));
    findings
}

fn feature(feature: Feature, config: Option<&Config>) -> Finding {
    let Feature { name, purpose, since, state } = feature;
    let check = match name {
        "socket_filter" => "ebpf.socket_filter",
        "sock_ops" => "ebpf.sock_ops",
        "sk_lookup" => "ebpf.sk_lookup",
        "lru_hash" => "ebpf.lru_hash",
        "ring_buffer" => "ebpf.ring_buffer",
        "sock_map" => "ebpf.sock_map",
        "socket_cookie" => "ebpf.socket_cookie",
        _ => "ebpf.netns_cookie",
    };
    let topic = Topic::new(check, format!("needed for {purpose}"));
    match state {
        Ok(true) => topic.ok("supported"),
        Ok(false) if is_required(name, config) => {
            topic.failure(format!("missing in this kernel; Linux {since} has it"), NEWER)
        }
        Ok(false) if !is_used(name, config) => topic.ok("missing in this kernel, and not used"),
        Ok(false) => topic.warning(format!("missing in this kernel; Linux {since} has it"), NEWER),
        Err(reason) => topic.skipped(format!("cannot be tried: {reason}; run as root")),
    }
}

/// Reports whether the agent would not start, or not steer, without a feature.
fn is_required(name: &str, config: Option<&Config>) -> bool {
    let Some(config) = config else { return false };
    match name {
        "sk_lookup" | "sock_map" => super::steering::by_sk_lookup(config),
        "netns_cookie" => false,
        _ => config.ebpf.mode == EbpfMode::Required,
    }
}

fn is_used(name: &str, config: Option<&Config>) -> bool {
    match name {
        "sk_lookup" | "sock_map" => config.is_some_and(super::steering::by_sk_lookup),
        _ => true,
    }
}

fn trial(config: Option<&Config>, mode: EbpfMode) -> Finding {
    let topic = Topic::new(
        "ebpf.programs",
        "without these programs records lack true source ports and scans, and sk_lookup does not steer",
    );
    let Some(config) = config else {
        return topic.skipped("needs a valid configuration: --config FILE");
    };
    let required = mode == EbpfMode::Required || super::steering::by_sk_lookup(config);
    let (found, remedy) = match ebpf::trial(&config.ebpf, super::steering::by_sk_lookup(config)) {
        Ok(programs) => {
            let refused: Vec<_> = programs
                .iter()
                .filter_map(|verdict| Some(format!("{}: {}", verdict.program, verdict.refused.as_ref()?)))
                .collect();
            if refused.is_empty() {
                let names: Vec<_> = programs.iter().map(|verdict| verdict.program.as_str()).collect();
                return topic.ok(format!("the kernel accepts {}", names.join(", ")));
            }
            if !super::is_root() {
                return topic.skipped(format!("{}; run as root", refused.join("; ")));
            }
            (refused.join("; "), NEWER)
        }
        Err(ebpf::Error::NotBuilt) => ("this program was built without eBPF".to_owned(), "cargo xtask build"),
        Err(error) if !super::is_root() => return topic.skipped(format!("{error}; run as root")),
        Err(error) => (error.to_string(), NEWER),
    };
    if required { topic.failure(found, remedy) } else { topic.warning(found, remedy) }
}

/// Checks which parts of the sandbox this kernel has.
fn sandbox(config: Option<&Config>) -> Vec<Finding> {
    let mode = config.map_or(SandboxMode::Auto, |config| config.sandbox.mode);
    let landlock =
        Topic::new("sandbox.landlock", "confines an agent that was taken over to its log, without connections");
    let seccomp = Topic::new("sandbox.seccomp", "refuses most system calls to the agent after its start");
    if mode == SandboxMode::Off {
        return vec![landlock.skipped("sandbox = \"off\""), seccomp.skipped("sandbox = \"off\"")];
    }
    let judged = |topic: Topic, found: &str, remedy: &str| {
        if mode == SandboxMode::Required { topic.failure(found, remedy) } else { topic.warning(found, remedy) }
    };
    let kernel = "boot a kernel with CONFIG_SECURITY_LANDLOCK=y and landlock in lsm= of its command line";
    let landlock = match sandbox::landlock_version() {
        None => judged(landlock, "this kernel has no Landlock, or it is not enabled", kernel),
        // Scopes, the last part that is used, came with version 6 (Linux 6.12).
        Some(version @ 1..6) => judged(
            landlock,
            &format!("version {version}: a part of it; Linux 6.12 has version 6 with all"),
            "boot Linux 6.12 or later",
        ),
        Some(version) => landlock.ok(format!("version {version}")),
    };
    let seccomp = match sysctl("kernel/seccomp/actions_avail") {
        Some(_) => seccomp.ok("available"),
        None => judged(seccomp, "this kernel has no seccomp filters", "boot a kernel with CONFIG_SECCOMP_FILTER=y"),
    };
    vec![landlock, seccomp]
}
