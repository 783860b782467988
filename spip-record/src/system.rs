//! System messages beside records of ECS and EVE: the envelope, up to where the text stands.

use log::Level;

use super::object::Members;
use super::{ecs, eve};

/// Appends the start of a message in ECS: its time, sensor and level; the object `log` stays open for its origin.
pub(crate) fn ecs(level: Level, us: i64, name: &str, out: &mut Vec<u8>) {
    let mut record = Members::open(out);
    record.time("@timestamp", us);
    ecs::envelope(name, &mut record);
    record.constant(r#","event":{"kind":"event","module":"spip","dataset":"spip.log"}"#);
    let mut log = record.nested("log");
    log.word("level", &level.as_str().to_ascii_lowercase());
}

/// Appends the start of a message in EVE, an event of Suricata's type `engine`; the object stays open.
pub(crate) fn eve(level: Level, us: i64, name: &str, out: &mut Vec<u8>) {
    let mut event = Members::open(out);
    eve::time(&mut event, "timestamp", us);
    event.constant(r#","event_type":"engine""#);
    event.text("host", name);
    event.word(
        "log_level",
        match level {
            Level::Error => "Error",
            Level::Warn => "Warning",
            Level::Info => "Info",
            Level::Debug | Level::Trace => "Debug",
        },
    );
}
