//! The configuration: a TOML file becomes final types once, and every mistake names its key and the remedy.
//!
//! A key that a sink's kind does not use is an error and not ignored, because a misplaced `token_file` would otherwise
//! send records without authentication. Secrets are paths, never values: configuration files are copied into tickets.

mod secret;
mod sinks;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use secret::Secret;
pub use sinks::{
    Clickhouse, Compression, Elasticsearch, Files, Http, HttpAccess, Kind, Limits, NatsAccess, NatsSink, Sink,
    WantedStream,
};

/// The effective configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Source of the records.
    pub source: Source,
    /// Directory of positions, quarantine and the shipper's identity.
    pub state_dir: PathBuf,
    /// Name of the sensor in subjects; taken from the records without it.
    pub name: Option<String>,
    /// Address of `/metrics` and `/healthz`.
    pub metrics: Option<String>,
    /// Confinement of the process.
    pub sandbox: Sandbox,
    /// Closed files that are not shipped yet from which on the shipper warns.
    pub warn_unshipped_files: u64,
    /// Marks closed files of the log that are not shipped yet, so that the agent keeps them.
    pub hold_files: bool,
    /// Destinations of the records.
    pub sinks: Vec<Sink>,
}

/// Source of the records.
#[derive(Clone, Debug)]
pub enum Source {
    /// The log of an agent.
    Log(PathBuf),
    /// A JetStream stream that other shippers fill.
    Nats(Box<NatsSource>),
}

/// The hub's side of JetStream.
#[derive(Clone, Debug)]
pub struct NatsSource {
    /// Access to the server.
    pub access: NatsAccess,
    /// The stream, where it is made.
    pub wanted: WantedStream,
    /// Prefix of the names of the durable consumers, one per sink.
    pub consumer: String,
    /// Sends records under another name than that of their subject to quarantine.
    pub check_names: bool,
}

/// Confinement of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// Take each step that the kernel offers.
    #[default]
    Auto,
    /// Refuse to start where a step cannot be taken.
    Required,
    /// Take none.
    Off,
}

/// A mistake in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The file is no TOML, or has a key or a value that is not accepted.
    #[error("{}: {message}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Message: what is wrong, and where.
        message: String,
    },
    /// A key has a value that is not accepted.
    #[error("{}: {key}: {message}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Message: what is wrong, and what is accepted.
        message: String,
    },
}

/// A mistake in one key, before the file is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key.
    pub key: String,
    /// Message: what is wrong, and what is accepted.
    pub message: String,
}

impl Mistake {
    fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    log: Option<PathBuf>,
    source: Option<sinks::Raw>,
    state_dir: PathBuf,
    name: Option<String>,
    metrics: Option<String>,
    #[serde(default)]
    sandbox: Sandbox,
    #[serde(default = "default_warn_unshipped_files")]
    warn_unshipped_files: u64,
    #[serde(default = "yes")]
    hold_files: bool,
    #[serde(default)]
    sink: Vec<sinks::Raw>,
}

/// Three closed files leave seven of the agent's default `log_keep_files` for repairing whatever keeps records here.
fn default_warn_unshipped_files() -> u64 {
    3
}

/// Returns a mistake of TOML with its line number, without the picture of several lines that the parser draws.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("line {line}: {}", error.message().replace('\n', " "))
}

fn yes() -> bool {
    true
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// The file cannot be read, or has a mistake.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let raw: Raw = toml::from_str(&text)
            .map_err(|error| Error::Toml { path: path.to_owned(), message: one_line(&text, &error) })?;
        Self::from_raw(raw).map_err(|mistake| Error::Key {
            path: path.to_owned(),
            key: mistake.key,
            message: mistake.message,
        })
    }

    fn from_raw(raw: Raw) -> Result<Self, Mistake> {
        let source = match (raw.log, raw.source) {
            (Some(log), None) => Source::Log(log),
            (None, Some(source)) => Source::Nats(Box::new(NatsSource::from_raw(source)?)),
            (Some(_), Some(_)) => return Err(Mistake::new("source", "log is set, too: one of the two is the source")),
            (None, None) => {
                return Err(Mistake::new(
                    "log",
                    "is missing: the log file of the agent, or a [source] of kind \"nats\"",
                ));
            }
        };
        if raw.sink.is_empty() {
            return Err(Mistake::new("sink", "is missing: at least one [[sink]] with kind and url"));
        }
        if raw.name.as_deref().is_some_and(str::is_empty) {
            return Err(Mistake::new("name", "is empty: leave it out to take the name from the records"));
        }
        let sinks = raw.sink.into_iter().map(Sink::from_raw).collect::<Result<Vec<_>, _>>()?;
        let mut names = BTreeSet::new();
        for sink in &sinks {
            if !names.insert(sink.name.as_str()) {
                let message = format!("two sinks are called {:?}: give each a name of its own", sink.name);
                return Err(Mistake::new("sink.name", message));
            }
            if matches!((&source, &sink.kind), (Source::Nats(_), Kind::Nats(_))) {
                let message = "a stream is no sink for a stream: let the server mirror or source it";
                return Err(Mistake::new("sink.kind", message));
            }
        }
        Ok(Self {
            source,
            state_dir: raw.state_dir,
            name: raw.name,
            metrics: raw.metrics,
            sandbox: raw.sandbox,
            warn_unshipped_files: raw.warn_unshipped_files,
            hold_files: raw.hold_files,
            sinks,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
