//! A line as an action and a document of the Elastic Common Schema.
//!
//! The id is that of the event: the session's, or a hash of the line where there is none. What is a session or a scan, and
//! how it looks in this schema, `spip-record` knows.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use spip_record::read::{self, Line};
use spip_record::{Format, Tail};

use super::super::bulk::Item;
use crate::state::hex;

/// The version of the schema that system messages follow.
const ECS: &str = "9.3.0";

/// Fields of a system message; an agent writes about ten.
const FIELDS: usize = 64;

/// Appends action and document.
pub(super) fn write(item: &Item<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    let written = append(item, out);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn append(item: &Item<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let by_hash = || hex(&Sha256::digest(item.line)[..16]);
    match read::line(item.line).map_err(|error| format!("not a record of the flat format: {error}"))? {
        Line::Session(entry) => {
            action(&entry.session_id.to_string(), out);
            Format::Ecs.encode(&entry, out);
            end(entry.seq, out);
        }
        Line::Scan(scan) => {
            action(&by_hash(), out);
            scan.encode(Format::Ecs, out);
            end(scan.seq, out);
        }
        Line::Other(kind) if kind == "log" => {
            action(&by_hash(), out);
            let document = message(item)?;
            serde_json::to_writer(&mut *out, &document).map_err(|error| error.to_string())?;
            out.push(b'\n');
        }
        Line::Other(kind) => return Err(format!("records of type {kind} have no form in the Elastic Common Schema")),
    }
    Ok(())
}

fn action(id: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(json!({ "create": { "_id": id } }).to_string().as_bytes());
    out.push(b'\n');
}

/// Ends a document as the log ends its line.
fn end(seq: Option<u64>, out: &mut Vec<u8>) {
    let tail = Format::Ecs.tail();
    match seq {
        Some(seq) => out.extend_from_slice(tail.write(&mut [0; Tail::BYTES], seq)),
        None => {
            out.extend_from_slice(tail.end.as_bytes());
            out.push(b'\n');
        }
    }
}

/// Makes the document of a system message: what the schema has no field for is under `spip`.
///
/// Its fields are what an agent writes, because an index takes the type of a field from the first document that has it: a
/// stolen sensor must not choose it.
fn message(item: &Item<'_>) -> Result<Value, String> {
    let wrong = |error: serde_json::Error| format!("not a record of the flat format: {error}");
    // Counts the values before they take memory.
    read::any(item.line).map_err(wrong)?;
    let mut fields: Map<String, Value> = serde_json::from_slice(item.line).map_err(wrong)?;
    if fields.len() > FIELDS {
        return Err(format!("a system message with {} fields, more than {FIELDS}", fields.len()));
    }
    if let Some((key, _)) = fields.iter().find(|(_, value)| value.is_object() || value.is_array()) {
        return Err(format!("a system message whose {key} is neither text nor a number"));
    }
    let mut take = |key: &str| fields.remove(key).unwrap_or(Value::Null);
    let seconds = take("timestamp").as_i64().unwrap_or_default();
    let time = match take("time") {
        Value::String(time) => time.parse().map_err(|error: jiff::Error| format!("time {time:?}: {error}"))?,
        _ => jiff::Timestamp::from_second(seconds).map_err(|error| format!("timestamp: {error}"))?,
    };
    let mut text = |key: &str| match fields.remove(key) {
        Some(Value::String(text)) => Some(text),
        other => other.filter(|value| !value.is_null()).map(|value| value.to_string()),
    };
    let (level, logger, message) = (text("level"), text("target"), text("message"));
    Ok(json!({
        "@timestamp": time.to_string(),
        "ecs": { "version": ECS },
        "event": { "kind": "event", "module": "spip", "dataset": "spip.log" },
        "observer": { "name": item.sensor, "type": "sensor", "product": "spip" },
        "log": { "level": level, "logger": logger },
        "message": message,
        "spip": fields,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(line: &str) -> Result<(Value, Value), String> {
        let mut out = b"before\n".to_vec();
        write(&Item { sensor: "s", line: line.as_bytes() }, &mut out)?;
        let text = String::from_utf8(out).expect("UTF-8");
        let mut lines = text.lines().skip(1).map(|line| serde_json::from_str(line).expect("JSON"));
        Ok((lines.next().expect("an action"), lines.next().expect("a document")))
    }

    #[test]
    fn a_system_message_has_an_id_of_its_own_and_its_fields_under_spip() {
        let line =
            r#"{"timestamp":1795944926,"level":"INFO","message":"ready","target":"spip","record_type":"log","port":1}"#;
        let (action, message) = document(line).expect("a message");
        assert_eq!(action["create"]["_id"].as_str().expect("an id").len(), 32);
        assert_eq!(message["@timestamp"], "2026-11-29T09:35:26Z");
        assert_eq!((message["message"].as_str(), message["spip"]["port"].as_u64()), (Some("ready"), Some(1)));
    }

    #[test]
    fn a_system_message_that_no_agent_writes_is_refused() {
        let log = |keys: &str| document(&format!("{{\"timestamp\":1,\"record_type\":\"log\",{keys}}}"));
        let many = |count: usize| (0..count).map(|at| format!("\"k{at}\":1")).collect::<Vec<_>>().join(",");
        assert!(log(&many(30)).is_ok());
        let values = format!("\"k\":[{}1]", "1,".repeat(100_000));
        for (keys, expected) in [
            (many(1_000).as_str(), "fields, more than 64"),
            (&values, "too many values"),
            (r#""port":{"a":1}"#, "whose port is neither"),
            (r#""time":"x""#, "time: "),
        ] {
            let reason = log(keys).expect_err(keys);
            assert!(reason.contains(expected), "{reason}");
        }
        assert_eq!(log(r#""message":5"#).expect("a message").1["message"], "5");
    }

    #[test]
    fn what_is_no_record_leaves_nothing_behind() {
        for line in ["{", "[]", r#"{"schema":"spip/2"}"#, r#"{"record_type":"other"}"#] {
            let mut out = Vec::new();
            assert!(write(&Item { sensor: "s", line: line.as_bytes() }, &mut out).is_err(), "{line}");
            assert!(out.is_empty(), "{line}");
        }
    }
}
