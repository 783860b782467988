//! From a file to a [`Config`]: every key is read here, with its default and its bounds.
//!
//! The bounds refuse what cannot have been meant (a timeout of a year, a map of a billion entries), not what is unwise.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use crate::process::reach;
use spip_record::Format;

use super::error::{ConfigError, Problem};
use super::spans::Spans;
use super::values::{DAY, Found, Values, accepted_integer};
use super::{
    CertificateFiles, Compress, Config, Ebpf, EbpfMode, Fsync, Limits, Log, Sandbox, SandboxMode, Scans, Timeouts, Tls,
};

/// Largest configuration file; the full one of the documentation has a few kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Smallest bound of a line: what is never left out of a record fits.
const MIN_LINE_BYTES: u64 = 8 << 10;
/// More than everything in a line beside the payload: all that is said in it is clipped.
const FACTS_BYTES: usize = 4 << 20;
/// Largest size in bytes that a key takes: 1 TiB.
pub(super) const MAX_BYTES: u64 = 1 << 40;
/// Largest number of table or map entries: a map of that size takes gigabytes.
const MAX_ENTRIES: u64 = 1 << 24;
/// Oldest log file: ten years.
const MAX_AGE_SECONDS: u64 = 315_360_000;
/// Connections a second from one source, sustained. One core of a small machine records about as many: above it a
/// single source would take the sensor from all others. A scanner at full speed stays below it.
const RATE_PER_SECOND: f64 = 20_000.0;
/// Connections of one source before the rate counts: a scan of all 65,535 ports in one breath, and some retries.
const RATE_BURST: f64 = 70_000.0;
/// Default of `status_socket`, in a directory that is gone after a reboot.
const STATUS_SOCKET: &str = "/run/spip/status.sock";
/// More than any machine accepts in a second; only keeps arithmetic finite.
const MAX_RATE: f64 = 1e9;

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
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
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
            scans: Scans {
                enabled: self.read.boolean("scans", true),
                timeout: self.read.seconds("scan_timeout_seconds", 5.0),
                interval: self.read.seconds("scan_interval_seconds", 60.0),
            },
            exclude_ports: self.exclude_ports(),
            community_id_seed: u16::try_from(self.read.integer("community_id_seed", (0, 65_535), 0))
                .unwrap_or_default(),
            sandbox: self.sandbox(),
            metrics: self.metrics(listen, status_socket.as_deref()),
            status_socket,
        };
        // Unless the operator asks for less, nothing is ever left out: a byte of payload costs at most six as text and
        // two as digits.
        let line = config.limits.payload_bytes.saturating_mul(8).saturating_add(FACTS_BYTES);
        config.log.max_line_bytes = self.optional_size("max_line_bytes", (MIN_LINE_BYTES, MAX_BYTES)).unwrap_or(line);
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
        let accepted = accepted_integer((1, 65_535));
        let Some(found) = self.read.take("port") else {
            self.read.problem(None, format!("port: missing; {accepted}, for example port = 8080"));
            return None;
        };
        let port = self.read.as_integer(&found, (1, 65_535), &accepted)?;
        u16::try_from(port).ok()
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

    fn log(&mut self) -> Log {
        let age = self.read.integer("log_rotate_seconds", (0, MAX_AGE_SECONDS), 0);
        Log {
            // The destination of output is up to the program's starter, as in a shell: the working directory.
            file: self.path("log_file"),
            format: self.read.choice(
                "log_format",
                &[("flat", Format::Flat), ("ecs", Format::Ecs), ("eve", Format::Eve)],
                Format::Flat,
            ),
            max_line_bytes: 0,
            fsync: self.read.choice(
                "fsync",
                &[("never", Fsync::Never), ("interval", Fsync::Interval), ("always", Fsync::Always)],
                Fsync::Never,
            ),
            rotate_bytes: self.read.integer("log_rotate_bytes", (0, MAX_BYTES), 256 << 20),
            rotate_age: (age > 0).then_some(Duration::from_secs(age)),
            keep_files: self.size("log_keep_files", (0, 1_000_000), 10),
            keep_bytes: self.read.integer("log_keep_bytes", (0, 1 << 53), 0),
            min_free_bytes: self.optional_size("log_min_free_bytes", (0, 1 << 53)).map(|bytes| bytes as u64),
            compress: self.read.choice(
                "log_compress",
                &[("none", Compress::None), ("zstd", Compress::Zstd)],
                Compress::None,
            ),
            queue_bytes: self.size("log_queue_bytes", (64 << 10, MAX_BYTES), 8 << 20),
        }
    }

    fn tls(&mut self) -> Tls {
        let enabled = self.read.choice("tls", &[("auto", true), ("off", false)], true);
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
        Tls { enabled, certificate, ask_client_certificate: self.read.boolean("tls_client_certificates", false) }
    }

    fn ebpf(&mut self) -> Ebpf {
        let entries = |read: &mut Values<'_>, key| {
            u32::try_from(read.integer(key, (64, MAX_ENTRIES), 65_536)).unwrap_or(u32::MAX)
        };
        Ebpf {
            mode: self.read.choice(
                "ebpf",
                &[("auto", EbpfMode::Auto), ("off", EbpfMode::Off), ("required", EbpfMode::Required)],
                EbpfMode::Auto,
            ),
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
        let mode = self.read.choice(
            "sandbox",
            &[("auto", SandboxMode::Auto), ("required", SandboxMode::Required), ("off", SandboxMode::Off)],
            SandboxMode::Auto,
        );
        let user = self.read.string("user", ACCEPTED).map(|(user, _)| user);
        let group = self.read.string("group", ACCEPTED);
        if let (None, Some((_, found))) = (&user, &group) {
            self.read.refuse(found, "is given without user; give both, or user alone");
        }
        Sandbox { mode, user, group: group.map(|(group, _)| group) }
    }

    fn timeouts(&mut self) -> Timeouts {
        Timeouts {
            first_byte: self.read.seconds("first_byte_timeout_seconds", 10.0),
            idle: self.predecessor_seconds("read_timeout_seconds", 30.0),
            write: self.predecessor_seconds("write_timeout_seconds", 10.0),
            session: self.read.seconds("session_timeout_seconds", 300.0),
            drain: self.read.seconds("drain_timeout_seconds", 5.0),
        }
    }

    fn limits(&mut self) -> Limits {
        let payload_bytes = self.size("payload_limit_bytes", (1, 1 << 30), 64 << 10);
        let memory = self.read.take("payload_memory_bytes");
        let payload_memory_bytes = memory.and_then(|found| {
            let bounds = (1, MAX_BYTES);
            let bytes = self.read.as_integer(&found, bounds, &accepted_integer(bounds))?;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            if bytes < payload_bytes {
                let why =
                    format!("must be at least payload_limit_bytes ({payload_bytes}), or no connection could fill it");
                self.read.refuse(&found, &why);
            }
            Some(bytes)
        });
        Limits {
            payload_bytes,
            payload_memory_bytes,
            sessions: self.optional_size("max_sessions", (1, MAX_ENTRIES)),
            sessions_per_source: self.size("max_sessions_per_source", (1, MAX_ENTRIES), 4_096),
            rate_per_second: self.rate("rate_limit_per_second", RATE_PER_SECOND),
            rate_burst: self.burst(),
            sources: self.size("max_sources", (1, MAX_ENTRIES), 65_536),
            rejected_interval: self.read.seconds("rejected_interval_seconds", 10.0),
        }
    }

    fn rate(&mut self, key: &'static str, default: f64) -> f64 {
        let found = self.read.take(key);
        found.and_then(|found| self.read.as_number(&found, (0.0, MAX_RATE))).unwrap_or(default)
    }

    /// Without a burst no connection would ever be let in; for the predecessor 0 meant its default.
    fn burst(&mut self) -> f64 {
        let Some(found) = self.read.take("rate_limit_burst") else {
            return RATE_BURST;
        };
        if is_zero(found.value.get_ref()) {
            self.warn(Some(&found), &format!("rate_limit_burst = 0 means the default, {RATE_BURST}"));
            return RATE_BURST;
        }
        self.read.as_number(&found, (1.0, MAX_RATE)).unwrap_or(RATE_BURST)
    }

    /// A duration that the predecessor took, too: for it 0 meant the default, and its files must load.
    fn predecessor_seconds(&mut self, key: &'static str, default: f64) -> Duration {
        debug_assert!(default <= DAY);
        let mut found = self.read.take(key);
        if let Some(zero) = &found
            && is_zero(zero.value.get_ref())
        {
            self.warn(Some(zero), &format!("{key} = 0 means the default, {default}"));
            found = None;
        }
        self.read.as_seconds(found, default)
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

    pub(super) fn size(&mut self, key: &'static str, bounds: (u64, u64), default: u64) -> usize {
        usize::try_from(self.read.integer(key, bounds, default)).unwrap_or(usize::MAX)
    }

    fn optional_size(&mut self, key: &'static str, bounds: (u64, u64)) -> Option<usize> {
        let found = self.read.take(key)?;
        let number = self.read.as_integer(&found, bounds, &accepted_integer(bounds))?;
        usize::try_from(number).ok()
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

fn is_zero(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Integer(integer) => integer.as_str().parse() == Ok(0),
        _ => false,
    }
}
