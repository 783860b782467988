//! The report as people read it. Names of processes and paths come from elsewhere: whatever could move a terminal's
//! cursor is replaced.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Agent, Report};
use crate::kernel::steering::Confinement;

/// Width of the first column.
const NAMES: usize = 16;
/// Exclusions shown; more are counted.
const MOST_EXCLUSIONS: usize = 200;

/// The whole report, one fact a line.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut page = Page(String::new());
    if let Some(reason) = &report.unreachable {
        page.line("agent", reason);
    }
    if let Some(agent) = &report.agent {
        page.agent(agent);
    }
    if let Some(from) = &report.counters_from {
        page.counters("kernel", from, &report.kernel);
        page.counters("steer", from, &report.steered);
    }
    page.0
}

struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: &str) {
        let value: String = value.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        // Writing into a String cannot fail.
        let _ = writeln!(self.0, "{name:<NAMES$} {value}");
    }

    fn agent(&mut self, agent: &Agent) {
        let Agent { version, name, pid, uid, started, uptime_seconds, config, listener, .. } = agent;
        self.line("agent", &format!("{name}, version {version}, process {pid} of user {uid}"));
        self.line("up", &format!("{} since {started}", duration(*uptime_seconds)));
        self.line("configuration", config);
        let passed = if listener.passed_socket { ", socket of the service manager" } else { "" };
        self.line("listener", &format!("{}, {} workers{passed}", listener.address, listener.workers));
        let programs = &agent.programs;
        self.line("syn_observer", &programs.syn_observer);
        let cgroup = programs.cgroup.as_ref().map(|path| format!(" to {path}")).unwrap_or_default();
        self.line("sock_ops", &format!("{}{cgroup}", programs.sock_ops));
        self.line("syn_arrival", &programs.syn_arrival);
        self.line("steer", &programs.steer);
        self.line("pins", programs.pins.as_deref().unwrap_or("none"));
        for crate::scans::Missed { family, since, reason } in &agent.deaf {
            self.line("deaf", &format!("{family} since {since}: {reason}"));
        }
        self.steering(&agent.steering);
        for super::Step { name, result, detail } in &agent.sandbox {
            self.line("sandbox", &format!("{name} {result}: {detail}"));
        }
        let sessions = &agent.sessions;
        self.line("sessions", &format!("{} open, {} sources remembered", sessions.open, sessions.sources));
        if let Some(waiting) = sessions.waiting_syns {
            self.line("syns", &format!("{waiting} wait for their connection"));
        }
        self.counts("refused", &sessions.refused, "");
        self.counts("origin conflicts", &sessions.origin_conflicts, "");
        let (errors, shortages) = (sessions.accept_errors, sessions.accept_shortages);
        self.line(
            "accept faults",
            &format!("{errors} of the connection, {shortages} for lack of descriptors or memory"),
        );
        self.counts("scans", &agent.scans, "");
        self.log(&agent.log);
        self.fault("system_log", agent.system_log.as_ref());
    }

    fn steering(&mut self, steering: &super::Steering) {
        let families =
            if steering.families.is_empty() { String::new() } else { format!(", {}", steering.families.join(" and ")) };
        self.line("steering", &format!("{}{families}", steering.mode));
        if let Some(link) = &steering.pinned_link {
            self.line("pinned link", link);
        }
        let Confinement { prefixes, interfaces, missing_interfaces } = &steering.confinement;
        if !prefixes.is_empty() {
            let more = prefixes.len().saturating_sub(MOST_EXCLUSIONS);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let first = prefixes.len().min(MOST_EXCLUSIONS);
            self.line("only to", &format!("{}{more}", prefixes[..first].join(", ")));
        }
        if !interfaces.is_empty() {
            self.line("only by", &interfaces.join(", "));
        }
        if !missing_interfaces.is_empty() {
            self.line("not there", &missing_interfaces.join(", "));
        }
        for reason in steering.exclusions.iter().take(MOST_EXCLUSIONS) {
            self.line("left alone", &reason.to_string());
        }
        if steering.exclusions.len() > MOST_EXCLUSIONS {
            self.line("left alone", &format!("and {} more", steering.exclusions.len() - MOST_EXCLUSIONS));
        }
    }

    fn log(&mut self, log: &super::Log) {
        let position = log.position.map(|bytes| format!(" at byte {bytes}")).unwrap_or_default();
        self.line("log", &format!("{}{position}", log.file.as_deref().unwrap_or("standard output")));
        self.line("written", &format!("{} lines, {} bytes, {} rotations", log.lines, log.bytes, log.rotations));
        if log.held_files > 0 || log.unread_removed > 0 {
            let (held, removed) = (log.held_files, log.unread_removed);
            self.line(
                "for readers",
                &format!("{held} closed files kept beyond log_keep_files; {removed} removed unread"),
            );
        }
        let (queued, failures, abandoned) = (log.queued_bytes, log.write_failures, log.abandoned);
        self.line("waiting", &format!("{queued} bytes; {failures} write failures, {abandoned} records abandoned"));
        self.fault("not written", Some(log));
    }

    fn fault(&mut self, name: &str, log: Option<&super::Log>) {
        if let Some(reason) = log.and_then(|log| log.fault.as_ref()) {
            self.line(name, reason);
        }
    }

    fn counters(&mut self, name: &str, from: &str, counters: &BTreeMap<String, u64>) {
        let source = if from == "pins" { " (from the pinned maps)" } else { "" };
        self.counts(&format!("{name} counts"), counters, source);
    }

    fn counts(&mut self, name: &str, counts: &BTreeMap<String, u64>, source: &str) {
        if counts.is_empty() {
            return;
        }
        let shown: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        self.line(name, &format!("{}{source}", shown.join(", ")));
    }
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [(7, "7 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (180_000, "2 d 2 h")] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn nothing_in_a_report_reaches_the_terminal_as_control() {
        let agent = Agent { name: "\u{1b}[2J\u{9b}x\n".to_owned(), ..Agent::default() };
        let page = page(&Report { agent: Some(agent), ..Report::default() });
        assert!(page.contains("?[2J?x?, version"), "{page}");
        assert!(!page.chars().any(|c| c.is_control() && c != '\n'), "{page}");
    }

    #[test]
    fn a_log_that_cannot_be_written_has_a_line_that_says_why() {
        let log = |fault: Option<&str>| super::super::Log { fault: fault.map(str::to_owned), ..Default::default() };
        let shown = |log, system_log| {
            let agent = Agent { log, system_log, ..Agent::default() };
            page(&Report { agent: Some(agent), ..Report::default() })
        };
        assert!(shown(log(Some("full")), None).contains("\nnot written      full\n"));
        assert!(shown(log(None), Some(log(Some("full")))).ends_with("\nsystem_log       full\n"));
        assert!(!shown(log(None), Some(log(None))).contains("not written"));
    }

    #[test]
    fn counters_of_pins_say_so() {
        let kernel = [("syns".to_owned(), 7)].into();
        let report = Report { counters_from: Some("pins".to_owned()), kernel, ..Report::default() };
        assert_eq!(page(&report), "kernel counts    syns 7 (from the pinned maps)\n");
    }
}
