//! The table: made where it is not there, checked where it is, and given the columns that a later version adds.
//!
//! A migration is an entry at the end of [`COLUMNS`]: a table of an earlier version gets the column by
//! `ALTER TABLE … ADD COLUMN`, with its default for the rows that are there. Columns are never removed or retyped; a column
//! of another type is refused with both types.

use serde_json::Value;

use super::rows;
use crate::config::Clickhouse as Config;
use crate::sink::Failure;
use crate::web::Server;

/// Blocks that a table remembers: with one a second that is almost three hours of retries.
const WINDOW: u64 = 10_000;

/// Columns in the order of their introduction, with type.
const COLUMNS: &[(&str, &str)] = &[
    ("name", "LowCardinality(String)"),
    ("run", "String"),
    ("seq", "UInt64"),
    ("id", "String"),
    ("time", "DateTime64(6, 'UTC')"),
    ("record_type", "LowCardinality(String)"),
    ("transport", "LowCardinality(String)"),
    ("source_ip", "IPv6"),
    ("source_port", "UInt16"),
    ("destination_ip", "IPv6"),
    ("destination_port", "UInt16"),
    ("session_id", "String"),
    ("is_tls", "Bool"),
    ("protocol", "LowCardinality(String)"),
    ("close_reason", "LowCardinality(String)"),
    ("duration_us", "UInt64"),
    ("bytes_in", "UInt64"),
    ("bytes_out", "UInt64"),
    ("count", "UInt64"),
    ("payload_sha256", "String"),
    ("community_id", "String"),
    ("tls_server_name", "String"),
    ("tls_ja4", "String"),
    ("ssh_hassh", "String"),
    ("record", "String"),
];

/// Returns the table with its database, quoted.
pub(crate) fn name(config: &Config) -> String {
    format!("`{}`.`{}`", config.database, config.table)
}

/// Makes the table, or checks and completes it.
pub(super) fn prepare(server: &mut Server, config: &Config) -> Result<(), Failure> {
    let name = name(config);
    rows(server, &creation(config)).map_err(|failure| Failure {
        message: format!("cannot make the table {name}: {}", failure.message),
        after: failure.after,
    })?;
    check_columns(server, config)?;
    check_engine(server, config)
}

/// Returns the statement that makes the table.
fn creation(config: &Config) -> String {
    let columns: Vec<_> = COLUMNS
        .iter()
        .map(|(column, kind)| {
            let codec = if *column == "record" { " CODEC(ZSTD(3))" } else { "" };
            format!("`{column}` {kind}{codec}")
        })
        .collect();
    format!(
        "CREATE TABLE IF NOT EXISTS {} ({}) ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(time) \
         ORDER BY (name, run, seq, id) SETTINGS non_replicated_deduplication_window = {WINDOW}",
        name(config),
        columns.join(", ")
    )
}

fn check_columns(server: &mut Server, config: &Config) -> Result<(), Failure> {
    let query = format!(
        "SELECT name, type FROM system.columns WHERE database = '{}' AND table = '{}' FORMAT JSONEachRow",
        config.database, config.table
    );
    let found = rows(server, &query)?;
    if found.is_empty() {
        log::warn!("clickhouse: system.columns shows nothing of {}: its columns cannot be checked", name(config));
        return Ok(());
    }
    let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    for (column, kind) in COLUMNS {
        match found.iter().find(|row| text(row, "name") == *column) {
            Some(row) if text(row, "type") == *kind => {}
            Some(row) => {
                return Err(Failure::new(format!(
                    "{} has {column} {}, not {kind}: rename the table, or set table to another name",
                    name(config),
                    text(row, "type")
                )));
            }
            None => {
                rows(server, &format!("ALTER TABLE {} ADD COLUMN IF NOT EXISTS `{column}` {kind}", name(config)))?;
                log::info!("clickhouse: added the column {column} to {}", name(config));
            }
        }
    }
    Ok(())
}

fn check_engine(server: &mut Server, config: &Config) -> Result<(), Failure> {
    let query = format!(
        "SELECT engine, engine_full FROM system.tables WHERE database = '{}' AND name = '{}' FORMAT JSONEachRow",
        config.database, config.table
    );
    let found = rows(server, &query)?;
    let Some(row) = found.first() else {
        log::warn!("clickhouse: system.tables shows nothing of {}: deduplication cannot be checked", name(config));
        return Ok(());
    };
    let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
    judge(text("engine"), text("engine_full")).or_else(|problem| {
        if config.require_deduplication {
            return Err(Failure::new(format!(
                "{} {problem}, or set deduplication = \"off\" and count with FINAL",
                name(config)
            )));
        }
        log::warn!("clickhouse: {} {problem}; deduplication = \"off\" accepts that", name(config));
        Ok(())
    })
}

/// Says what is missing for repeated inserts to be recognised.
fn judge(engine: &str, full: &str) -> Result<(), String> {
    if !engine.contains("ReplacingMergeTree") {
        return Err(format!("has the engine {engine}, not ReplacingMergeTree: make it anew"));
    }
    // Replicated tables have a window of their own, by default of 10,000 blocks.
    let key = if engine.starts_with("Replicated") || engine.starts_with("Shared") {
        "replicated_deduplication_window"
    } else {
        "non_replicated_deduplication_window"
    };
    let window = full
        .split([',', ' '])
        .skip_while(|word| *word != key)
        .nth(2)
        .and_then(|number| number.trim().parse::<u64>().ok());
    match window {
        Some(0) => Err(format!("has {key} = 0: ALTER TABLE … MODIFY SETTING {key} = {WINDOW}")),
        None if key.starts_with("non") => {
            Err(format!("does not discard repeated inserts: ALTER TABLE … MODIFY SETTING {key} = {WINDOW}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_a_window_is_refused() {
        let full = "ReplacingMergeTree PARTITION BY toYYYYMM(time) ORDER BY (name, run, seq, id) SETTINGS \
                    non_replicated_deduplication_window = 10000, index_granularity = 8192";
        assert_eq!(judge("ReplacingMergeTree", full), Ok(()));
        assert!(judge("ReplacingMergeTree", "ReplacingMergeTree ORDER BY name").is_err());
        assert!(judge("ReplacingMergeTree", &full.replace("10000", "0")).is_err());
        assert!(judge("MergeTree", full).expect_err("another engine").contains("not ReplacingMergeTree"));
        assert_eq!(judge("ReplicatedReplacingMergeTree", "ReplicatedReplacingMergeTree('/p', 'r')"), Ok(()));
    }
}
