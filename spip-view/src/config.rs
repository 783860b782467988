//! Configuration: a TOML file, and the command line, which takes precedence. Both use the same names.
//!
//! A mistake is named with the key, the value and what is accepted, before anything is opened.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::store::Keep;

/// Address of the page unless another one is configured: loopback, so that other machines do not reach it.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8765";

/// Least size that the store can be given: a catalog and one day with some thousand records.
const MIN_BYTES: u64 = 16 << 20;

/// The configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `log`: logs that are followed.
    pub logs: Vec<PathBuf>,
    /// `state_dir`: where the store is.
    pub state_dir: PathBuf,
    /// `listen`: where the page is served.
    pub listen: Listen,
    /// `token_file`: a file with the secret that browsers have to send; needed for addresses that others reach.
    pub token_file: Option<PathBuf>,
    /// `keep_days`, `keep_bytes`.
    pub keep: Keep,
    /// `records`: whether records are kept in the store (`store`), or found in the log again (`log`).
    pub keeps_records: bool,
    /// `hosts`: names under which browsers reach the page, beside the address itself.
    pub hosts: Vec<String>,
    /// `sandbox`: whether the process confines itself.
    pub is_confined: bool,
    /// `geo`, `scanners`, `rules`, `starter_rules`: where the data is that says what records mean.
    pub enrich: spip_enrich::Config,
}

/// Address of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// A mistake.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The file is not what it should be; the text names line, key and what is accepted.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
    /// A value is not accepted.
    #[error("{key} = {value}: {accepted}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// Accepted values.
        accepted: &'static str,
    },
}

/// Settings from a file or the command line; those that are absent have their default.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// `log`
    #[serde(default)]
    pub log: OneOrMany,
    /// `state_dir`
    pub state_dir: Option<PathBuf>,
    /// `listen`
    pub listen: Option<String>,
    /// `token_file`
    pub token_file: Option<PathBuf>,
    /// `keep_days`
    pub keep_days: Option<u32>,
    /// `keep_bytes`
    pub keep_bytes: Option<u64>,
    /// `records`
    pub records: Option<String>,
    /// `hosts`
    #[serde(default)]
    pub hosts: Vec<String>,
    /// `sandbox`
    pub sandbox: Option<String>,
    /// `geo`
    pub geo: Option<PathBuf>,
    /// `scanners`
    pub scanners: Option<PathBuf>,
    /// `rules`
    #[serde(default)]
    pub rules: OneOrMany,
    /// `starter_rules`
    pub starter_rules: Option<bool>,
}

/// A path, or a list of them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(PathBuf),
    /// Some.
    Many(Vec<PathBuf>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    /// Returns all of them.
    #[must_use]
    pub fn list(self) -> Vec<PathBuf> {
        match self {
            Self::One(path) => vec![path],
            Self::Many(paths) => paths,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Many(paths) if paths.is_empty())
    }
}

