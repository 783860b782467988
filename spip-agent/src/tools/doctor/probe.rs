//! One connection through the steering, and its record.
//!
//! A local connection would prove nothing: rules for outside connections do not see it, and loopback is left alone. So
//! the probe comes from outside: from a network namespace of its own, over a pair of virtual interfaces, to a port on
//! which nothing listens. Namespace and interfaces belong to a thread of this process and go with it, however it ends.
//!
//! What a record proves: a connection that arrives on an interface of this machine is led to the agent, which records
//! it with the destination and source port that the client used. What it does not prove: that packets of the internet
//! reach this machine (the provider's filter is in front of it), and what rules do that name another interface.
//! REDIRECT leads to an address of the incoming interface; a listener on one address alone is therefore out of the
//! probe's reach.

mod stage;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use spip_record::log::{Content, Error, Options, Reader, Start, Step};

use super::{Finding, Subject, Topic, steering};
use crate::config::{Config, is_among};
use crate::kernel::sockets::Sockets;
use stage::Stage;

/// For the handshake, and for the end of the conversation: everything is on this machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// From the end of the connection to its record: the log is flushed several times a second.
const RECORD: Duration = Duration::from_secs(10);
/// The longest record that is looked at; the probe's own is far shorter.
const LINE_BYTES: usize = 1 << 20;
/// Upper bound of the sensor's answer, in bytes.
const ANSWER_BYTES: u64 = 64 * 1024;

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let topic = || topic("probe");
    let config = match subject.config(&topic()) {
        Ok(config) => config,
        Err(finding) => return vec![*finding],
    };
    if !super::is_root() {
        return vec![topic().skipped("makes a network namespace and needs root")];
    }
    let Some(log) = &config.log.file else {
        return vec![topic().skipped("records go to standard output, where they cannot be waited for: set log_file")];
    };
    let listen = config.listen.ip();
    if !listen.is_unspecified() && !steering::by_sk_lookup(config) {
        return vec![topic().skipped(format!(
            "rules lead to an address of the interface by which a connection comes, and the agent listens on {listen} alone"
        ))];
    }
    if let Some(reason) = steering::keeps_out(config) {
        return vec![topic().skipped(reason)];
    }
    let Some(port) = quiet_port(config) else {
        return vec![topic().skipped("no port was found on which nothing listens and which is not excluded")];
    };
    let with_ipv6 = Path::new("/proc/thread-self/net/if_inet6").exists() && steering::takes_ipv6(config);
    let with_ipv4 = steering::takes_ipv4(config);
    let stage = match Stage::make(with_ipv4, with_ipv6) {
        Ok(stage) => stage,
        Err(reason) => return vec![topic().skipped(format!("the probe's network cannot be made: {reason}"))],
    };
    let own: Vec<IpAddr> = stage.addresses().collect();
    let findings = own.into_iter().map(|own| {
        let topic = self::topic(if own.is_ipv4() { "probe.ipv4" } else { "probe.ipv6" });
        match steering::address_in_reach(config, own) {
            Some(address) => one(topic, &stage, SocketAddr::new(address, port), log),
            None => topic.skipped("no address in steer_prefixes is local: ip route add local PREFIX dev lo"),
        }
    });
    findings.collect()
}

fn topic(check: &'static str) -> Topic {
    Topic::new(check, "a connection from outside to a port on which nothing listens must leave a record")
}

/// One connection and its record.
fn one(topic: Topic, stage: &Stage, to: SocketAddr, log: &Path) -> Finding {
    let token = format!("spip-doctor-{}", uuid::Uuid::new_v4().simple());
    let mut reader = match from_its_end(log) {
        Ok(reader) => reader,
        Err(found) => return topic.failure(found, "start the agent, or correct log_file"),
    };
    let text = token.clone();
    let started = Instant::now();
    let from = match stage.inside(move || converse(to, text.as_bytes())) {
        Ok(from) => from,
        Err(error) => {
            let remedy = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    "see steering and listener above: spip-agent rules install, or start the agent"
                }
                _ => "look for a firewall rule that drops it: iptables -S INPUT; nft list ruleset",
            };
            return topic.failure(format!("no connection to {to}: {error}"), remedy);
        }
    };
    let record = match wait(&mut reader, &token, Instant::now() + RECORD) {
        Ok(record) => record,
        Err(error) => return topic.failure(error.to_string(), "start the agent, or correct log_file"),
    };
    let Some(record) = record else {
        return topic.failure(
            format!("{from} connected to {to}, and {} has no record of it after {} s", log.display(), RECORD.as_secs()),
            "see the system messages in the log; is it the log of the agent that runs?",
        );
    };
    judge(topic, &record, from, to, started.elapsed())
}

/// Says the token, ends the connection in order, and takes whatever the sensor answers.
fn converse(to: SocketAddr, token: &[u8]) -> std::io::Result<SocketAddr> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let from = stream.local_addr()?;
    stream.write_all(token)?;
    stream.write_all(b"\r\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    // A reset or a silence is an end, too: what matters is the record.
    let _ = stream.take(ANSWER_BYTES).read_to_end(&mut answer);
    Ok(from)
}

