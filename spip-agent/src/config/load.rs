//! From a file to a [`Config`]: every key is read here or in a neighbour, with the bounds and the default of the table.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use crate::process::reach;
use crate::process::walk::read;

use super::error::{ConfigError, Problem};
use super::spans::Spans;
use super::values::{Found, Values};
use super::{CertificateFiles, Config, Ebpf, Limits, Log, Sandbox, Scans, Timeouts, Tls};

/// Largest configuration file; the full one of the documentation has a few kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// More than everything in a line beside the payload: all that is said in it is clipped.
const FACTS_BYTES: usize = 4 << 20;
/// Default of `status_socket`, in a directory that is gone after a reboot.
const STATUS_SOCKET: &str = "/run/spip/status.sock";

/// A configuration, and what should be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, complete with defaults.
    pub config: Config,
    /// Keys of the file that have no effect, one message each, with file and line.
    pub warnings: Vec<String>,
    /// Lines of its keys.
    pub spans: Spans,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, and when anything in it is wrong: then all problems are named at once.
    pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
        let unreadable = |cause: io::Error| {
            let outside = cause.kind() == io::ErrorKind::PermissionDenied && reach::cannot_read(path);
            let cause = if outside { io::Error::other(format!("{cause}; {}", reach::OUTSIDE)) } else { cause };
            ConfigError::Unreadable { path: path.to_owned(), cause }
        };
        let mut bytes = Vec::new();
        read::open_configuration(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        let invalid =
            |line, text: String| ConfigError::Invalid { path: path.to_owned(), problems: vec![Problem { line, text }] };
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(invalid(None, format!("larger than {MAX_FILE_BYTES} bytes: not a configuration file")));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::from_str(text, path),
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                Err(invalid(Some(line), "not valid UTF-8: a configuration file is UTF-8 text".to_owned()))
            }
        }
    }

    /// Reads a configuration from its text; `path` names it in messages and is what relative certificate paths
    /// are relative to.
    ///
    /// # Errors
    /// When anything in it is wrong: then all problems are named at once.
    pub fn from_str(text: &str, path: &Path) -> Result<Loaded, ConfigError> {
        let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
        let mut loading = Loading { read: Values::new(text).map_err(invalid)?, path, warnings: Vec::new() };
        let config = loading.config();
        loading.loom();
        let (problems, lines) = loading.read.finish();
        match config {
            Some(config) if problems.is_empty() => {
                Ok(Loaded { config, warnings: loading.warnings, spans: Spans::new(path, lines) })
            }
            _ => Err(invalid(problems)),
        }
    }
}

pub(super) struct Loading<'i> {
    pub(super) read: Values<'i>,
    pub(super) path: &'i Path,
    warnings: Vec<String>,
}

impl<'i> Loading<'i> {
    /// The configuration; `None` only with a problem on record. With other problems it holds defaults in their
    /// place and must not be used.
    fn config(&mut self) -> Option<Config> {
        let ip = self.ip();
        let port = self.port();
        let ebpf = self.ebpf();
        let mode = ebpf.mode;
        let listen = SocketAddr::new(ip.unwrap_or(IpAddr::from([0, 0, 0, 0])), port.unwrap_or_default());
        let status_socket = self.status_socket();
        let log = self.log();
        let mut config = Config {
            name: self.name(),
            listen,
            messages: self.messages(log.file.as_deref()),
            log,
            tls: self.tls(),
            ebpf,
            steering: self.steering(mode),
            network: self.network(),
            timeouts: self.timeouts(),
            limits: self.limits(),
            respond: self.respond(),
            payload_store: self.payload_store(),
            scans: self.scans(),
            exclude_ports: self.exclude_ports(),
            community_id_seed: u16::try_from(self.read.integer("community_id_seed")).unwrap_or_default(),
            sandbox: self.sandbox(),
            metrics: self.metrics(listen, status_socket.as_deref()),
            status_socket,
        };
        // Unless the operator asks for less, nothing is ever left out: a byte of payload costs at most six as text and
        // two as digits.
        let line = config.limits.payload_bytes.saturating_mul(8).saturating_add(FACTS_BYTES);
        config.log.max_line_bytes = self.optional_size("max_line_bytes").unwrap_or(line);
        (ip.is_some() && port.is_some()).then_some(config)
    }

