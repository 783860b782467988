//! The configuration in its final types. Whatever is in here is valid: a file is parsed once, completely, and an
//! invalid state cannot be built. Keys of the predecessor keep their names and meaning.
//!
//! Every problem of a file is found in one pass and named with its line, key, value and what is accepted; nothing is
//! guessed and nothing unknown is passed over, except the predecessor's `[loom]`, which is named in a warning.

mod error;
pub mod keys;
mod levels;
mod load;
mod network;
mod paths;
mod ports;
mod respond;
mod service;
mod show;
mod spans;
mod steering;
#[cfg(test)]
mod tests;
mod values;

pub use error::{ConfigError, Problem};
pub use levels::Levels;
pub use load::Loaded;
pub use network::{Network, PublicAddresses};
pub use ports::is_among;
pub(crate) use respond::STATE_DIRECTORY;
pub use service::{Messages, MetricsAddress, SystemLog};
pub use spans::Spans;
pub use steering::Prefix;
pub(crate) use values::{line, syntax_problem};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use spip_record::Format;

/// Everything that the operator decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the sensor in its records (`name`; the host name unless given).
    pub name: String,
    /// Address and port of the listener (`ip`, `port`).
    pub listen: SocketAddr,
    /// The log of records (`log_file`, `fsync`, `log_rotate_*`, …).
    pub log: Log,
    /// TLS (`tls`, `cert_path`, `key_path`, …).
    pub tls: Tls,
    /// eBPF (`ebpf`, `cgroup_path`, `bpf_pin_path`, …).
    pub ebpf: Ebpf,
    /// Steering of connections to other ports (`steering`, `steer_*`, `pin_links`).
    pub steering: Steering,
    /// Socket for `spip-agent status` (`status_socket`, /run/spip/status.sock); `None` when it is "off".
    pub status_socket: Option<PathBuf>,
    /// Load balancers and address translation in front of the machine (`proxy_protocol_from`, `public_addresses`).
    pub network: Network,
    /// Bounds of a connection in time.
    pub timeouts: Timeouts,
    /// Bounds of connections in number and memory.
    pub limits: Limits,
    /// Replies to clients (`respond`, `banner_after_ms`, `greetings`, `persona`, `state_dir`).
    pub respond: Respond,
    /// Payloads beside the log (`payload_dir`, `payload_store_*`, `payload_preview_bytes`).
    pub payload_store: PayloadStore,
    /// Half-open scans (`scans`, …).
    pub scans: Scans,
    /// Ports that `rules` and steering leave alone (`exclude_ports`: numbers and "from-to" strings), as inclusive
    /// ranges, sorted.
    pub exclude_ports: Vec<(u16, u16)>,
    /// Seed of the Community ID (`community_id_seed`, 0).
    pub community_id_seed: u16,
    /// Sandbox and user after the start (`sandbox`, `user`, `group`).
    pub sandbox: Sandbox,
    /// The agent's own messages (`log_level`, `system_log`).
    pub messages: Messages,
    /// `metrics`: where metrics are read; nowhere when absent.
    pub metrics: Option<MetricsAddress>,
}

/// Rights that the process gives up after its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// `sandbox`: auto | required | off.
    pub mode: SandboxMode,
    /// `user`: name or number; the process stays what it is when absent.
    pub user: Option<String>,
    /// `group`: name or number; the user's own group when absent.
    pub group: Option<String>,
}

/// Requirements on the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxMode {
    /// Every step that the kernel offers.
    Auto,
    /// Every step, or no start.
    Required,
    /// None.
    Off,
}

/// The log of records.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `log_file`; standard output when absent.
    pub file: Option<PathBuf>,
    /// `log_format`: flat | ecs | eve.
    pub format: Format,
    /// `max_line_bytes`: the longest line; what does not fit is left out of its record (eight times
    /// `payload_limit_bytes` and 4 MiB: nothing ever is).
    pub max_line_bytes: usize,
    /// `fsync`: never | interval | always.
    pub fsync: Fsync,
    /// `log_rotate_bytes`: rotate when the file has reached this size; 0 turns it off.
    pub rotate_bytes: u64,
    /// `log_rotate_seconds`: rotate when the file is this old; 0 turns it off.
    pub rotate_age: Option<Duration>,
    /// `log_keep_files`: closed files that are kept, beside those that a reader still needs; 0 keeps all.
    pub keep_files: usize,
    /// `log_keep_bytes`: total size of closed files that is kept; 0 keeps all.
    pub keep_bytes: u64,
    /// `log_min_free_bytes`: below so much free room on its disk the log is kept small; derived from the size of the
    /// file system when absent.
    pub min_free_bytes: Option<u64>,
    /// `log_compress`: none | zstd, for closed files.
    pub compress: Compress,
    /// `log_queue_bytes`: finished lines that wait in memory before sessions wait.
    pub queue_bytes: usize,
}

