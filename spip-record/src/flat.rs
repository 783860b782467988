//! The flat format: one JSON object a line, the nine documented keys first and always in the same order, further
//! keys only where something is known. Written straight into bytes; the log adds `seq` and closes the object.

use std::net::{IpAddr, SocketAddr};

use spip_common::Syn;
use uuid::Uuid;

use super::entry::{Entry, HelloText, TlsFacts};
use super::time;
use super::{SCHEMA, Tail};
use crate::entry::PresentedCertificate;
use crate::format::Encoder;
use crate::json;
use crate::message::Head;
use crate::object::{Members, list};
use crate::scan::ScanEntry;
use spip_protocol::http::Http;
use spip_protocol::syn::{Signature, SynOptions, Tool, Tools};

pub(super) static ENCODER: Encoder = Encoder {
    session: encode,
    scan: encode_scan,
    message: encode_message,
    after_fields: "",
    tail: Tail { key: "seq", end: "}" },
};

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
        syn_data,
        enrichment,
        seq: _,
    } = entry;
    // The log adds to its end, so nothing closes it here.
    let mut object = Members::open(out);

    object.number("timestamp", unix_seconds(*accepted_us));
    object.lossy("payload", entry.text());
    object.hex("payload_hex", payload);
    object.endpoint("source_ip", "source_port", *source);
    object.endpoint("destination_ip", "destination_port", *destination);
    object.word("session_id", session_id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    object.flag("is_tls", entry.is_tls());

    object.word("schema", SCHEMA);
    object.text("name", name);
    object.optional("run", run.as_deref());
    object.word("transport", transport.name());
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
        object.hex("payload_sha256", hash);
    }
    if *payload_stored {
        object.flag("payload_stored", true);
    }
    object.texts("shortened", shortened);
    object.text("close_reason", close_reason);
    object.optional("limit", limit.as_deref());
    if let Some(repeated) = repeated {
        object.number("count", repeated.count);
        object.time("first_time", repeated.first_us);
        object.time("last_time", repeated.last_us);
    }
    object.texts("responses", responses);
    if !turns.is_empty() {
        object.value("turns", turns);
    }
    object.text("destination_source", destination_source);
    object.optional("destination_conflict", destination_conflict.as_deref());
    if let Some(address) = destination_local_ip {
        object.ip("destination_local_ip", *address);
    }
    object.texts("destination_ports", destination_ports);
    if let Some(count) = destination_port_count {
        object.number("destination_port_count", *count);
    }
    if let Some(proxy) = proxy {
        object.value("proxy", proxy);
    }
    if let Some(challenge) = challenge {
        object.hex("challenge_hex", challenge);
    }
    object.text("community_id", community_id);
    object.optional("protocol", protocol.as_deref());
    if let Some(http) = http {
        encode_http(http, object.nested("http"));
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
    if let Some(data) = syn_data {
        data.write(&mut object);
    }
    if let Some(enrichment) = enrichment {
        object.value("enrichment", enrichment);
    }
}

/// Appends a scan.
fn encode_scan(scan: &ScanEntry<'_>, out: &mut Vec<u8>) {
    let mut object = Members::open(out);
    object.number("timestamp", unix_seconds(scan.first_us));
    object.word("record_type", "scan");
    object.word("schema", SCHEMA);
    object.text("name", &scan.name);
    object.optional("run", scan.run.as_deref());
    object.time("time", scan.first_us);
    object.ip("source_ip", scan.source);
    scan.counts(&mut object);
    object.time("first_time", scan.first_us);
    object.time("last_time", scan.last_us);
    scan.ends(&mut object);
}

/// Appends a system message; its fields follow in the same object.
fn encode_message(head: &Head<'_>, out: &mut Vec<u8>) {
    let mut object = Members::open(out);
    object.number("timestamp", unix_seconds(head.us));
    object.word("level", &head.record.level().as_str().to_ascii_lowercase());
    object.formatted("message", head.record.args());
    object.formatted("target", head.record.target());
    object.word("record_type", "log");
    object.optional("name", head.name());
    object.optional("run", head.run());
}