    fn ip(&mut self) -> Option<IpAddr> {
        const ACCEPTED: &str = "must be the IP address to listen on: \"0.0.0.0\" (all of IPv4), \"::\" (all of IPv4 \
                                and IPv6) or one of this machine's own, without brackets or port";
        let Some(found) = self.read.take("ip") else {
            self.read.problem(None, format!("ip: missing; {ACCEPTED}"));
            return None;
        };
        let ip = found.value.get_ref().as_str().and_then(|text| text.parse::<IpAddr>().ok());
        let ip = ip.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_multicast());
        if ip.is_none() {
            self.read.refuse_type(&found, "string", ACCEPTED);
        }
        ip
    }

    fn port(&mut self) -> Option<u16> {
        self.read.required("port", "8080").and_then(|port| u16::try_from(port).ok())
    }

    fn name(&mut self) -> String {
        const ACCEPTED: &str = "must be a text of at most 255 bytes without control characters";
        let given = self.read.string("name", ACCEPTED);
        if let Some((name, found)) = &given
            && (name.len() > 255 || name.chars().any(char::is_control))
        {
            self.read.refuse(found, ACCEPTED);
        }
        given.map(|(name, _)| name).unwrap_or_else(host_name)
    }

    fn scans(&mut self) -> Scans {
        let deaf_after = self.read.integer("deaf_after_seconds");
        Scans {
            enabled: self.read.boolean("scans"),
            timeout: self.read.seconds("scan_timeout_seconds"),
            interval: self.read.seconds("scan_interval_seconds"),
            deaf_after: (deaf_after > 0).then_some(Duration::from_secs(deaf_after)),
        }
    }

    fn log(&mut self) -> Log {
        let age = self.read.integer("log_rotate_seconds");
        Log {
            // The destination of output is up to the program's starter, as in a shell: the working directory.
            file: self.path("log_file"),
            format: self.read.choice("log_format"),
            max_line_bytes: 0,
            fsync: self.read.choice("fsync"),
            rotate_bytes: self.read.integer("log_rotate_bytes"),
            rotate_age: (age > 0).then_some(Duration::from_secs(age)),
            keep_files: self.size("log_keep_files"),
            keep_bytes: self.read.integer("log_keep_bytes"),
            min_free_bytes: self.read.derived("log_min_free_bytes").map(|(bytes, _)| bytes),
            compress: self.read.choice("log_compress"),
            queue_bytes: self.size("log_queue_bytes"),
        }
    }

    fn tls(&mut self) -> Tls {
        let enabled = self.read.switch("tls");
        let chain = self.readable("cert_path", "PEM");
        let key = self.readable("key_path", "PEM");
        let certificate = match (chain, key) {
            (Some((chain, _)), Some((key, _))) => Some(CertificateFiles { chain, key }),
            (Some((_, found)), None) => {
                self.read.refuse(&found, "is given without key_path; give both, or neither");
                None
            }
            (None, Some((_, found))) => {
                self.read.refuse(&found, "is given without cert_path; give both, or neither");
                None
            }
            (None, None) => None,
        };
        if certificate.is_some() && !enabled {
            self.warn(None, "cert_path and key_path are not used, because tls = \"off\"");
        }
        Tls { enabled, certificate, ask_client_certificate: self.read.boolean("tls_client_certificates") }
    }

    fn ebpf(&mut self) -> Ebpf {
        let entries = |read: &mut Values<'_>, key| u32::try_from(read.integer(key)).unwrap_or(u32::MAX);
        Ebpf {
            mode: self.read.choice("ebpf"),
            cgroup_path: self.absolute("cgroup_path"),
            pin_path: self.absolute("bpf_pin_path").unwrap_or_else(|| PathBuf::from("/sys/fs/bpf/spip")),
            syn_entries: entries(&mut self.read, "ebpf_syn_entries"),
            origin_entries: entries(&mut self.read, "ebpf_origin_entries"),
        }
    }

    fn status_socket(&mut self) -> Option<PathBuf> {
        const ACCEPTED: &str = "must be an absolute path, beginning with /, or \"off\"";
        let Some((text, found)) = self.read.string("status_socket", ACCEPTED) else {
            return Some(PathBuf::from(STATUS_SOCKET));
        };
        if text == "off" {
            return None;
        }
        if !text.starts_with('/') {
            self.read.refuse(&found, ACCEPTED);
        }
        Some(PathBuf::from(text))
    }

    fn sandbox(&mut self) -> Sandbox {
        const ACCEPTED: &str = "must be a name or a number";
        let mode = self.read.choice("sandbox");
        let user = self.read.string("user", ACCEPTED).map(|(user, _)| user);
        let group = self.read.string("group", ACCEPTED);
        if let (None, Some((_, found))) = (&user, &group) {
            self.read.refuse(found, "is given without user; give both, or user alone");
        }
        Sandbox { mode, user, group: group.map(|(group, _)| group) }
    }

    fn timeouts(&mut self) -> Timeouts {
        Timeouts {
            first_byte: self.read.seconds("first_byte_timeout_seconds"),
            idle: self.predecessor_seconds("read_timeout_seconds"),
            write: self.predecessor_seconds("write_timeout_seconds"),
            session: self.read.seconds("session_timeout_seconds"),
            drain: self.read.seconds("drain_timeout_seconds"),
        }
    }

    fn limits(&mut self) -> Limits {
        let payload_bytes = self.size("payload_limit_bytes");
        let memory = self.read.derived("payload_memory_bytes");
        let payload_memory_bytes = memory.map(|(bytes, found)| {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            if bytes < payload_bytes {
                let why =
                    format!("must be at least payload_limit_bytes ({payload_bytes}), or no connection could fill it");
                self.read.refuse(&found, &why);
            }
            bytes
        });
        Limits {
            payload_bytes,
            payload_memory_bytes,
            sessions: self.optional_size("max_sessions"),
            sessions_per_source: self.size("max_sessions_per_source"),
            rate_per_second: self.read.number_unless("rate_limit_per_second", |_, _, _| false),
            rate_burst: self.burst(),
            sources: self.size("max_sources"),
            rejected_interval: self.read.seconds("rejected_interval_seconds"),
        }
    }

    /// Without a burst no connection would ever be let in; for the predecessor 0 meant its default.
    fn burst(&mut self) -> f64 {
        let mut zero = None;
        let burst = self.read.number_unless("rate_limit_burst", |read, found, default| {
            zero = means_default(read, found, default);
            zero.is_some()
        });
        self.warn_of_zero(zero);
        burst
    }

    /// A duration that the predecessor took, too: for it 0 meant the default, and its files must load.
    fn predecessor_seconds(&mut self, key: &'static str) -> Duration {
        let mut zero = None;
        let seconds = self.read.seconds_unless(key, |read, found, default| {
            zero = means_default(read, found, default);
            zero.is_some()
        });
        self.warn_of_zero(zero);
        seconds
    }

    fn warn_of_zero(&mut self, zero: Option<(usize, String)>) {
        let file = self.path.display();
        self.warnings.extend(zero.map(|(line, text)| format!("{file}:{line}: {text}")));
    }

    /// `[loom]` is the predecessor's and does nothing yet. TOML counts every key below its header as part of it, also
    /// one that was added at the end of the file and meant for the agent: that is said, too.
    fn loom(&mut self) {
        let Some(found) = self.read.take("loom") else {
            return;
        };
        let Some(table) = found.value.get_ref().as_table() else {
            self.read.refuse_type(&found, "table", "must be a table, [loom]");
            return;
        };
        let swallowed: Vec<&str> =
            table.keys().map(|key| key.get_ref().as_ref()).filter(|key| self.read.knows(key)).collect();
        let mut text = "[loom] is not supported yet and does nothing: records go to the log only".to_owned();
        if !swallowed.is_empty() {
            text.push_str(&format!(
                "; {} below it belongs to it, too: move it above [loom] if it is meant for the agent",
                swallowed.join(", ")
            ));
        }
        self.warn(Some(&found), &text);
    }

    pub(super) fn size(&mut self, key: &'static str) -> usize {
        usize::try_from(self.read.integer(key)).unwrap_or(usize::MAX)
    }

    fn optional_size(&mut self, key: &'static str) -> Option<usize> {
        self.read.derived(key).and_then(|(number, _)| usize::try_from(number).ok())
    }

    pub(super) fn warn(&mut self, found: Option<&Found<'_>>, text: &str) {
        let file = self.path.display();
        self.warnings.push(match found {
            Some(found) => format!("{file}:{}: {text}", self.read.line(found.value.span().start)),
            None => format!("{file}: {text}"),
        });
    }
}

/// The machine's name, which names the sensor unless the operator does.
fn host_name() -> String {
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { "spip".to_owned() } else { name }
}

/// Returns the line of a value of 0 and what it means, where it is one.
fn means_default(read: &Values<'_>, found: &Found<'_>, default: f64) -> Option<(usize, String)> {
    let DeValue::Integer(integer) = found.value.get_ref() else { return None };
    let is_zero = integer.as_str().parse() == Ok(0);
    is_zero.then(|| (read.line(found.value.span().start), format!("{} = 0 means the default, {default}", found.key)))
}
