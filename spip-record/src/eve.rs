//! EVE, the JSON events of Suricata: their envelope and the objects that their readers know, everything else under
//! `spip`, which stands last and is left open, because the log adds `seq`.
//!
//! `event_type` is always `flow`: one record is one finished connection with its totals, which is what that type
//! means. What was said stands in `http`, `tls` and `ssh` beside `flow`, as Suricata adds them to an alert. An `alert` is
//! only for a rule that matched: one event for each, beside the flow ([`encode_alerts`]).
//!
//! Fields follow the published documentation of Suricata 8, <https://docs.suricata.io/en/suricata-8.0.4/>.

use log::Level;

use super::enrichment::eve_alert;
use super::entry::{Entry, HelloText, TlsFacts};
use super::extension::{self, Lacks};
use super::object::{Members, address, list};
use super::time::{instant, seconds};
use super::url::Url;
use super::{Tail, Transport, ecs};
use crate::entry::PresentedCertificate;
use crate::format::Encoder;
use crate::json;
use crate::message::Head;
use crate::scan::ScanEntry;
use spip_protocol::http::Http;

pub(super) static ENCODER: Encoder = Encoder {
    session: encode,
    scan: encode_scan,
    message: encode_message,
    after_fields: "}",
    tail: Tail { key: "seq", end: "}}" },
};

/// Bits of a `flow_id`: it is a number, and readers keep 53 bits of one exactly.
const FLOW_ID_BITS: u32 = 51;