fn encode_http(http: &Http<'_>, mut object: Members<'_>) {
    object.number("requests", http.requests);
    let texts = [
        ("method", &http.method),
        ("target", &http.target),
        ("version", &http.version),
        ("host", &http.host),
        ("user_agent", &http.user_agent),
    ];
    for (key, text) in texts {
        object.optional(key, text.as_deref());
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
    object.optional("api", http.api.as_deref());
    if http.truncated {
        object.flag("truncated", true);
    }
    object.optional("error", http.error.as_deref());
    object.close();
}

fn encode_tls(facts: &TlsFacts<'_>, object: &mut Members<'_>) {
    let TlsFacts { client_hello, hello, malformed, version, cipher_suite, alpn, client_certificate, error } = facts;
    if let Some(HelloText { server_name, protocols, protocols_truncated, ja3, ja4, ja4_r }) = hello {
        object.optional("tls_server_name", server_name.as_deref());
        object.texts("tls_supported_protocols", protocols);
        if *protocols_truncated {
            object.flag("tls_supported_protocols_truncated", true);
        }
        for (key, fingerprint) in [("tls_ja3", ja3), ("tls_ja4", ja4), ("tls_ja4_r", ja4_r)] {
            object.optional(key, fingerprint.as_deref());
        }
    }
    object.optional("tls_client_hello_malformed", malformed.as_deref());
    object.hex("tls_client_hello_hex", client_hello);
    for (key, text) in [("tls_version", version), ("tls_cipher_suite", cipher_suite), ("tls_alpn", alpn)] {
        object.optional(key, text.as_deref());
    }
    if let Some(certificate) = client_certificate {
        encode_certificate(certificate, object);
    }
    object.optional("tls_error", error.as_deref());
}

fn encode_certificate(certificate: &PresentedCertificate, object: &mut Members<'_>) {
    let mut object = object.nested("tls_client_certificate");
    object.text("subject", &certificate.subject);
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
    object.close();
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
    let mut object = Members::open(out);
    object.number("ttl", syn.ttl);
    object.number("window", syn.window);
    if let Some(mss) = options.mss {
        object.number("mss", mss);
    }
    if let Some(scale) = options.scale {
        object.number("scale", scale);
    }
    object.key("options");
    list(object.out, options.kinds(), |out, kind| json::number(out, *kind));
    object.key("muonfp");
    object.out.push(b'"');
    options.muonfp(syn.window).write_to(object.out);
    object.out.push(b'"');
    object.key("p0f");
    object.out.push(b'"');
    Signature(syn).write_to(object.out);
    object.out.push(b'"');
    if let Some(cookie) = options.fast_open() {
        object.hex("fast_open", cookie);
    }
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
    object.close();
}

fn unix_seconds(us: i64) -> u64 {
    u64::try_from(us).unwrap_or(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_show_by_the_destination_that_the_sender_wrote() {
        // masscan: the identification is address, port and sequence number, mixed; Mirai: the number is the address.
        let asked: SocketAddr = ([198, 51, 100, 1], 23).into();
        let address = u32::from_be_bytes([198, 51, 100, 1]);
        let mut syn = Syn { ip_version: 4, options_len: 4, sequence: address, ip_id: 23, ..Syn::ZERO };
        (syn.destination, syn.destination_port) = (spip_common::packet::mapped([10, 0, 0, 1]), 8080);
        let names = |tools: Tools| tools.iter().map(Tool::name).collect::<Vec<_>>();
        assert_eq!(names(Tools::of(&syn)), Vec::<&str>::new());
        assert_eq!(names(tools(&syn, asked)), ["masscan", "mirai"]);
        assert_eq!(names(tools(&syn, ([198, 51, 100, 1], 24).into())), ["mirai"]);
        assert_eq!(names(tools(&syn, ([198, 51, 100, 2], 23).into())), Vec::<&str>::new());
        let six = Syn { ip_version: 6, ..syn };
        assert_eq!(names(tools(&six, "[2001:db8::1]:23".parse().expect("an address"))), Vec::<&str>::new());
    }

    #[test]
    fn a_syn_that_was_seen_says_what_it_was() {
        let mut syn = Syn { ip_version: 4, ttl: 64, window: 1024, sequence: 5, options_len: 8, ..Syn::ZERO };
        (syn.source_port, syn.destination_port, syn.tcp_flags, syn.ip_length) = (40_000, 23, Syn::SYN, 48);
        syn.options[..8].copy_from_slice(&[2, 4, 0x05, 0xb4, 3, 3, 7, 1]);
        let written = |tools: Tools| {
            let mut out = Vec::new();
            encode_syn(&syn, tools, &mut out);
            serde_json::from_slice::<serde_json::Value>(&out).expect("JSON")
        };
        let plain = written(Tools::of(&syn));
        assert_eq!(
            (&plain["ttl"], &plain["window"], &plain["mss"], &plain["scale"]),
            (&64.into(), &1024.into(), &1460.into(), &7.into())
        );
        assert_eq!(plain["options"], serde_json::json!([2, 3, 1]));
        assert!(plain["muonfp"].as_str().is_some_and(|text| text.starts_with("1024:")), "{plain}");
        assert!(
            plain["p0f"].as_str().is_some_and(|text| text.starts_with("4:64+0:0:1460:1024,7:mss,ws,nop")),
            "{plain}"
        );
        assert!(plain.get("tools").is_none() && plain.get("fast_open").is_none(), "{plain}");
        let asked: SocketAddr = ([198, 51, 100, 1], 23).into();
        syn.sequence = u32::from_be_bytes([198, 51, 100, 1]);
        let mut out = Vec::new();
        encode_syn(&syn, tools(&syn, asked), &mut out);
        let seen: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(seen["tools"], serde_json::json!(["mirai"]));
    }
}
