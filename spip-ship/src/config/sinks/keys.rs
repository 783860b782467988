//! The keys of `[[sink]]`: which kind knows which, and their defaults.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::super::{Mistake, Secret};
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
    pub(in crate::config) fn from_raw(mut raw: Raw) -> Result<Self, Mistake> {
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
