//! One message as a JSON object without its closing brace.
//!
//! `timestamp` (Unix seconds), `level`, `message`, `target` and `record_type` come first, then the fields in the order
//! in which they were given. A field that has the name of one of these, or of a member that only records have, gets
//! `field_` before its name. Numbers above 2^53 become strings, as in records: many readers hold them as doubles.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};

use crate::Format;
use crate::entry::unix_micros;
use crate::json::{self, Formatted};

/// Length at which the text of a message or a field is cut, in bytes before it is escaped.
const TEXT_BYTES: usize = 4096;

/// Upper bound of fields per message.
const FIELDS: usize = 128;

/// Names that a field cannot have: readers tell records from messages by them.
const RESERVED: [&str; 9] =
    ["timestamp", "level", "message", "target", "record_type", "name", "run", "seq", "session_id"];

/// The largest integer that every JSON reader keeps exactly.
const EXACT: u64 = 1 << 53;

/// Shape of messages: that of the records beside them.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Format of the envelope.
    pub format: Format,
    /// The sensor, as in the records.
    pub name: Arc<str>,
    /// The run of the agent; empty outside a log.
    pub run: Arc<str>,
    /// The longest line, its end included. Fields that do not fit are left out.
    pub max_bytes: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { format: Format::Flat, name: Arc::from(""), run: Arc::from(""), max_bytes: usize::MAX }
    }
}

/// Start of a message, before its fields.
pub(crate) struct Head<'a> {
    pub(crate) record: &'a Record<'a>,
    /// Microseconds since 1970.
    pub(crate) us: i64,
    /// The sensor; empty where it is not known.
    pub(crate) name: &'a str,
    run: &'a str,
}

impl Head<'_> {
    /// Returns the sensor, where it is known.
    pub(crate) fn name(&self) -> Option<&str> {
        Some(self.name).filter(|name| !name.is_empty())
    }

    /// Returns the run of the agent, where it is known.
    pub(crate) fn run(&self) -> Option<&str> {
        Some(self.run).filter(|run| !run.is_empty())
    }
}

impl Shape {
    /// The line of a message, still open at its end.
    pub fn line(&self, record: &Record<'_>) -> Vec<u8> {
        let head = Head { record, us: unix_micros(SystemTime::now()), name: &self.name, run: &self.run };
        let encoder = self.format.encoder();
        let mut out = Vec::with_capacity(256);
        (encoder.message)(&head, &mut out);
        let mut fields = Fields { out, names: Vec::new(), end: self.max_bytes.saturating_sub(END_BYTES) };
        // A source that fails has said what it could.
        let _ = record.key_values().visit(&mut fields);
        fields.out.extend_from_slice(encoder.after_fields.as_bytes());
        fields.out
    }
}

/// Room for what ends a line: two braces and the line feed.
const END_BYTES: usize = 3;

/// Appends a text as a string, as far as its `Display` goes: writing never fails, but that may.
pub(crate) fn quoted(out: &mut Vec<u8>, text: impl std::fmt::Display) {
    out.push(b'"');
    let _ = write!(Formatted::new(out, TEXT_BYTES), "{text}");
    out.push(b'"');
}

/// Fields on their way into the line.
struct Fields {
    out: Vec<u8>,
    /// Names in use: a second field of a name is left out, for a JSON object has each name once.
    names: Vec<String>,
    /// Bound of the line, in bytes.
    end: usize,
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut name = key.as_str().to_owned();
        if RESERVED.contains(&name.as_str()) {
            name.insert_str(0, "field_");
        }
        if self.names.len() == FIELDS || self.names.contains(&name) {
            return Ok(());
        }
        let start = self.out.len();
        json::key(&mut self.out, &name);
        self.names.push(name);
        let before = self.out.len();
        let visited = value.visit(Member(&mut self.out));
        if visited.is_err() || self.out.len() == before {
            self.out.truncate(before);
            self.out.extend_from_slice(b"null");
        }
        if self.out.len() > self.end {
            self.out.truncate(start);
        }
        Ok(())
    }
}

/// The value of a field.
struct Member<'a>(&'a mut Vec<u8>);

impl Member<'_> {
    fn number(&mut self, exact: bool, text: impl std::fmt::Display) {
        if exact {
            // Digits need no escaping.
            let _ = write!(Formatted::new(self.0, TEXT_BYTES), "{text}");
        } else {
            quoted(self.0, text);
        }
    }
}

