//! Key by key: what a reload may change has changed afterwards, and changes back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::session::limits::Source;
use crate::session::tests::Bench;

/// Keys that a reload hands to a thread or to a handshake, each with the test that looks behind it.
const ELSEWHERE: &[&str] = &[
    // tests/tests/steering.rs: a_hangup_brings_what_the_file_says_now
    "exclude_ports",
    "steer_interfaces",
    "steer_loopback",
    "steer_prefixes",
    // tests/tests/tls/certificates.rs and tests/tests/service/reload.rs
    "cert_path",
    "key_path",
    "tls_client_certificates",
];

/// A key, another value than its default, and a function that returns the value in effect: a line for each place that
/// keeps it.
type Change = (&'static str, &'static str, fn(&Reload) -> String);

/// Returns a change of each key that a reload may change.
fn changes() -> Vec<Change> {
    let log: fn(&Reload) -> String = |reload| format!("{:?}", reload.intake.engine().log.pending_change());
    vec![
        ("name", r#""other""#, |reload| {
            let (engine, scans) = (reload.intake.engine(), reload.scans.borrow());
            format!("{}\n{}\n{}", engine.sensor.name, scans.sensor.name, messages::shaped().name)
        }),
        ("community_id_seed", "7", |reload| reload.intake.engine().sensor.community_id_seed.to_string()),
        ("proxy_protocol_from", r#"["10.0.0.0/8"]"#, |reload| {
            reload.intake.engine().network.believes(IpAddr::from([10, 1, 2, 3])).to_string()
        }),
        ("public_addresses", r#"{ "10.0.0.5" = "203.0.113.9" }"#, |reload| {
            format!("{:?}", reload.intake.engine().sensor.public.of(IpAddr::from([10, 0, 0, 5])))
        }),
        ("log_file", r#""OTHER""#, log),
        ("log_format", r#""ecs""#, |reload| {
            let (engine, scans) = (reload.intake.engine(), reload.scans.borrow());
            format!("{:?}\n{:?}\n{:?}", engine.sensor.format, scans.sensor.format, messages::shaped().format)
        }),
        ("max_line_bytes", "100000", |reload| {
            let (engine, scans) = (reload.intake.engine(), reload.scans.borrow());
            let of_messages = messages::shaped().max_bytes;
            format!("{}\n{}\n{of_messages}", engine.sensor.max_line_bytes, scans.sensor.max_line_bytes)
        }),
        ("fsync", r#""always""#, log),
        ("log_rotate_bytes", "20000", log),
        ("log_rotate_seconds", "60", log),
        ("log_keep_files", "3", log),
        ("log_keep_bytes", "1000000", log),
        ("log_compress", r#""zstd""#, log),
        ("log_min_free_bytes", "9007199254740992", |reload| {
            let engine = reload.intake.engine();
            engine.ledger.look_at_disk();
            format!("{:?}", engine.ledger.share(Source::V4([192, 0, 2, 1]), Instant::now()))
        }),
        ("log_level", r#""debug""#, |_| log::max_level().to_string()),
        ("tls", r#""off""#, |reload| reload.intake.engine().tls.is_some().to_string()),
        ("respond", r#""off""#, |reload| reload.intake.engine().responder.is_some().to_string()),
        ("banner_after_ms", "77", |reload| format!("{:?}", responder(reload).banner_after)),
        ("greetings", r#"{ 4444 = "ssh" }"#, |reload| format!("{:?}", responder(reload).ports.get(&4444))),
        ("persona", r#""PERSONA""#, |reload| responder(reload).persona.face(22).ssh.clone()),
        ("scan_timeout_seconds", "9", |reload| format!("{:?}", reload.scans.borrow().config.timeout)),
        ("scan_interval_seconds", "9", |reload| format!("{:?}", reload.scans.borrow().config.interval)),
        ("deaf_after_seconds", "9", |reload| format!("{:?}", reload.scans.borrow().config.deaf_after)),
        ("first_byte_timeout_seconds", "9", |reload| format!("{:?}", reload.intake.engine().timeouts.first_byte)),
        ("read_timeout_seconds", "9", |reload| format!("{:?}", reload.intake.engine().timeouts.idle)),
        ("write_timeout_seconds", "9", |reload| format!("{:?}", reload.intake.engine().timeouts.write)),
        ("session_timeout_seconds", "9", |reload| format!("{:?}", reload.intake.engine().timeouts.session)),
        ("drain_timeout_seconds", "9", |reload| format!("{:?}", reload.intake.engine().timeouts.drain)),
        ("payload_limit_bytes", "99", |reload| reload.intake.engine().payload_limit.to_string()),
        ("payload_memory_bytes", "9999999", |reload| reload.intake.engine().memory.left().to_string()),
        ("max_sessions", "9", |reload| reload.intake.limits.sessions().to_string()),
        ("max_sessions_per_source", "9", |reload| reload.intake.limits.config().sessions_per_source.to_string()),
        ("rate_limit_per_second", "9", |reload| reload.intake.limits.config().rate_per_second.to_string()),
        ("rate_limit_burst", "9", |reload| reload.intake.limits.config().rate_burst.to_string()),
        ("max_sources", "9", |reload| reload.intake.limits.config().sources.to_string()),
        ("rejected_interval_seconds", "9", |reload| format!("{:?}", reload.intake.limits.config().rejected_interval)),
    ]
}

fn responder(reload: &Reload) -> Arc<crate::respond::Responder> {
    reload.intake.engine().responder.clone().expect("clients are answered")
}

/// A reload of a bench, with a configuration file of its own.
struct Stage {
    // The log of the bench is not written: what a reload asks of it stays pending.
    _bench: Bench,
    directory: PathBuf,
    reload: Reload,
}

impl Stage {
    fn new() -> Self {
        let bench = Bench::new("reload-keys");
        let directory = std::env::temp_dir().join(format!("spip-key-by-key-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        fs::write(directory.join("persona.toml"), "ssh = \"SSH-2.0-other\"\n").expect("a file for the test");
        let path = directory.join("agent.toml");
        fs::write(&path, text(&directory, "")).expect("a file for the test");
        let config = Config::load(&path).expect("a valid configuration").config;
        let scans = engine::scans(&config, &bench.intake.engine());
        let reload = Reload {
            path,
            started: config.clone(),
            config,
            intake: Arc::clone(&bench.intake),
            scans: watch::Sender::new(scans),
            steering: None,
            messages: None,
            kernel_level: LevelFilter::Off,
            resources: Resources { descriptors: 10_000, memory: None, workers: 1 },
            notifier: Notifier::default(),
        };
        let mut stage = Self { _bench: bench, directory, reload };
        stage.take_up("");
        stage
    }

    /// Reads the file with these lines, and returns the keys that changed.
    fn take_up(&mut self, lines: &str) -> Vec<String> {
        fs::write(&self.reload.path, text(&self.directory, lines)).expect("own directory");
        let (changed, refused) = self.reload.take_up().unwrap_or_else(|error| panic!("{lines}: {error:#}"));
        assert_eq!(refused, Vec::<String>::new(), "{lines}");
        changed
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn text(directory: &std::path::Path, lines: &str) -> String {
    let mut text = String::from("ip = \"::\"\nport = 1\n");
    let name = |name: &str| directory.join(name).display().to_string();
    let _ = writeln!(text, "state_dir = \"{}\"", name("state"));
    if !lines.starts_with("log_file") {
        let _ = writeln!(text, "log_file = \"{}\"", name("log"));
    }
    text + &lines.replace("OTHER", &name("other")).replace("PERSONA", &name("persona.toml"))
}

/// Asserts that a value has changed in each place.
fn assert_changed(key: &str, before: &str, after: &str) {
    assert_eq!(before.lines().count(), after.lines().count(), "{key}");
    for (place, (before, after)) in before.lines().zip(after.lines()).enumerate() {
        assert_ne!(before, after, "{key} has not changed in place {place}");
    }
}

#[test]
fn each_key_that_a_reload_may_change_has_changed_afterwards_and_changes_back() {
    let mut stage = Stage::new();
    let mut known: BTreeSet<&str> = ELSEWHERE.iter().copied().collect();
    for (key, value, shown) in changes() {
        assert!(known.insert(key), "{key} twice");
        let before = shown(&stage.reload);
        let changed = stage.take_up(&format!("{key} = {value}\n"));
        assert!(changed.iter().any(|name| name == key), "{key}: {changed:?}");
        let after = shown(&stage.reload);
        assert_changed(key, &before, &after);
        // The same file again: what was taken up is compared with, and not what held at the start.
        assert_eq!(stage.take_up(&format!("{key} = {value}\n")), Vec::<String>::new(), "{key}");
        assert_eq!(shown(&stage.reload), after, "{key}");
        assert!(stage.take_up("").iter().any(|name| name == key), "{key} changes back");
        assert_changed(key, &after, &shown(&stage.reload));
    }
    let live = keys::all().filter(|key| key.effect == Effect::Live).map(|key| key.name);
    let unknown: Vec<_> = live.filter(|key| !known.contains(key)).collect();
    assert_eq!(unknown, Vec::<&str>::new(), "this test says nothing of these");
}
