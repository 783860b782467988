//! The keys of `[[sink]]`: which kind knows which, their defaults and bounds.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Mistake, Secret};

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

impl WantedStream {
    pub(super) fn new(
        table: &str,
        create: Option<bool>,
        replicas: Option<u32>,
        max_bytes: Option<u64>,
        max_age_hours: Option<u64>,
    ) -> Result<Self, Mistake> {
        let hours = |hours| within(&format!("{table}.max_age_hours"), hours, 1, 1_000_000);
        Ok(Self {
            create: create.unwrap_or(true),
            replicas: within(&format!("{table}.replicas"), replicas.unwrap_or(1), 1, 5)?,
            max_bytes: max_bytes
                .map(|bytes| within(&format!("{table}.max_bytes"), bytes, 1 << 20, i64::MAX as u64))
                .transpose()?,
            max_age: max_age_hours.map(hours).transpose()?.map(|hours| Duration::from_secs(hours * 3_600)),
        })
    }
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

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Urls {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    kind: String,
    name: Option<String>,
    url: Option<Urls>,
    batch_bytes: Option<usize>,
    batch_milliseconds: Option<u64>,
    stream: Option<String>,
    subject_prefix: Option<String>,
    domain: Option<String>,
    create_stream: Option<bool>,
    replicas: Option<u32>,
    max_bytes: Option<u64>,
    max_age_hours: Option<u64>,
    compression: Option<Compression>,
    ack_timeout_seconds: Option<u64>,
    credentials_file: Option<Secret>,
    nkey_file: Option<Secret>,
    user: Option<String>,
    password_file: Option<Secret>,
    token_file: Option<Secret>,
    api_key_file: Option<Secret>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    timeout_seconds: Option<u64>,
    database: Option<String>,
    table: Option<String>,
    deduplication: Option<String>,
    index: Option<String>,
    path: Option<PathBuf>,
    rotate_bytes: Option<u64>,
    keep_files: Option<usize>,
    max_sensors: Option<usize>,
}

/// Keys of every kind.
const COMMON: &[&str] = &["kind", "name", "batch_bytes", "batch_milliseconds"];

/// Keys of one kind, beside [`COMMON`]. The first of them is required.
const KINDS: &[(&str, &[&str])] = &[
    (
        "nats",
        &[
            "url",
            "stream",
            "subject_prefix",
            "domain",
            "create_stream",
            "replicas",
            "max_bytes",
            "max_age_hours",
            "compression",
            "ack_timeout_seconds",
            "credentials_file",
            "nkey_file",
            "user",
            "password_file",
            "token_file",
            "ca_file",
            "cert_file",
            "key_file",
        ],
    ),
    (
        "clickhouse",
        &[
            "url",
            "database",
            "table",
            "deduplication",
            "user",
            "password_file",
            "ca_file",
            "cert_file",
            "key_file",
            "timeout_seconds",
        ],
    ),
    (
        "elasticsearch",
        &[
            "url",
            "index",
            "user",
            "password_file",
            "token_file",
            "api_key_file",
            "ca_file",
            "cert_file",
            "key_file",
            "timeout_seconds",
        ],
    ),
    (
        "http",
        &[
            "url",
            "compression",
            "user",
            "password_file",
            "token_file",
            "ca_file",
            "cert_file",
            "key_file",
            "timeout_seconds",
        ],
    ),
    ("files", &["path", "rotate_bytes", "keep_files", "max_sensors"]),
];

impl Raw {
    /// Returns the keys that are set.
    fn keys(&self) -> Vec<&'static str> {
        let set = [
            ("url", self.url.is_some()),
            ("stream", self.stream.is_some()),
            ("subject_prefix", self.subject_prefix.is_some()),
            ("domain", self.domain.is_some()),
            ("create_stream", self.create_stream.is_some()),
            ("replicas", self.replicas.is_some()),
            ("max_bytes", self.max_bytes.is_some()),
            ("max_age_hours", self.max_age_hours.is_some()),
            ("compression", self.compression.is_some()),
            ("ack_timeout_seconds", self.ack_timeout_seconds.is_some()),
            ("credentials_file", self.credentials_file.is_some()),
            ("nkey_file", self.nkey_file.is_some()),
            ("user", self.user.is_some()),
            ("password_file", self.password_file.is_some()),
            ("token_file", self.token_file.is_some()),
            ("api_key_file", self.api_key_file.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("cert_file", self.cert_file.is_some()),
            ("key_file", self.key_file.is_some()),
            ("timeout_seconds", self.timeout_seconds.is_some()),
            ("database", self.database.is_some()),
            ("table", self.table.is_some()),
            ("deduplication", self.deduplication.is_some()),
            ("index", self.index.is_some()),
            ("path", self.path.is_some()),
            ("rotate_bytes", self.rotate_bytes.is_some()),
            ("keep_files", self.keep_files.is_some()),
            ("max_sensors", self.max_sensors.is_some()),
        ];
        set.into_iter().filter_map(|(key, is_set)| is_set.then_some(key)).collect()
    }

