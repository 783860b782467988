//! Records held against the published schemas: a field that nobody documented fails the test that wrote it.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::records::Log;

static SCHEMAS: LazyLock<[Validator; 3]> = LazyLock::new(|| {
    [
        include_str!("../../docs/schema/flat.schema.json"),
        include_str!("../../docs/schema/ecs.schema.json"),
        include_str!("../../docs/schema/eve.schema.json"),
    ]
    .map(|text| {
        let schema = serde_json::from_str(text).expect("a schema is JSON");
        jsonschema::validator_for(&schema).expect("a schema is one")
    })
});

/// What is wrong with a record; nothing of a system message, and of a record type that has a page of its own.
#[must_use]
pub fn violations(record: &Value) -> Vec<String> {
    let [flat, ecs, eve] = &*SCHEMAS;
    let is_other = |value: &Value| value.get("record_type").is_some();
    if is_other(record) || record.get("spip").is_some_and(is_other) {
        return Vec::new();
    }
    let schema = if record.get("ecs").is_some() {
        ecs
    } else if record.get("event_type").is_some() {
        eve
    } else {
        flat
    };
    schema.iter_errors(record).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Asserts that every record of a log is valid.
///
/// # Panics
/// With the first record that is not, and all that is wrong with it.
pub fn expect_valid(log: &Log) {
    for line in &log.lines {
        let violations = violations(&line.value);
        assert!(violations.is_empty(), "a record does not follow its schema: {violations:?}\n  {}", line.text);
    }
}
