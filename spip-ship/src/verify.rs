//! Compares what an engine has with what was logged, by (`name`, `run`, `seq`): missing and double, per sensor and run.
//!
//! Where the source is a log, everything that is in it has to be in the engine; the engine may have more, of files that are
//! gone. Where the source is a stream, the same holds for what is in the stream. Numbers that neither side has are gaps: the
//! agent counts a record that it could not write, so they are shown and no failure.

mod engine;
mod ranges;

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::runtime::Handle;

pub use self::engine::stored;
pub use self::ranges::Ranges;
use crate::config::{Config, NatsAccess, Sink, Source as SourceConfig};
use crate::sink::Failure;

/// The records of each sensor and run.
pub type Records = BTreeMap<(String, String), Ranges>;

/// Findings of one sensor and run.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The sensor.
    pub name: String,
    /// The run; empty for versions without.
    pub run: String,
    /// Records in the source.
    pub logged: u64,
    /// Records in the engine.
    pub stored: u64,
    /// Records that are in the source and not in the engine.
    pub missing: u64,
    /// The first of them, as ranges.
    pub missing_ranges: Vec<(u64, u64)>,
    /// Records that the engine has more than once.
    pub double: u64,
    /// Numbers within the run that neither has.
    pub gaps: u64,
}

/// Ranges of missing numbers that are shown.
const SHOWN: usize = 20;

/// Adds the records of `lines` to `records`.
pub fn add(bytes: &[u8], records: &mut Records) {
    for line in crate::line::lines(bytes) {
        let Ok(identity) = crate::line::identity(line) else { continue };
        let (Some(name), Some(seq)) = (identity.name, identity.seq) else { continue };
        let run = identity.run.unwrap_or_default();
        records.entry((name.into_owned(), run.into_owned())).or_default().insert(seq);
    }
}

/// Reads what is in the source of `config`.
///
/// # Errors
/// The source cannot be read.
pub fn logged(config: &Config, handle: &Handle) -> Result<Records, Failure> {
    match &config.source {
        SourceConfig::Log(path) => engine::of_log(path),
        SourceConfig::Nats(source) => engine::of_stream(&source.access, None, handle),
    }
}

/// Compares both sides.
#[must_use]
pub fn compare(logged: &Records, stored: &Records) -> Vec<Finding> {
    let none = Ranges::default();
    logged
        .iter()
        .map(|((name, run), of_log)| {
            let of_engine = stored.get(&(name.clone(), run.clone())).unwrap_or(&none);
            let missing = of_log.without(of_engine);
            let mut both = of_engine.clone();
            of_log.iter().for_each(|(start, end)| both.add(start, end));
            Finding {
                name: name.clone(),
                run: run.clone(),
                logged: of_log.len(),
                stored: of_engine.len(),
                missing: missing.len(),
                missing_ranges: missing.iter().take(SHOWN).collect(),
                double: of_engine.repeated(),
                gaps: both.gaps(),
            }
        })
        .collect()
}

/// Returns the subject filter for the sensors of `records`.
fn subjects(access: &NatsAccess, records: &Records) -> Vec<String> {
    let mut subjects: Vec<_> =
        records.keys().map(|(name, _)| crate::nats::subject_of(&access.subject_prefix, name)).collect();
    subjects.dedup();
    subjects
}

/// Compares source and engine of one sink, and prints the result.
///
/// # Errors
/// One of both cannot be read.
pub fn run(config: &Config, sink: &Sink, handle: &Handle, as_json: bool) -> Result<bool, Failure> {
    let logged = logged(config, handle)?;
    let stored = stored(sink, &logged, handle)?;
    let findings = compare(&logged, &stored);
    let is_whole = findings.iter().all(|finding| finding.missing == 0 && finding.double == 0);
    if as_json {
        let text = serde_json::json!({ "sink": sink.name, "complete": is_whole, "runs": findings });
        println!("{text}");
        return Ok(is_whole);
    }
    println!(
        "{:<24} {:<20} {:>12} {:>12} {:>9} {:>7} {:>6}",
        "sensor", "run", "logged", "stored", "missing", "double", "gaps"
    );
    for finding in &findings {
        println!(
            "{:<24} {:<20} {:>12} {:>12} {:>9} {:>7} {:>6}",
            shown(&finding.name),
            shown(&finding.run),
            finding.logged,
            finding.stored,
            finding.missing,
            finding.double,
            finding.gaps
        );
        for (start, end) in &finding.missing_ranges {
            println!("    missing {start} to {end}");
        }
    }
    println!("{}: {}", sink.name, if is_whole { "everything is there, once" } else { "not everything is there once" });
    Ok(is_whole)
}

/// Makes a name fit for a terminal.
fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(lines: &str) -> Records {
        let mut records = Records::new();
        add(lines.as_bytes(), &mut records);
        records
    }

    #[test]
    fn missing_double_and_gaps_are_told_apart() {
        let logged = records(
            "{\"name\":\"s\",\"run\":\"r\",\"seq\":1}\n{\"name\":\"s\",\"run\":\"r\",\"seq\":2}\n{\"name\":\"s\",\"run\":\"r\",\"seq\":5}\n{\"message\":\"ready\"}\nhalf\n",
        );
        let stored = records(
            "{\"name\":\"s\",\"run\":\"r\",\"seq\":1}\n{\"name\":\"s\",\"run\":\"r\",\"seq\":1}\n{\"name\":\"s\",\"run\":\"r\",\"seq\":5}\n{\"name\":\"s\",\"run\":\"old\",\"seq\":1}\n",
        );
        let findings = compare(&logged, &stored);
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!((finding.logged, finding.stored, finding.missing, finding.double), (3, 2, 1, 1));
        assert_eq!(finding.missing_ranges, [(2, 2)]);
        assert_eq!(finding.gaps, 2, "3 and 4");
    }
}
