//! Checks that only the running agent can answer: whether its log takes records, and whether the
//! programs that the configuration wants are in the kernel.

use super::{Finding, Subject, Topic, disk};
use crate::config::{Config, EbpfMode};
use crate::observe::status::{Agent, Log, Programs};

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let writing = Topic::new(
        "log.writing",
        "records wait in memory while the log cannot be written; when that is full, connections wait unrecorded",
    );
    let attached =
        Topic::new("ebpf.attached", "without them records have the source port after NAT, and scans are not recorded");
    let (agent, config) = match (subject.running.as_ref(), subject.answer.as_ref(), subject.config(&writing)) {
        (_, _, Err(_)) => return Vec::new(),
        (None, ..) => return vec![writing.skipped("no agent runs"), attached.skipped("no agent runs")],
        (_, Err(reason), _) => return vec![writing.skipped(reason), attached.skipped(reason)],
        (_, Ok(agent), Ok(config)) => (agent, config),
    };
    vec![self::writing(writing, agent), self::attached(attached, &agent.programs, config)]
}

fn writing(topic: Topic, agent: &Agent) -> Finding {
    let logs = [("the log", Some(&agent.log)), ("system_log", agent.system_log.as_ref())];
    let at_fault = logs.into_iter().find_map(|(name, log)| Some((name, log?, log?.fault.as_deref()?)));
    let Some((name, log, reason)) = at_fault else {
        let Log { lines, write_failures, abandoned, .. } = agent.log;
        return topic
            .ok(format!("{lines} lines written; {write_failures} interruptions, {abandoned} records abandoned"));
    };
    let Log { queued_bytes, abandoned, .. } = log;
    let found = format!(
        "{name} cannot be written: {reason}; {} wait in memory, {abandoned} records abandoned",
        disk::size(*queued_bytes)
    );
    let file = log.file.as_deref().unwrap_or("standard output");
    let remedy = if log.file.as_ref().is_some_and(|file| disk::is_full(file.as_ref())) {
        format!("free space on the disk of {file}; the agent tries again every second")
    } else {
        format!("fix what keeps {file} from being written; the agent tries again every second")
    };
    topic.failure(found, remedy)
}

fn attached(topic: Topic, programs: &Programs, config: &Config) -> Finding {
    if config.ebpf.mode == EbpfMode::Off {
        return topic.skipped("ebpf = \"off\"");
    }
    let wanted = [
        ("syn_observer", &programs.syn_observer, true),
        ("sock_ops", &programs.sock_ops, true),
        ("syn_arrival", &programs.syn_arrival, config.scans.enabled),
    ];
    let wanted = || wanted.iter().filter(|(.., wanted)| *wanted);
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, said, _) in wanted().filter(|(_, said, _)| *said != "attached") {
        match reasons.iter_mut().find(|(reason, _)| reason == said) {
            Some((_, names)) => names.push(name),
            None => reasons.push((said, vec![name])),
        }
    }
    if reasons.is_empty() {
        let names: Vec<_> = wanted().map(|(name, ..)| *name).collect();
        return topic.ok(format!("the running agent has {}", names.join(", ")));
    }
    let reasons: Vec<_> = reasons.iter().map(|(reason, names)| format!("{}: {reason}", names.join(", "))).collect();
    topic.warning(
        format!("the running agent lacks {}", reasons.join("; ")),
        "fix that, then restart the agent as root or by its systemd unit: programs are attached at the start only",
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::State;
    use super::*;

    #[test]
    fn programs_that_are_missing_for_one_reason_are_named_with_it_once() {
        let judged = |text: &str, said: [&str; 3]| {
            let text = format!("ip = \"::\"\nport = 1\n{text}");
            let config = Config::from_str(&text, Path::new("/spip.toml")).expect("valid").config;
            let [syn_observer, sock_ops, syn_arrival] = said.map(str::to_owned);
            let programs = Programs { syn_observer, sock_ops, syn_arrival, ..Programs::default() };
            attached(Topic::new("ebpf.attached", ""), &programs, &config)
        };
        assert_eq!(judged("", ["attached"; 3]).state, State::Ok);
        assert_eq!(judged("scans = false", ["attached", "attached", "scans = false"]).state, State::Ok);
        assert_eq!(judged("ebpf = \"off\"", ["no"; 3]).state, State::Skipped);
        let missing = judged("", ["no", "attached", "no"]);
        assert_eq!(missing.state, State::Warning);
        assert_eq!(missing.found, "the running agent lacks syn_observer, syn_arrival: no");
    }

    #[test]
    fn a_fault_of_either_log_is_a_failure() {
        let log = |fault: Option<&str>| Log { fault: fault.map(str::to_owned), ..Log::default() };
        let judged =
            |log, system_log| writing(Topic::new("log.writing", ""), &Agent { log, system_log, ..Agent::default() });
        assert_eq!(judged(log(None), Some(log(None))).state, State::Ok);
        assert_eq!(judged(log(Some("why")), None).state, State::Failure);
        assert!(judged(log(None), Some(log(Some("why")))).found.starts_with("system_log cannot be written: why"));
    }
}
