//! Privileges: of the agent that runs, else of who asks, taken for who will start it.

use super::{Finding, Subject, Topic, access};
use crate::config::{EbpfMode, SandboxMode};
use crate::observe::status;

/// Numbers of linux/capability.h.
const NEEDED: [(u32, &str); 4] = [(13, "CAP_NET_RAW"), (12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// `CAP_SYS_ADMIN`, which stood for `CAP_BPF` and `CAP_PERFMON` before Linux 5.8, and still includes them.
const SYS_ADMIN: u32 = 21;

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let mut findings = vec![capabilities(subject)];
    findings.extend(subject.config.zip(subject.path).map(|(config, path)| access::finding(subject, config, path)));
    findings.extend(given_up(subject));
    findings
}

fn capabilities(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new(
        "privileges.start",
        "the start needs these capabilities to load eBPF; the agent drops them afterwards",
    );
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
    let found = format!("this process lacks {}", missing.join(", "));
    let remedy = "start the agent as root or by its systemd unit, and run the doctor as root: sudo spip-agent doctor";
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

/// Returns the capabilities in effect, and those that one call could put in effect.
fn held(status: &str) -> Option<u64> {
    Some(mask(status, "CapEff:")? | mask(status, "CapPrm:")?)
}

/// Checks the rights that a running agent still has.
fn given_up(subject: &Subject<'_>) -> Option<Finding> {
    let running = subject.running.as_ref()?;
    let topic = Topic::new("privileges.kept", "an attacker who takes over the agent gets the rights that it kept");
    let (Some(held), Some(seccomp)) =
        (running.read("status").and_then(|status| held(&status)), running.status("Seccomp"))
    else {
        return Some(topic.skipped(format!("process {} cannot be read: run as root", running.pid)));
    };
    // CAP_BPF alone stays where maps cannot be read without it.
    let kept = held & !(1 << 39);
    Some(if kept == 0 && seccomp == "2" {
        // The filter may be the service manager's, which allows much more: only the agent knows of its own.
        by_steps(topic, running.pid, &subject.answer)
    } else {
        let filter = if seccomp == "2" { "a" } else { "no" };
        let found = format!("process {} has capabilities {held:#x} and {filter} system call filter", running.pid);
        let off = subject.config.is_some_and(|config| config.sandbox.mode == SandboxMode::Off);
        let remedy = if off {
            "set sandbox = \"auto\", then start it again"
        } else {
            "see the message of target sandbox in its log"
        };
        topic.warning(found, remedy)
    })
}

/// Reports the rights that the agent itself says it has given up.
fn by_steps(topic: Topic, pid: u32, answer: &Result<status::Agent, String>) -> Finding {
    let agent = match answer {
        Ok(agent) => agent,
        Err(reason) => {
            return topic.skipped(format!(
                "process {pid} has no capabilities to misuse and some system call filter; whether it is its own is not \
                 known: {reason}"
            ));
        }
    };
    let missing: Vec<_> = agent.sandbox.iter().filter(|step| step.result == "missing").collect();
    if missing.is_empty() && agent.sandbox.iter().any(|step| step.name == "seccomp" && step.result == "done") {
        return topic.ok(format!("process {pid} has dropped every right that the sandbox takes"));
    }
    let reasons: Vec<_> = missing.iter().map(|step| format!("{}: {}", step.name, step.detail)).collect();
    let reasons = if reasons.is_empty() { "it has no sandbox".to_owned() } else { reasons.join("; ") };
    topic.warning(
        format!("process {pid} lacks steps of the sandbox: {reasons}"),
        "fix what each step names, then restart it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::doctor::State;

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
        assert_eq!(held("CapPrm:\t0000000000000001\nCapEff:\t0000000000000002\n"), Some(3));
    }

    #[test]
    fn a_filter_alone_does_not_prove_that_the_agent_gave_up_anything() {
        let state = |steps: &[(&str, &str)]| {
            let step = |(name, result): &(&str, &str)| status::Step {
                name: (*name).to_owned(),
                result: (*result).to_owned(),
                detail: "why".to_owned(),
            };
            let agent = status::Agent { sandbox: steps.iter().map(step).collect(), ..Default::default() };
            by_steps(Topic::new("privileges.kept", ""), 7, &Ok(agent)).state
        };
        assert_eq!(state(&[("user", "skipped"), ("landlock", "done"), ("seccomp", "done")]), State::Ok);
        assert_eq!(state(&[("landlock", "done"), ("seccomp", "missing")]), State::Warning);
        assert_eq!(state(&[("landlock", "missing"), ("seccomp", "done")]), State::Warning);
        assert_eq!(state(&[("sandbox", "skipped")]), State::Warning);
        let unknown = by_steps(Topic::new("privileges.kept", ""), 7, &Err("gone".to_owned()));
        assert_eq!(unknown.state, State::Skipped);
    }
}
