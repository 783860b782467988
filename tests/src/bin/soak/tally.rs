//! Compares the load with the records: each connection once, each half-open SYN counted, and no record too many.

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

use crate::Verdict;

/// Ends that the load brings about. Any other is the agent's: `rejected`, `aborted`, or a client that it did not let
/// go.
const ENDS: [&str; 7] = [
    "client_closed",
    "client_reset",
    "server_closed",
    "first_byte_timeout",
    "idle_timeout",
    "session_timeout",
    "tls_error",
];
/// Those that come in every minute of it.
const SURE_ENDS: [&str; 3] = ["client_closed", "client_reset", "first_byte_timeout"];

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
    /// Clients that began a handshake, and records of completed ones.
    tls_clients: u64,
    tls_completed: u64,
    syns: u64,
    scanned: u64,
    /// SYNs sent while something kept them from the agent: it may record them as a scan, or not.
    kept_away: u64,
    /// Times that the agent said that it is deaf, that this is over, and that it had reason to.
    deaf: u64,
    hearing: u64,
    cuts: u64,
    /// Reloads asked for, and those that the agent has done.
    reloads: u64,
    reloaded: u64,
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

    /// A connection could not even be begun.
    pub(crate) fn not_opened(&self, why: &str) {
        let mut counts = self.counts();
        counts.refused += 1;
        *counts.why_refused.entry(why.to_owned()).or_default() += 1;
    }

    /// The client of a connection speaks TLS.
    pub(crate) fn speaks_tls(&self) {
        self.counts().tls_clients += 1;
    }

    /// The agent was told to read its configuration again.
    pub(crate) fn reloaded(&self) {
        self.counts().reloads += 1;
    }

    /// It could not be opened after all.
    pub(crate) fn refused(&self, key: Key, why: &str) {
        let mut counts = self.counts();
        counts.sent -= 1;
        counts.refused += 1;
        *counts.why_refused.entry(why.to_owned()).or_default() += 1;
        counts.strike(key);
    }

    /// Half-open SYNs are about to be sent.
    pub(crate) fn scanned(&self, syns: u64) {
        self.counts().syns += syns;
    }

    /// SYNs are about to be sent that do not reach the agent.
    pub(crate) fn kept_away(&self, syns: u64) {
        self.counts().kept_away += syns;
    }

    /// The agent is cut off from now on.
    pub(crate) fn cut(&self) {
        self.counts().cuts += 1;
    }

    /// Reports whether the agent has said that it is deaf, and whether that this is over, each as often as it was cut off.
    pub(crate) fn noticed(&self) -> (bool, bool) {
        let counts = self.counts();
        (counts.deaf >= counts.cuts, counts.hearing >= counts.cuts)
    }

    pub(crate) fn pending(&self) -> usize {
        self.counts().pending.len()
    }

    /// Reports whether everything that was sent is in records.
    pub(crate) fn is_settled(&self) -> bool {
        let counts = self.counts();
        counts.pending.is_empty() && counts.scanned >= counts.syns
    }

    /// SYNs that became no connection: half-open ones, and those that were kept away.
    pub(crate) fn unaccepted(&self) -> u64 {
        let counts = self.counts();
        counts.syns + counts.kept_away
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.counts().ready
    }

    /// Connections sent and recorded, bytes of the log.
    pub(crate) fn progress(&self) -> (u64, u64, u64) {
        let counts = self.counts();
        (counts.sent, counts.recorded, counts.bytes)
    }

    /// Returns the verdicts at the end, when at least `wanted` connections were to be made.
    pub(crate) fn verdicts(&self, wanted: u64) -> Vec<Verdict> {
        let counts = self.counts();
        let example = counts.example.as_deref().map(|line| format!(", such as {line}")).unwrap_or_default();
        let missing: Vec<_> = counts.pending.keys().take(5).collect();
        let missing = if missing.is_empty() { String::new() } else { format!("; without one: {missing:?}") };
        let reasons: Vec<_> = counts.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let expected = counts.reasons.keys().all(|reason| ENDS.contains(&reason.as_str()))
            && SURE_ENDS.iter().all(|reason| counts.reasons.contains_key(*reason));
        vec![
            (
                counts.sent == counts.recorded && counts.pending.is_empty(),
                format!("{} connections, {} records{missing}", counts.sent, counts.recorded),
            ),
            (
                counts.sent > 0 && counts.sent >= wanted,
                format!("{} connections were made, at least {wanted} were to be", counts.sent),
            ),
            (expected, format!("their ends: {}", reasons.join(", "))),
            (
                // A client may be cut off in the middle of its handshake on a machine that has much to do.
                counts.tls_clients > 0
                    && counts.tls_completed * 100 >= counts.tls_clients * 95
                    && counts.tls_completed <= counts.tls_clients,
                format!("{} clients spoke TLS, {} completed handshakes", counts.tls_clients, counts.tls_completed),
            ),
            (counts.unexpected == 0, format!("{} records of nothing that was sent{example}", counts.unexpected)),
            (counts.refused == 0, format!("{} connections were refused {:?}", counts.refused, counts.why_refused)),
            (
                counts.syns > 0 && (counts.syns..=counts.syns + counts.kept_away).contains(&counts.scanned),
                format!(
                    "{} half-open SYNs, and {} while the agent was cut off; {} in records of scans",
                    counts.syns, counts.kept_away, counts.scanned
                ),
            ),
            (
                counts.deaf == counts.cuts && counts.hearing == counts.cuts,
                format!(
                    "{} times cut off, {} times said to be deaf, {} times to hear again",
                    counts.cuts, counts.deaf, counts.hearing
                ),
            ),
            (
                counts.reloads > 0 && counts.reloads == counts.reloaded,
                format!("{} reloads were asked for, {} done", counts.reloads, counts.reloaded),
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

    /// Strikes off at most `count` connections of a source; returns how many there were.
    fn strike_others(&mut self, source: IpAddr, count: u64) -> u64 {
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        let of_source = self.pending.iter().filter(|(key, _)| key.0 == source);
        let keys: Vec<Key> = of_source.flat_map(|(key, times)| (0..*times).map(|_| *key)).take(most).collect();
        keys.into_iter().map(|key| u64::from(self.strike(key))).sum()
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
            Some("log") => {
                self.ready |= value["message"] == "ready";
                if value["target"] == "deaf" {
                    self.deaf += u64::from(value["level"] == "error");
                    self.hearing += u64::from(value["level"] == "info");
                }
                self.reloaded += u64::from(value.get("changed").is_some());
            }
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
            // A summary of refused connections stands for others of its source, too.
            let others = value["count"].as_u64().unwrap_or(1).saturating_sub(1);
            self.recorded += 1 + address.map_or(0, |address| self.strike_others(address, others));
            self.tls_completed += u64::from(value.get("tls_version").is_some());
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

    /// An account in which everything is as it should be.
    fn well() -> Tally {
        let tally = Tally::default();
        let ends = ["client_closed", "client_reset", "first_byte_timeout"];
        for (port, reason) in (1_u16..).zip(ends) {
            let tls = if port == 1 { "\"tls_version\":\"TLS 1.3\"," } else { "" };
            tally.sent(("198.18.0.1".parse().expect("address"), port, 80));
            tally.counts().line(&record(port, &format!("{tls}\"close_reason\":\"{reason}\",\"seq\":{port}")));
        }
        tally.speaks_tls();
        tally.scanned(5);
        tally.counts().line(r#"{"record_type":"scan","count":5,"seq":4}"#);
        tally.reloaded();
        tally.counts().line(r#"{"record_type":"log","message":"reopened","changed":"","seq":5}"#);
        tally
    }

    fn record(port: u16, rest: &str) -> String {
        format!(r#"{{"source_ip":"198.18.0.1","source_port":{port},"destination_port":80,{rest}}}"#)
    }

    fn failed(tally: &Tally, wanted: u64) -> Vec<String> {
        tally.verdicts(wanted).into_iter().filter(|(fine, _)| !fine).map(|(_, text)| text).collect()
    }

    #[test]
    fn a_connection_is_struck_off_once_and_a_second_record_is_one_too_many() {
        let tally = well();
        assert!(tally.is_settled());
        assert!(failed(&tally, 3).is_empty(), "{:?}", failed(&tally, 3));
        tally.counts().line(&record(1, "\"close_reason\":\"client_closed\",\"seq\":1"));
        let failed = failed(&tally, 3);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(failed[0].starts_with("1 records of nothing") && failed[1].contains("1 gaps in seq"), "{failed:?}");
    }

    #[test]
    fn a_connection_without_a_record_and_a_syn_that_was_not_counted_fail() {
        let tally = well();
        tally.sent(("198.18.0.1".parse().expect("address"), 7, 80));
        tally.scanned(1);
        assert!(!tally.is_settled());
        let failed = failed(&tally, 3);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(
            failed[0].contains("without one: [(198.18.0.1, 7, 80)]") && failed[1].contains("half-open"),
            "{failed:?}"
        );
    }

    #[test]
    fn a_summary_strikes_off_as_many_connections_of_its_source_as_it_counts() {
        let tally = well();
        for port in 20..24 {
            tally.sent(("198.18.0.1".parse().expect("address"), port, 80));
        }
        tally.sent(("198.18.0.2".parse().expect("address"), 20, 80));
        tally.counts().line(&record(20, "\"close_reason\":\"rejected\",\"count\":3,\"seq\":6"));
        assert_eq!((tally.pending(), tally.progress().1), (2, 6));
    }

    #[test]
    fn deafness_without_a_cause_and_a_cut_that_is_not_noticed_fail() {
        let said = |level| format!(r#"{{"record_type":"log","target":"deaf","level":"{level}","message":""}}"#);
        let tally = well();
        tally.counts().line(&said("error"));
        assert_eq!(failed(&tally, 3), ["0 times cut off, 1 times said to be deaf, 0 times to hear again"]);
        tally.cut();
        assert_eq!(tally.noticed(), (true, false));
        tally.counts().line(&said("info"));
        assert_eq!((tally.noticed(), failed(&tally, 3).len()), ((true, true), 0));
    }

    #[test]
    fn syns_that_were_kept_away_may_be_recorded_or_not() {
        let tally = well();
        tally.kept_away(3);
        assert!(failed(&tally, 3).is_empty());
        tally.counts().line(r#"{"record_type":"scan","count":3,"seq":6}"#);
        assert!(failed(&tally, 3).is_empty());
        tally.counts().line(r#"{"record_type":"scan","count":1,"seq":7}"#);
        assert_eq!(failed(&tally, 3).len(), 1);
    }

    #[test]
    fn nothing_sent_and_nothing_recorded_is_no_success() {
        let failed = failed(&Tally::default(), 0);
        assert_eq!(failed.len(), 5, "{failed:?}");
    }

    #[test]
    fn fewer_connections_than_wanted_and_those_that_could_not_be_opened_fail() {
        let tally = well();
        tally.not_opened("no port is left");
        let failed = failed(&tally, 4);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(failed[1].contains("no port is left"), "{failed:?}");
    }

    #[test]
    fn an_end_that_the_load_did_not_bring_about_fails() {
        for reason in ["aborted", "rejected", "write_timeout", "shutdown"] {
            let tally = well();
            tally.sent(("198.18.0.1".parse().expect("address"), 9, 80));
            tally.counts().line(&record(9, &format!("\"close_reason\":\"{reason}\",\"seq\":6")));
            let failed = failed(&tally, 3);
            assert!(failed.len() == 1 && failed[0].starts_with("their ends"), "{reason}: {failed:?}");
        }
    }

    #[test]
    fn tls_clients_without_a_completed_handshake_fail() {
        let tally = well();
        tally.speaks_tls();
        assert_eq!(failed(&tally, 3), ["2 clients spoke TLS, 1 completed handshakes"]);
    }

    #[test]
    fn a_reload_that_the_agent_has_not_done_fails() {
        let tally = well();
        tally.reloaded();
        assert_eq!(failed(&tally, 3), ["2 reloads were asked for, 1 done"]);
    }
}
