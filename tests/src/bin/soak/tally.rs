//! What was sent against what was recorded: each connection once, each half-open SYN counted, and no record too many.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// A connection: its source, and the port that it asked for.
pub(crate) type Key = (IpAddr, u16, u16);

#[derive(Default)]
struct Counts {
    /// Sent and not recorded yet. A port may come back while the record of the one before is being written.
    pending: HashMap<Key, u32>,
    sent: u64,
    recorded: u64,
    refused: u64,
    why_refused: BTreeMap<String, u64>,
    /// Records of nothing that was sent; the first of them.
    unexpected: u64,
    example: Option<String>,
    syns: u64,
    scanned: u64,
    lines: u64,
    bytes: u64,
    ready: bool,
    next_seq: u64,
    gaps: u64,
    reasons: BTreeMap<String, u64>,
    broken: u64,
}

/// The account.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection is about to be opened.
    pub(crate) fn sent(&self, key: Key) {
        let mut counts = self.counts();
        counts.sent += 1;
        *counts.pending.entry(key).or_default() += 1;
    }

    /// It could not be opened after all.
    pub(crate) fn refused(&self, key: Key, why: &str) {
        let mut counts = self.counts();
        counts.sent -= 1;
        counts.refused += 1;
        *counts.why_refused.entry(why.to_owned()).or_default() += 1;
        counts.strike(key);
    }

    /// SYNs are about to be sent that nobody will complete.
    pub(crate) fn scanned(&self, syns: u64) {
        self.counts().syns += syns;
    }

    pub(crate) fn pending(&self) -> usize {
        self.counts().pending.len()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.counts().ready
    }

    /// Connections sent and recorded, bytes of the log.
    pub(crate) fn progress(&self) -> (u64, u64, u64) {
        let counts = self.counts();
        (counts.sent, counts.recorded, counts.bytes)
    }

    /// What is to be said at the end.
    pub(crate) fn verdicts(&self) -> Vec<(bool, String)> {
        let counts = self.counts();
        let example = counts.example.as_deref().map(|line| format!(", such as {line}")).unwrap_or_default();
        let missing: Vec<_> = counts.pending.keys().take(5).collect();
        let missing = if missing.is_empty() { String::new() } else { format!("; without one: {missing:?}") };
        let reasons: Vec<_> = counts.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        vec![
            (
                counts.sent == counts.recorded && counts.pending.is_empty(),
                format!("{} connections, {} records{missing} ({})", counts.sent, counts.recorded, reasons.join(", ")),
            ),
            (counts.unexpected == 0, format!("{} records of nothing that was sent{example}", counts.unexpected)),
            (counts.refused == 0, format!("{} connections were refused {:?}", counts.refused, counts.why_refused)),
            (
                counts.syns == counts.scanned,
                format!("{} half-open SYNs, {} in records of scans", counts.syns, counts.scanned),
            ),
            (
                counts.gaps == 0 && counts.broken == 0,
                format!(
                    "{} lines, {} MB, {} gaps in seq, {} lines that are no JSON",
                    counts.lines,
                    counts.bytes / 1_000_000,
                    counts.gaps,
                    counts.broken
                ),
            ),
        ]
    }
}

impl Counts {
    /// Strikes one connection off; false when there is none to strike.
    fn strike(&mut self, key: Key) -> bool {
        let Some(count) = self.pending.get_mut(&key) else { return false };
        *count -= 1;
        if *count == 0 {
            self.pending.remove(&key);
        }
        true
    }

    fn line(&mut self, text: &str) {
        self.lines += 1;
        self.bytes += text.len() as u64;
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            self.broken += 1;
            return;
        };
        if let Some(seq) = value["seq"].as_u64() {
            self.gaps += u64::from(self.next_seq != 0 && seq != self.next_seq);
            self.next_seq = seq + 1;
        }
        match value["record_type"].as_str() {
            Some("log") => self.ready |= value["message"] == "ready",
            Some("scan") => self.scanned += value["count"].as_u64().unwrap_or(0),
            _ => self.record(&value, text),
        }
    }

    fn record(&mut self, value: &Value, text: &str) {
        let port = |key: &str| value[key].as_u64().and_then(|port| u16::try_from(port).ok());
        let address = value["source_ip"].as_str().and_then(|address| address.parse().ok());
        let key = address.zip(port("source_port")).zip(port("destination_port"));
        let struck = key.is_some_and(|((address, source), destination)| self.strike((address, source, destination)));
        if struck {
            self.recorded += 1;
            let reason = value["close_reason"].as_str().unwrap_or("none").to_owned();
            *self.reasons.entry(reason).or_default() += 1;
        } else {
            self.unexpected += 1;
            self.example.get_or_insert_with(|| text.to_owned());
        }
    }
}

/// Reads the log from its beginning, across rotations, until `stop`, and then to its end.
pub(crate) fn read(log: &Path, tally: &Tally, stop: &AtomicBool) {
    let mut file = None;
    let mut line = String::new();
    loop {
        // Asked before the last look, so that nothing is left unread.
        let last = stop.load(Ordering::Relaxed);
        let Some(reader) = &mut file else {
            file = File::open(log).ok().map(BufReader::new);
            if file.is_none() {
                if last {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            continue;
        };
        let rotated = !is_same(reader.get_ref(), log);
        loop {
            match reader.read_line(&mut line) {
                Ok(1..) if line.ends_with('\n') => {
                    tally.counts().line(line.trim_end());
                    line.clear();
                }
                // The rest of the line comes later.
                Ok(1..) => {}
                _ => break,
            }
        }
        if rotated {
            file = None;
        } else if last {
            return;
        } else {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata().map(identity), std::fs::metadata(path).map(identity)) {
        (Ok(open), Ok(named)) => open == named,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_struck_off_once_and_a_second_record_is_one_too_many() {
        let tally = Tally::default();
        let record = r#"{"source_ip":"198.18.0.1","source_port":7,"destination_port":80,"seq":1}"#;
        tally.sent(("198.18.0.1".parse().expect("address"), 7, 80));
        tally.counts().line(record);
        assert!(tally.verdicts().iter().all(|(fine, _)| *fine), "{:?}", tally.verdicts());
        tally.counts().line(record);
        assert!(!tally.verdicts()[1].0);
        assert!(!tally.verdicts()[4].0, "seq did not go on");
    }

    #[test]
    fn a_connection_without_a_record_and_a_syn_that_was_not_counted_fail() {
        let tally = Tally::default();
        tally.sent(("198.18.0.1".parse().expect("address"), 7, 80));
        tally.scanned(5);
        tally.counts().line(r#"{"record_type":"scan","count":4,"seq":1}"#);
        assert_eq!(
            tally.verdicts().iter().map(|(fine, _)| *fine).collect::<Vec<_>>(),
            [false, true, true, false, true]
        );
    }
}