/// The part of the file system that stays free unless `log_min_free_bytes` says how much does …
const FREE_PART: u64 = 20;
/// … and the most of it: 1 GiB.
const FREE_BYTES: u64 = 1 << 30;

/// Returns the bytes that the log leaves free on a file system of `size` bytes, where `log_min_free_bytes` is `configured`.
#[must_use]
pub fn least_free(configured: Option<u64>, size: u64) -> u64 {
    configured.unwrap_or((size / FREE_PART).min(FREE_BYTES))
}

impl Log {
    /// Returns the bytes that the log may take together with the files that it keeps; `None` when nothing bounds it.
    #[must_use]
    pub fn most_bytes(&self) -> Option<u64> {
        if self.rotate_bytes == 0 {
            return None;
        }
        let by_files = (self.keep_files > 0).then(|| self.rotate_bytes.saturating_mul(self.keep_files as u64));
        let by_bytes = (self.keep_bytes > 0).then_some(self.keep_bytes);
        let kept = match (by_files, by_bytes) {
            (Some(files), Some(bytes)) => files.min(bytes),
            (files, bytes) => files.or(bytes)?,
        };
        // The file that is written to, and one more while it is being compressed.
        let current = if self.compress == Compress::None { 1 } else { 2 };
        Some(kept.saturating_add(self.rotate_bytes.saturating_mul(current)))
    }

    /// Returns the bytes that records of scans may take in a day: a tenth of what the log may, 256 MiB where nothing
    /// bounds it.
    #[must_use]
    pub fn scan_bytes_a_day(&self) -> u64 {
        self.most_bytes().map_or(256 << 20, |most| (most / 10).max(1 << 20))
    }
}

/// Times at which the log file is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Left to the kernel.
    Never,
    /// Once a second, when something was written.
    Interval,
    /// After every batch.
    Always,
}

/// Treatment of closed log files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// They stay as they are.
    None,
    /// They are compressed with Zstandard.
    Zstd,
}

/// TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// `tls`: auto | off.
    pub enabled: bool,
    /// `cert_path` and `key_path`, made absolute against the directory of the configuration file.
    pub certificate: Option<CertificateFiles>,
    /// `tls_client_certificates`: ask clients for a certificate and record what it says.
    pub ask_client_certificate: bool,
}

/// The operator's own certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateFiles {
    /// `cert_path`: a PEM chain, leaf first.
    pub chain: PathBuf,
    /// `key_path`: a PEM key, PKCS#1, SEC1 or PKCS#8.
    pub key: PathBuf,
}

/// eBPF.
#[derive(Clone, Debug, PartialEq)]
pub struct Ebpf {
    /// `ebpf`: auto | off | required.
    pub mode: EbpfMode,
    /// `cgroup_path`: the cgroup v2 directory; found through mountinfo when absent.
    pub cgroup_path: Option<PathBuf>,
    /// `bpf_pin_path`: directory on a bpffs.
    pub pin_path: PathBuf,
    /// `ebpf_syn_entries`: entries of the map SYNS.
    pub syn_entries: u32,
    /// `ebpf_origin_entries`: entries of the map ORIGINS.
    pub origin_entries: u32,
}

/// Half-open scans.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scans {
    /// `scans`: record half-open SYNs.
    pub enabled: bool,
    /// `scan_timeout_seconds`: how long a SYN may take to become a connection.
    pub timeout: Duration,
    /// `scan_interval_seconds`: how often a source's scans are summarised.
    pub interval: Duration,
    /// `deaf_after_seconds`: how long no SYN may reach the listener while some should, until the sensor is called deaf (60);
    /// absent where it is not watched.
    pub deaf_after: Option<Duration>,
}

/// Use of eBPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EbpfMode {
    /// Uses eBPF where the machine offers it; logs the reason where it does not.
    Auto,
    /// Not at all.
    Off,
    /// The agent does not start without it.
    Required,
}

