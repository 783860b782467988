//! Inserts into a table of ClickHouse over HTTP.
//!
//! Two nets catch a repeated insert. A request carries `insert_deduplication_token`, made from the cut of the batch that is
//! stored before it is sent: a server whose table has a deduplication window discards it. What comes later than the window
//! has the same sorting key, and `ReplacingMergeTree` keeps one of them; `FINAL` sees one at once.

mod row;
mod table;

pub(crate) use self::table::name as table_name;

use serde_json::Value;

use super::bulk::{Item, Said, Work};
use super::{Delivery, Failure, Sink};
use crate::batch::{Batch, Place};
use crate::config::Clickhouse as Config;
use crate::state::State;
use crate::web::{Answer, Server};

/// Exceptions of ClickHouse by which a row is at fault: `ErrorCodes.cpp`.
mod exception {
    /// `CANNOT_PARSE_…`, `INCORRECT_DATA`, `TYPE_MISMATCH` and the like.
    pub(super) const DATA: [u32; 12] = [6, 26, 27, 38, 41, 53, 72, 117, 131, 321, 349, 441];
    /// `UNKNOWN_TABLE`, `UNKNOWN_DATABASE`: removed while the shipper runs.
    pub(super) const MISSING: [u32; 2] = [60, 81];
    /// `NO_SUCH_COLUMN_IN_TABLE`, `UNKNOWN_IDENTIFIER`.
    pub(super) const COLUMN: [u32; 2] = [16, 47];
    /// `TOO_MANY_PARTS`: also an insert into more months than `max_partitions_per_insert_block`, which that one's text names.
    pub(super) const PARTS: u32 = 252;
}

/// The sink.
pub struct Clickhouse {
    config: Config,
    server: Server,
    work: Work,
    is_ready: bool,
}

impl Clickhouse {
    /// Makes the sink.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let server = Server::new(config.access.clone());
        Self { config, server, work: Work::default(), is_ready: false }
    }
}

impl Sink for Clickhouse {
    fn open(&mut self, state: &State) -> Result<Option<Place>, Failure> {
        table::prepare(&mut self.server, &self.config)?;
        self.is_ready = true;
        let _ = state;
        Ok(None)
    }

    fn deliver(&mut self, batch: &Batch, state: &State) -> Result<Delivery, Failure> {
        if !self.is_ready {
            table::prepare(&mut self.server, &self.config)?;
            self.is_ready = true;
        }
        let (server, config, is_ready) = (&mut self.server, &self.config, &mut self.is_ready);
        let done = self.work.send(batch, state, &mut |lines, token| insert(server, config, is_ready, lines, token))?;
        Ok(Delivery::Stored { duplicates: done.duplicates, rejects: done.rejects })
    }
}

fn insert(
    server: &mut Server,
    config: &Config,
    is_ready: &mut bool,
    lines: &[Item<'_>],
    token: &str,
) -> Result<Said, Failure> {
    let mut body = Vec::with_capacity(lines.iter().map(|item| item.line.len() * 2).sum());
    let mut unfit = Vec::new();
    for (index, item) in lines.iter().enumerate() {
        if let Err(reason) = row::write(item, &mut body) {
            unfit.push((index, reason));
        }
    }
    if !body.is_empty() {
        let query = format!(
            "/?insert_deduplicate=1&insert_deduplication_token={token}&async_insert=0&wait_end_of_query=1\
             &input_format_skip_unknown_fields=1&date_time_input_format=best_effort&query={}",
            escaped(&format!("INSERT INTO {} FORMAT JSONEachRow", table::name(config)))
        );
        let answer = ask(server, &query, &body)?;
        if !answer.is_success() {
            return failed(server.url(), config, is_ready, &answer);
        }
    }
    Ok(Said::Accepted { duplicates: 0, unfit, refused: Vec::new(), again: Vec::new() })
}

fn failed(url: &str, config: &Config, is_ready: &mut bool, answer: &Answer) -> Result<Said, Failure> {
    let text = format!("{url} answers {}: {}", answer.status, answer.text());
    match (answer.exception, answer.status) {
        (Some(code), _) if exception::DATA.contains(&code) => Ok(Said::Refused(text)),
        (Some(code), _) if exception::MISSING.contains(&code) || exception::COLUMN.contains(&code) => {
            *is_ready = false;
            Err(Failure::new(format!("{text}; makes or checks {} again", table::name(config))))
        }
        (_, 413) => Ok(Said::TooLarge(text)),
        (Some(exception::PARTS), _) if text.contains("max_partitions_per_insert_block") => Ok(Said::TooLarge(text)),
        (_, 401 | 403) | (Some(516 | 497 | 192 | 193 | 194), _) => Err(Failure::new(format!(
            "{text}; check user and password_file, and that the user may INSERT and CREATE TABLE"
        ))),
        _ => Err(Failure { message: text, after: answer.retry_after }),
    }
}

/// Asks the server in the database of the sink.
fn ask(server: &mut Server, path: &str, body: &[u8]) -> Result<Answer, Failure> {
    server.post(path, &[("Content-Type", "application/octet-stream")], body)
}

/// Asks a query and returns the rows of its `data`; an answer without JSON is no rows.
pub(crate) fn rows(server: &mut Server, query: &str) -> Result<Vec<Value>, Failure> {
    let answer = ask(server, "/?wait_end_of_query=1&output_format_json_quote_64bit_integers=0", query.as_bytes())?;
    if !answer.is_success() {
        let url = server.url();
        return Err(Failure {
            message: format!("{url} answers {} to {query:?}: {}", answer.status, answer.text()),
            after: answer.retry_after,
        });
    }
    let rows = crate::line::lines(&answer.body).filter_map(|line| serde_json::from_slice(line).ok());
    Ok(rows.collect())
}

/// Encodes `text` for a query string.
pub(crate) fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
