//! The flat format: one JSON object a line, the nine documented keys first and always in the same order, further
//! keys only where something is known. Written straight into bytes; the log adds `seq` and closes the object.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serialize;
use sha2::{Digest, Sha256};
use spip_common::Syn;
use uuid::Uuid;

use super::{CloseReason, Sensor, Session};
use crate::addr::Destination;
use crate::json;
use crate::protocol::http::Http;
use crate::protocol::syn::{Signature, SynOptions, Tool, Tools};
use crate::protocol::{self, Understanding, community_id};
use crate::respond::{Conversation, Turn};
use crate::tls::{ClientCertificate, Facts, Handshake, PresentedCertificate};

/// Version of this format. What may change without a new number is said in `docs/records.md`.
pub const SCHEMA: &str = "spip/1";

const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// Appends the record of `session`, without the closing brace.
pub fn encode(session: &Session, sensor: &Sensor, out: &mut Vec<u8>) {
    let mut object = Object { out };
    let origin = &session.origin;
    let kept = session.payload.kept();
    let shown = session.stored.as_ref().map_or(kept, |stored| kept.get(..stored.preview).unwrap_or(kept));

    object.out.push(b'{');
    object.out.extend_from_slice(b"\"timestamp\":");
    json::number(object.out, unix_seconds(session.accepted.wall));
    object.key("payload");
    json::lossy_string(object.out, shown);
    object.key("payload_hex");
    object.hex(shown);
    object.ip("source_ip", origin.client.ip());
    object.number("source_port", origin.client.port());
    object.ip("destination_ip", origin.destination.ip());
    object.number("destination_port", origin.destination.port());
    object.plain("session_id", session.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    object.flag("is_tls", session.tls.is_tls());

    object.plain("schema", SCHEMA);
    object.text("name", &sensor.name);
    object.time("time", session.accepted.wall);
    object.number("duration_ms", u64::try_from(session.duration.as_millis()).unwrap_or(u64::MAX));
    object.number("bytes_in", session.payload.received());
    object.number("bytes_out", session.talk.as_ref().map_or(0, |talk| talk.bytes_out()));
    object.flag("payload_truncated", session.payload.truncated());
    if let Some(stored) = &session.stored {
        object.key("payload_sha256");
        object.hex(&stored.sha256);
        object.flag("payload_stored", true);
    } else if !kept.is_empty() {
        object.key("payload_sha256");
        object.hex(&Sha256::digest(kept));
    }
    object.plain("close_reason", session.close_reason.name());
    if let CloseReason::Rejected(limit) = session.close_reason {
        object.plain("limit", limit.name());
    } else if session.payload.starved() {
        object.plain("limit", "payload_memory_bytes");
    }
    if let Some(repeated) = session.repeated {
        object.number("count", repeated.count);
        object.time("first_time", repeated.first);
        object.time("last_time", repeated.last);
    }
    if let Some(talk) = &session.talk {
        encode_talk(talk, &mut object);
    }
    object.plain("destination_source", origin.source.name());
    let id = community_id::community_id(sensor.community_id_seed, origin.client.socket(), origin.destination.socket());
    object.plain("community_id", id.as_str());
    if !kept.is_empty() {
        let talk = session.talk.as_deref();
        let truncated = session.payload.truncated();
        let understood = match talk.and_then(Conversation::decided) {
            Some(protocol) => protocol::understand_as(protocol, kept, truncated),
            None => protocol::understand_in(talk.and_then(Conversation::protocol), kept, truncated),
        };
        encode_understanding(&understood, &mut object);
    }
    if let Some(facts) = session.tls.facts() {
        encode_tls(facts, &mut object);
    }
    if let Some(syn) = &origin.syn {
        object.key("syn");
        let tools = tools(syn, origin.destination);
        encode_syn(syn, tools, object.out);
    }
}

/// What was said, and when; nothing where the sensor said nothing.
fn encode_talk(talk: &Conversation, object: &mut Object<'_>) {
    if talk.bytes_out() == 0 {
        return;
    }
    object.key("responses");
    object.list(talk.responses(), |out, name| json::string(out, name));
    object.key("turns");
    object.list(talk.turns(), |out, turn| {
        let from = if turn.is_client { "client" } else { "server" };
        let Turn { offset, length, at_ms, .. } = turn;
        // Writing to memory cannot fail.
        let _ = write!(out, r#"{{"from":"{from}","offset":{offset},"length":{length},"ms":{at_ms}}}"#);
    });
}

fn encode_understanding(understood: &Understanding<'_>, object: &mut Object<'_>) {
    let name = understood.protocol.unwrap_or(protocol::UNKNOWN);
    object.plain("protocol", name);
    if let Some(http) = &understood.http {
        object.key("http");
        encode_http(http, object.out);
    }
    if let Some(ssh) = &understood.ssh {
        object.text("ssh_client", &ssh.client);
        if let (Some(hassh), Some(algorithms)) = (&ssh.hassh, &ssh.hassh_algorithms) {
            object.text("ssh_hassh", hassh);
            object.text("ssh_hassh_algorithms", algorithms);
        }
    }
    // HTTP/1 has its facts in `http` alone, so no key is written twice.
    if !understood.details.is_empty() && name != "http" {
        object.value(name, &understood.details);
    }
    if !understood.credentials.list.is_empty() {
        object.value("credentials", &understood.credentials.list);
    }
}

fn encode_http(http: &Http<'_>, out: &mut Vec<u8>) {
    let mut object = Object { out };
    // Always known, so it stands first and the others follow their commas.
    object.out.extend_from_slice(b"{\"requests\":");
    json::number(object.out, http.requests);
    let texts = [
        ("method", &http.method),
        ("target", &http.target),
        ("version", &http.version),
        ("host", &http.host),
        ("user_agent", &http.user_agent),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            object.text(key, text);
        }
    }
    object.pairs("headers", &http.headers);
    if let Some(bytes) = http.body_bytes {
        object.number("body_bytes", bytes);
    }
    object.number("body_kept", http.body_kept);
    if !http.pipelined.is_empty() {
        object.pairs("pipelined", &http.pipelined);
    }
    if http.trailing_bytes > 0 {
        object.number("trailing_bytes", http.trailing_bytes);
    }
    if let Some(api) = http.api {
        object.plain("api", api);
    }
    if http.truncated {
        object.flag("truncated", true);
    }
    if let Some(error) = http.error {
        object.plain("error", error);
    }
    object.out.push(b'}');
}

fn encode_tls(facts: &Facts, object: &mut Object<'_>) {
    if let Ok(hello) = facts.hello() {
        if let Some(name) = &hello.server_name {
            object.text("tls_server_name", name);
        }
        if !hello.protocols.is_empty() {
            object.key("tls_supported_protocols");
            object.list(&hello.protocols, |out, name| json::string(out, name));
        }
        object.text("tls_ja3", &hello.ja3);
        object.text("tls_ja4", &hello.ja4);
        object.text("tls_ja4_r", &hello.ja4_r);
    }
    object.key("tls_client_hello_hex");
    object.hex(&facts.client_hello);
    if let Handshake::Completed(session) = &facts.handshake {
        object.plain("tls_version", session.version);
        object.text("tls_cipher_suite", &session.cipher_suite);
        if let Some(protocol) = &session.protocol {
            object.text("tls_alpn", protocol);
        }
        if let ClientCertificate::Presented(certificate) = &session.client_certificate {
            encode_certificate(certificate, object);
        }
    }
    if let Some(failure) = facts.failure() {
        object.text("tls_error", &failure.to_string());
    }
}

fn encode_certificate(certificate: &PresentedCertificate, object: &mut Object<'_>) {
    let instant = |seconds: i64| Timestamp::from_second(seconds).map(|time| time.to_string());
    object.key("tls_client_certificate");
    object.out.extend_from_slice(b"{\"subject\":");
    json::string(object.out, &certificate.subject);
    object.text("issuer", &certificate.issuer);
    for (key, seconds) in [("not_before", certificate.not_before), ("not_after", certificate.not_after)] {
        if let Ok(time) = instant(seconds) {
            object.text(key, &time);
        }
    }
    object.text("sha256", &certificate.sha256);
    object.out.push(b'}');
}

/// The tools that a SYN shows to whom it was sent: a SYN that was saved after address translation has another
/// destination than its sender wrote.
fn tools(syn: &Syn, destination: Destination) -> Tools {
    let address = match destination.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    Tools::of(&Syn { destination: address.octets(), destination_port: destination.port(), ..*syn })
}

/// Appends the object `syn` of sessions and scans.
pub(super) fn encode_syn(syn: &Syn, tools: Tools, out: &mut Vec<u8>) {
    let options = SynOptions::parse(syn.options());
    let mut object = Object { out };
    object.out.extend_from_slice(b"{\"ttl\":");
    json::number(object.out, syn.ttl);
    object.number("window", syn.window);
    if let Some(mss) = options.mss {
        object.number("mss", mss);
    }
    if let Some(scale) = options.scale {
        object.number("scale", scale);
    }
    object.key("options");
    object.list(options.kinds(), |out, kind| json::number(out, *kind));
    object.key("muonfp");
    object.out.push(b'"');
    options.muonfp(syn.window).write_to(object.out);
    object.out.push(b'"');
    object.key("p0f");
    object.out.push(b'"');
    Signature(syn).write_to(object.out);
    object.out.push(b'"');
    if !tools.is_empty() {
        object.key("tools");
        object.out.push(b'[');
        for (index, tool) in tools.iter().enumerate() {
            if index > 0 {
                object.out.push(b',');
            }
            json::string(object.out, Tool::name(tool));
        }
        object.out.push(b']');
    }
    object.out.push(b'}');
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// An object that is being written; keys are ours and need no escaping.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl Object<'_> {
    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn number(&mut self, key: &'static str, value: impl itoa::Integer) {
        self.key(key);
        json::number(self.out, value);
    }

    fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn value(&mut self, key: &'static str, value: &impl Serialize) {
        self.key(key);
        json::value(self.out, value);
    }

    /// A value of ours that needs no escaping.
    fn plain(&mut self, key: &'static str, value: &str) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    fn ip(&mut self, key: &'static str, value: IpAddr) {
        self.key(key);
        self.out.push(b'"');
        match value {
            IpAddr::V4(v4) => {
                for (index, octet) in v4.octets().into_iter().enumerate() {
                    if index > 0 {
                        self.out.push(b'.');
                    }
                    json::number(self.out, octet);
                }
            }
            // Writing to memory cannot fail.
            IpAddr::V6(v6) => drop(write!(self.out, "{v6}")),
        }
        self.out.push(b'"');
    }

    fn pairs(&mut self, key: &'static str, pairs: &[(Cow<'_, str>, Cow<'_, str>)]) {
        self.key(key);
        self.list(pairs, |out, (name, value)| {
            out.push(b'[');
            json::string(out, name);
            out.push(b',');
            json::string(out, value);
            out.push(b']');
        });
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        json::string(self.out, value);
    }

    fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
        self.out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            write(self.out, item);
        }
        self.out.push(b']');
    }

    fn hex(&mut self, bytes: &[u8]) {
        let start = self.out.len() + 1;
        self.out.resize(start + bytes.len() * 2, b'"');
        // The slice is twice as long as the bytes, which is the only error there is.
        let _ = hex::encode_to_slice(bytes, &mut self.out[start..]);
        self.out.push(b'"');
    }

    /// RFC 3339 in UTC, microseconds.
    fn time(&mut self, key: &'static str, time: SystemTime) {
        self.key(key);
        let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
        self.out.push(b'"');
        // Writing to memory cannot fail.
        let _ = TIME.print_timestamp(&timestamp, &mut *self.out);
        self.out.push(b'"');
    }
}
