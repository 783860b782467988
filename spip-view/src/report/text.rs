//! The report for a terminal. Characters that a terminal would act upon, or that hide or turn text, are shown escaped.

use std::fmt::Write as _;

use super::{Numbers, Report};
use crate::data::{Top, is_shown};

/// Columns of a value.
const WIDTH: usize = 64;

/// Returns the report as text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "Spip report  {} to {}\n", report.from.to_seconds(), report.to.to_seconds());
    for (name, number) in named(&report.numbers) {
        let before = report.before.as_ref().and_then(|before| named(before).into_iter().find(|(own, _)| *own == name));
        let change = before.map_or_else(String::new, |(_, before)| format!("  {}", change(number, before)));
        let _ = writeln!(out, "{name:<14}{number:>14}{change}");
    }
    for (title, list) in lists(report) {
        section(&mut out, title, list);
    }
    for section in &report.new {
        let _ = writeln!(out, "\nNew: {} ({})", section.kind.name(), section.total.value);
        for item in &section.items {
            let value = shown(item.label.as_ref().unwrap_or(&item.value));
            let _ = writeln!(out, "  {}  {value}  from {}", item.first.to_seconds(), item.source);
        }
    }
    out
}

/// Returns the lists of the most frequent with their titles.
pub(super) fn lists(report: &Report) -> [(&'static str, &[Top]); 13] {
    let top = &report.top;
    [
        ("Tags", &top.tags),
        ("Vulnerabilities", &top.cves),
        ("Sources", &top.sources),
        ("Ports", &top.ports),
        ("Protocols", &top.protocols),
        ("Payloads", &top.payloads),
        ("Credentials (protocol, user, secret)", &top.credentials),
        ("User agents", &top.user_agents),
        ("JA4", &top.ja4),
        ("Half-open scans", &top.scanners),
        ("Countries", &top.countries),
        ("Networks", &top.networks),
        ("Known scanners", &top.known_scanners),
    ]
}

/// Returns the numbers with their names.
pub(super) fn named(numbers: &Numbers) -> [(&'static str, u64); 9] {
    let Numbers { sessions, connections, scans, half_open, sources, ports, payloads, credentials, gaps } = *numbers;
    [
        ("sessions", sessions),
        ("connections", connections),
        ("scans", scans),
        ("half_open", half_open),
        ("sources", sources),
        ("ports", ports),
        ("payloads", payloads),
        ("credentials", credentials),
        ("gaps", gaps),
    ]
}

/// Returns a change as people read it: `+12 %`, `new`, `=`.
pub(super) fn change(now: u64, before: u64) -> String {
    match (now, before) {
        (now, before) if now == before => "=".to_owned(),
        (_, 0) => "new".to_owned(),
        (now, before) => format!("{:+.0} %", (now as f64 - before as f64) * 100.0 / before as f64),
    }
}

fn section(out: &mut String, title: &str, list: &[Top]) {
    if list.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    for top in list {
        let _ = writeln!(out, "{:>14}  {}", top.count, shown(top.label.as_ref().unwrap_or(&top.value)));
    }
}

/// Returns a text in one line, escaped and cut.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == WIDTH {
            out.push('…');
            break;
        }
        if is_shown(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    out
}
