//! The Elastic Common Schema, version 9: what it has a field for stands there, everything else under `spip`.
//!
//! One record is one finished connection: `event.category: network`, `event.type: connection, start, end`, and
//! `protocol` where its details are known, `denied` where a limit refused it. `event` stands last and is left open,
//! because the log adds `event.sequence`.
//!
//! Field definitions: Elastic Common Schema 9.3.0, <https://www.elastic.co/docs/reference/ecs>.

use std::net::IpAddr;
use std::ops::Range;

use super::enrichment::{ecs_findings, ecs_source};
use super::entry::{Details, Entry, HelloText, TlsFacts};
use super::extension::{self, Lacks};
use super::object::{Members, address};
use super::time::instant;
use super::url::{Host, Url};
use super::{Tail, Transport};
use crate::entry::PresentedCertificate;
use crate::format::Encoder;
use crate::json;
use crate::message::Head;
use crate::scan::ScanEntry;
use spip_protocol::UNKNOWN;
use spip_protocol::http::Http;

macro_rules! version {
    () => {
        "9.3.0"
    };
}

/// Writes the transport protocol and the direction, up to where the type of the network stands.
pub(super) fn transport_of(transport: Transport, network: &mut Members<'_>) {
    network.constant(match transport {
        Transport::Tcp => r#""transport":"tcp","direction":"inbound","type":"#,
        Transport::Udp => r#""transport":"udp","direction":"inbound","type":"#,
    });
}

/// The version whose definitions the fields follow.
pub const VERSION: &str = version!();

pub(super) static ENCODER: Encoder = Encoder {
    session: encode,
    scan: encode_scan,
    message: encode_message,
    after_fields: "}",
    tail: Tail { key: "sequence", end: "}}" },
};

