//! The table of keys, in the order of `docs/configuration.md`. Text is Markdown without links: a page is named with its
//! anchor, as `steering.md#restarts`.
//!
//! The bounds refuse what cannot have been meant (a timeout of a year, a map of a billion entries), not what is unwise.

use spip_record::Format;

use super::{Effect, Key, Kind, words};
use crate::config::{Compress, EbpfMode, Fsync, SandboxMode, SteeringMode};

/// Smallest bound of a line: what is never left out of a record fits.
const MIN_LINE_BYTES: u64 = 8 << 10;
/// Largest size in bytes that a key takes: 1 TiB.
const MAX_BYTES: u64 = 1 << 40;
/// Largest number of table or map entries: a map of that size takes gigabytes.
const MAX_ENTRIES: u64 = 1 << 24;
/// Oldest log file: ten years.
const MAX_AGE_SECONDS: u64 = 315_360_000;
/// More than any machine accepts in a second; only keeps arithmetic finite.
const MAX_RATE: f64 = 1e9;

/// Every key of the configuration.
pub(super) static KEYS: &[Key] = &[
    // The sensor
    Key {
        name: "ip",
        kind: Kind::Other { default: "required", accepted: "an IPv4 or IPv6 address" },
        meaning: r#"Address of the listener: `"0.0.0.0"` is all of IPv4, `"::"` all of IPv4 and IPv6, `"127.0.0.1"` this machine only. Firewall rules redirect connections from outside to an address of the network interface, never to `127.0.0.1`. `steering = "sk_lookup"` reaches any address, for both families unless it is a single IPv6 address."#,
        example: r#""::""#,
        effect: Effect::Restart,
    },
    Key {
        name: "port",
        kind: Kind::Derived((1, 65_535), "required"),
        meaning: "Port of the listener. Rules or steering bring connections to all other ports here.",
        example: "8080",
        effect: Effect::Restart,
    },
    Key {
        name: "name",
        kind: Kind::Other { default: "host name", accepted: "up to 255 bytes, no control characters" },
        meaning: "Name of the sensor in its records.",
        example: r#""sensor-7""#,
        effect: Effect::Live,
    },
    Key {
        name: "community_id_seed",
        kind: Kind::Integer((0, 65_535), 0),
        meaning: "Seed of the Community ID. Use the seed of the tools whose IDs must match.",
        example: "0",
        effect: Effect::Live,
    },
    Key {
        name: "exclude_ports",
        kind: Kind::Other { default: "`[]`", accepted: r#"array of ports and ranges: `[22, "8000-8100"]`"# },
        meaning: "Ports that `spip-agent rules` and steering leave alone, in addition to those of sshd and of listening services.",
        example: r#"[22, "8000-8100"]"#,
        effect: Effect::Live,
    },
    Key {
        name: "proxy_protocol_from",
        kind: Kind::Other { default: "`[]`", accepted: r#"array of prefixes: `["10.0.0.0/8"]`"# },
        meaning: "Load balancers whose PROXY protocol (version 1 and 2) is believed: the record has the source and destination that it names, and limits count that source. A header from any other peer is recorded in `proxy` and changes no address.",
        example: r#"["10.0.0.0/8"]"#,
        effect: Effect::Live,
    },
    Key {
        name: "public_addresses",
        kind: Kind::Other {
            default: "`{}`",
            accepted: r#"table of local and public addresses or prefixes of one length: `{ "10.0.0.5" = "203.0.113.9" }`"#,
        },
        meaning: "Public addresses that 1:1 NAT in front of this machine translates, as in most clouds. `destination_ip` and the Community ID use the public address, and `destination_local_ip` keeps the local one.",
        example: r#"{ "10.0.0.5" = "203.0.113.9" }"#,
        effect: Effect::Live,
    },
    // The log
    Key {
        name: "log_file",
        kind: Kind::Other { default: "standard output", accepted: "a path" },
        meaning: "File of the records and system messages. A relative path is relative to the agent's working directory.",
        example: r#""/var/log/spip/spip.jsonl""#,
        effect: Effect::Live,
    },
    Key {
        name: "log_format",
        kind: Kind::Choice(words::<Format>),
        meaning: "Format of records and system messages: Spip's own, the Elastic Common Schema, or Suricata's EVE. All three have the same facts: records.md.",
        example: r#""flat""#,
        effect: Effect::Live,
    },
    Key {
        name: "max_line_bytes",
        kind: Kind::Derived((MIN_LINE_BYTES, MAX_BYTES), "`4718592`"),
        meaning: "Upper bound of a line. Parts that do not fit are left out in a fixed order, and `shortened` names them. The default is eight times `payload_limit_bytes` plus 4 MiB, so that everything fits.",
        example: "4_718_592",
        effect: Effect::Live,
    },
    Key {
        name: "fsync",
        kind: Kind::Choice(words::<Fsync>),
        meaning: "Time at which written lines are forced to the disk: left to the kernel, once a second, or after every batch.",
        example: r#""interval""#,
        effect: Effect::Live,
    },
    Key {
        name: "log_rotate_bytes",
        kind: Kind::Integer((0, MAX_BYTES), 256 << 20),
        meaning: "Size at which a file is closed and a new one begun; 0: never. With the default of `log_keep_files` the log takes at most 2.75 GiB.",
        example: "1_000_000_000",
        effect: Effect::Live,
    },
    Key {
        name: "log_rotate_seconds",
        kind: Kind::Integer((0, MAX_AGE_SECONDS), 0),
        meaning: "Age at which a file is closed and a new one begun; 0: never.",
        example: "86400",
        effect: Effect::Live,
    },
    Key {
        name: "log_keep_files",
        kind: Kind::Integer((0, 1_000_000), 10),
        meaning: "Number of closed files that are kept; 0: all. One that `spip-ship` still needs stays longer, within `log_keep_bytes` and the free room of `log_min_free_bytes`.",
        example: "30",
        effect: Effect::Live,
    },
    Key {
        name: "log_keep_bytes",
        kind: Kind::Integer((0, 1 << 53), 0),
        meaning: "Total size of the closed files that are kept; 0: all.",
        example: "20_000_000_000",
        effect: Effect::Live,
    },
    Key {
        name: "log_min_free_bytes",
        kind: Kind::Derived((0, 1 << 53), "a twentieth of the file system, at most 1 GiB"),
        meaning: "Free disk space to preserve. With less, records of a source that wrote more than 64 KiB are shortened; below a quarter of it they are only counted in summaries (security.md#the-log). 0: off.",
        example: "1_000_000_000",
        effect: Effect::Live,
    },
    Key {
        name: "log_compress",
        kind: Kind::Choice(words::<Compress>),
        meaning: "Compression of closed files.",
        example: r#""zstd""#,
        effect: Effect::Live,
    },
    Key {
        name: "log_level",
        kind: Kind::Other {
            default: r#"`"info"`"#,
            accepted: r#"`"off"`, `"error"`, `"warn"`, `"info"`, `"debug"`, `"trace"`, and after it levels for single targets: `"warn, agent=info, steering=off"`"#,
        },
        meaning: "Level of the agent's own messages. A message has its target in the field `target`, one of the list in configuration.md#targets; a level for the target `a` applies to `a::b`, too. A place in the program writes at most ten messages a second; the others are counted.",
        example: r#""info""#,
        effect: Effect::Live,
    },
    Key {
        name: "system_log",
        kind: Kind::Other { default: r#"`"stream"`"#, accepted: r#"`"stream"`, `"stderr"`, a path with a `/`"# },
        meaning: "Destination of these messages: among the records, standard error, or a file of their own, which is rotated, kept and compressed as the log is and must not be `log_file`. Messages that the log cannot take go to standard error in any case.",
        example: r#""/var/log/spip/messages.jsonl""#,
        effect: Effect::Restart,
    },
    Key {
        name: "log_queue_bytes",
        kind: Kind::Integer((64 << 10, MAX_BYTES), 8 << 20),
        meaning: "Memory for finished lines that wait for the disk. When it is full, connections wait; no record is dropped.",
        example: "8_388_608",
        effect: Effect::Restart,
    },
    // TLS
    Key {
        name: "tls",
        kind: Kind::Switch("auto"),
        meaning: r#"Answers TLS on any port; `"off"` records the first message of TLS as payload. The agent serves TLS 1.2 and 1.3, and TLS 1.0 and 1.1 when it was built with the feature `legacy-tls`."#,
        example: r#""auto""#,
        effect: Effect::Live,
    },
    Key {
        name: "cert_path",
        kind: Kind::Other { default: "none", accepted: "path of a PEM file" },
        meaning: "The certificate chain, leaf first. Relative to the directory of the configuration file. Requires `key_path`. Without both, the agent makes a certificate for each name that clients ask for.",
        example: r#""cert.pem""#,
        effect: Effect::Live,
    },
    Key {
        name: "key_path",
        kind: Kind::Other { default: "none", accepted: "path of a PEM file" },
        meaning: "The key of that certificate, PKCS#1, SEC1 or PKCS#8. Requires `cert_path`.",
        example: r#""key.pem""#,
        effect: Effect::Live,
    },
    Key {
        name: "tls_client_certificates",
        kind: Kind::Boolean(false),
        meaning: "Asks clients for a certificate.",
        example: "false",
        effect: Effect::Live,
    },
    // eBPF
    Key {
        name: "ebpf",
        kind: Kind::Choice(words::<EbpfMode>),
        meaning: "Use of eBPF: where the machine offers it, never, or required, so that the agent does not start without it.",
        example: r#""required""#,
        effect: Effect::Restart,
    },
    Key {
        name: "cgroup_path",
        kind: Kind::Other { default: "found in `/proc/self/mountinfo`", accepted: "an absolute path" },
        meaning: "Directory of the cgroup v2 whose connections are observed. The root is right for nearly every machine.",
        example: r#""/sys/fs/cgroup""#,
        effect: Effect::Restart,
    },
    Key {
        name: "bpf_pin_path",
        kind: Kind::Other { default: r#"`"/sys/fs/bpf/spip"`"#, accepted: "an absolute path" },
        meaning: "Directory on a bpffs in which maps and programs are pinned.",
        example: r#""/sys/fs/bpf/spip""#,
        effect: Effect::Restart,
    },
    Key {
        name: "ebpf_syn_entries",
        kind: Kind::Integer((64, MAX_ENTRIES), 65_536),
        meaning: "Number of SYNs that the kernel side remembers, and that the agent follows at once for `scans`.",
        example: "65_536",
        effect: Effect::Restart,
    },
    Key {
        name: "ebpf_origin_entries",
        kind: Kind::Integer((64, MAX_ENTRIES), 65_536),
        meaning: "Number of open connections whose origin the kernel side remembers.",
        example: "65_536",
        effect: Effect::Restart,
    },
    // Steering
    Key {
        name: "steering",
        kind: Kind::Choice(words::<SteeringMode>),
        meaning: "Way in which connections to other ports reach the agent. `redirect`: by firewall rules, yours or those of `rules install`. `sk_lookup`: by an eBPF program in the kernel's look-up of listening sockets, without a rule; needs Linux 5.9, and the agent does not start without it.",
        example: r#""sk_lookup""#,
        effect: Effect::Restart,
    },
    Key {
        name: "steer_loopback",
        kind: Kind::Boolean(false),
        meaning: "Also steers connections of clients on this machine.",
        example: "false",
        effect: Effect::Live,
    },
    Key {
        name: "steer_prefixes",
        kind: Kind::Other { default: "`[]`", accepted: r#"array of up to 1024 prefixes: `["198.51.100.0/24"]`"# },
        meaning: "Local addresses that are steered; all of them when empty.",
        example: r#"["198.51.100.0/24", "2001:db8::/32"]"#,
        effect: Effect::Live,
    },
    Key {
        name: "steer_interfaces",
        kind: Kind::Other { default: "`[]`", accepted: r#"array of up to 256 names: `["eth0"]`"# },
        meaning: "Interfaces whose connections are steered; all of them when empty. One that does not exist yet is steered once it does. Needs Linux 5.17.",
        example: r#"["eth0"]"#,
        effect: Effect::Live,
    },
    Key {
        name: "exempt_services_of",
        kind: Kind::Other { default: "`[]`", accepted: r#"array of up to 256 users: `["root", "postgres"]`"# },
        meaning: "Users, by name or number, whose services keep their ports; those of all users when empty. Ports on which other users listen are steered: steering.md#services-of-chosen-users.",
        example: r#"["root", "postgres"]"#,
        effect: Effect::Restart,
    },
    Key {
        name: "pin_links",
        kind: Kind::Boolean(false),
        meaning: "Keeps steering when the agent ends, so that the next one takes it over without refusing a connection: steering.md#restarts. Needs a bpffs at `bpf_pin_path`.",
        example: "false",
        effect: Effect::Restart,
    },
    // Status
    Key {
        name: "status_socket",
        kind: Kind::Other { default: r#"`"/run/spip/status.sock"`"#, accepted: r#"an absolute path, or `"off"`"# },
        meaning: "Socket for `spip-agent status`. The agent makes a missing directory; when it cannot, it reports that and runs without the socket. At its end it removes a socket in a directory of its own; one that stays is replaced at the next start.",
        example: r#""/run/spip/status.sock""#,
        effect: Effect::Restart,
    },
    // Drawing out
    Key {
        name: "respond",
        kind: Kind::Switch("banners"),
        meaning: r#"Answers clients, and greets silent ones; `"off"` sends nothing."#,
        example: r#""banners""#,
        effect: Effect::Live,
    },
    Key {
        name: "banner_after_ms",
        kind: Kind::Integer((1, 60_000), 1_500),
        meaning: "Milliseconds of silence before a client gets the greeting of its port. Each session adds up to a quarter of it, chosen at random, and up to 50 ms.",
        example: "1_500",
        effect: Effect::Live,
    },
    Key {
        name: "greetings",
        kind: Kind::Other {
            default: "the table in respond.md#ports",
            accepted: r#"a table of ports and dialogues: `{ 2121 = "ftp", 23 = "off" }`"#,
        },
        meaning: "Dialogue of each port; ports that are not named keep their default. The dialogues are `ftp`, `http`, `imap`, `mqtt`, `mysql`, `pop3`, `postgresql`, `redis`, `smtp`, `ssh`, `telnet`, `vnc`, and `off`.",
        example: r#"{ 2022 = "ssh", 8023 = "telnet", 5900 = "off" }"#,
        effect: Effect::Live,
    },
    Key {
        name: "persona",
        kind: Kind::Other { default: "drawn at the first start", accepted: "path of a TOML file" },
        meaning: "Texts that replace the drawn ones, as respond.md#persona shows. Relative to the directory of the configuration file.",
        example: r#""persona.toml""#,
        effect: Effect::Live,
    },
    Key {
        name: "state_dir",
        kind: Kind::Other { default: r#"`"/var/lib/spip"`"#, accepted: "a path" },
        meaning: "Directory of the drawn persona. Made when missing; when it cannot be used, the agent warns and each start draws a new persona.",
        example: r#""/var/lib/spip""#,
        effect: Effect::Restart,
    },
    // Payloads
    Key {
        name: "payload_dir",
        kind: Kind::Other { default: "none: off", accepted: "a path" },
        meaning: "Directory for payloads: each distinct one once, in a file named by its SHA-256 (mode 0640). Its record has `payload_stored` and the first bytes. A file that is missing or has another length is written again with the next such payload. While the disk refuses writes, records carry their payloads; payloads lost until then are counted: records.md#payloads-in-files.",
        example: r#""/var/lib/spip/payloads""#,
        effect: Effect::Restart,
    },
    Key {
        name: "payload_store_min_bytes",
        kind: Kind::Integer((1, 1 << 30), 4_096),
        meaning: "Shorter payloads stay in the record alone.",
        example: "4_096",
        effect: Effect::Restart,
    },
    Key {
        name: "payload_store_max_bytes",
        kind: Kind::Integer((4_096, MAX_BYTES), 1 << 30),
        meaning: "Room on the disk in whole blocks: the oldest files are removed to keep it. A longer payload stays in its record alone.",
        example: "1_073_741_824",
        effect: Effect::Restart,
    },
    Key {
        name: "payload_preview_bytes",
        kind: Kind::Integer((0, 1 << 30), 256),
        meaning: "Bytes of a stored payload that its record shows in `payload` and `payload_hex`.",
        example: "256",
        effect: Effect::Restart,
    },
    // Metrics
    Key {
        name: "metrics",
        kind: Kind::Other {
            default: "none",
            accepted: r#"`"127.0.0.1:9464"`, `"[::1]:9464"` or another port of the loopback interface; an absolute path, for a unix socket; `"off"`"#,
        },
        meaning: "Address that answers `GET /metrics` (for Prometheus) and `GET /healthz`: metrics.md. Other addresses are refused. The agent makes a missing directory of a socket, and removes the socket as it does `status_socket`. `rules --local` excludes the port; connections to it from outside reach the sensor.",
        example: r#""127.0.0.1:9464""#,
        effect: Effect::Restart,
    },
    // Privileges
    Key {
        name: "sandbox",
        kind: Kind::Choice(words::<SandboxMode>),
        meaning: "After the start the process gives up all capabilities, most of the file system, new sockets and most system calls (security.md). `auto`: as far as the kernel can; `required`: all of it, or the agent does not start; `off`: nothing.",
        example: r#""auto""#,
        effect: Effect::Restart,
    },
    Key {
        name: "user",
        kind: Kind::Other { default: "the one that starts the agent", accepted: "name or number" },
        meaning: "The agent becomes this user after the start; only root can. Give it the directory of the log, and read access to the files that SIGHUP reads again: this file, `cert_path`, `key_path`, `persona`, and `state_dir` unless the start makes it.",
        example: r#""spip""#,
        effect: Effect::Restart,
    },
    Key {
        name: "group",
        kind: Kind::Other { default: "the user's own", accepted: "name or number" },
        meaning: "Group of that user.",
        example: r#""spip""#,
        effect: Effect::Restart,
    },
    // Scans
    Key {
        name: "scans",
        kind: Kind::Boolean(true),
        meaning: "Records half-open scans.",
        example: "true",
        effect: Effect::Restart,
    },
    Key {
        name: "scan_timeout_seconds",
        kind: Kind::Seconds(5.0),
        meaning: "Time after which a SYN that did not become a connection is half-open.",
        example: "5",
        effect: Effect::Live,
    },
    Key {
        name: "scan_interval_seconds",
        kind: Kind::Seconds(60.0),
        meaning: "Interval of the scan records of a source.",
        example: "60",
        effect: Effect::Live,
    },
    Key {
        name: "deaf_after_seconds",
        kind: Kind::Integer((0, 86_400), 60),
        meaning: "Time in which SYNs arrive at the machine but none reaches the listener, after which the agent reports that it is deaf (steering.md#deafness); 0: no check. Needs `scans`.",
        example: "60",
        effect: Effect::Live,
    },
    // Time
    Key {
        name: "first_byte_timeout_seconds",
        kind: Kind::Seconds(10.0),
        meaning: "Until the first byte, and for the TLS handshake, from the accept.",
        example: "10",
        effect: Effect::Live,
    },
    Key {
        name: "read_timeout_seconds",
        kind: Kind::Seconds(30.0),
        meaning: "Between two bytes.",
        example: "30",
        effect: Effect::Live,
    },
    Key {
        name: "write_timeout_seconds",
        kind: Kind::Seconds(10.0),
        meaning: "For one reply.",
        example: "10",
        effect: Effect::Live,
    },
    Key {
        name: "session_timeout_seconds",
        kind: Kind::Seconds(300.0),
        meaning: "For the whole connection.",
        example: "300",
        effect: Effect::Live,
    },
    Key {
        name: "drain_timeout_seconds",
        kind: Kind::Seconds(5.0),
        meaning: "From the signal to the end of the agent: four fifths for sessions, the rest for the log. A client that was active in the last quarter of a second gets another one. Records that the log cannot take in time are counted.",
        example: "5",
        effect: Effect::Live,
    },
    // Limits
    Key {
        name: "payload_limit_bytes",
        kind: Kind::Integer((1, 1 << 30), 64 << 10),
        meaning: "Bytes of one connection that are kept; further bytes are counted.",
        example: "65_536",
        effect: Effect::Live,
    },
    Key {
        name: "payload_memory_bytes",
        kind: Kind::Derived((1, MAX_BYTES), "128 MiB, or an eighth of the memory where that is less"),
        meaning: "Memory for payload, TLS buffers and unsent replies of all connections, beyond the 2 KiB that each is guaranteed; at least `payload_limit_bytes`. When less than an eighth is left, the largest connections of the sources that hold most are ended, with their records (security.md#memory).",
        example: "134_217_728",
        effect: Effect::Live,
    },
    Key {
        name: "max_sessions",
        kind: Kind::Derived((1, MAX_ENTRIES), "what descriptors and memory allow"),
        meaning: "Connections at once. The default is the smaller of two: the descriptor limit less the agent's own, and half of the memory (of the machine, or `memory.max` of the cgroup where that is less) at 8 kB a session: 65,536 with 1 GiB. The start message names it (`max_sessions_from`: `descriptors`, `memory`, `configuration`).",
        example: "10_000",
        effect: Effect::Live,
    },
    Key {
        name: "max_sessions_per_source",
        kind: Kind::Integer((1, MAX_ENTRIES), 4_096),
        meaning: "Connections at once from one IPv4 address or IPv6 /64.",
        example: "4_096",
        effect: Effect::Live,
    },
    Key {
        name: "rate_limit_per_second",
        kind: Kind::Number((0.0, MAX_RATE), 20_000.0),
        meaning: "Sustained rate of connections of one source; 0 turns the limit off. The default is about the rate that one core of a small machine records: it slows no scanner, and no single source can starve the others.",
        example: "20_000",
        effect: Effect::Live,
    },
    Key {
        name: "rate_limit_burst",
        kind: Kind::Number((1.0, MAX_RATE), 70_000.0),
        meaning: "Burst of connections of one source beyond the rate. The default admits a scan of all 65,535 ports at once, with some retries.",
        example: "70_000",
        effect: Effect::Live,
    },
    Key {
        name: "max_sources",
        kind: Kind::Integer((1, MAX_ENTRIES), 65_536),
        meaning: "Number of sources that the limits remember; the least recently seen is forgotten first.",
        example: "65_536",
        effect: Effect::Live,
    },
    Key {
        name: "rejected_interval_seconds",
        kind: Kind::Seconds(10.0),
        meaning: "Interval of the summaries of refused connections.",
        example: "10",
        effect: Effect::Live,
    },
];
