//! Reading a log: lines become records and messages, and expectations of them fail with the closest ones.
//!
//! An expectation is a JSON object that a record must contain: nested objects likewise, `null` for a key that must be
//! absent. Lines that are not JSON are kept apart as torn, and a test that does not ask for them fails on them.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// One line of a log.
#[derive(Clone, Debug)]
pub struct Line {
    /// The line as it was written, without its end.
    pub text: String,
    /// Its meaning.
    pub value: Value,
    /// Time at which the test saw it.
    pub seen: Instant,
}

impl Line {
    /// Returns the type of a record that is not a session: `log` for a system message, `scan`.
    #[must_use]
    pub fn record_type(&self) -> Option<&str> {
        Self::type_of(&self.value)
    }

    /// The same of a value, whatever its format.
    pub(crate) fn type_of(value: &Value) -> Option<&str> {
        [&value["record_type"], &value["spip"]["record_type"]].into_iter().find_map(Value::as_str)
    }

    /// Reports whether this is a system message.
    #[must_use]
    pub fn is_message(&self) -> bool {
        self.record_type() == Some("log")
    }

    /// Reports whether an expectation is about such a record: about a session, unless it asks for a `record_type`.
    pub(crate) fn is_asked_for(&self, expected: &Value) -> bool {
        !self.is_message() && (self.record_type().is_none() || expected.get("record_type").is_some())
    }
}

/// The lines read of a log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Every line that is a JSON object, in order.
    pub lines: Vec<Line>,
    /// Lines that are not; empty lines are left out.
    pub torn: Vec<String>,
}

impl Log {
    /// Adds a line.
    pub(crate) fn push(&mut self, text: &str) {
        let text = text.trim_end_matches(['\n', '\r']);
        match serde_json::from_str::<Value>(text) {
            Ok(value) if value.is_object() => {
                self.lines.push(Line { text: text.to_owned(), value, seen: Instant::now() });
            }
            _ if text.is_empty() => {}
            _ => self.torn.push(text.to_owned()),
        }
    }

    /// All lines, whatever they are: those that are JSON, then the others.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| &line.text).chain(&self.torn);
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// The records of sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.record_type().is_none())
    }

    /// The records, of sessions and of scans.
    pub fn records(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !line.is_message())
    }

    /// The system messages.
    pub fn messages(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.is_message())
    }

    /// The records of sessions that contain `expected`; of scans where it asks for a `record_type`.
    #[must_use]
    pub fn matching(&self, expected: &Value) -> Vec<&Value> {
        self.asked_for(expected).map(|line| &line.value).filter(|value| contains(value, expected)).collect()
    }

    /// The records among which `expected` is looked for.
    fn asked_for(&self, expected: &Value) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.is_asked_for(expected))
    }

    /// The one record that contains `expected`.
    ///
    /// # Panics
    /// When there is none, or more than one, with the closest records.
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub fn expect_one(&self, expected: Value) -> &Value {
        let found = self.matching(&expected);
        assert!(found.len() == 1, "{}", self.explain(&expected, 1, found.len()));
        found[0]
    }

    /// Asserts that exactly `count` records contain `expected`.
    ///
    /// # Panics
    /// When there are fewer or more, with the closest records.
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub fn expect_count(&self, count: usize, expected: Value) {
        let found = self.matching(&expected).len();
        assert!(found == count, "{}", self.explain(&expected, count, found));
    }

    /// Returns the number of connections that the records with `expected` stand for: a summary counts for all of its
    /// connections.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "reads better with json! at the call")]
    pub fn connections(&self, expected: Value) -> u64 {
        self.matching(&expected).iter().map(|record| record["count"].as_u64().unwrap_or(1)).sum()
    }

    /// Asserts that every line is whole.
    ///
    /// # Panics
    /// With the first line that is not.
    pub fn expect_whole(&self) {
        assert!(self.torn.is_empty(), "{} lines are not JSON, the first: {:?}", self.torn.len(), self.torn[0]);
    }

    /// Asserts that `seq` counts the records of one process, sessions and scans alike, without a gap or a repetition.
    ///
    /// # Panics
    /// With the numbers that are missing or doubled.
    pub fn expect_sequence(&self) {
        let mut numbers: Vec<u64> =
            self.records().map(|line| line.value["seq"].as_u64().expect("every record has seq")).collect();
        numbers.sort_unstable();
        let gaps: Vec<_> = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).take(5).collect();
        assert!(gaps.is_empty(), "seq has gaps or doubles between: {gaps:?}");
        assert!(numbers.first().is_none_or(|first| *first <= 1), "seq starts at {:?}", numbers.first());
    }

    /// Explains why an expectation failed: the number found, and the records that come closest.
    pub(crate) fn explain(&self, expected: &Value, wanted: usize, found: usize) -> String {
        let mut text =
            format!("wanted {wanted} of {} records to contain {expected}, found {found}\n", self.records().count());
        let mut scored: Vec<_> = self
            .asked_for(expected)
            .map(|line| {
                let mut differences = Vec::new();
                let matching = compare(&line.value, expected, "", &mut differences);
                (matching, differences, line)
            })
            .collect();
        scored.sort_by_key(|(matching, ..)| std::cmp::Reverse(*matching));
        for (matching, differences, line) in scored.iter().take(4) {
            let shown: String = line.text.chars().take(900).collect();
            let _ = writeln!(text, "- {matching} fields as wanted; {}\n  {shown}", differences.join(", "));
        }
        for line in &self.torn {
            let _ = writeln!(text, "- not JSON: {line:?}");
        }
        for line in self.messages().take(40) {
            let shown: String = line.text.chars().take(400).collect();
            let _ = writeln!(text, "  {shown}");
        }
        text
    }
}