    fn http_access(&mut self) -> Result<HttpAccess, Mistake> {
        Ok(HttpAccess {
            url: http_url(self.url.take())?,
            user: self.user.take(),
            password: self.password_file.take(),
            token: self.token_file.take(),
            api_key: self.api_key_file.take(),
            ca: self.ca_file.take(),
            certificate: certificate("sink", self.cert_file.take(), self.key_file.take())?,
            timeout: seconds("sink.timeout_seconds", self.timeout_seconds, 30, 600)?,
        })
    }
}

impl Sink {
    pub(super) fn from_raw(mut raw: Raw) -> Result<Self, Mistake> {
        let Some((kind, known)) = KINDS.iter().find(|(kind, _)| *kind == raw.kind) else {
            let accepted = KINDS.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(", ");
            return Err(Mistake::new("sink.kind", format!("{:?} is not accepted: {accepted}", raw.kind)));
        };
        if let Some(key) = raw.keys().into_iter().find(|key| !known.contains(key)) {
            let accepted = COMMON.iter().chain(*known).copied().collect::<Vec<_>>().join(", ");
            return Err(Mistake::new(
                format!("sink.{key}"),
                format!("is no key of kind = {kind:?}, which has: {accepted}"),
            ));
        }
        let name = raw.name.take().unwrap_or_else(|| (*kind).to_owned());
        if !is_token(&name) {
            return Err(Mistake::new("sink.name", "letters, digits, - and _ are accepted, up to 64 of them"));
        }
        // JetStream's messages have at most 1 MiB by default; databases want fewer and larger inserts.
        let (bytes, time) = if *kind == "nats" { (512 * 1024, 1_000) } else { (4 * 1024 * 1024, 2_000) };
        let limits = Limits {
            bytes: within("sink.batch_bytes", raw.batch_bytes.unwrap_or(bytes), 4 * 1024, 64 * 1024 * 1024)?,
            time: Duration::from_millis(within(
                "sink.batch_milliseconds",
                raw.batch_milliseconds.unwrap_or(time),
                1,
                600_000,
            )?),
        };
        let kind = match *kind {
            "nats" => Kind::Nats(Box::new(nats(raw)?)),
            "clickhouse" => Kind::Clickhouse(clickhouse(raw)?),
            "elasticsearch" => {
                Kind::Elasticsearch(Elasticsearch { access: raw.http_access()?, index: index(raw.index)? })
            }
            "http" => Kind::Http(Http {
                access: raw.http_access()?,
                compression: raw.compression.unwrap_or(Compression::None),
            }),
            _ => Kind::Files(Files {
                path: raw.path.ok_or_else(|| Mistake::new("sink.path", "is missing: a directory for the logs"))?,
                rotate_bytes: within(
                    "sink.rotate_bytes",
                    raw.rotate_bytes.unwrap_or(256 * 1024 * 1024),
                    64 * 1024,
                    1 << 40,
                )?,
                keep_files: raw.keep_files.unwrap_or(10),
                max_sensors: within("sink.max_sensors", raw.max_sensors.unwrap_or(10_000), 1, 1_000_000)?,
            }),
        };
        Ok(Self { name, limits, kind })
    }
}

fn nats(raw: Raw) -> Result<NatsSink, Mistake> {
    Ok(NatsSink {
        access: NatsAccess {
            urls: nats_urls("sink", raw.url)?,
            stream: stream_name("sink", raw.stream)?,
            subject_prefix: subject_prefix("sink", raw.subject_prefix)?,
            domain: domain("sink", raw.domain)?,
            credentials: raw.credentials_file,
            nkey: raw.nkey_file,
            user: raw.user,
            password: raw.password_file,
            token: raw.token_file,
            ca: raw.ca_file,
            certificate: certificate("sink", raw.cert_file, raw.key_file)?,
        },
        wanted: WantedStream::new("sink", raw.create_stream, raw.replicas, raw.max_bytes, raw.max_age_hours)?,
        compression: raw.compression.unwrap_or(Compression::Zstd),
        ack_timeout: seconds("sink.ack_timeout_seconds", raw.ack_timeout_seconds, 10, 600)?,
    })
}

fn clickhouse(mut raw: Raw) -> Result<Clickhouse, Mistake> {
    let require_deduplication = match raw.deduplication.as_deref() {
        None | Some("required") => true,
        Some("off") => false,
        Some(other) => {
            return Err(Mistake::new("sink.deduplication", format!("{other:?} is not accepted: required, off")));
        }
    };
    Ok(Clickhouse {
        access: raw.http_access()?,
        database: identifier("sink.database", raw.database.unwrap_or_else(|| "default".to_owned()))?,
        table: identifier("sink.table", raw.table.unwrap_or_else(|| "spip_records".to_owned()))?,
        require_deduplication,
    })
}

/// Reports whether `text` is a name for files, consumers and labels.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, least: T, most: T) -> Result<T, Mistake> {
    if value < least || value > most {
        return Err(Mistake::new(key, format!("{value} is not accepted: {least} to {most}")));
    }
    Ok(value)
}