impl<'v> VisitValue<'v> for Member<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        quoted(self.0, value);
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.number(value <= EXACT, value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.number(value.unsigned_abs() <= EXACT, value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        // Not a number and infinity compare as false: JSON has neither.
        self.number(value.abs() <= EXACT as f64, value);
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.number(true, value);
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        quoted(self.0, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use log::Level;
    use serde_json::{Value as Json, json};

    use super::*;

    fn of(record: &Record<'_>) -> Vec<u8> {
        Shape::default().line(record)
    }

    fn parsed(mut line: Vec<u8>) -> Json {
        line.push(b'}');
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice(&line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&line)))
    }

    fn with_fields(fields: &[(&str, Value<'_>)]) -> Json {
        parsed(of(&Record::builder()
            .level(Level::Warn)
            .target("ebpf")
            .args(format_args!("not \"ready\"\u{1b}[31m\n"))
            .key_values(&fields)
            .build()))
    }

    #[test]
    fn a_message_has_its_fixed_members_first_and_its_fields_after() {
        let mut line = of(&Record::builder()
            .level(Level::Info)
            .target("start")
            .args(format_args!("ready"))
            .key_values(&("port", 8080))
            .build());
        line.push(b'}');
        let text = String::from_utf8(line).expect("UTF-8");
        let (time, rest) = text["{\"timestamp\":".len()..].split_once(',').expect("a comma");
        assert!(time.parse::<u64>().expect("seconds") > 1_700_000_000);
        assert_eq!(rest, r#""level":"info","message":"ready","target":"start","record_type":"log","port":8080}"#);
    }

    #[test]
    fn messages_have_the_envelope_of_the_records_beside_them_and_the_same_fields() {
        for (format, message, target) in
            [(Format::Ecs, "/message", "/log/logger"), (Format::Eve, "/engine/message", "/engine/module")]
        {
            let shape = Shape {
                format,
                name: Arc::from("sensor \"7\""),
                run: Arc::from("0123456789ab"),
                max_bytes: usize::MAX,
            };
            let fields = [("port", Value::from(8080)), ("a\"b", Value::from("c\u{1b}"))];
            let arguments = format_args!("rea\u{202e}dy");
            let record =
                Record::builder().level(Level::Warn).target("start").args(arguments).key_values(&fields).build();
            let line = parsed(shape.line(&record));
            assert_eq!(line.pointer(message).and_then(Json::as_str), Some("rea\u{202e}dy"));
            assert_eq!(line.pointer(target).and_then(Json::as_str), Some("start"));
            let sensor = if format == Format::Ecs { &line["observer"]["name"] } else { &line["host"] };
            assert_eq!((sensor, &line["spip"]["record_type"]), (&json!("sensor \"7\""), &json!("log")));
            assert_eq!((&line["spip"]["port"], &line["spip"]["a\"b"]), (&json!(8080), &json!("c\u{1b}")));
        }
    }

    #[test]
    fn a_message_stays_within_the_bound_of_lines() {
        let names: Vec<String> = (0..FIELDS).map(|number| format!("f{number}")).collect();
        let text = "\u{85}".repeat(TEXT_BYTES);
        let fields: Vec<(&str, Value<'_>)> =
            names.iter().map(|name| (name.as_str(), Value::from(text.as_str()))).collect();
        for format in [Format::Flat, Format::Ecs, Format::Eve] {
            let shape = Shape {
                format,
                name: Arc::from("\u{85}".repeat(127)),
                run: Arc::from("0123456789ab"),
                max_bytes: 64 << 10,
            };
            let arguments = format_args!("{text}");
            let line = shape.line(&Record::builder().target(&text).args(arguments).key_values(&fields).build());
            assert!(line.len() + 2 <= 64 << 10, "{} bytes", line.len());
            let _ = parsed(line);
        }
    }

    #[test]
    fn values_keep_their_types_and_large_numbers_become_text() {
        let line = with_fields(&[
            ("text", Value::from("a\u{202e}b")),
            ("small", Value::from(1_u64 << 53)),
            ("large", Value::from((1_u64 << 53) + 1)),
            ("negative", Value::from(-5)),
            ("yes", Value::from(true)),
            ("part", Value::from(0.25)),
            ("none", Value::from(f64::NAN)),
            ("huge", Value::from(f64::MAX)),
            ("nothing", Value::null()),
            ("letter", Value::from('x')),
            ("debugged", Value::from_debug(&Some(1))),
        ]);
        assert_eq!(line["message"], "not \"ready\"\u{1b}[31m\n");
        assert_eq!(line["text"], "a\u{202e}b");
        assert_eq!(line["small"], 1_u64 << 53);
        assert_eq!(line["large"], "9007199254740993");
        assert_eq!(line["negative"], -5);
        assert_eq!(line["yes"], true);
        assert_eq!(line["part"], 0.25);
        assert_eq!(line["none"], "NaN");
        assert!(line["huge"].is_string());
        assert_eq!(line["nothing"], Json::Null);
        assert_eq!(line["letter"], "x");
        assert_eq!(line["debugged"], "Some(1)");
    }

    #[test]
    fn a_field_cannot_take_a_fixed_name_nor_come_twice() {
        let line = with_fields(&[
            ("level", Value::from(1)),
            ("seq", Value::from(2)),
            ("a\"b", Value::from(3)),
            ("a\"b", Value::from(4)),
        ]);
        assert_eq!(line["level"], "warn");
        assert_eq!(line["field_level"], 1);
        assert_eq!(line["field_seq"], 2);
        assert_eq!(line["a\"b"], 3);
        assert_eq!(line.get("seq"), None);
    }

    #[test]
    fn a_line_is_bounded_whatever_it_is_given() {
        let text = "\u{85}".repeat(100_000);
        let names: Vec<String> = (0..1000).map(|number| format!("f{number}")).collect();
        let fields: Vec<(&str, Value<'_>)> =
            names.iter().map(|name| (name.as_str(), Value::from(text.as_str()))).collect();
        let line = with_fields(&fields);
        assert_eq!(line.as_object().map(serde_json::Map::len), Some(5 + FIELDS));
        let first = line["f0"].as_str().expect("text");
        assert!(first.len() <= TEXT_BYTES + 3 && first.ends_with('…'));
        assert_eq!(json!(line["f999"]), Json::Null);
    }

    #[test]
    fn a_display_that_fails_leaves_a_whole_line() {
        struct Fails;
        impl std::fmt::Display for Fails {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("half")?;
                Err(std::fmt::Error)
            }
        }
        let line = with_fields(&[("broken", Value::from_display(&Fails)), ("next", Value::from(1))]);
        assert_eq!(line["next"], 1);
    }
}
