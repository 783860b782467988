//! The Elastic Common Schema, version 9: what it has a field for stands there, everything else under `spip`.
//!
//! One record is one finished connection: `event.category: network`, `event.type: connection, start, end`, and
//! `protocol` where its details are known, `denied` where a limit refused it. `event` stands last and is left open,
//! because the log adds `event.sequence`.
//!
//! Field definitions: Elastic Common Schema 9.3.0, <https://www.elastic.co/docs/reference/ecs>.

use std::net::SocketAddr;

use super::Tail;
use super::entry::{Entry, HelloText, TlsFacts};
use super::object::{Members, address, list};
use super::own::{self, Lacks};
use crate::protocol::UNKNOWN;
use crate::protocol::http::Http;
use crate::tls::PresentedCertificate;

macro_rules! version {
    () => {
        "9.3.0"
    };
}

/// The version whose definitions the fields follow.
pub const VERSION: &str = version!();

/// How the log ends a record.
pub(super) const TAIL: Tail = Tail { key: "sequence", end: "}}" };

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
        community_id,
        protocol: _,
        http,
        ssh,
        details: _,
        credentials: _,
        tls,
        syn: _,
        seq: _,
    } = entry;
    let mut record = Members::open(out);
    record.time("@timestamp", *accepted_us);
    version(&mut record);
    observer(name, &mut record);
    let server_name = tls.as_ref().and_then(|tls| tls.hello.as_ref()?.server_name.as_deref());
    side(record.nested("source"), *source, *bytes_in, None);
    side(record.nested("destination"), *destination, *bytes_out, server_name);
    let mut network = record.nested("network");
    network.constant(r#""transport":"tcp","direction":"inbound","type":"#);
    network.constant(if source.is_ipv4() { r#""ipv4""# } else { r#""ipv6""# });
    network.optional("protocol", protocol_of(entry));
    network.text("community_id", community_id);
    network.number("bytes", bytes_in.saturating_add(*bytes_out));
    network.close();
    if let Some(tls) = tls {
        encode_tls(tls, record.nested("tls"));
    }
    if let Some(http) = http {
        encode_http(http, entry.is_tls(), &mut record);
    }
    related(entry, record.nested("related"));

    let mut spip = record.nested("spip");
    own::common(entry, Lacks::Headers, &mut spip);
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
            spip.text("tls_ja4", &hello.ja4);
        }
        own::tls(tls, &mut spip);
    }
    spip.close();

    let mut event = record.nested("event");
    event.constant(
        r#""kind":"event","module":"spip","dataset":"spip.session","category":["network"],"type":["connection","start","end""#,
    );
    if entry.http.is_some() || entry.ssh.is_some() || entry.details.is_some() {
        event.constant(r#","protocol""#);
    }
    let rejected = close_reason == "rejected";
    event.constant(if rejected { r#","denied"]"# } else { "]" });
    event.text("action", close_reason);
    event.key("id");
    uuid(event.out, session_id);
    event.time("start", *accepted_us);
    event.time("end", entry.ended_us());
    event.number("duration", duration_us.saturating_mul(1000));
    let failed = rejected || close_reason == "aborted" || tls.as_ref().is_some_and(|tls| tls.error.is_some());
    event.word("outcome", if failed { "failure" } else { "success" });
}

/// Writes who saw it.
pub(super) fn observer(name: &str, record: &mut Members<'_>) {
    record.constant(r#","observer":{"type":"sensor","product":"spip""#);
    record.text("name", name);
    record.constant("}");
}

/// Writes `ecs.version`.
pub(super) fn version(record: &mut Members<'_>) {
    record.constant(concat!(r#","ecs":{"version":""#, version!(), r#""}"#));
}

/// Appends a UUID as a string.
pub(super) fn uuid(out: &mut Vec<u8>, id: &uuid::Uuid) {
    out.push(b'"');
    out.extend_from_slice(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
    out.push(b'"');
}

fn side(mut side: Members<'_>, endpoint: SocketAddr, bytes: u64, domain: Option<&str>) {
    side.endpoint("ip", "port", endpoint);
    side.number("bytes", bytes);
    side.optional("domain", domain);
    side.close();
}

/// The application protocol; TLS where nothing is known of what is inside.
fn protocol_of<'e>(entry: &'e Entry<'_>) -> Option<&'e str> {
    let inner = entry.protocol.as_deref().filter(|name| *name != UNKNOWN);
    inner.or_else(|| entry.is_tls().then_some("tls"))
}

fn encode_tls(facts: &TlsFacts<'_>, mut tls: Members<'_>) {
    let TlsFacts { client_hello: _, hello, version, cipher_suite, alpn, client_certificate, error: _ } = facts;
    if let Some(version) = version {
        tls.word("version_protocol", "tls");
        tls.text("version", version.strip_prefix("TLSv").unwrap_or(version));
    }
    tls.optional("cipher", cipher_suite.as_deref());
    tls.optional("next_protocol", alpn.as_deref());
    tls.flag("established", version.is_some());
    if hello.is_some() || client_certificate.is_some() {
        let mut client = tls.nested("client");
        if let Some(HelloText { server_name, ja3, protocols: _, ja4: _, ja4_r: _ }) = hello {
            client.optional("server_name", server_name.as_deref());
            client.text("ja3", ja3);
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
    client.time("not_before", not_before.saturating_mul(1_000_000));
    client.time("not_after", not_after.saturating_mul(1_000_000));
    let mut hash = client.nested("hash");
    // The schema asks for upper case.
    hash.text("sha256", &sha256.to_ascii_uppercase());
    hash.close();
}

fn encode_http(facts: &Http<'_>, is_tls: bool, record: &mut Members<'_>) {
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
    if facts.target.is_some() || facts.host.is_some() {
        encode_url(facts, is_tls, record.nested("url"));
    }
    if let Some(agent) = &facts.user_agent {
        let mut user_agent = record.nested("user_agent");
        user_agent.text("original", agent);
        user_agent.close();
    }
}

fn encode_url(facts: &Http<'_>, is_tls: bool, mut url: Members<'_>) {
    url.optional("original", facts.target.as_deref());
    url.word("scheme", if is_tls { "https" } else { "http" });
    if let Some((domain, port)) = facts.host.as_deref().map(host_and_port) {
        url.text("domain", domain);
        if let Some(port) = port {
            url.number("port", u64::from(port));
        }
    }
    if let Some(target) = &facts.target {
        let (path, query, fragment) = parts_of(target);
        url.optional("path", path);
        url.optional("query", query);
        url.optional("fragment", fragment);
    }
    url.close();
}

/// A Host header without its port, and the port where it is a number.
fn host_and_port(host: &str) -> (&str, Option<u16>) {
    // In `[2001:db8::1]:80` a colon outside the brackets separates the port; in `2001:db8::1` none does.
    let end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    match host.get(end..).and_then(|rest| rest.split_once(':')) {
        Some((before, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (host.get(..end + before.len()).unwrap_or(host), Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

/// Path, query and fragment of a target; nothing of `*` and of what CONNECT asks for.
fn parts_of(target: &str) -> (Option<&str>, Option<&str>, Option<&str>) {
    let path_on = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?', '#']) => rest.find('/').and_then(|slash| rest.get(slash..)),
        _ => Some(target).filter(|target| target.starts_with('/')),
    };
    let Some(path_on) = path_on else { return (None, None, None) };
    let (before, fragment) = match path_on.split_once('#') {
        Some((before, fragment)) => (before, Some(fragment)),
        None => (path_on, None),
    };
    match before.split_once('?') {
        Some((path, query)) => (Some(path), Some(query), fragment),
        None => (Some(before), None, fragment),
    }
}

fn related(entry: &Entry<'_>, mut related: Members<'_>) {
    related.key("ip");
    let ips = [entry.source.ip(), entry.destination.ip()];
    let ips = if ips[0] == ips[1] { &ips[..1] } else { &ips[..] };
    list(related.out, ips, |out, ip| address(out, *ip));
    let hello = entry.tls.as_ref().and_then(|tls| tls.hello.as_ref());
    let hassh = entry.ssh.as_ref().and_then(|ssh| ssh.hassh.as_ref()).map(|(hassh, _)| hassh.as_str());
    let mut digest = [0; 64];
    let payload = entry.payload_sha256.and_then(|hash| {
        hex::encode_to_slice(hash, &mut digest).ok()?;
        std::str::from_utf8(&digest).ok()
    });
    unique(&mut related, "hash", [hello.map(|hello| hello.ja3.as_str()), hassh, payload].into_iter().flatten());
    let host = entry.http.as_ref().and_then(|http| http.host.as_deref()).map(|host| host_and_port(host).0);
    unique(&mut related, "hosts", [hello.and_then(|hello| hello.server_name.as_deref()), host].into_iter().flatten());
    unique(&mut related, "user", entry.credentials.iter().filter_map(|credential| credential.user.as_deref()));
    related.close();
}

/// Writes a list of different texts, where there are any.
fn unique<'t>(members: &mut Members<'_>, key: &'static str, texts: impl Iterator<Item = &'t str>) {
    let mut different: Vec<&str> = Vec::new();
    for text in texts {
        if !different.contains(&text) {
            different.push(text);
        }
    }
    members.texts(key, &different);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_from_its_port() {
        for (host, expected) in [
            ("example.org", ("example.org", None)),
            ("example.org:8080", ("example.org", Some(8080))),
            ("[2001:db8::1]:443", ("[2001:db8::1]", Some(443))),
            ("[2001:db8::1]", ("[2001:db8::1]", None)),
            ("2001:db8::1", ("2001:db8::1", None)),
            ("a:99999", ("a:99999", None)),
            ("", ("", None)),
            (":", (":", None)),
        ] {
            assert_eq!(host_and_port(host), expected, "{host}");
        }
    }

    #[test]
    fn every_form_of_target_has_its_parts() {
        for (target, expected) in [
            ("/a/b?c=d#e", (Some("/a/b"), Some("c=d"), Some("e"))),
            ("/", (Some("/"), None, None)),
            ("http://h:80/x?y", (Some("/x"), Some("y"), None)),
            ("http://h", (None, None, None)),
            ("/?u=http://x/", (Some("/"), Some("u=http://x/"), None)),
            ("*", (None, None, None)),
            ("h:443", (None, None, None)),
        ] {
            assert_eq!(parts_of(target), expected, "{target}");
        }
    }
}
