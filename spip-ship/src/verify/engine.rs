//! Asks a log, a stream, a table or a directory of logs which records it has.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use spip_record::log::{Content, Options, Reader, Step};
use tokio::runtime::Handle;

use super::{Records, add, subjects};
use crate::config::{Clickhouse, Kind, Limits, NatsAccess, NatsSource, Sink, WantedStream};
use crate::sink::Failure;
use crate::sink::clickhouse::{rows, table_name};
use crate::source::stream::StreamSource;
use crate::source::{Next, Source as _};
use crate::web::Server;

/// Attempts to read a whole stream.
const ATTEMPTS: u32 = 3;

/// Bytes that are read at a time.
const BYTES: usize = 1 << 20;

/// Returns the records that the engine of `sink` has, of the sensors in `logged`.
///
/// # Errors
/// The engine cannot be asked.
pub fn stored(sink: &Sink, logged: &Records, handle: &Handle) -> Result<Records, Failure> {
    match &sink.kind {
        Kind::Nats(nats) => {
            let mut records = Records::new();
            for subject in subjects(&nats.access, logged) {
                records.append(&mut of_stream(&nats.access, Some(subject), handle)?);
            }
            Ok(records)
        }
        Kind::Clickhouse(clickhouse) => of_table(clickhouse),
        Kind::Files(files) => of_files(&files.path),
        Kind::Elasticsearch(_) | Kind::Http(_) => Err(Failure::new(format!(
            "{}: a server of this kind cannot be asked for (name, run, seq); compare with a query of its own",
            sink.name
        ))),
    }
}

/// Reads a log with all its files.
pub(super) fn of_log(path: &Path) -> Result<Records, Failure> {
    read_log(path, Options { follow: false, ..Options::default() })
}

fn read_log(path: &Path, options: Options) -> Result<Records, Failure> {
    let mut records = Records::new();
    let mut reader = Reader::open(path, options, None);
    loop {
        match reader.next_batch(BYTES).map_err(|error| Failure::new(error.to_string()))? {
            Step::Batch(batch) => {
                for notice in batch.notices() {
                    log::warn!("{notice}");
                }
                for line in batch.lines() {
                    if let Content::Whole(bytes) = line.content {
                        add(bytes, &mut records);
                    }
                }
            }
            Step::Idle | Step::End => return Ok(records),
        }
    }
}

fn of_files(directory: &Path) -> Result<Records, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot list {}: {error}", directory.display()));
    let mut records = Records::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path().join("spip.jsonl");
        // Followed, because a log that is not there is no error: it is what was lost.
        for (key, ranges) in read_log(&path, Options { linger: Duration::ZERO, ..Options::default() })? {
            // A record is in the file of its sensor; the same one in two directories would be double.
            let known = records.entry(key).or_default();
            known.repeat(ranges.repeated() + (ranges.len() - ranges.without(known).len()));
            ranges.iter().for_each(|(start, end)| known.add(start, end));
        }
    }
    Ok(records)
}

/// Reads a stream. A cluster that is electing a leader is asked again.
pub(super) fn of_stream(access: &NatsAccess, subject: Option<String>, handle: &Handle) -> Result<Records, Failure> {
    for _ in 1..ATTEMPTS {
        match read_stream(access, subject.clone(), handle) {
            Err(failure) if is_forbidden(&failure.message) => return Err(forbidden(&failure)),
            Err(failure) => log::warn!("{failure}; reading the stream again"),
            read => return read,
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    read_stream(access, subject, handle)
}

/// Reports whether a server refused for want of a permission.
fn is_forbidden(message: &str) -> bool {
    message.contains("Permissions Violation")
}

fn forbidden(failure: &Failure) -> Failure {
    let message = &failure.message;
    Failure::new(format!(
        "this user may not read the stream, as the key of a sensor may not: run this on the hub, with --config \
         /etc/spip-hub/hub.toml ({message})"
    ))
}

/// Reads a stream through a consumer that is removed again.
fn read_stream(access: &NatsAccess, subject: Option<String>, handle: &Handle) -> Result<Records, Failure> {
    // Looks at what is there: makes nothing but the consumer.
    let wanted = WantedStream { create: false, replicas: 1, max_bytes: None, max_age: None };
    let config = NatsSource { access: access.clone(), wanted, consumer: "spip-ship".to_owned(), check_names: false };
    let name = format!("verify-{}", std::process::id());
    let mut source = StreamSource::new(config, &name, handle.clone(), true);
    source.restrict(subject);
    let mut records = Records::new();
    let limits = Limits { bytes: BYTES, time: Duration::from_secs(1) };
    let read = loop {
        match source.next(limits, None, Duration::from_secs(10)) {
            Ok(Next::Batch(batch)) => batch.parts.iter().for_each(|part| add(&part.bytes, &mut records)),
            Ok(Next::Idle) => break Err(Failure::new("the stream does not answer")),
            Ok(Next::End) => break Ok(()),
            Err(message) => break Err(Failure::new(message)),
        }
    };
    if !read.as_ref().is_err_and(|failure| is_forbidden(&failure.message)) {
        source.remove();
    }
    read.map(|()| records)
}

/// Asks ClickHouse for each run as ranges: gaps and islands.
fn of_table(config: &Clickhouse) -> Result<Records, Failure> {
    let mut server = Server::new(config.access.clone());
    let query = format!(
        "SELECT name, run, min(seq) AS first, max(seq) AS last, sum(n - 1) AS repeated FROM (SELECT name, run, seq, \
         seq - row_number() OVER (PARTITION BY name, run ORDER BY seq) AS island, n FROM (SELECT name, run, seq, count() AS n \
         FROM {} WHERE record_type != 'log' GROUP BY name, run, seq)) GROUP BY name, run, island FORMAT JSONEachRow",
        table_name(config)
    );
    let mut records = Records::new();
    for row in rows(&mut server, &query)? {
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |key: &str| {
            let value = row.get(key);
            value.and_then(Value::as_u64).or_else(|| value.and_then(Value::as_str).and_then(|text| text.parse().ok()))
        };
        let (Some(first), Some(last)) = (number("first"), number("last")) else { continue };
        let ranges = records.entry((text("name"), text("run"))).or_default();
        ranges.add(first, last);
        ranges.repeat(number("repeated").unwrap_or_default());
    }
    Ok(records)
}
