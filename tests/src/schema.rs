//! Lines held against the published schemas: an undocumented field fails the test that wrote it.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::records::{Line, Log};

/// Those of sessions, scans and messages, of each format.
static SCHEMAS: LazyLock<[[Validator; 3]; 3]> = LazyLock::new(|| {
    [
        [
            include_str!("../../docs/schema/flat.schema.json"),
            include_str!("../../docs/schema/flat-scan.schema.json"),
            include_str!("../../docs/schema/flat-log.schema.json"),
        ],
        [
            include_str!("../../docs/schema/ecs.schema.json"),
            include_str!("../../docs/schema/ecs-scan.schema.json"),
            include_str!("../../docs/schema/ecs-log.schema.json"),
        ],
        [
            include_str!("../../docs/schema/eve.schema.json"),
            include_str!("../../docs/schema/eve-scan.schema.json"),
            include_str!("../../docs/schema/eve-log.schema.json"),
        ],
    ]
    .map(|schemas| {
        schemas.map(|text| {
            let schema = serde_json::from_str(text).expect("a schema is JSON");
            jsonschema::validator_for(&schema).expect("a schema is one")
        })
    })
});

/// Returns the mistakes of a line, be it the record of a session, of a scan, or a system message.
#[must_use]
pub fn violations(record: &Value) -> Vec<String> {
    let [flat, ecs, eve] = &*SCHEMAS;
    let [session, scan, message] = if record.get("ecs").is_some() {
        ecs
    } else if record.get("event_type").is_some() {
        eve
    } else {
        flat
    };
    let schema = match Line::type_of(record) {
        None => session,
        Some("scan") => scan,
        Some("log") => message,
        Some(other) => return vec![format!("record_type: nothing documents {other}")],
    };
    schema.iter_errors(record).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Asserts that every line of a log is valid.
///
/// # Panics
/// With the first line that is not, and all that is wrong with it.
pub fn expect_valid(log: &Log) {
    for line in &log.lines {
        let violations = violations(&line.value);
        assert!(violations.is_empty(), "a line does not follow its schema: {violations:?}\n  {}", line.text);
    }
}