impl Given {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or has a key or a value that is not accepted.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut given: Self = toml::from_str(&text).map_err(|error| ConfigError::File {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        // Paths of a file are meant from where it lies.
        let base = path.parent().unwrap_or(Path::new("."));
        let absolute = |path: PathBuf| if path == Path::new("-") { path } else { base.join(path) };
        given.log = OneOrMany::Many(given.log.list().into_iter().map(absolute).collect());
        given.state_dir = given.state_dir.map(absolute);
        given.token_file = given.token_file.map(absolute);
        given.geo = given.geo.map(absolute);
        given.scanners = given.scanners.map(absolute);
        given.rules = OneOrMany::Many(given.rules.list().into_iter().map(absolute).collect());
        Ok(given)
    }

    /// Lets what the command line says win over what the file says.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            log: if self.log.is_empty() { file.log } else { self.log },
            state_dir: self.state_dir.or(file.state_dir),
            listen: self.listen.or(file.listen),
            token_file: self.token_file.or(file.token_file),
            keep_days: self.keep_days.or(file.keep_days),
            keep_bytes: self.keep_bytes.or(file.keep_bytes),
            records: self.records.or(file.records),
            hosts: if self.hosts.is_empty() { file.hosts } else { self.hosts },
            sandbox: self.sandbox.or(file.sandbox),
            geo: self.geo.or(file.geo),
            scanners: self.scanners.or(file.scanners),
            rules: if self.rules.is_empty() { file.rules } else { self.rules },
            starter_rules: self.starter_rules.or(file.starter_rules),
        }
    }

    /// Checks everything and fills in defaults.
    ///
    /// # Errors
    /// A value is not accepted.
    pub fn check(self) -> Result<Config, ConfigError> {
        let listen = listen(self.listen.as_deref().unwrap_or(DEFAULT_LISTEN))?;
        let is_exposed = matches!(&listen, Listen::Tcp(address) if !address.ip().is_loopback());
        if is_exposed && self.token_file.is_none() {
            return Err(ConfigError::Value {
                key: "listen",
                value: self.listen.unwrap_or_default(),
                accepted: "other machines reach this address: set token_file to a file with a secret of at least 16 characters, or \
                           listen on 127.0.0.1 and use an SSH tunnel",
            });
        }
        let defaults = Keep::default();
        let days = self.keep_days.unwrap_or(defaults.days);
        if days == 0 {
            return Err(wrong("keep_days", days, "a number of days from 1"));
        }
        let bytes = self.keep_bytes.unwrap_or(defaults.bytes);
        if bytes < MIN_BYTES {
            return Err(wrong("keep_bytes", bytes, "a number of bytes from 16777216 (16 MiB)"));
        }
        let keeps_records = match self.records.as_deref() {
            None | Some("store") => true,
            Some("log") => false,
            Some(other) => return Err(wrong("records", other, "\"store\" or \"log\"")),
        };
        let is_confined = match self.sandbox.as_deref() {
            None | Some("auto") => true,
            Some("off") => false,
            Some(other) => return Err(wrong("sandbox", other, "\"auto\" or \"off\"")),
        };
        Ok(Config {
            logs: self.log.list(),
            state_dir: self.state_dir.unwrap_or_else(default_state_dir),
            listen,
            token_file: self.token_file,
            keep: Keep { days, bytes },
            keeps_records,
            hosts: self.hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(),
            is_confined,
            enrich: spip_enrich::Config {
                geo: self.geo,
                scanners: self.scanners,
                rules: self.rules.list(),
                starter: self.starter_rules.unwrap_or(true),
            },
        })
    }
}

fn wrong(key: &'static str, value: impl ToString, accepted: &'static str) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), accepted }
}

fn listen(text: &str) -> Result<Listen, ConfigError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Listen::Unix(path.into()));
    }
    if text.starts_with('/') {
        return Ok(Listen::Unix(text.into()));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listen::Tcp(address));
    }
    // A bare port is one of loopback.
    if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok(Listen::Tcp(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port)));
    }
    Err(wrong("listen", text, "ADDRESS:PORT such as 127.0.0.1:8765, or the path of a unix socket"))
}

/// Returns the default directory of the store: the unit's directory, the system's for root, the user's own.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(directory) = variable("STATE_DIRECTORY") {
        return directory;
    }
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/spip-view".into();
    }
    let home = || variable("HOME").map(|home| home.join(".local/state"));
    variable("XDG_STATE_HOME").or_else(home).map_or_else(|| "spip-view-state".into(), |base| base.join("spip-view"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<Config, String> {
        toml::from_str::<Given>(text).map_err(|error| error.to_string())?.check().map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_loopback_and_bounded() {
        let config = given("").unwrap();
        assert_eq!(config.listen, Listen::Tcp(DEFAULT_LISTEN.parse().unwrap()));
        assert_eq!(config.keep, Keep::default());
        assert!(config.keeps_records && config.is_confined);
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
            assert!(given(&format!("listen = {address:?}")).unwrap_err().contains("token_file"), "{address}");
            assert!(given(&format!("listen = {address:?}\ntoken_file = \"t\"")).is_ok());
        }
        assert!(given("listen = \"[::1]:80\"").is_ok());
        assert_eq!(given("listen = \"/run/x.sock\"").unwrap().listen, Listen::Unix("/run/x.sock".into()));
        assert_eq!(given("listen = \"9000\"").unwrap().listen, Listen::Tcp("127.0.0.1:9000".parse().unwrap()));
    }

    #[test]
    fn a_mistake_names_the_key_and_what_it_takes() {
        for (text, part) in [
            ("keep_days = 0", "keep_days = 0: a number of days"),
            ("keep_bytes = 5", "keep_bytes = 5: a number of bytes"),
            ("records = \"x\"", "records = x: \"store\""),
            ("listen = \"nowhere\"", "listen = nowhere: ADDRESS:PORT"),
            ("keep_dayz = 3", "unknown field `keep_dayz`"),
            ("keep_days = \"x\"", "expected u32"),
        ] {
            let error = given(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_command_line_wins() {
        let file: Given = toml::from_str("log = \"a.json\"\nkeep_days = 3\nlisten = \"1\"").unwrap();
        let line = Given { keep_days: Some(5), ..Given::default() };
        let config = line.over(file).check().unwrap();
        assert_eq!((config.keep.days, config.logs), (5, vec![PathBuf::from("a.json")]));
    }
}