/// Steering of connections to other ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// `steering`: redirect | sk_lookup.
    pub mode: SteeringMode,
    /// `steer_loopback`: steer clients on this machine, too.
    pub loopback: bool,
    /// `steer_prefixes`: local addresses to steer; all when empty.
    pub prefixes: Vec<Prefix>,
    /// `steer_interfaces`: names of interfaces by which connections have to come; any when empty.
    pub interfaces: Vec<String>,
    /// `exempt_services_of`: names or numbers of the users whose services keep their ports; all users' when empty.
    pub exempt_services_of: Vec<String>,
    /// `pin_links`: steering outlives the agent, and the next one takes it over.
    pub pin_links: bool,
}

/// Ways of steering connections to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringMode {
    /// Firewall rules: the operator's, or those of `rules install`.
    Redirect,
    /// The program `steer` in the kernel's look-up of listening sockets.
    SkLookup,
}

/// Replies to clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    /// `respond`: banners | off.
    pub enabled: bool,
    /// `banner_after_ms`: how long a client is silent before it is greeted.
    pub banner_after: Duration,
    /// `greetings`: the dialogue of each port where the client's own bytes do not decide.
    pub ports: BTreeMap<u16, Greeting>,
    /// `persona`: a file with texts in place of the drawn ones.
    pub persona: Option<PathBuf>,
    /// `state_dir`: where what is drawn at the first start is kept.
    pub state_dir: PathBuf,
}

/// Greeting of a port for a client that is silent, or whose bytes decide nothing: the dialogue of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// None: the port stays silent.
    Off,
    /// File transfer.
    Ftp,
    /// Web.
    Http,
    /// Mail, reading.
    Imap,
    /// Messages of devices.
    Mqtt,
    /// Database.
    Mysql,
    /// Mail, fetching.
    Pop3,
    /// Database.
    Postgresql,
    /// Data structures.
    Redis,
    /// Mail, sending.
    Smtp,
    /// Secure shell.
    Ssh,
    /// Terminal.
    Telnet,
    /// Remote screen.
    Vnc,
}

impl Greeting {
    /// All of them, by the names that the configuration takes.
    pub const ALL: [(&'static str, Self); 13] = [
        ("off", Self::Off),
        ("ftp", Self::Ftp),
        ("http", Self::Http),
        ("imap", Self::Imap),
        ("mqtt", Self::Mqtt),
        ("mysql", Self::Mysql),
        ("pop3", Self::Pop3),
        ("postgresql", Self::Postgresql),
        ("redis", Self::Redis),
        ("smtp", Self::Smtp),
        ("ssh", Self::Ssh),
        ("telnet", Self::Telnet),
        ("vnc", Self::Vnc),
    ];

    /// The name in the configuration and of the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, greeting)| *greeting == self).map_or("off", |(name, _)| name)
    }
}

/// Payloads that are kept in files of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadStore {
    /// `payload_dir`: one file for each distinct payload; off when absent.
    pub directory: Option<PathBuf>,
    /// `payload_store_min_bytes`: shorter payloads stay in the record alone.
    pub min_bytes: usize,
    /// `payload_store_max_bytes`: disk budget; the oldest files go.
    pub max_bytes: u64,
    /// `payload_preview_bytes`: what of a payload that is kept in a file stays in the record.
    pub preview_bytes: usize,
}

/// Bounds of a connection in time; all run from the accept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    /// `first_byte_timeout_seconds`: first byte, and TLS handshake.
    pub first_byte: Duration,
    /// `read_timeout_seconds`: idleness between bytes.
    pub idle: Duration,
    /// `write_timeout_seconds`: one reply.
    pub write: Duration,
    /// `session_timeout_seconds`: the whole connection.
    pub session: Duration,
    /// `drain_timeout_seconds`: from the stop signal to the end of the process.
    pub drain: Duration,
}

/// Bounds of connections in number and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// `payload_limit_bytes`: bytes kept of one connection.
    pub payload_bytes: usize,
    /// `payload_memory_bytes`: memory that connections may hold beyond what each is guaranteed; derived from the memory
    /// of the machine when absent.
    pub payload_memory_bytes: Option<usize>,
    /// `max_sessions`: connections at once; derived from descriptors and memory when absent.
    pub sessions: Option<usize>,
    /// `max_sessions_per_source`: connections at once from one IPv4 address or IPv6 /64.
    pub sessions_per_source: usize,
    /// `rate_limit_per_second`: sustained connections a second from one source; 0 turns it off.
    pub rate_per_second: f64,
    /// `rate_limit_burst`: connections that a source may open at once before the rate counts.
    pub rate_burst: f64,
    /// `max_sources`: sources that are remembered; the least recently seen goes.
    pub sources: usize,
    /// `rejected_interval_seconds`: how often refused connections are summarised.
    pub rejected_interval: Duration,
}
