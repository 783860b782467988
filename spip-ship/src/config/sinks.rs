//! The destinations of records: each kind with its keys, as final types.

mod keys;
mod value;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

pub(super) use self::keys::Raw;
use super::Secret;

/// One destination of records.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Its name in messages, metrics and the state directory.
    pub name: String,
    /// Bounds of a batch.
    pub limits: Limits,
    /// Kind of the sink, with its keys.
    pub kind: Kind,
}

/// Bounds of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of lines, before compression.
    pub bytes: usize,
    /// Time since its first line was read.
    pub time: Duration,
}

/// Kinds of sinks.
#[derive(Clone, Debug)]
pub enum Kind {
    /// NATS JetStream.
    Nats(Box<NatsSink>),
    /// ClickHouse over HTTP.
    Clickhouse(Clickhouse),
    /// The bulk API of Elasticsearch and OpenSearch.
    Elasticsearch(Elasticsearch),
    /// NDJSON by POST.
    Http(Http),
    /// Log files, a directory per sensor.
    Files(Files),
}

/// Access to a NATS server and a stream.
#[derive(Clone, Debug)]
pub struct NatsAccess {
    /// The servers of a cluster.
    pub urls: Vec<String>,
    /// The stream.
    pub stream: String,
    /// Prefix before the sensor's name in a subject.
    pub subject_prefix: String,
    /// The JetStream domain, behind a leaf node.
    pub domain: Option<String>,
    /// A `.creds` file with JWT and seed.
    pub credentials: Option<Secret>,
    /// A seed.
    pub nkey: Option<Secret>,
    /// The user of a password.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The token.
    pub token: Option<Secret>,
    /// Certificate authorities instead of the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A sink of the kind `nats`.
#[derive(Clone, Debug)]
pub struct NatsSink {
    /// Access to the server.
    pub access: NatsAccess,
    /// The stream, where it is made.
    pub wanted: WantedStream,
    /// Compression of messages.
    pub compression: Compression,
    /// Time for an acknowledgement.
    pub ack_timeout: Duration,
}

/// Settings of a stream that has to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedStream {
    /// Makes and checks the stream. A sensor of a fleet may not.
    pub create: bool,
    /// Copies of each message.
    pub replicas: u32,
    /// Bytes that it stores before it takes nothing more; `None` without a bound of its own.
    pub max_bytes: Option<u64>,
    /// Age up to which it keeps messages; `None` for ever.
    pub max_age: Option<Duration>,
}

/// Compression of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Zstandard.
    Zstd,
    /// As it is in the log.
    None,
}

/// Access to an HTTP server.
#[derive(Clone, Debug)]
pub struct HttpAccess {
    /// Its URL, without a slash at its end.
    pub url: String,
    /// User of basic authentication, or of ClickHouse.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A bearer token.
    pub token: Option<Secret>,
    /// A key of Elasticsearch (`Authorization: ApiKey`).
    pub api_key: Option<Secret>,
    /// Certificate authorities instead of the system's.
    pub ca: Option<PathBuf>,
    /// Client certificate and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Time for one request and its answer.
    pub timeout: Duration,
}

/// A sink of the kind `clickhouse`.
#[derive(Clone, Debug)]
pub struct Clickhouse {
    /// Access to the server.
    pub access: HttpAccess,
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
    /// Refuses a table that does not discard repeated blocks.
    pub require_deduplication: bool,
}

/// A sink of the kind `elasticsearch`.
#[derive(Clone, Debug)]
pub struct Elasticsearch {
    /// Access to the server.
    pub access: HttpAccess,
    /// The index or data stream.
    pub index: String,
}

/// A sink of the kind `http`.
#[derive(Clone, Debug)]
pub struct Http {
    /// Access to the server.
    pub access: HttpAccess,
    /// `Content-Encoding` of the body.
    pub compression: Compression,
}

/// A sink of the kind `files`.
#[derive(Clone, Debug)]
pub struct Files {
    /// The directory with one directory per sensor.
    pub path: PathBuf,
    /// Size at which a file is closed.
    pub rotate_bytes: u64,
    /// Closed files that are kept of each sensor.
    pub keep_files: usize,
    /// Sensors that get a directory; a bound against forged names.
    pub max_sensors: usize,
}