/// Holds the record against what the probe knows of its own connection.
fn judge(topic: Topic, record: &str, from: SocketAddr, to: SocketAddr, took: Duration) -> Finding {
    let value: Value = serde_json::from_str(record).unwrap_or_default();
    // The names of the three formats of records.
    let number = |names: [&str; 3]| names.iter().find_map(|name| value.pointer(name)).and_then(Value::as_u64);
    let destination = number(["/destination_port", "/destination/port", "/dest_port"]);
    let source = number(["/source_port", "/source/port", "/src_port"]);
    let known_by = value.get("destination_source").or_else(|| value.pointer("/spip/destination_source"));
    let known_by = known_by.and_then(Value::as_str).map(|by| format!(", known by {by}")).unwrap_or_default();
    let found = format!("{from} to {to}: recorded after {} ms{known_by}", took.as_millis());
    if destination != Some(u64::from(to.port())) {
        let told =
            destination.map_or_else(|| "no destination port".to_owned(), |port| format!("destination port {port}"));
        return topic.failure(format!("{found}, with {told}"), "see the messages of target ebpf in the log");
    }
    if source != Some(u64::from(from.port())) {
        let told = source.map_or_else(|| "none".to_owned(), |port| port.to_string());
        return topic.warning(
            format!("{found}, with a translated source port ({told})"),
            "ebpf = \"required\" in the configuration says at the start what is missing",
        );
    }
    topic.ok(found)
}

/// A port on which nothing listens, and which is steered.
fn quiet_port(config: &Config) -> Option<u16> {
    let sockets = Sockets::read(Path::new("/proc")).ok()?;
    let is_excluded = |port| is_among(&config.exclude_ports, port);
    let is_taken = |port: u16| sockets.listeners.iter().any(|listener| listener.port == port);
    // From a different one each time, so that probes can be told apart in the log.
    let start = u16::from_be_bytes(first_two(uuid::Uuid::new_v4().as_bytes()));
    (0..=u16::MAX)
        .map(|step| start.wrapping_add(step))
        .find(|port| *port >= 1024 && *port != config.listen.port() && !is_excluded(*port) && !is_taken(*port))
}

fn first_two(bytes: &[u8; 16]) -> [u8; 2] {
    [bytes[0], bytes[1]]
}

/// Opens a log so that only what is logged from now on is read of it, or says why it cannot be.
fn from_its_end(log: &Path) -> Result<Reader, String> {
    let unreadable = |cause: &dyn std::fmt::Display| format!("cannot read {}: {cause}", log.display());
    match fs::metadata(log) {
        Ok(metadata) if !metadata.is_file() => return Err(unreadable(&"it is no regular file")),
        Ok(_) => {}
        Err(error) => return Err(unreadable(&error)),
    }
    let options = Options { start: Start::End, max_line_bytes: LINE_BYTES, ..Options::default() };
    let mut reader = Reader::open(log, options, None);
    // The first attempt finds the end.
    reader.next_batch(1).map_err(|error| error.to_string())?;
    Ok(reader)
}

/// Returns the first line with `token` in it, if it comes before `end`.
fn wait(reader: &mut Reader, token: &str, end: Instant) -> Result<Option<String>, Error> {
    loop {
        match reader.next_batch(LINE_BYTES)? {
            Step::Batch(batch) => {
                let mut whole = batch.lines().filter_map(|line| match line.content {
                    Content::Whole(bytes) => Some(bytes),
                    Content::Torn(_) | Content::TooLong(_) => None,
                });
                if let Some(line) = whole.find(|line| memchr::memmem::find(line, token.as_bytes()).is_some()) {
                    return Ok(Some(String::from_utf8_lossy(line).into_owned()));
                }
            }
            Step::Idle | Step::End => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                reader.wait(left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn judged(record: &str) -> Finding {
        let (from, to) = ("192.0.2.2:40000".parse().expect("address"), "192.0.2.1:8443".parse().expect("address"));
        judge(topic("probe.ipv4"), record, from, to, Duration::from_millis(5))
    }

    #[test]
    fn a_record_of_each_format_is_held_against_the_connection() {
        for record in [
            r#"{"source_port":40000,"destination_port":8443,"destination_source":"ebpf"}"#,
            r#"{"source":{"port":40000},"destination":{"port":8443}}"#,
            r#"{"src_port":40000,"dest_port":8443}"#,
        ] {
            assert_eq!(judged(record).state, State::Ok, "{record}");
        }
    }

    #[test]
    fn only_a_line_that_is_logged_after_the_start_is_found_across_a_rotation_too() {
        let directory = std::env::temp_dir().join(format!("spip-probe-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("spip.json");
        assert!(from_its_end(&path).is_err_and(|error| error.contains("No such file")));
        fs::write(&path, "old token\n").expect("file");
        let mut reader = from_its_end(&path).expect("a log");
        assert!(matches!(wait(&mut reader, "token", Instant::now()), Ok(None)));
        let mut log = fs::OpenOptions::new().append(true).open(&path).expect("log");
        log.write_all(b"another\nhalf").expect("written");
        fs::rename(&path, directory.join("spip.json.20250131T235959.000001Z")).expect("renamed");
        fs::write(&path, "first\nnew token here\n").expect("file");
        let found = wait(&mut reader, "token", Instant::now() + Duration::from_secs(5)).expect("a log");
        assert_eq!(found.as_deref(), Some("new token here"));
        fs::remove_dir_all(&directory).expect("ours");
    }

    #[test]
    fn a_wrong_destination_is_a_failure_and_a_translated_source_port_a_warning() {
        assert_eq!(judged(r#"{"source_port":40000,"destination_port":12345}"#).state, State::Failure);
        assert_eq!(judged(r#"{"source_port":1,"destination_port":8443}"#).state, State::Warning);
        assert_eq!(judged("no JSON").state, State::Failure);
    }
}
