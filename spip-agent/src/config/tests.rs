//! Each key, each default, the predecessor's file, the documentation; what is refused, and with which words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

mod any_text;
mod refusals;

const FILE: &str = "/etc/spip/spip.toml";
/// Keys that every file needs.
const LEAST: &str = "ip = \"0.0.0.0\"\nport = 8080\n";

fn load(text: &str) -> Result<Loaded, ConfigError> {
    Config::from_str(text, Path::new(FILE))
}

fn loaded(text: &str) -> Config {
    load(text).expect("a valid configuration").config
}

/// The messages for the least file with some lines more; the first of these is line 3.
fn refusal(lines: &str) -> String {
    load(&format!("{LEAST}{lines}\n")).expect_err("an invalid configuration").to_string()
}

#[track_caller]
fn assert_refused(lines: &str, message: &str) {
    assert_eq!(refusal(lines), format!("{FILE}:3: {message}"));
}

#[test]
fn everything_but_the_address_has_a_default() {
    let config = loaded(LEAST);
    let expected = Config {
        name: nix::unistd::gethostname().expect("host name").into_string().expect("UTF-8"),
        listen: "0.0.0.0:8080".parse().expect("address"),
        log: Log {
            file: None,
            fsync: Fsync::Never,
            rotate_bytes: 268_435_456,
            rotate_age: None,
            keep_files: 10,
            keep_bytes: 0,
            min_free_bytes: None,
            compress: Compress::None,
            format: Format::Flat,
            max_line_bytes: 8 * 65_536 + (4 << 20),
            queue_bytes: 8_388_608,
        },
        tls: Tls { enabled: true, certificate: None, ask_client_certificate: false },
        ebpf: Ebpf {
            mode: EbpfMode::Auto,
            cgroup_path: None,
            pin_path: PathBuf::from("/sys/fs/bpf/spip"),
            syn_entries: 65_536,
            origin_entries: 65_536,
        },
        steering: Steering {
            mode: SteeringMode::Redirect,
            loopback: false,
            prefixes: Vec::new(),
            interfaces: Vec::new(),
            exempt_services_of: Vec::new(),
            pin_links: false,
        },
        status_socket: Some(PathBuf::from("/run/spip/status.sock")),
        network: Network::default(),
        timeouts: Timeouts {
            first_byte: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            write: Duration::from_secs(10),
            session: Duration::from_secs(300),
            drain: Duration::from_secs(5),
        },
        limits: Limits {
            payload_bytes: 65_536,
            payload_memory_bytes: None,
            sessions: None,
            sessions_per_source: 4_096,
            rate_per_second: 20_000.0,
            rate_burst: 70_000.0,
            sources: 65_536,
            rejected_interval: Duration::from_secs(10),
        },
        respond: Respond {
            enabled: true,
            banner_after: Duration::from_millis(1_500),
            ports: config.respond.ports.clone(),
            persona: None,
            state_dir: PathBuf::from("/var/lib/spip"),
        },
        payload_store: PayloadStore { directory: None, min_bytes: 4_096, max_bytes: 1_073_741_824, preview_bytes: 256 },
        scans: Scans {
            enabled: true,
            timeout: Duration::from_secs(5),
            interval: Duration::from_secs(60),
            deaf_after: Some(Duration::from_secs(60)),
        },
        exclude_ports: Vec::new(),
        community_id_seed: 0,
        sandbox: Sandbox { mode: SandboxMode::Auto, user: None, group: None },
        messages: Messages { levels: Levels::default(), target: SystemLog::Stream },
        metrics: None,
    };
    assert_eq!(config, expected);
}

#[test]
fn the_default_burst_lets_a_scan_of_all_ports_through() {
    assert!(loaded(LEAST).limits.rate_burst > 65_535.0);
}

