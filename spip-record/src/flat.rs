//! The flat format: one JSON object a line, the nine documented keys first and always in the same order, further
//! keys only where something is known. Written straight into bytes; the log adds `seq` and closes the object.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use spip_common::Syn;
use uuid::Uuid;

use super::entry::{Entry, HelloText, TlsFacts};
use super::time::{self, instant};
use super::{SCHEMA, Tail};
use crate::entry::PresentedCertificate;
use crate::json;
use spip_protocol::http::Http;
use spip_protocol::syn::{Signature, SynOptions, Tool, Tools};

/// End of a record, with its number in the log.
pub(super) const TAIL: Tail = Tail { key: "seq", end: "}" };

/// Appends the record of `entry`, without the closing brace.
pub fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let Entry {
        accepted_us,
        first_byte_us,
        duration_us,
        payload,
        source,
        destination,
        session_id,
        name,
        run,
        transport,
        bytes_in,
        bytes_out,
        payload_truncated,
        payload_sha256,
        payload_stored,
        shortened,
        close_reason,
        limit,
        repeated,
        responses,
        turns,
        destination_source,
        destination_conflict,
        destination_local_ip,
        proxy,
        challenge,
        destination_ports,
        destination_port_count,
        community_id,
        protocol,
        http,
        ssh,
        details,
        credentials,
        tls,
        syn,
        enrichment,
        seq: _,
    } = entry;
    let mut object = Object { out };

    object.out.push(b'{');
    object.out.extend_from_slice(b"\"timestamp\":");
    json::number(object.out, unix_seconds(*accepted_us));
    object.key("payload");
    json::lossy_string(object.out, entry.text());
    object.key("payload_hex");
    object.hex(payload);
    object.ip("source_ip", source.ip());
    object.number("source_port", source.port());
    object.ip("destination_ip", destination.ip());
    object.number("destination_port", destination.port());
    object.plain("session_id", session_id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    object.flag("is_tls", entry.is_tls());

    object.plain("schema", SCHEMA);
    object.text("name", name);
    if let Some(run) = run {
        object.text("run", run);
    }
    object.plain("transport", transport.name());
    object.time("time", *accepted_us);
    object.number("duration_ms", duration_us / 1000);
    object.number("duration_us", *duration_us);
    if let Some(us) = first_byte_us {
        object.number("first_byte_us", *us);
    }
    object.number("bytes_in", *bytes_in);
    object.number("bytes_out", *bytes_out);
    object.flag("payload_truncated", *payload_truncated);
    if let Some(hash) = payload_sha256 {
        object.key("payload_sha256");
        object.hex(hash);
    }
    if *payload_stored {
        object.flag("payload_stored", true);
    }
    if !shortened.is_empty() {
        object.key("shortened");
        object.list(shortened, |out, name| json::string(out, name));
    }
    object.text("close_reason", close_reason);
    if let Some(limit) = limit {
        object.text("limit", limit);
    }
    if let Some(repeated) = repeated {
        object.number("count", repeated.count);
        object.time("first_time", repeated.first_us);
        object.time("last_time", repeated.last_us);
    }
    if !responses.is_empty() {
        object.key("responses");
        object.list(responses, |out, name| json::string(out, name));
    }
    if !turns.is_empty() {
        object.key("turns");
        json::value(object.out, turns);
    }
    object.text("destination_source", destination_source);
    if let Some(conflict) = destination_conflict {
        object.text("destination_conflict", conflict);
    }
    if let Some(address) = destination_local_ip {
        object.ip("destination_local_ip", *address);
    }
    if !destination_ports.is_empty() {
        object.key("destination_ports");
        object.list(destination_ports, |out, range| json::string(out, range));
    }
    if let Some(count) = destination_port_count {
        object.number("destination_port_count", *count);
    }
    if let Some(proxy) = proxy {
        object.value("proxy", proxy);
    }
    if let Some(challenge) = challenge {
        object.key("challenge_hex");
        object.hex(challenge);
    }
    object.text("community_id", community_id);
    if let Some(protocol) = protocol {
        object.text("protocol", protocol);
    }
    if let Some(http) = http {
        object.key("http");
        encode_http(http, object.out);
    }
    if let Some(ssh) = ssh {
        object.text("ssh_client", &ssh.client);
        if let Some((hassh, algorithms)) = &ssh.hassh {
            object.text("ssh_hassh", hassh);
            object.text("ssh_hassh_algorithms", algorithms);
        }
    }
    if let (Some(details), Some(name)) = (details, protocol) {
        object.value(name, details);
    }
    if !credentials.is_empty() {
        object.value("credentials", credentials);
    }
    if let Some(facts) = tls {
        encode_tls(facts, &mut object);
    }
    if let Some(syn) = syn {
        object.key("syn");
        syn.write(object.out);
    }
    if let Some(enrichment) = enrichment {
        object.value("enrichment", enrichment);
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
    if let Some(api) = &http.api {
        object.text("api", api);
    }
    if http.truncated {
        object.flag("truncated", true);
    }
    if let Some(error) = &http.error {
        object.text("error", error);
    }
    object.out.push(b'}');
}

fn encode_tls(facts: &TlsFacts<'_>, object: &mut Object<'_>) {
    let TlsFacts { client_hello, hello, malformed, version, cipher_suite, alpn, client_certificate, error } = facts;
    if let Some(HelloText { server_name, protocols, protocols_truncated, ja3, ja4, ja4_r }) = hello {
        if let Some(name) = server_name {
            object.text("tls_server_name", name);
        }
        if !protocols.is_empty() {
            object.key("tls_supported_protocols");
            object.list(protocols, |out, name| json::string(out, name));
        }
        if *protocols_truncated {
            object.flag("tls_supported_protocols_truncated", true);
        }
        for (key, fingerprint) in [("tls_ja3", ja3), ("tls_ja4", ja4), ("tls_ja4_r", ja4_r)] {
            if let Some(fingerprint) = fingerprint {
                object.text(key, fingerprint);
            }
        }
    }
    if let Some(malformed) = malformed {
        object.text("tls_client_hello_malformed", malformed);
    }
    object.key("tls_client_hello_hex");
    object.hex(client_hello);
    for (key, text) in [("tls_version", version), ("tls_cipher_suite", cipher_suite), ("tls_alpn", alpn)] {
        if let Some(text) = text {
            object.text(key, text);
        }
    }
    if let Some(certificate) = client_certificate {
        encode_certificate(certificate, object);
    }
    if let Some(error) = error {
        object.text("tls_error", error);
    }
}

fn encode_certificate(certificate: &PresentedCertificate, object: &mut Object<'_>) {
    object.key("tls_client_certificate");
    object.out.extend_from_slice(b"{\"subject\":");
    json::string(object.out, &certificate.subject);
    object.text("issuer", &certificate.issuer);
    for (key, seconds) in [("not_before", certificate.not_before), ("not_after", certificate.not_after)] {
        if let Some(seconds) = seconds {
            object.key(key);
            object.out.push(b'"');
            time::seconds(object.out, seconds);
            object.out.extend_from_slice(b"Z\"");
        }
    }
    object.text("sha256", &certificate.sha256);
    object.out.push(b'}');
}

/// The tools that a SYN shows to whom it was sent: a SYN that was saved after address translation has another
/// destination than its sender wrote.
pub(super) fn tools(syn: &Syn, destination: SocketAddr) -> Tools {
    let address = match destination.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    Tools::of(&Syn { destination: address.octets(), destination_port: destination.port(), ..*syn })
}

/// Appends what a SYN says, the same object in every format, of sessions and scans.
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

fn unix_seconds(us: i64) -> u64 {
    u64::try_from(us).unwrap_or(0) / 1_000_000
}

/// An object that is being written; keys are ours and need no escaping.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
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

    fn value(&mut self, key: &str, value: &impl Serialize) {
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
    fn time(&mut self, key: &'static str, us: i64) {
        self.key(key);
        self.out.push(b'"');
        instant(self.out, us);
        self.out.push(b'"');
    }
}
