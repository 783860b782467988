//! Numbers of the store and the texts that they stand for: facts, addresses, ports.

use rusqlite::OptionalExtension as _;
use rusqlite::types::ValueRef;

use super::tally::Key;
use crate::row::Kind;
use crate::store::{Error, Reader, Result, key};

/// Returns the number of a fact.
pub(super) fn fact_id(reader: &Reader, kind: Kind, value: &[u8]) -> Result<Option<i64>> {
    reader
        .catalog()
        .query_row(
            "SELECT id FROM facts WHERE hash = ? AND kind = ?",
            (reader.salt().hash(kind, value), kind as u8),
            |row| row.get(0),
        )
        .optional()
        .map_err(|source| reader.failed(source))
}

/// Returns the text of a key, and what to show where that is another one.
pub(crate) fn name(reader: &Reader, kind: Kind, key: &Key) -> Result<(String, Option<String>)> {
    match (kind, key) {
        (Kind::Source | Kind::ScanSource, key) => {
            Ok((key::read_address(ValueRef::from(&key.value())).to_string(), None))
        }
        (Kind::Port | Kind::ScanPort, Key::Number(port)) => Ok((port_text(*port), None)),
        (kind, Key::Number(id)) => {
            let named = reader
                .catalog()
                .prepare_cached("SELECT value, label FROM facts WHERE kind = ? AND id = ?")
                .and_then(|mut statement| {
                    statement
                        .query_row((kind as u8, id), |row| {
                            Ok((fact_text(row.get_ref(0)?), row.get::<_, Option<String>>(1)?))
                        })
                        .optional()
                })
                .map_err(|source| reader.failed(source))?;
            Ok(named.unwrap_or_default())
        }
        (_, Key::Address(_) | Key::Pair(..)) => Ok((String::new(), None)),
    }
}

/// Returns the value of a fact as text: a hash in hexadecimal digits.
pub(super) fn fact_text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ValueRef::Integer(number) => number.to_string(),
        _ => String::new(),
    }
}

/// Returns a port as text: `22`, `53/udp`.
pub(super) fn port_text(port: i64) -> String {
    if port >= key::UDP_PORTS { format!("{}/udp", port - key::UDP_PORTS) } else { port.to_string() }
}

/// Reads what [`port_text`] wrote.
pub(super) fn read_port(text: &str) -> Result<i64> {
    let (number, udp) = match text.split_once('/') {
        Some((number, "udp")) => (number, key::UDP_PORTS),
        Some((number, "tcp")) => (number, 0),
        Some(_) => ("", 0),
        None => (text, 0),
    };
    let port: Option<u16> = number.parse().ok();
    port.map(|port| i64::from(port) + udp).ok_or_else(|| Error::NotFound(format!("port {text}")))
}