/// Certificate files in a directory of the test's own, which is gone afterwards.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("spip-config-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory");
        std::fs::write(directory.join("cert.pem"), "certificate").expect("file");
        std::fs::write(directory.join("key.pem"), "key").expect("file");
        std::fs::write(directory.join("persona.toml"), "").expect("file");
        Self(directory)
    }

    fn config(&self) -> PathBuf {
        self.0.join("spip.toml")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const FULL: &str = r#"
name = "sensor \"7\""
ip = "::"
port = 9_000
community_id_seed = 7
sandbox = "off"
user = "spip"
group = "1000"
exclude_ports = [22, "8000-8100", 443, "8050-9000", 444]
log_file = "/var/log/spip.json"
fsync = "interval"
log_rotate_bytes = 1000000
log_rotate_seconds = 86400
log_keep_files = 0
log_keep_bytes = 5000000
log_min_free_bytes = 1000000
log_compress = "zstd"
log_format = "ecs"
max_line_bytes = 100000
log_queue_bytes = 1048576
log_level = "warn, scans=debug"
system_log = "/var/log/spip-messages.json"
metrics = "[::1]:9464"
tls = "auto"
cert_path = "cert.pem"
key_path = "key.pem"
tls_client_certificates = true
ebpf = "required"
cgroup_path = "/sys/fs/cgroup/unified"
bpf_pin_path = "/sys/fs/bpf/other"
ebpf_syn_entries = 1024
ebpf_origin_entries = 2048
steering = "sk_lookup"
steer_loopback = true
steer_prefixes = ["198.51.100.0/24", "2001:db8::/32", "192.0.2.1"]
proxy_protocol_from = ["10.0.0.0/8"]
public_addresses = { "10.0.0.5" = "203.0.113.9" }
steer_interfaces = ["eth0"]
exempt_services_of = ["root", "postgres", "root"]
pin_links = true
status_socket = "/run/other/status.sock"
first_byte_timeout_seconds = 1.5
read_timeout_seconds = 2
write_timeout_seconds = 0.123456789
session_timeout_seconds = 86400
drain_timeout_seconds = 1e0
payload_limit_bytes = 0x1000
payload_memory_bytes = 8192
max_sessions = 1000
max_sessions_per_source = 10
rate_limit_per_second = 12.5
rate_limit_burst = 100
max_sources = 100
rejected_interval_seconds = 60
respond = "off"
banner_after_ms = 250
greetings = { 8022 = "ssh", 23 = "off" }
persona = "persona.toml"
state_dir = "/var/lib/other"
payload_dir = "/var/lib/payloads"
payload_store_min_bytes = 1
payload_store_max_bytes = 1000000
payload_preview_bytes = 0
scans = false
scan_timeout_seconds = 3
scan_interval_seconds = 1.5
deaf_after_seconds = 0
"#;

#[test]
fn every_key_is_read() {
    let files = Files::new("full");
    let config = Config::from_str(FULL, &files.config()).expect("valid").config;
    let expected = Config {
        name: "sensor \"7\"".to_owned(),
        listen: "[::]:9000".parse().expect("address"),
        log: Log {
            file: Some(PathBuf::from("/var/log/spip.json")),
            fsync: Fsync::Interval,
            rotate_bytes: 1_000_000,
            rotate_age: Some(Duration::from_secs(86_400)),
            keep_files: 0,
            keep_bytes: 5_000_000,
            min_free_bytes: Some(1_000_000),
            compress: Compress::Zstd,
            format: Format::Ecs,
            max_line_bytes: 100_000,
            queue_bytes: 1_048_576,
        },
        tls: Tls {
            enabled: true,
            certificate: Some(CertificateFiles { chain: files.0.join("cert.pem"), key: files.0.join("key.pem") }),
            ask_client_certificate: true,
        },
        ebpf: Ebpf {
            mode: EbpfMode::Required,
            cgroup_path: Some(PathBuf::from("/sys/fs/cgroup/unified")),
            pin_path: PathBuf::from("/sys/fs/bpf/other"),
            syn_entries: 1024,
            origin_entries: 2048,
        },
        steering: Steering {
            mode: SteeringMode::SkLookup,
            loopback: true,
            prefixes: ["192.0.2.1/32", "198.51.100.0/24", "2001:db8::/32"]
                .map(|text| Prefix::parse(text).expect("prefix"))
                .into(),
            interfaces: vec!["eth0".to_owned()],
            exempt_services_of: vec!["postgres".to_owned(), "root".to_owned()],
            pin_links: true,
        },
        status_socket: Some(PathBuf::from("/run/other/status.sock")),
        network: Network {
            proxies: vec![Prefix::parse("10.0.0.0/8").expect("prefix")],
            public: config.network.public.clone(),
        },
        timeouts: Timeouts {
            first_byte: Duration::from_millis(1500),
            idle: Duration::from_secs(2),
            write: Duration::from_nanos(123_456_789),
            session: Duration::from_secs(86_400),
            drain: Duration::from_secs(1),
        },
        limits: Limits {
            payload_bytes: 4096,
            payload_memory_bytes: Some(8192),
            sessions: Some(1000),
            sessions_per_source: 10,
            rate_per_second: 12.5,
            rate_burst: 100.0,
            sources: 100,
            rejected_interval: Duration::from_secs(60),
        },
        respond: Respond {
            enabled: false,
            banner_after: Duration::from_millis(250),
            ports: config.respond.ports.clone(),
            persona: Some(files.0.join("persona.toml")),
            state_dir: PathBuf::from("/var/lib/other"),
        },
        payload_store: PayloadStore {
            directory: Some(PathBuf::from("/var/lib/payloads")),
            min_bytes: 1,
            max_bytes: 1_000_000,
            preview_bytes: 0,
        },
        scans: Scans {
            enabled: false,
            timeout: Duration::from_secs(3),
            interval: Duration::from_millis(1_500),
            deaf_after: None,
        },
        messages: Messages {
            levels: "warn,scans=debug".parse().expect("valid"),
            target: SystemLog::File(PathBuf::from("/var/log/spip-messages.json")),
        },
        metrics: Some(MetricsAddress::Tcp("[::1]:9464".parse().expect("address"))),
        exclude_ports: vec![(22, 22), (443, 444), (8000, 9000)],
        community_id_seed: 7,
        sandbox: Sandbox { mode: SandboxMode::Off, user: Some("spip".to_owned()), group: Some("1000".to_owned()) },
    };
    assert_eq!(config, expected);
}

#[test]
fn the_effective_configuration_loads_to_the_same() {
    let files = Files::new("round-trip");
    for text in [LEAST, FULL, "ip = \"2001:db8::1\"\nport = 65535\ntls = \"off\"\nfsync = \"always\"\nebpf = \"off\""] {
        let config = Config::from_str(text, &files.config()).expect("valid").config;
        let again = Config::from_str(&config.to_toml(), Path::new("/elsewhere/spip.toml")).expect("valid");
        assert_eq!(again.config, config);
        assert_eq!(again.warnings, Vec::<String>::new());
    }
}

#[test]
fn greetings_change_the_table_and_nothing_else_in_it() {
    let default = loaded(LEAST).respond.ports;
    let changed = loaded(&format!("{LEAST}greetings = {{ 8022 = \"ssh\", 23 = \"off\" }}\n")).respond.ports;
    assert_eq!((default.get(&23), default.get(&8022)), (Some(&Greeting::Telnet), None));
    assert_eq!((changed.get(&23), changed.get(&8022)), (Some(&Greeting::Off), Some(&Greeting::Ssh)));
    assert_eq!(changed.len(), default.len() + 1);
}

#[test]
fn every_port_with_a_greeting_stands_in_the_documentation() {
    let page = include_str!("../../../docs/respond.md");
    for (port, dialogue) in loaded(LEAST).respond.ports {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{}` |", dialogue.name())));
        let ports = line.and_then(|line| line.split('|').nth(2)).unwrap_or_default();
        assert!(ports.split(',').any(|text| text.trim() == port.to_string()), "{port} of {}", dialogue.name());
    }
}

#[test]
fn the_effective_configuration_names_every_key() {
    let shown = loaded(LEAST).to_toml();
    let refused = refusal("zzz = 1");
    let known = refused.split_once("the keys are ").expect("a list of keys").1;
    for key in known.split(", ").filter(|key| *key != "loom") {
        assert!(
            shown.contains(&format!("\n{key} = "))
                || shown.starts_with(&format!("{key} = "))
                || shown.contains(&format!("# {key}: ")),
            "{key} in {shown}"
        );
    }
}

#[test]
fn the_table_of_keys_has_the_keys_of_the_parser_and_their_defaults() {
    let refused = refusal("zzz = 1");
    let known = refused.split_once("the keys are ").expect("a list of keys").1;
    let mut parsed: Vec<&str> = known.split(", ").map(str::trim).filter(|key| *key != "loom").collect();
    let mut listed: Vec<&str> = keys::all().map(|key| key.name).collect();
    parsed.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, parsed);
    for line in loaded(LEAST).to_toml().lines() {
        if let Some((name, default)) = line.split_once(" = ") {
            let key = keys::of(name).expect(name);
            // What has no value of its own is told in words.
            let in_words = ["name", "ip", "port", "greetings"].contains(&name);
            assert!(in_words || key.default() == format!("`{default}`"), "{name}: {} is not {default}", key.default());
        }
    }
}

#[test]
fn the_full_example_of_the_documentation_loads() {
    let page = include_str!("../../../docs/configuration.md");
    let examples: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|part| part.split("```").next()).collect();
    assert_eq!(examples.len(), 2, "a small and a full example");
    let files = Files::new("documentation");
    for example in &examples {
        let loaded = Config::from_str(example, &files.config()).expect("valid");
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
    let full = examples[1].parse::<toml::Table>().expect("TOML");
    for line in loaded(LEAST).to_toml().lines() {
        if let Some((key, _)) = line.split_once(" = ").or_else(|| line.strip_prefix("# ")?.split_once(": ")) {
            assert!(full.contains_key(key), "the full example has no {key}");
        }
    }
}

#[test]
fn the_predecessors_file_loads_with_one_warning() {
    let text = r#"
ip = "0.0.0.0"
port = 8080
log_file = ""
cert_path = ""
key_path = ""
name = "old"
read_timeout_seconds = 30
write_timeout_seconds = 10
rate_limit_per_second = 20
rate_limit_burst = 50000
community_id_seed = 0

[loom]
enabled = true
url = "https://loom.example/ingest"
token = "secret"
"#;
    let Loaded { config, warnings, .. } = load(text).expect("valid");
    assert_eq!(config.name, "old");
    assert_eq!((config.log.file, config.tls.certificate), (None, None));
    assert!((config.limits.rate_per_second, config.limits.rate_burst) == (20.0, 50_000.0));
    assert_eq!(
        warnings,
        ["/etc/spip/spip.toml:14: [loom] is not supported yet and does nothing: records go to the log only"]
    );
}

#[test]
fn zero_means_the_default_where_it_did_for_the_predecessor() {
    let text = format!("{LEAST}read_timeout_seconds = 0\nwrite_timeout_seconds = 0\nrate_limit_burst = 0\n");
    let Loaded { config, warnings, .. } = load(&text).expect("valid");
    assert_eq!(config, loaded(LEAST));
    assert_eq!(
        warnings,
        [
            "/etc/spip/spip.toml:3: read_timeout_seconds = 0 means the default, 30",
            "/etc/spip/spip.toml:4: write_timeout_seconds = 0 means the default, 10",
            "/etc/spip/spip.toml:5: rate_limit_burst = 0 means the default, 70000",
        ]
    );
}

#[test]
fn a_key_below_loom_is_named_in_its_warning() {
    let text = format!("{LEAST}[loom]\nenabled = true\nebpf = \"off\"\n");
    let Loaded { config, warnings, .. } = load(&text).expect("valid");
    assert_eq!(config.ebpf.mode, EbpfMode::Auto);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("ebpf below it belongs to it, too"), "{warnings:?}");
}

#[test]
fn a_rate_of_zero_turns_the_limit_off() {
    assert!(loaded(&format!("{LEAST}rate_limit_per_second = 0\n")).limits.rate_per_second == 0.0);
}

#[test]
fn keys_of_steering_without_it_are_named_in_a_warning() {
    let Loaded { warnings, .. } = load(&format!("{LEAST}steer_loopback = true\npin_links = false\n")).expect("valid");
    assert_eq!(warnings, [format!("{FILE}: steer_loopback is not used, because steering = \"redirect\"")]);
}

#[test]
fn a_file_is_loaded_from_disk() {
    let files = Files::new("disk");
    std::fs::write(files.config(), FULL).expect("file");
    let config = Config::load(&files.config()).expect("valid").config;
    assert_eq!(config, Config::from_str(FULL, &files.config()).expect("valid").config);
}
