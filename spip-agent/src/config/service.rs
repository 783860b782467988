//! Keys of the agent as a service: its own messages, and the address of its metrics.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use log::LevelFilter;

use super::Log;
use super::levels::{ACCEPTED, Levels};
use super::load::Loading;

/// Room for the agent's own messages where they have a file of their own: thousands of them.
const QUEUE_BYTES: usize = 1 << 20;

/// The agent's own messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// `log_level`: which are said (info).
    pub levels: Levels,
    /// `system_log`: stream | stderr | a path (stream).
    pub target: SystemLog,
}

impl Messages {
    /// Returns the log of the messages where they have a file of their own; it is rotated and kept as `log`, that of the
    /// records.
    #[must_use]
    pub fn own_log(&self, log: &Log) -> Option<Log> {
        let SystemLog::File(path) = &self.target else { return None };
        let queue_bytes = QUEUE_BYTES.min(log.queue_bytes);
        Some(Log { file: Some(path.clone()), queue_bytes, ..log.clone() })
    }

    /// Returns the levels, with `kernel` for messages of the kernel side where `--ebpf-log` asks for them.
    #[must_use]
    pub fn levels_with(&self, kernel: LevelFilter) -> Levels {
        let levels = self.levels.clone();
        if kernel == LevelFilter::Off { levels } else { levels.with("spip", kernel) }
    }
}

/// Destination of the agent's own messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemLog {
    /// Among the records.
    Stream,
    /// To standard error.
    Stderr,
    /// To a file of their own, with the rotation of the log.
    File(PathBuf),
}

impl SystemLog {
    /// Reports whether it is the file that `path` leads to: two that write and rotate one file lose lines of each
    /// other.
    #[must_use]
    pub fn is_file(&self, path: &Path) -> bool {
        let Self::File(own) = self else { return false };
        // What is not there yet has a directory.
        let meant = |path: &Path| {
            let directory = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
            path.canonicalize().ok().or_else(directory)
        };
        own == path || meant(own).is_some_and(|own| Some(own) == meant(path))
    }
}

/// Address of the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// An address of the loopback interface.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Loading<'_> {
    pub(super) fn messages(&mut self, log_file: Option<&Path>) -> Messages {
        let given = self.read.string("log_level", ACCEPTED);
        let levels =
            given.and_then(|(text, found)| text.parse().map_err(|why: String| self.read.refuse(&found, &why)).ok());
        Messages { levels: levels.unwrap_or_default(), target: self.system_log(log_file) }
    }

    fn system_log(&mut self, log_file: Option<&Path>) -> SystemLog {
        const ACCEPTED: &str = "must be \"stream\", \"stderr\" or a path with a /";
        let Some((text, found)) = self.read.string("system_log", ACCEPTED) else {
            return SystemLog::Stream;
        };
        match text.as_str() {
            "stream" => SystemLog::Stream,
            "stderr" => SystemLog::Stderr,
            // A word that was meant to be one of the two must not become a file.
            path if path.contains('/') => {
                let target = self.made_absolute(Path::new(path), &found).map_or(SystemLog::Stream, SystemLog::File);
                if log_file.is_some_and(|log_file| target.is_file(log_file)) {
                    self.read.refuse(&found, "is the log_file; for messages among the records, set \"stream\"");
                }
                target
            }
            _ => {
                self.read.refuse(&found, ACCEPTED);
                SystemLog::Stream
            }
        }
    }

    /// Reads the address of the metrics, which must be neither the listener's nor the status socket's.
    pub(super) fn metrics(&mut self, listen: SocketAddr, status_socket: Option<&Path>) -> Option<MetricsAddress> {
        const ACCEPTED: &str = "must be an address of the loopback interface with a port, such as \"127.0.0.1:9464\" or \
                                \"[::1]:9464\", or the absolute path of a unix socket, or \"off\"";
        let (text, found) = self.read.string("metrics", ACCEPTED)?;
        if text == "off" {
            return None;
        }
        if text.starts_with('/') {
            if status_socket == Some(Path::new(&text)) {
                self.read.refuse(&found, "is the status_socket; choose another path");
            }
            return Some(MetricsAddress::Unix(PathBuf::from(text)));
        }
        match text.parse::<SocketAddr>() {
            Ok(address)
                if address.port() == listen.port() && (listen.ip().is_unspecified() || listen.ip() == address.ip()) =>
            {
                self.read.refuse(&found, "is where connections are taken (ip, port); choose another port");
                None
            }
            Ok(address) if address.port() > 0 && address.ip().to_canonical().is_loopback() => {
                Some(MetricsAddress::Tcp(address))
            }
            Ok(address) if address.port() > 0 => {
                let why = format!(
                    "{} can be reached from outside, and metrics tell a stranger that this is a sensor; {ACCEPTED}; \
                     have a proxy or a tunnel fetch them from there",
                    address.ip()
                );
                self.read.refuse(&found, &why);
                None
            }
            _ => {
                self.read.refuse(&found, ACCEPTED);
                None
            }
        }
    }
}
