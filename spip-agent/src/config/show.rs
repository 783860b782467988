//! The effective configuration, every default spelled out, as a file that loads to the same [`Config`].

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use toml::Value;

use super::keys::{self, Kind, Words as _};
use super::{Config, PayloadStore, Prefix, SystemLog};

impl Config {
    /// The configuration as TOML. What is derived at the start stands there as a comment.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut page = Page(String::new());
        // Writing into a String cannot fail.
        let _ = page.config(self);
        page.0
    }
}

impl Config {
    /// The keys whose values are not the same in `other`, in the order of the alphabet.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let values = |config: &Self| config.to_toml().parse::<toml::Table>().unwrap_or_default();
        let (own, others) = (values(self), values(other));
        let keys: BTreeSet<&String> = own.keys().chain(others.keys()).collect();
        keys.into_iter().filter(|key| own.get(*key) != others.get(*key)).cloned().collect()
    }
}

struct Page(String);

impl Page {
    fn config(&mut self, config: &Config) -> fmt::Result {
        let Config {
            name,
            listen,
            log,
            tls,
            ebpf,
            steering,
            status_socket,
            network,
            timeouts,
            limits,
            scans,
            respond,
            payload_store,
            exclude_ports,
            community_id_seed,
            sandbox,
            messages,
            metrics,
        } = config;
        self.key("name", text(name))?;
        self.key("ip", text(&listen.ip().to_string()))?;
        self.key("port", listen.port())?;
        self.key("community_id_seed", community_id_seed)?;
        let ports = exclude_ports.iter().map(|(from, to)| match from == to {
            true => Value::from(i64::from(*from)),
            false => Value::from(format!("{from}-{to}")),
        });
        self.key("exclude_ports", Value::Array(ports.collect()))?;
        self.key("proxy_protocol_from", array(network.proxies.iter().map(Prefix::to_string)))?;
        let pairs = network.public.pairs().iter().map(|(local, public)| format!("\"{local}\" = \"{public}\""));
        let pairs = pairs.collect::<Vec<_>>().join(", ");
        let table = if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {pairs} }}") };
        self.key("public_addresses", table)?;

        self.heading("log")?;
        self.path("log_file", log.file.as_deref(), "standard output")?;
        self.key("log_format", text(log.format.word()))?;
        self.key("max_line_bytes", log.max_line_bytes)?;
        self.key("fsync", text(log.fsync.word()))?;
        self.key("log_rotate_bytes", log.rotate_bytes)?;
        self.key("log_rotate_seconds", log.rotate_age.map_or(0, |age| age.as_secs()))?;
        self.key("log_keep_files", log.keep_files)?;
        self.key("log_keep_bytes", log.keep_bytes)?;
        match log.min_free_bytes {
            Some(bytes) => self.key("log_min_free_bytes", bytes)?,
            None => self.absent("log_min_free_bytes", "a twentieth of the file system, at most 1 GiB")?,
        }
        self.key("log_compress", text(log.compress.word()))?;
        self.key("log_queue_bytes", log.queue_bytes)?;

        self.key("log_level", text(&messages.levels.to_string()))?;
        match &messages.target {
            SystemLog::Stream => self.key("system_log", text("stream"))?,
            SystemLog::Stderr => self.key("system_log", text("stderr"))?,
            SystemLog::File(path) => self.path("system_log", Some(path), "")?,
        }

        self.heading("TLS")?;
        self.switch("tls", tls.enabled)?;
        let files = tls.certificate.as_ref();
        self.path("cert_path", files.map(|files| files.chain.as_path()), "certificates are made per server name")?;
        self.path("key_path", files.map(|files| files.key.as_path()), "one key per start")?;
        self.key("tls_client_certificates", tls.ask_client_certificate)?;

        self.heading("eBPF")?;
        self.key("ebpf", text(ebpf.mode.word()))?;
        self.path("cgroup_path", ebpf.cgroup_path.as_deref(), "found in /proc/self/mountinfo")?;
        self.path("bpf_pin_path", Some(&ebpf.pin_path), "")?;
        self.key("ebpf_syn_entries", ebpf.syn_entries)?;
        self.key("ebpf_origin_entries", ebpf.origin_entries)?;

        self.heading("steering")?;
        self.key("steering", text(steering.mode.word()))?;
        self.key("steer_loopback", steering.loopback)?;
        self.key("steer_prefixes", array(steering.prefixes.iter().map(Prefix::to_string)))?;
        self.key("steer_interfaces", array(steering.interfaces.iter().cloned()))?;
        self.key("exempt_services_of", array(steering.exempt_services_of.iter().cloned()))?;
        self.key("pin_links", steering.pin_links)?;
        self.key("status_socket", text(&status_socket.as_deref().unwrap_or(Path::new("off")).to_string_lossy()))?;

        self.heading("metrics")?;
        match metrics {
            Some(address) => self.key("metrics", text(&address.to_string()))?,
            None => self.absent("metrics", "off")?,
        }

        self.heading("privileges")?;
        self.key("sandbox", text(sandbox.mode.word()))?;
        self.name("user", sandbox.user.as_deref(), "the one that starts the agent")?;
        self.name("group", sandbox.group.as_deref(), "the user's own")?;

        self.heading("scans")?;
        self.key("scans", scans.enabled)?;
        self.key("scan_timeout_seconds", seconds(scans.timeout))?;
        self.key("scan_interval_seconds", seconds(scans.interval))?;
        self.key("deaf_after_seconds", scans.deaf_after.map_or(0, |after| after.as_secs()))?;

        self.heading("time")?;
        self.key("first_byte_timeout_seconds", seconds(timeouts.first_byte))?;
        self.key("read_timeout_seconds", seconds(timeouts.idle))?;
        self.key("write_timeout_seconds", seconds(timeouts.write))?;
        self.key("session_timeout_seconds", seconds(timeouts.session))?;
        self.key("drain_timeout_seconds", seconds(timeouts.drain))?;

        self.heading("limits")?;
        self.key("payload_limit_bytes", limits.payload_bytes)?;
        match limits.payload_memory_bytes {
            Some(bytes) => self.key("payload_memory_bytes", bytes)?,
            None => self.absent("payload_memory_bytes", "derived from the memory of the machine")?,
        }
        match limits.sessions {
            Some(sessions) => self.key("max_sessions", sessions)?,
            None => self.absent("max_sessions", "derived from descriptors and memory")?,
        }
        self.key("max_sessions_per_source", limits.sessions_per_source)?;
        self.key("rate_limit_per_second", float(limits.rate_per_second))?;
        self.key("rate_limit_burst", float(limits.rate_burst))?;
        self.key("max_sources", limits.sources)?;
        self.key("rejected_interval_seconds", seconds(limits.rejected_interval))?;

        self.heading("responses")?;
        self.switch("respond", respond.enabled)?;
        self.key("banner_after_ms", respond.banner_after.as_millis())?;
        let ports = respond.ports.iter().map(|(port, dialogue)| format!("{port} = \"{}\"", dialogue.name()));
        self.key("greetings", format!("{{ {} }}", ports.collect::<Vec<_>>().join(", ")))?;
        self.path("persona", respond.persona.as_deref(), "drawn at the first start and kept in state_dir")?;
        self.path("state_dir", Some(&respond.state_dir), "")?;

        self.heading("payloads")?;
        let PayloadStore { directory, min_bytes, max_bytes, preview_bytes } = payload_store;
        self.path("payload_dir", directory.as_deref(), "payloads are in the records alone")?;
        self.key("payload_store_min_bytes", min_bytes)?;
        self.key("payload_store_max_bytes", max_bytes)?;
        self.key("payload_preview_bytes", preview_bytes)
    }

    fn heading(&mut self, heading: &str) -> fmt::Result {
        writeln!(self.0, "\n# {heading}")
    }

    fn key(&mut self, key: &str, value: impl fmt::Display) -> fmt::Result {
        writeln!(self.0, "{key} = {value}")
    }

    fn switch(&mut self, key: &str, is_on: bool) -> fmt::Result {
        let on = match keys::of(key).map(|key| key.kind) {
            Some(Kind::Switch(on)) if is_on => on,
            _ => "off",
        };
        self.key(key, text(on))
    }

    fn absent(&mut self, key: &str, instead: &str) -> fmt::Result {
        writeln!(self.0, "# {key}: {instead}")
    }

    fn name(&mut self, key: &str, name: Option<&str>, instead: &str) -> fmt::Result {
        match name {
            Some(name) => self.key(key, text(name)),
            None => self.absent(key, instead),
        }
    }

    fn path(&mut self, key: &str, path: Option<&Path>, instead: &str) -> fmt::Result {
        match path {
            Some(path) => self.key(key, text(&path.to_string_lossy())),
            None => self.absent(key, instead),
        }
    }
}

fn array(texts: impl Iterator<Item = String>) -> Value {
    Value::Array(texts.map(Value::from).collect())
}

fn text(text: &str) -> Value {
    Value::from(text)
}

/// Whole numbers without a decimal point, as people write them.
#[allow(clippy::cast_possible_truncation)] // below 2^53 and whole: exact
fn float(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 { Value::from(number as i64) } else { Value::from(number) }
}

/// Exact for every duration that can be configured: below a day, nanoseconds fit into the 53 bits of a float.
fn seconds(duration: Duration) -> Value {
    float(duration.as_secs_f64())
}
