//! Privileges: of the agent that runs, else of who asks, taken for who will start it.

use nix::unistd::{Gid, Uid, User};

use super::{Finding, Subject, Topic};
use crate::config::{Config, EbpfMode, SandboxMode};

/// Numbers of linux/capability.h.
const NEEDED: [(u32, &str); 4] = [(13, "CAP_NET_RAW"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// `CAP_SYS_ADMIN`, which stood for `CAP_BPF` and `CAP_PERFMON` before Linux 5.8, and still includes them.
const SYS_ADMIN: u32 = 21;

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let mut findings = vec![capabilities(subject)];
    findings.extend(subject.config.map(user));
    findings.extend(given_up(subject));
    findings
}

fn capabilities(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new("privileges.start", "eBPF is loaded with these at the start, and given up after it");
    if subject.config.is_some_and(|config| config.ebpf.mode == EbpfMode::Off) {
        return topic.skipped("ebpf = \"off\": none are needed");
    }
    if let Some(running) = &subject.running {
        return topic.skipped(format!("an agent runs (process {}): its start is over", running.pid));
    }
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let Some(effective) = mask(&status, "CapEff:") else {
        return topic.skipped("/proc does not say");
    };
    let missing = missing(effective);
    if missing.is_empty() {
        return topic.ok("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW");
    }
    let found = format!("whoever asks here has no {}", missing.join(", "));
    let remedy = "start the agent as root or by its systemd unit, and ask as root: sudo spip-agent doctor";
    topic.warning(found, remedy)
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective & (1 << number) != 0;
    let covered = |number| has(number) || (number >= 38 && has(SYS_ADMIN));
    NEEDED.iter().filter(|(number, _)| !covered(*number)).map(|(_, name)| *name).collect()
}

fn mask(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The user that the agent becomes, and whether that user can write the log.
fn user(config: &Config) -> Finding {
    let topic =
        Topic::new("privileges.user", "the agent becomes this user after its start, and writes its log as this user");
    let Some(name) = &config.sandbox.user else {
        return topic.ok("user is not set: the agent stays who starts it, without privileges");
    };
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let Ok(Some(user)) = found else {
        let remedy = format!("useradd --system --no-create-home --shell /usr/sbin/nologin {name}, or change user");
        return topic.failure(format!("there is no user {name}"), remedy);
    };
    let directory = config.log.file.as_deref().and_then(std::path::Path::parent);
    let Some(metadata) = directory.and_then(|directory| std::fs::metadata(directory).ok()) else {
        return topic.ok(format!("{name} ({})", user.uid));
    };
    let directory = directory.unwrap_or(std::path::Path::new("/")).display();
    if may_write(&metadata, user.uid, user.gid) {
        return topic.ok(format!("{name} ({}) may write to {directory}", user.uid));
    }
    topic.failure(
        format!("{name} ({}) may not write to {directory}: the log cannot be rotated or opened again", user.uid),
        format!("chown {name} {directory}"),
    )
}

/// By the mode alone: access control lists may still grant or refuse.
fn may_write(metadata: &std::fs::Metadata, uid: Uid, gid: Gid) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let bits = match () {
        () if uid.is_root() => return true,
        () if metadata.uid() == uid.as_raw() => metadata.mode() >> 6,
        () if metadata.gid() == gid.as_raw() => metadata.mode() >> 3,
        () => metadata.mode(),
    };
    bits & 0o3 == 0o3
}

/// What an agent that runs still has.
fn given_up(subject: &Subject<'_>) -> Option<Finding> {
    let running = subject.running.as_ref()?;
    let topic = Topic::new("privileges.kept", "what a running agent keeps is what somebody gets who takes it over");
    let (Some(effective), Some(seccomp)) =
        (running.read("status").and_then(|status| mask(&status, "CapEff:")), running.status("Seccomp"))
    else {
        return Some(topic.skipped(format!("process {} cannot be looked into: run as root", running.pid)));
    };
    // CAP_BPF alone stays where maps cannot be read without it.
    let kept = effective & !(1 << 39);
    Some(if kept == 0 && seccomp == "2" {
        topic.ok(format!("process {} has no capabilities to misuse, and a system call filter", running.pid))
    } else {
        let filter = if seccomp == "2" { "a" } else { "no" };
        let found = format!("process {} has capabilities {effective:#x} and {filter} system call filter", running.pid);
        let off = subject.config.is_some_and(|config| config.sandbox.mode == SandboxMode::Off);
        let remedy = if off {
            "set sandbox = \"auto\", then start it again"
        } else {
            "see the message of target sandbox in its log"
        };
        topic.warning(found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capabilities_of_ebpf_are_named_one_by_one() {
        assert_eq!(missing(u64::MAX), [""; 0]);
        assert_eq!(missing(1 << 13 | 1 << 12), ["CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(missing(1 << 13 | 1 << 12 | 1 << 21), [""; 0]);
        assert_eq!(missing(0).len(), 4);
    }

    #[test]
    fn a_mask_is_read_from_the_status_of_a_process() {
        assert_eq!(mask("Name:\tx\nCapEff:\t00000000a80425fb\n", "CapEff:"), Some(0xa804_25fb));
        assert_eq!(mask("Name:\tx\n", "CapEff:"), None);
    }
}