/// Reads a whole log file; a last line without an end counts as torn even where it is JSON.
///
/// # Panics
/// When the file cannot be read.
#[must_use]
pub fn read_log(path: &Path) -> Log {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut log = Log::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        if line.ends_with(b"\n") {
            log.push(&text);
        } else {
            log.torn.push(text.into_owned());
        }
    }
    log
}

/// The bytes that a record says the client sent.
///
/// # Panics
/// When the record has no `payload_hex`.
#[must_use]
pub fn payload(record: &Value) -> Vec<u8> {
    hex::decode(record["payload_hex"].as_str().expect("a record has payload_hex")).expect("payload_hex is hexadecimal")
}

/// The keys of a line in the order in which they stand in it, doubles included.
///
/// # Panics
/// When the line is not a JSON object.
#[must_use]
pub fn field_order(line: &str) -> Vec<String> {
    struct Keys(Vec<String>);
    impl<'de> serde::Deserialize<'de> for Keys {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Collect;
            impl<'de> Visitor<'de> for Collect {
                type Value = Keys;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                    let mut keys = Vec::new();
                    while let Some((key, IgnoredAny)) = map.next_entry()? {
                        keys.push(key);
                    }
                    Ok(Keys(keys))
                }
            }
            deserializer.deserialize_map(Collect)
        }
    }
    serde_json::from_str::<Keys>(line).expect("a line is a JSON object").0
}

/// Reports whether `value` has everything that `expected` has.
pub(crate) fn contains(value: &Value, expected: &Value) -> bool {
    let mut differences = Vec::new();
    compare(value, expected, "", &mut differences);
    differences.is_empty()
}

/// Counts the fields that are as expected and describes the others.
fn compare(value: &Value, expected: &Value, path: &str, differences: &mut Vec<String>) -> usize {
    if let (Value::Object(fields), false) = (expected, value.is_null()) {
        return fields
            .iter()
            .map(|(key, expected)| compare(&value[key.as_str()], expected, &format!("{path}.{key}"), differences))
            .sum();
    }
    if value == expected {
        return 1;
    }
    differences.push(format!("{path} is {value}, not {expected}"));
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn log(lines: &[&str]) -> Log {
        let mut log = Log::default();
        lines.iter().for_each(|line| log.push(line));
        log
    }

    #[test]
    fn a_record_contains_a_part_of_itself_and_lacks_what_is_null() {
        let record = json!({"a": 1, "syn": {"ttl": 64, "mss": 1460}});
        assert!(contains(&record, &json!({"syn": {"ttl": 64}, "tls": null})));
        assert!(!contains(&record, &json!({"syn": null})));
        assert!(!contains(&record, &json!({"syn": {"ttl": 63}})));
        assert!(!contains(&record, &json!({"tls": {"sni": "x"}})));
    }

    #[test]
    fn the_closest_record_is_shown_first() {
        let log = log(&[r#"{"a":9,"b":9,"c":9}"#, r#"{"a":1,"b":2,"c":9}"#]);
        let text = log.explain(&json!({"a": 1, "b": 2, "c": 3}), 1, 0);
        assert!(text.contains("- 2 fields as wanted; .c is 9, not 3\n  {\"a\":1"), "{text}");
    }

    #[test]
    fn messages_are_no_sessions_and_broken_lines_are_torn() {
        let log = log(&[r#"{"record_type":"log"}"#, r#"{"a":1}"#, r#"{"a":"#, "", "7"]);
        assert_eq!((log.sessions().count(), log.messages().count(), log.torn.len()), (1, 1, 2));
    }

    #[test]
    fn a_stray_scan_is_no_session_and_found_where_it_is_asked_for() {
        for scan in [r#"{"record_type":"scan","seq":1}"#, r#"{"spip":{"record_type":"scan"},"seq":1}"#] {
            let log = log(&[scan, r#"{"a":1,"seq":2}"#]);
            assert_eq!((log.sessions().count(), log.records().count(), log.messages().count()), (1, 2, 0));
            log.expect_count(1, json!({}));
            log.expect_sequence();
        }
        let log = log(&[r#"{"record_type":"scan","seq":1}"#]);
        log.expect_one(json!({"record_type": "scan"}));
        log.expect_count(0, json!({"seq": 1}));
    }

    #[test]
    #[should_panic(expected = "seq has gaps")]
    fn a_missing_number_is_a_gap() {
        log(&[r#"{"seq":0}"#, r#"{"seq":3}"#, r#"{"seq":1}"#]).expect_sequence();
    }

    #[test]
    fn keys_come_in_the_order_of_the_line() {
        assert_eq!(field_order(r#"{"b":{"z":1},"a":[1],"b":2}"#), ["b", "a", "b"]);
    }
}