/// Appends the record of `entry`, with `event` open.
pub fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) {
    // `common` writes what is bound to `_` here.
    let Entry {
        accepted_us,
        first_byte_us: _,
        duration_us,
        payload: _,
        source,
        destination,
        session_id,
        name,
        run: _,
        transport,
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
        community_id,
        protocol,
        http,
        ssh,
        details,
        credentials: _,
        tls,
        syn: _,
        syn_data: _,
        enrichment,
        seq: _,
    } = entry;
    let mut record = Members::open(out);
    let accepted = record.constant_and(r#""@timestamp":""#, |out| instant(out, *accepted_us));
    record.constant("\"");
    envelope(name, &mut record);
    let source_ip = record.constant_and(r#","source":{"ip":"#, |out| address(out, source.ip()));
    ports_and_bytes(source.port(), *bytes_in, &mut record);
    if let Some(enrichment) = enrichment {
        ecs_source(&enrichment.source, &mut record);
    }
    record.constant("}");
    let destination_ip = record.constant_and(r#","destination":{"ip":"#, |out| address(out, destination.ip()));
    ports_and_bytes(destination.port(), *bytes_out, &mut record);
    let server_name = server_name(entry);
    record.optional("domain", server_name.and_then(Host::name));
    record.constant(r#"},"network":{"#);
    transport_of(*transport, &mut record);
    record.constant(if source.is_ipv4() { r#""ipv4","community_id":"# } else { r#""ipv6","community_id":"# });
    json::string(record.out, community_id);
    record.constant(r#","bytes":"#);
    json::number(record.out, bytes_in.saturating_add(*bytes_out));
    record.optional("protocol", protocol_of(entry));
    record.constant("}");
    if let Some(tls) = tls {
        encode_tls(tls, record.nested("tls"));
    }
    let url = http.as_ref().map(|http| Url::of(http, entry.is_tls())).unwrap_or_default();
    if let Some(http) = http {
        encode_http(http, &url, &mut record);
    }
    if let (Some(protocol), Some(details)) = (protocol, details) {
        match protocol.as_ref() {
            "dns" => dns(details, &mut record),
            "smtp" => email(details, &mut record),
            _ => {}
        }
    }
    if let Some(error) = tls.as_ref().and_then(|tls| tls.error.as_deref()) {
        let mut object = record.nested("error");
        object.text("message", error);
        object.close();
    }
    let hosts = [server_name, url.domain.and_then(Host::of), url.other_host.and_then(Host::of)];
    if let Some(enrichment) = enrichment {
        ecs_findings(enrichment, &mut record);
    }
    related(entry, [source_ip, destination_ip], &hosts, &mut record);

    record.constant(r#","spip":{"#);
    let mut spip = Members { out: record.out };
    extension::common(entry, Lacks::Headers, &mut spip);
    spip.optional("protocol", entry.protocol.as_deref().filter(|protocol| protocol_of(entry) != Some(protocol)));
    if let Some(ssh) = ssh {
        spip.text("ssh_client", &ssh.client);
        if let Some((hassh, algorithms)) = &ssh.hassh {
            spip.text("ssh_hassh", hassh);
            spip.text("ssh_hassh_algorithms", algorithms);
        }
    }
    if let Some(tls) = tls {
        if let Some(hello) = &tls.hello {
            spip.texts("tls_supported_protocols", &hello.protocols);
            spip.optional("tls_ja4", hello.ja4.as_deref());
        }
        extension::tls(tls, &mut spip);
    }

    let mut event = Members { out: spip.out };
    event.constant(
        r#"},"event":{"kind":"event","module":"spip","dataset":"spip.session","category":["network"],"type":["connection","start","end""#,
    );
    if http.is_some() || ssh.is_some() || details.is_some() {
        event.constant(r#","protocol""#);
    }
    let rejected = close_reason == "rejected";
    event.constant(if rejected { r#","denied"],"action":"# } else { r#"],"action":"# });
    json::string(event.out, close_reason);
    event.constant(r#","id":"#);
    uuid(event.out, session_id);
    event.constant(r#","start":""#);
    event.out.extend_from_within(accepted);
    event.constant(r#"","end":""#);
    instant(event.out, entry.ended_us());
    event.constant(r#"","duration":"#);
    json::number(event.out, duration_us.saturating_mul(1000));
    let failed = rejected || close_reason == "aborted" || tls.as_ref().is_some_and(|tls| tls.error.is_some());
    event.constant(if failed { r#","outcome":"failure""# } else { r#","outcome":"success""# });
}

/// Writes `ecs.version`, and who saw it.
pub(super) fn envelope(name: &str, record: &mut Members<'_>) {
    record.constant(concat!(
        r#","ecs":{"version":""#,
        version!(),
        r#""},"observer":{"type":"sensor","product":"spip","name":"#
    ));
    json::string(record.out, name);
    record.constant("}");
}

/// Appends a scan, with `event` open.
fn encode_scan(scan: &ScanEntry<'_>, out: &mut Vec<u8>) {
    let mut record = Members::open(out);
    record.time("@timestamp", scan.first_us);
    envelope(&scan.name, &mut record);
    record.constant(r#","source":{"ip":"#);
    address(record.out, scan.source);
    record.constant(r#"},"network":{"#);
    transport_of(Transport::Tcp, &mut record);
    record.constant(if scan.source.is_ipv4() { r#""ipv4"}"# } else { r#""ipv6"}"# });
    // The rest is of no address.
    if !scan.source.is_unspecified() {
        record.constant(r#","related":{"ip":["#);
        address(record.out, scan.source);
        record.constant("]}");
    }
    let mut spip = record.nested("spip");
    scan.own(&mut spip);
    spip.close();
    let mut event = record.nested("event");
    event.constant(
        r#""kind":"event","module":"spip","dataset":"spip.scan","category":["network"],"type":["connection","info"]"#,
    );
    event.time("start", scan.first_us);
    event.time("end", scan.last_us);
}

/// Appends a system message, with `spip` open for its fields.
fn encode_message(head: &Head<'_>, out: &mut Vec<u8>) {
    let mut record = Members::open(out);
    record.time("@timestamp", head.us);
    envelope(head.name, &mut record);
    record.constant(r#","event":{"kind":"event","module":"spip","dataset":"spip.log"}"#);
    let mut log = record.nested("log");
    log.word("level", &head.record.level().as_str().to_ascii_lowercase());
    log.formatted("logger", head.record.target());
    log.close();
    record.formatted("message", head.record.args());
    let mut spip = record.nested("spip");
    spip.word("record_type", "log");
    spip.optional("run", head.run());
}

fn ports_and_bytes(port: u16, bytes: u64, side: &mut Members<'_>) {
    side.constant(r#","port":"#);
    json::number(side.out, port);
    side.constant(r#","bytes":"#);
    json::number(side.out, bytes);
}

/// Appends a UUID as a string.
pub(super) fn uuid(out: &mut Vec<u8>, id: &uuid::Uuid) {
    out.push(b'"');
    out.extend_from_slice(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
    out.push(b'"');
}

/// The application protocol; TLS where nothing is known of what is inside.
fn protocol_of<'e>(entry: &'e Entry<'_>) -> Option<&'e str> {
    let inner = entry.protocol.as_deref().filter(|name| *name != UNKNOWN);
    inner.or_else(|| entry.is_tls().then_some("tls"))
}

/// The server that a client names in its hello, unless the hello is malformed: what stands there is no name then.
fn server_name<'e>(entry: &'e Entry<'_>) -> Option<Host<'e>> {
    let tls = entry.tls.as_ref().filter(|tls| tls.malformed.is_none())?;
    Host::of(tls.hello.as_ref()?.server_name.as_deref()?)
}

fn encode_tls(facts: &TlsFacts<'_>, mut tls: Members<'_>) {
    let TlsFacts { client_hello: _, hello, malformed: _, version, cipher_suite, alpn, client_certificate, error: _ } =
        facts;
    if let Some(version) = version {
        tls.word("version_protocol", "tls");
        tls.text("version", version.strip_prefix("TLSv").unwrap_or(version));
    }
    tls.optional("cipher", cipher_suite.as_deref());
    tls.optional("next_protocol", alpn.as_deref());
    tls.flag("established", version.is_some());
    if hello.is_some() || client_certificate.is_some() {
        let mut client = tls.nested("client");
        if let Some(HelloText { server_name, ja3, protocols: _, protocols_truncated: _, ja4: _, ja4_r: _ }) = hello {
            client.optional("server_name", server_name.as_deref());
            client.optional("ja3", ja3.as_deref());
        }
        if let Some(certificate) = client_certificate {
            encode_certificate(certificate, &mut client);
        }
        client.close();
    }
    tls.close();
}

fn encode_certificate(certificate: &PresentedCertificate, client: &mut Members<'_>) {
    let PresentedCertificate { subject, issuer, not_before, not_after, sha256 } = certificate;
    client.text("subject", subject);
    client.text("issuer", issuer);
    for (key, seconds) in [("not_before", not_before), ("not_after", not_after)] {
        if let Some(seconds) = seconds {
            client.time(key, seconds.saturating_mul(1_000_000));
        }
    }
    let mut hash = client.nested("hash");
    // The schema asks for upper case.
    hash.text("sha256", &sha256.to_ascii_uppercase());
    hash.close();
}

fn encode_http(facts: &Http<'_>, url: &Url<'_>, record: &mut Members<'_>) {
    let mut http = record.nested("http");
    http.optional("version", facts.version.as_deref());
    let mut request = http.nested("request");
    request.optional("method", facts.method.as_deref());
    request.optional("referrer", facts.header("referer"));
    if let Some(bytes) = facts.body_bytes {
        let mut body = request.nested("body");
        body.number("bytes", bytes);
        body.close();
    }
    request.close();
    http.close();
    if *url != Url::default() {
        encode_url(url, record.nested("url"));
    }
    if let Some(agent) = &facts.user_agent {
        let mut user_agent = record.nested("user_agent");
        user_agent.text("original", agent);
        user_agent.close();
    }
}

fn encode_url(facts: &Url<'_>, mut url: Members<'_>) {
    let Url { original, scheme, username, password, domain, port, path, query, fragment, other_host: _ } = facts;
    url.optional("original", *original);
    url.optional("scheme", *scheme);
    url.optional("username", *username);
    url.optional("password", *password);
    url.optional("domain", *domain);
    if let Some(port) = port {
        url.number("port", *port);
    }
    url.optional("path", *path);
    url.optional("query", *query);
    url.optional("fragment", *fragment);
    url.close();
}

/// Writes the facts of a DNS query. The object under `spip` stays whole all the same.
fn dns(details: &Details, record: &mut Members<'_>) {
    let mut dns = record.nested("dns");
    dns.word("type", "query");
    if let Some(operation) = details.text("operation") {
        dns.text("op_code", &operation.to_ascii_uppercase());
    }
    if let Some(name) = details.text("name") {
        let mut question = dns.nested("question");
        question.text("name", name);
        question.optional("type", details.text("type"));
        question.optional("class", details.text("class"));
        question.close();
    }
    dns.close();
}

/// The envelope and the subject of the first mail.
fn email(details: &Details, record: &mut Members<'_>) {
    let from = details.text("mail_from").filter(|from| !from.is_empty());
    let (to, subject) = (details.texts("rcpt_to"), details.text("subject"));
    if from.is_none() && to.is_empty() && subject.is_none() {
        return;
    }
    let mut email = record.nested("email");
    for (key, addresses) in [("from", from.as_slice()), ("to", &to)] {
        if !addresses.is_empty() {
            let mut side = email.nested(key);
            side.texts("address", addresses);
            side.close();
        }
    }
    email.optional("subject", subject);
    email.close();
}

/// Writes `related`; the addresses stand in what was written already, in these places.
fn related(
    entry: &Entry<'_>,
    [source, destination]: [Range<usize>; 2],
    hosts: &[Option<Host<'_>>],
    record: &mut Members<'_>,
) {
    let start = record.out.len();
    let mut related = record.nested("related");
    let empty = related.out.len();
    let (source_ip, destination_ip) = (entry.source.ip(), entry.destination.ip());
    let named = hosts.iter().flatten().filter_map(|host| host.address());
    // A record that stands for many sources has no address.
    let known = |ip: &IpAddr| !ip.is_unspecified();
    let addresses = [source_ip, destination_ip].into_iter().chain(named).filter(known);
    unique(&mut related, "ip", addresses, |out, ip| match ip {
        ip if ip == source_ip => out.extend_from_within(source.clone()),
        ip if ip == destination_ip => out.extend_from_within(destination.clone()),
        ip => address(out, ip),
    });
    let hello = entry.tls.as_ref().and_then(|tls| tls.hello.as_ref());
    let hassh = entry.ssh.as_ref().and_then(|ssh| ssh.hassh.as_ref()).map(|(hassh, _)| hassh.as_str());
    let mut digest = [0; 64];
    let payload = entry.payload_sha256.and_then(|hash| {
        hex::encode_to_slice(hash, &mut digest).ok()?;
        std::str::from_utf8(&digest).ok()
    });
    let hashes = [hello.and_then(|hello| hello.ja3.as_deref()), hassh, payload];
    unique(&mut related, "hash", hashes.into_iter().flatten(), json::string);
    unique(&mut related, "hosts", hosts.iter().flatten().filter_map(|host| host.name()), json::string);
    let users = entry.credentials.iter().filter_map(|credential| credential.user.as_deref());
    unique(&mut related, "user", users, json::string);
    if related.out.len() == empty {
        related.out.truncate(start);
    } else {
        related.close();
    }
}

/// Writes a list of different values, where there are any. There are few: each is compared with those before it.
fn unique<T: PartialEq>(
    members: &mut Members<'_>,
    key: &'static str,
    values: impl Iterator<Item = T> + Clone,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    let mut is_first = true;
    for (at, value) in values.clone().enumerate() {
        if values.clone().take(at).any(|earlier| earlier == value) {
            continue;
        }
        if is_first {
            members.key(key);
        }
        members.out.push(if is_first { b'[' } else { b',' });
        write(members.out, value);
        is_first = false;
    }
    if !is_first {
        members.out.push(b']');
    }
}
