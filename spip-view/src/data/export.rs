//! Sessions of a query as a file: the records as they were logged (JSONL), or the columns of the list (CSV).
//!
//! In CSV, what a spreadsheet would take for a formula is made text: a cell that begins with `=`, `+`, `-`, `@`, a tab
//! or a carriage return gets an apostrophe before it.

use super::ask::{Ask, Scope};
use super::{SessionLine, line, record};
use crate::filter::Filter;
use crate::store::{Reader, Result};

/// Sessions of one export.
const MAX_SESSIONS: usize = 1_000_000;

/// Sessions that are found at once.
const CHUNK: usize = 500;

/// The form of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Records as they were logged.
    Jsonl,
    /// A table.
    Csv,
}

impl Format {
    /// Returns the type of its content.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jsonl => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// Returns a name for the file.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Jsonl => "spip-sessions.jsonl",
            Self::Csv => "spip-sessions.csv",
        }
    }
}

/// Writes the sessions of the filter, newest first, until `write` reports that the reader is gone.
///
/// # Errors
/// The store does not answer in time: the file is not whole.
pub fn write(reader: &Reader, filter: &Filter, format: Format, write: &mut dyn FnMut(Vec<u8>) -> bool) -> Result<()> {
    if format == Format::Csv {
        let head = "id,time,sensor,source,source_port,destination,port,transport,tls,protocol,bytes_in,duration_us,close_reason,count,summary\r\n";
        if !write(head.as_bytes().to_vec()) {
            return Ok(());
        }
    }
    let mut after: Option<String> = None;
    let mut left = MAX_SESSIONS;
    let mut records = record::Records::new(reader);
    while left > 0 {
        let mut ask = Ask::patient(reader, filter)?;
        if let Some(after) = &after {
            let (day, id) = line::read_session_id(after)?;
            ask = ask.before(day, id);
        }
        let (sessions, next) = line::latest(&ask, &Scope::all(), CHUNK.min(left))?;
        left = left.saturating_sub(sessions.len());
        let mut out = Vec::new();
        for session in &sessions {
            match format {
                Format::Csv => csv(session, &mut out),
                Format::Jsonl => {
                    let (day, id) = line::read_session_id(&session.id)?;
                    match records.line(day, id)? {
                        Ok(line) => out.extend_from_slice(&line),
                        // What the store knows of it, where the record is gone.
                        Err(_) => out.extend(serde_json::to_vec(session).unwrap_or_default()),
                    }
                    out.push(b'\n');
                }
            }
        }
        if !out.is_empty() && !write(out) {
            return Ok(());
        }
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(())
}

fn csv(session: &SessionLine, out: &mut Vec<u8>) {
    let cells = [
        session.id.clone(),
        session.time.to_string(),
        session.sensor.clone(),
        session.source.to_string(),
        session.source_port.to_string(),
        session.destination.to_string(),
        session.port.to_string(),
        session.transport.to_owned(),
        session.is_tls.to_string(),
        session.protocol.clone().unwrap_or_default(),
        session.bytes_in.to_string(),
        session.duration_us.to_string(),
        session.close_reason.clone(),
        session.count.to_string(),
        session.summary.clone().unwrap_or_default(),
    ];
    for (index, text) in cells.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        cell(text, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn cell(text: &str, out: &mut Vec<u8>) {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    out.push(b'"');
    out.extend_from_slice(guard.as_bytes());
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula_and_no_second_cell() {
        let written = |text: &str| {
            let mut out = Vec::new();
            cell(text, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
        for text in ["+1", "-1", "@a", "\tx", "\rx"] {
            assert!(written(text).starts_with("\"'"), "{text:?}");
        }
        assert_eq!(written("a,b"), "\"a,b\"");
    }
}
