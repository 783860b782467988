//! The report for people: a line for each check, and below each problem its consequence and the fix.

use std::fmt::Write as _;

use super::{Report, State};

/// Width of the longest name of a check.
const NAMES: usize = 24;

pub(super) fn page(report: &Report) -> String {
    let mut page = String::new();
    for finding in &report.findings {
        let mark = match finding.state {
            State::Ok => "ok",
            State::Skipped => "-",
            State::Warning => "WARN",
            State::Failure => "FAIL",
        };
        let indent = format!("\n{:1$}", "", NAMES + 7);
        // Writing into a String cannot fail.
        let _ = writeln!(page, "{mark:<5} {:<NAMES$} {}", finding.check, finding.found.replace('\n', &indent));
        if matches!(finding.state, State::Warning | State::Failure) {
            let _ = writeln!(page, "{:6}means  {}", "", finding.meaning);
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(page, "{:6}fix    {remedy}", "");
            }
        }
    }
    let count = |state| report.findings.iter().filter(|finding| finding.state == state).count();
    let _ = writeln!(
        page,
        "\n{} ok, {} warnings, {} failures, {} skipped",
        count(State::Ok),
        count(State::Warning),
        count(State::Failure),
        count(State::Skipped)
    );
    page
}

#[cfg(test)]
mod tests {
    use super::super::Topic;
    use super::*;

    #[test]
    fn only_what_wants_attention_is_explained() {
        let findings = vec![
            Topic::new("a.well", "unsaid").ok("fine"),
            Topic::new("b.ill", "it matters").failure("broken", "repair it"),
        ];
        let report = Report { version: "0", config: None, state: State::Failure, findings };
        let page = page(&report);
        assert!(
            page.contains("FAIL  b.ill") && page.contains("means  it matters") && page.contains("fix    repair it")
        );
        assert!(!page.contains("unsaid"), "{page}");
        assert!(page.ends_with("1 ok, 0 warnings, 1 failures, 0 skipped\n"), "{page}");
    }
}
