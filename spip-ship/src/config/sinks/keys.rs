//! The keys of `[[sink]]` and `[source]`: which kind has which, and their defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::super::{Mistake, NatsSource, Secret};
use super::value::{
    Urls, certificate, domain, http_url, identifier, index, is_token, nats_urls, seconds, stream_name, subject_prefix,
    within,
};
use super::{
    Clickhouse, Compression, Elasticsearch, Files, Http, HttpAccess, Kind, Limits, NatsAccess, NatsSink, Sink,
    WantedStream,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Raw {
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
    consumer: Option<String>,
    check_names: Option<bool>,
}

/// Keys of every kind of sink.
const COMMON: &[&str] = &["kind", "name", "batch_bytes", "batch_milliseconds"];

/// Keys of a NATS server and its stream, of a sink and of `[source]`.
const NATS: &[&str] = &[
    "url",
    "stream",
    "subject_prefix",
    "domain",
    "create_stream",
    "replicas",
    "max_bytes",
    "max_age_hours",
    "credentials_file",
    "nkey_file",
    "user",
    "password_file",
    "token_file",
    "ca_file",
    "cert_file",
    "key_file",
];

/// Keys of every HTTP server.
const HTTP: &[&str] = &["url", "user", "password_file", "ca_file", "cert_file", "key_file", "timeout_seconds"];

/// Groups of keys of one kind.
type Kinds = &'static [(&'static str, &'static [&'static [&'static str]])];

const SINKS: Kinds = &[
    ("nats", &[COMMON, NATS, &["compression", "ack_timeout_seconds"]]),
    ("clickhouse", &[COMMON, HTTP, &["database", "table", "deduplication"]]),
    ("elasticsearch", &[COMMON, HTTP, &["index", "token_file", "api_key_file"]]),
    ("http", &[COMMON, HTTP, &["compression", "token_file"]]),
    ("files", &[COMMON, &["path", "rotate_bytes", "keep_files", "max_sensors"]]),
];

const SOURCES: Kinds = &[("nats", &[&["kind"], NATS, &["consumer", "check_names"]])];

impl Raw {
    /// Returns the keys that are set.
    fn keys(&self) -> Vec<&'static str> {
        let set = [
            ("name", self.name.is_some()),
            ("batch_bytes", self.batch_bytes.is_some()),
            ("batch_milliseconds", self.batch_milliseconds.is_some()),
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
            ("consumer", self.consumer.is_some()),
            ("check_names", self.check_names.is_some()),
        ];
        set.into_iter().filter_map(|(key, is_set)| is_set.then_some(key)).collect()
    }

    /// Returns the kind, if `kinds` has it and each key that is set is one of its keys.
    fn kind(&self, table: &str, kinds: Kinds) -> Result<&'static str, Mistake> {
        let Some((kind, known)) = kinds.iter().find(|(kind, _)| *kind == self.kind) else {
            let accepted = kinds.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(", ");
            return Err(Mistake::new(format!("{table}.kind"), format!("{:?} is not accepted: {accepted}", self.kind)));
        };
        let known = known.concat();
        if let Some(key) = self.keys().into_iter().find(|key| !known.contains(key)) {
            let message = format!("is no key of kind = {kind:?}, which has: {}", known.join(", "));
            return Err(Mistake::new(format!("{table}.{key}"), message));
        }
        Ok(kind)
    }

    /// Returns the server and the stream that a table describes, and the settings of a stream that has to be made.
    fn nats(&mut self, table: &str) -> Result<(NatsAccess, WantedStream), Mistake> {
        let access = NatsAccess {
            urls: nats_urls(table, self.url.take())?,
            stream: stream_name(table, self.stream.take())?,
            subject_prefix: subject_prefix(table, self.subject_prefix.take())?,
            domain: domain(table, self.domain.take())?,
            credentials: self.credentials_file.take(),
            nkey: self.nkey_file.take(),
            user: self.user.take(),
            password: self.password_file.take(),
            token: self.token_file.take(),
            ca: self.ca_file.take(),
            certificate: certificate(table, self.cert_file.take(), self.key_file.take())?,
        };
        let bytes = |bytes| within(&format!("{table}.max_bytes"), bytes, 1 << 20, i64::MAX as u64);
        let hours = |hours| within(&format!("{table}.max_age_hours"), hours, 1, 1_000_000);
        let wanted = WantedStream {
            create: self.create_stream.unwrap_or(true),
            replicas: within(&format!("{table}.replicas"), self.replicas.unwrap_or(1), 1, 5)?,
            max_bytes: self.max_bytes.map(bytes).transpose()?,
            max_age: self.max_age_hours.map(hours).transpose()?.map(|hours| Duration::from_secs(hours * 3_600)),
        };
        Ok((access, wanted))
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
    pub(in crate::config) fn from_raw(mut raw: Raw) -> Result<Self, Mistake> {
        let kind = raw.kind("sink", SINKS)?;
        let name = raw.name.take().unwrap_or_else(|| kind.to_owned());
        if !is_token(&name) {
            return Err(Mistake::new("sink.name", "letters, digits, - and _ are accepted, up to 64 of them"));
        }
        // JetStream's messages have at most 1 MiB by default; databases want fewer and larger inserts.
        let (bytes, time) = if kind == "nats" { (512 * 1024, 1_000) } else { (4 * 1024 * 1024, 2_000) };
        let limits = Limits {
            bytes: within("sink.batch_bytes", raw.batch_bytes.unwrap_or(bytes), 4 * 1024, 64 * 1024 * 1024)?,
            time: Duration::from_millis(within(
                "sink.batch_milliseconds",
                raw.batch_milliseconds.unwrap_or(time),
                1,
                600_000,
            )?),
        };
        let kind = match kind {
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

fn nats(mut raw: Raw) -> Result<NatsSink, Mistake> {
    let (access, wanted) = raw.nats("sink")?;
    Ok(NatsSink {
        access,
        wanted,
        compression: raw.compression.unwrap_or(Compression::Zstd),
        ack_timeout: seconds("sink.ack_timeout_seconds", raw.ack_timeout_seconds, 10, 600)?,
    })
}

impl NatsSource {
    pub(in crate::config) fn from_raw(mut raw: Raw) -> Result<Self, Mistake> {
        raw.kind("source", SOURCES)?;
        let (access, wanted) = raw.nats("source")?;
        let consumer = raw.consumer.take().unwrap_or_else(|| "spip-ship".to_owned());
        if !is_token(&consumer) {
            return Err(Mistake::new("source.consumer", "letters, digits, - and _ are accepted"));
        }
        Ok(Self { access, wanted, consumer, check_names: raw.check_names.unwrap_or(true) })
    }
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
