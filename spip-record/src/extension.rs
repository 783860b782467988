//! Facts without a field in the other formats: the object `spip` of ECS and EVE. Every fact keeps the name that it
//! has in the flat format.

use super::SCHEMA;
use super::entry::{Entry, TlsFacts};
use super::object::Members;
use spip_protocol::http::Http;

/// The schema, of ECS and EVE, that has no field for a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    /// A list of all headers.
    Headers,
    /// The length of a request's body.
    BodyBytes,
}

/// Writes what neither ECS nor EVE has a field for, and what the one that is written `lacks` beyond that.
pub(super) fn common(entry: &Entry<'_>, lacks: Lacks, own: &mut Members<'_>) {
    own.lossy("payload", entry.text());
    own.hex("payload_hex", &entry.payload);
    own.constant(if entry.is_tls() { r#","is_tls":true,"schema":""# } else { r#","is_tls":false,"schema":""# });
    own.constant(SCHEMA);
    own.constant("\"");
    own.optional("run", entry.run.as_deref());
    if let Some(us) = entry.first_byte_us {
        own.number("first_byte_us", us);
    }
    own.flag("payload_truncated", entry.payload_truncated);
    if let Some(hash) = &entry.payload_sha256 {
        own.hex("payload_sha256", hash);
    }
    if entry.payload_stored {
        own.flag("payload_stored", true);
    }
    own.texts("shortened", &entry.shortened);
    own.optional("limit", entry.limit.as_deref());
    if let Some(repeated) = entry.repeated {
        own.number("count", repeated.count);
        own.time("first_time", repeated.first_us);
        own.time("last_time", repeated.last_us);
    }
    own.texts("responses", &entry.responses);
    if !entry.turns.is_empty() {
        own.value("turns", &entry.turns);
    }
    own.text("destination_source", &entry.destination_source);
    own.optional("destination_conflict", entry.destination_conflict.as_deref());
    if let Some(address) = entry.destination_local_ip {
        own.text("destination_local_ip", &address.to_string());
    }
    own.texts("destination_ports", &entry.destination_ports);
    if let Some(count) = entry.destination_port_count {
        own.number("destination_port_count", count);
    }
    if let Some(proxy) = &entry.proxy {
        own.value("proxy", proxy);
    }
    if let Some(challenge) = &entry.challenge {
        own.hex("challenge_hex", challenge);
    }
    if let Some(http) = &entry.http {
        http_rest(http, lacks, own);
    }
    if let (Some(details), Some(protocol)) = (&entry.details, &entry.protocol) {
        own.value(protocol, details);
    }
    if !entry.credentials.is_empty() {
        own.value("credentials", &entry.credentials);
    }
    if let Some(syn) = &entry.syn {
        own.key("syn");
        syn.write(own.out);
    }
    if let Some(data) = &entry.syn_data {
        data.write(own);
    }
    if let Some(enrichment) = &entry.enrichment {
        own.value("enrichment", enrichment);
    }
}

/// Writes the facts of a TLS handshake that the other schemas have no field for.
pub(super) fn tls(tls: &TlsFacts<'_>, own: &mut Members<'_>) {
    if let Some(hello) = &tls.hello {
        if hello.protocols_truncated {
            own.flag("tls_supported_protocols_truncated", true);
        }
        own.optional("tls_ja4_r", hello.ja4_r.as_deref());
    }
    own.optional("tls_client_hello_malformed", tls.malformed.as_deref());
    own.hex("tls_client_hello_hex", &tls.client_hello);
}

/// The request's facts that are left when method, target, version, host and user agent have gone elsewhere.
fn http_rest(http: &Http<'_>, lacks: Lacks, own: &mut Members<'_>) {
    let Http { headers, body_bytes, body_kept, requests, pipelined, trailing_bytes, api, truncated, error, .. } = http;
    let mut rest = own.nested("http");
    if lacks == Lacks::Headers {
        rest.pairs("headers", headers);
    }
    if let (Lacks::BodyBytes, Some(bytes)) = (lacks, body_bytes) {
        rest.number("body_bytes", *bytes);
    }
    rest.number("body_kept", *body_kept);
    rest.number("requests", *requests);
    if !pipelined.is_empty() {
        rest.pairs("pipelined", pipelined);
    }
    if *trailing_bytes > 0 {
        rest.number("trailing_bytes", *trailing_bytes);
    }
    rest.optional("api", api.as_deref());
    if *truncated {
        rest.flag("truncated", true);
    }
    rest.optional("error", error.as_deref());
    rest.close();
}