/// Appends the record of `entry`, with `spip` open.
pub fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) {
    // `envelope` and `common` write what is bound to `_` here.
    let Entry {
        accepted_us: _,
        first_byte_us: _,
        duration_us,
        payload: _,
        source: _,
        destination: _,
        session_id,
        name: _,
        run: _,
        transport: _,
        bytes_in,
        bytes_out,
        payload_truncated: _,
        payload_sha256: _,
        payload_stored: _,
        shortened: _,
        close_reason,
        limit: _,
        repeated: _,
        responses: _,
        turns: _,
        destination_source: _,
        destination_conflict: _,
        destination_local_ip: _,
        proxy: _,
        challenge: _,
        destination_ports: _,
        destination_port_count: _,
        community_id: _,
        protocol,
        http,
        ssh,
        details: _,
        credentials: _,
        tls,
        syn: _,
        syn_data: _,
        enrichment,
        seq: _,
    } = entry;
    let mut event = Members::open(out);
    let start = envelope(entry, "flow", &mut event);
    if let Some(http) = http {
        encode_http(http, &Url::of(http, entry.is_tls()), event.nested("http"));
    }
    if let Some(ssh) = ssh {
        let mut client = event.nested("ssh");
        let mut client = client.nested("client");
        let (version, software) = ssh_parts(&ssh.client);
        client.optional("proto_version", version);
        client.optional("software_version", software);
        if let Some((hash, string)) = &ssh.hassh {
            let mut hassh = client.nested("hassh");
            hassh.text("hash", hash);
            hassh.text("string", string);
            hassh.close();
        }
        client.close();
        event.out.push(b'}');
    }
    if let Some(tls) = tls {
        encode_tls(tls, event.nested("tls"));
    }
    event.constant(r#","flow":{"bytes_toserver":"#);
    json::number(event.out, *bytes_in);
    event.constant(r#","bytes_toclient":"#);
    json::number(event.out, *bytes_out);
    event.constant(r#","start":"#);
    event.out.extend_from_within(start);
    event.constant(r#","end":"#);
    offset_time(event.out, entry.ended_us());
    event.constant(r#","age":"#);
    json::number(event.out, duration_us / 1_000_000);
    event.constant(end_of_flow(close_reason));
    let alerted = enrichment.as_ref().is_some_and(|enrichment| !enrichment.tags.is_empty());
    event.constant(if alerted { r#","alerted":true},"spip":{"# } else { r#","alerted":false},"spip":{"# });
    let mut spip = Members { out: event.out };
    extension::common(entry, Lacks::BodyBytes, &mut spip);
    spip.constant(r#","session_id":"#);
    ecs::uuid(spip.out, session_id);
    spip.constant(r#","duration_us":"#);
    json::number(spip.out, *duration_us);
    spip.constant(r#","close_reason":"#);
    json::string(spip.out, close_reason);
    spip.optional("protocol", protocol.as_deref());
    if let Some(ssh) = ssh {
        spip.text("ssh_client", &ssh.client);
    }
    if let Some(tls) = tls {
        spip.optional("tls_cipher_suite", tls.cipher_suite.as_deref());
        spip.optional("tls_alpn", tls.alpn.as_deref());
        if let Some(certificate) = &tls.client_certificate {
            spip.text("tls_client_certificate_sha256", &certificate.sha256);
        }
        extension::tls(tls, &mut spip);
        spip.optional("tls_error", tls.error.as_deref());
    }
}

/// Writes what every event of a connection begins with, and returns where its start stands.
fn envelope(entry: &Entry<'_>, event_type: &str, event: &mut Members<'_>) -> std::ops::Range<usize> {
    event.constant(r#""timestamp":"#);
    let start = event.constant_and("", |out| offset_time(out, entry.accepted_us));
    event.constant(r#","flow_id":"#);
    json::number(event.out, flow_id(&entry.session_id));
    event.constant(r#","src_ip":"#);
    address(event.out, entry.source.ip());
    event.constant(r#","src_port":"#);
    json::number(event.out, entry.source.port());
    event.constant(r#","dest_ip":"#);
    address(event.out, entry.destination.ip());
    event.constant(r#","dest_port":"#);
    json::number(event.out, entry.destination.port());
    event.word("event_type", event_type);
    event.constant(match entry.transport {
        Transport::Tcp => r#","proto":"TCP","community_id":"#,
        Transport::Udp => r#","proto":"UDP","community_id":"#,
    });
    json::string(event.out, &entry.community_id);
    if let Some(protocol) = app_proto(entry) {
        event.word("app_proto", protocol);
    }
    event.text("host", &entry.name);
    start
}

/// Appends an event of the type `alert` for each rule that matched, each a whole line. They share the `flow_id` of the
/// record, as alerts of Suricata share that of their flow.
pub fn encode_alerts(entry: &Entry<'_>, out: &mut Vec<u8>) {
    for tag in entry.enrichment.iter().flat_map(|enrichment| &enrichment.tags) {
        let mut event = Members::open(out);
        envelope(entry, "alert", &mut event);
        eve_alert(tag, &mut event);
        if let Some(http) = &entry.http {
            encode_http(http, &Url::of(http, entry.is_tls()), event.nested("http"));
        }
        event.constant(r#","spip":{"session_id":"#);
        ecs::uuid(event.out, &entry.session_id);
        event.constant("}}\n");
    }
}

/// Appends a scan, with `spip` open. Its `event_type` is `scan`, which Suricata does not have: it is neither a flow nor an
/// alert.
fn encode_scan(scan: &ScanEntry<'_>, out: &mut Vec<u8>) {
    let mut event = Members::open(out);
    time(&mut event, "timestamp", scan.first_us);
    event.constant(r#","event_type":"scan","src_ip":"#);
    address(event.out, scan.source);
    event.constant(r#","proto":"TCP""#);
    event.text("host", &scan.name);
    let mut spip = event.nested("spip");
    scan.own(&mut spip);
    spip.time("first_time", scan.first_us);
    spip.time("last_time", scan.last_us);
}

/// Appends a system message, an event of Suricata's type `engine`, with `spip` open for its fields.
fn encode_message(head: &Head<'_>, out: &mut Vec<u8>) {
    let mut event = Members::open(out);
    time(&mut event, "timestamp", head.us);
    event.constant(r#","event_type":"engine""#);
    event.text("host", head.name);
    event.word(
        "log_level",
        match head.record.level() {
            Level::Error => "Error",
            Level::Warn => "Warning",
            Level::Info => "Info",
            Level::Debug | Level::Trace => "Debug",
        },
    );
    let mut engine = event.nested("engine");
    engine.formatted("message", head.record.args());
    engine.formatted("module", head.record.target());
    engine.close();
    let mut spip = event.nested("spip");
    spip.word("record_type", "log");
    spip.optional("run", head.run());
}

/// A time as Suricata writes it: microseconds and an offset without a colon.
fn time(members: &mut Members<'_>, key: &'static str, us: i64) {
    members.key(key);
    offset_time(members.out, us);
}

fn offset_time(out: &mut Vec<u8>, us: i64) {
    out.push(b'"');
    instant(out, us);
    // In place of the Z.
    out.pop();
    out.extend_from_slice(b"+0000\"");
}

/// State and reason of a flow as Suricata has them. It forgets a flow whose connection was closed after a while, and
/// calls that `timeout`, as it does a connection that went silent: the state tells them apart. `forced` is what it gives
/// up for want of room.
fn end_of_flow(close_reason: &str) -> &'static str {
    match close_reason {
        "rejected" => r#","state":"new","reason":"forced""#,
        "client_closed" | "client_reset" | "server_closed" | "tls_error" => r#","state":"closed","reason":"timeout""#,
        "first_byte_timeout" | "idle_timeout" | "session_timeout" | "write_timeout" => {
            r#","state":"established","reason":"timeout""#
        }
        "payload_limit" => r#","state":"established","reason":"forced""#,
        "shutdown" => r#","state":"established","reason":"shutdown""#,
        _ => r#","state":"established","reason":"unknown""#,
    }
}

/// A number for the connection, made from its UUID.
fn flow_id(id: &uuid::Uuid) -> u64 {
    let (_, low) = id.as_u64_pair();
    low & ((1 << FLOW_ID_BITS) - 1)
}

/// Suricata's name of the outermost protocol; `failed` is its word for bytes that it does not know. Where no byte came
/// it says nothing.
fn app_proto(entry: &Entry<'_>) -> Option<&'static str> {
    if entry.is_tls() {
        return Some("tls");
    }
    Some(match entry.protocol.as_deref()? {
        "http" | "docker" | "kubernetes" => "http",
        "http2" => "http2",
        "ssh" => "ssh",
        "dns" => "dns",
        "ftp" => "ftp",
        "imap" => "imap",
        "ldap" => "ldap",
        "modbus" => "modbus",
        "mqtt" => "mqtt",
        "pop3" => "pop3",
        "postgresql" => "pgsql",
        "rdp" => "rdp",
        "sip" => "sip",
        "smb" => "smb",
        "smtp" => "smtp",
        "telnet" => "telnet",
        "vnc" => "rfb",
        _ => "failed",
    })
}

fn encode_http(facts: &Http<'_>, url: &Url<'_>, mut http: Members<'_>) {
    http.optional("hostname", url.domain);
    if let Some(port) = url.port {
        http.number("http_port", port);
    }
    http.optional("url", facts.target.as_deref());
    http.optional("http_user_agent", facts.user_agent.as_deref());
    http.optional("http_refer", facts.header("referer"));
    http.optional("http_method", facts.method.as_deref());
    if let Some(version) = &facts.version {
        http.key("protocol");
        http.out.extend_from_slice(b"\"HTTP/");
        json::escaped(http.out, version);
        http.out.push(b'"');
    }
    if !facts.headers.is_empty() {
        http.key("request_headers");
        list(http.out, &facts.headers, |out, (name, value)| {
            let mut header = Members::open(out);
            header.text("name", name);
            header.text("value", value);
            header.close();
        });
    }
    http.close();
}

/// `SSH-2.0-OpenSSH_9.2p1 Debian-2` as `2.0` and `OpenSSH_9.2p1`.
fn ssh_parts(client: &str) -> (Option<&str>, Option<&str>) {
    let mut parts = client.splitn(3, '-').skip(1);
    let version = parts.next();
    (version, parts.next().map(|software| software.split(' ').next().unwrap_or(software)))
}

fn encode_tls(facts: &TlsFacts<'_>, mut tls: Members<'_>) {
    let TlsFacts {
        client_hello: _,
        hello,
        malformed: _,
        version,
        cipher_suite: _,
        alpn: _,
        client_certificate,
        error: _,
    } = facts;
    if let Some(version) = version {
        match version.as_ref() {
            // Suricata's own name of 1.0 has another form than those of the others.
            "TLSv1.0" => tls.word("version", "TLSv1"),
            other => tls.text("version", &other.replacen("TLSv", "TLS ", 1)),
        }
    }
    if let Some(HelloText { server_name, protocols, protocols_truncated: _, ja3, ja4, ja4_r: _ }) = hello {
        tls.optional("sni", server_name.as_deref());
        if let Some(ja3) = ja3 {
            let mut hash = tls.nested("ja3");
            hash.text("hash", ja3);
            hash.close();
        }
        tls.optional("ja4", ja4.as_deref());
        tls.texts("client_alpns", protocols);
    }
    if let Some(certificate) = client_certificate {
        let PresentedCertificate { subject, issuer, not_before, not_after, sha256: _ } = certificate.as_ref();
        let mut client = tls.nested("client");
        client.text("subject", subject);
        client.text("issuerdn", issuer);
        for (key, bound) in [("notbefore", not_before), ("notafter", not_after)] {
            if let Some(bound) = bound {
                client.key(key);
                client.out.push(b'"');
                seconds(client.out, *bound);
                client.out.push(b'"');
            }
        }
        client.close();
    }
    tls.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CloseReason;

    #[test]
    fn an_identification_has_its_parts() {
        for (client, expected) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2", (Some("2.0"), Some("OpenSSH_9.2p1"))),
            ("SSH-1.99-a-b", (Some("1.99"), Some("a-b"))),
            ("SSH-2.0-", (Some("2.0"), Some(""))),
            ("SSH", (None, None)),
        ] {
            assert_eq!(ssh_parts(client), expected, "{client}");
        }
    }

    #[test]
    fn every_end_has_a_state_and_a_reason_of_suricatas() {
        for reason in CloseReason::NAMES {
            let end: serde_json::Value =
                serde_json::from_str(&format!("{{{}}}", &end_of_flow(reason)[1..])).expect("JSON");
            assert!(["new", "established", "closed"].contains(&end["state"].as_str().expect("text")), "{reason}");
            assert!(
                ["timeout", "forced", "shutdown"].contains(&end["reason"].as_str().expect("text"))
                    || reason == "aborted"
            );
        }
        // Nothing was forced upon a connection that its client ended.
        assert_eq!(end_of_flow("client_closed"), r#","state":"closed","reason":"timeout""#);
    }

    #[test]
    fn tls_1_0_has_suricatas_name() {
        for (version, expected) in [("TLSv1.0", "TLSv1"), ("TLSv1.1", "TLS 1.1"), ("TLSv1.3", "TLS 1.3")] {
            let facts = TlsFacts { version: Some(version.into()), ..TlsFacts::default() };
            let mut out = Vec::new();
            encode_tls(&facts, Members::open(&mut out));
            assert_eq!(out, format!("{{\"version\":\"{expected}\"}}").into_bytes());
        }
    }

    #[test]
    fn a_flow_id_is_exact_in_every_reader() {
        let id = uuid::Uuid::from_u128(u128::MAX);
        assert_eq!(flow_id(&id), (1 << FLOW_ID_BITS) - 1);
    }
}