fn seconds(key: &str, value: Option<u64>, default: u64, most: u64) -> Result<Duration, Mistake> {
    within(key, value.unwrap_or(default), 1, most).map(Duration::from_secs)
}

fn identifier(key: &str, text: String) -> Result<String, Mistake> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if text.is_empty() || !is_plain || text.as_bytes()[0].is_ascii_digit() {
        return Err(Mistake::new(key, "letters, digits and _ are accepted, the first no digit"));
    }
    Ok(text)
}

fn index(text: Option<String>) -> Result<String, Mistake> {
    let text = text.unwrap_or_else(|| "logs-spip-default".to_owned());
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_plain) || text.starts_with(['-', '_', '.']) {
        return Err(Mistake::new("sink.index", "lower-case letters, digits, -, _ and . are accepted"));
    }
    Ok(text)
}

pub(super) fn certificate(
    table: &str,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, Mistake> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Mistake::new(format!("{table}.key_file"), "is missing: cert_file needs its key")),
        (None, Some(_)) => {
            Err(Mistake::new(format!("{table}.cert_file"), "is missing: key_file needs its certificate"))
        }
    }
}

/// Refuses a password in a URL, which ends up in messages and process lists.
fn without_secret(table: &str, url: &str) -> Result<(), Mistake> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        let message = "must not have a user or password: use user and password_file, or token_file";
        return Err(Mistake::new(format!("{table}.url"), message));
    }
    Ok(())
}

pub(super) fn nats_urls(table: &str, urls: Option<Urls>) -> Result<Vec<String>, Mistake> {
    let key = format!("{table}.url");
    let urls = match urls {
        None => return Err(Mistake::new(key, "is missing: such as \"nats://127.0.0.1:4222\", or a list of them")),
        Some(Urls::One(url)) => url.split(',').map(|url| url.trim().to_owned()).collect(),
        Some(Urls::Several(urls)) => urls,
    };
    for url in &urls {
        without_secret(table, url)?;
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !["nats", "tls"].contains(&scheme) {
            return Err(Mistake::new(key, format!("{url:?} is not accepted: nats://HOST:PORT or tls://HOST:PORT")));
        }
    }
    if urls.is_empty() {
        return Err(Mistake::new(key, "is empty: such as \"nats://127.0.0.1:4222\""));
    }
    Ok(urls)
}

fn http_url(urls: Option<Urls>) -> Result<String, Mistake> {
    let Some(Urls::One(url)) = urls else {
        return Err(Mistake::new("sink.url", "one URL is needed, such as \"http://127.0.0.1:8123\""));
    };
    without_secret("sink", &url)?;
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(Mistake::new("sink.url", format!("{url:?} is not accepted: http://… or https://…")));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

pub(super) fn stream_name(table: &str, stream: Option<String>) -> Result<String, Mistake> {
    let stream = stream.unwrap_or_else(|| "SPIP".to_owned());
    if !is_token(&stream) {
        return Err(Mistake::new(format!("{table}.stream"), "letters, digits, - and _ are accepted"));
    }
    Ok(stream)
}

pub(super) fn subject_prefix(table: &str, prefix: Option<String>) -> Result<String, Mistake> {
    let prefix = prefix.unwrap_or_else(|| "spip.records".to_owned());
    if !prefix.split('.').all(is_token) {
        return Err(Mistake::new(
            format!("{table}.subject_prefix"),
            "tokens of letters, digits, - and _, separated by dots",
        ));
    }
    Ok(prefix)
}

pub(super) fn domain(table: &str, domain: Option<String>) -> Result<Option<String>, Mistake> {
    if domain.as_deref().is_some_and(|domain| !is_token(domain)) {
        return Err(Mistake::new(format!("{table}.domain"), "letters, digits, - and _ are accepted"));
    }
    Ok(domain)
}
