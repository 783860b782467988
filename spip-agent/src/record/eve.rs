//! EVE, the JSON events of Suricata: their envelope and the objects that their readers know, everything else under
//! `spip`, which stands last and is left open, because the log adds `seq`.
//!
//! `event_type` is always `flow`: one record is one finished connection with its totals, which is what that type
//! means. What was said stands in `http`, `tls` and `ssh` beside `flow`, as Suricata adds them to an alert. It is never
//! `alert`: readers take that for a rule that matched.
//!
//! Fields follow the published documentation of Suricata 8, <https://docs.suricata.io/en/suricata-8.0.4/>.

use super::entry::{Entry, HelloText, TlsFacts};
use super::object::{Members, instant, list};
use super::own::{self, Lacks};
use super::{Tail, ecs};
use crate::protocol::http::Http;
use crate::tls::PresentedCertificate;

/// How the log ends a record.
pub(super) const TAIL: Tail = Tail { key: "seq", end: "}}" };

/// Bits of a `flow_id`: it is a number, and readers keep 53 bits of one exactly.
const FLOW_ID_BITS: u32 = 51;

/// Appends the record of `entry`, with `spip` open.
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
        protocol,
        http,
        ssh,
        details: _,
        credentials: _,
        tls,
        syn: _,
        seq: _,
    } = entry;
    let mut event = Members::open(out);
    time(&mut event, "timestamp", *accepted_us);
    event.number("flow_id", flow_id(session_id));
    event.endpoint("src_ip", "src_port", *source);
    event.endpoint("dest_ip", "dest_port", *destination);
    event.constant(r#","event_type":"flow","proto":"TCP""#);
    event.word("app_proto", app_proto(entry));
    event.text("community_id", community_id);
    event.text("host", name);
    if let Some(http) = http {
        encode_http(http, event.nested("http"));
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
    let mut flow = event.nested("flow");
    flow.number("bytes_toserver", *bytes_in);
    flow.number("bytes_toclient", *bytes_out);
    time(&mut flow, "start", *accepted_us);
    time(&mut flow, "end", entry.ended_us());
    flow.number("age", duration_us / 1_000_000);
    flow.word("state", if close_reason == "rejected" { "new" } else { "closed" });
    flow.word(
        "reason",
        match close_reason.as_ref() {
            "first_byte_timeout" | "idle_timeout" | "session_timeout" => "timeout",
            "shutdown" => "shutdown",
            _ => "forced",
        },
    );
    flow.constant(r#","alerted":false}"#);

    let mut spip = event.nested("spip");
    own::common(entry, Lacks::BodyBytes, &mut spip);
    spip.key("session_id");
    ecs::uuid(spip.out, session_id);
    spip.number("duration_us", *duration_us);
    spip.text("close_reason", close_reason);
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
        own::tls(tls, &mut spip);
    }
}

/// A time as Suricata writes it: microseconds and an offset without a colon.
pub(super) fn time(members: &mut Members<'_>, key: &'static str, us: i64) {
    members.key(key);
    members.out.push(b'"');
    instant(members.out, us);
    if members.out.last() == Some(&b'Z') {
        members.out.pop();
    }
    members.out.extend_from_slice(b"+0000\"");
}

/// A number for the connection, made from its UUID.
fn flow_id(id: &uuid::Uuid) -> u64 {
    let (_, low) = id.as_u64_pair();
    low & ((1 << FLOW_ID_BITS) - 1)
}

/// Suricata's name of the outermost protocol; `failed` is its word for bytes that it does not know.
fn app_proto(entry: &Entry<'_>) -> &'static str {
    if entry.is_tls() {
        return "tls";
    }
    match entry.protocol.as_deref() {
        Some("http" | "docker" | "kubernetes") => "http",
        Some("http2") => "http2",
        Some("ssh") => "ssh",
        Some("dns") => "dns",
        Some("ftp") => "ftp",
        Some("imap") => "imap",
        Some("ldap") => "ldap",
        Some("modbus") => "modbus",
        Some("mqtt") => "mqtt",
        Some("pop3") => "pop3",
        Some("postgresql") => "pgsql",
        Some("rdp") => "rdp",
        Some("sip") => "sip",
        Some("smb") => "smb",
        Some("smtp") => "smtp",
        Some("telnet") => "telnet",
        Some("vnc") => "rfb",
        _ => "failed",
    }
}

fn encode_http(facts: &Http<'_>, mut http: Members<'_>) {
    http.optional("hostname", facts.host.as_deref());
    http.optional("url", facts.target.as_deref());
    http.optional("http_user_agent", facts.user_agent.as_deref());
    http.optional("http_refer", facts.header("referer"));
    http.optional("http_method", facts.method.as_deref());
    if let Some(version) = &facts.version {
        http.key("protocol");
        http.out.extend_from_slice(b"\"HTTP/");
        crate::json::escaped(http.out, version);
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
    let TlsFacts { client_hello: _, hello, version, cipher_suite: _, alpn: _, client_certificate, error: _ } = facts;
    if let Some(version) = version {
        tls.text("version", &version.replacen("TLSv", "TLS ", 1));
    }
    if let Some(HelloText { server_name, protocols, ja3, ja4, ja4_r: _ }) = hello {
        tls.optional("sni", server_name.as_deref());
        let mut hash = tls.nested("ja3");
        hash.text("hash", ja3);
        hash.close();
        tls.text("ja4", ja4);
        tls.texts("client_alpns", protocols);
    }
    if let Some(certificate) = client_certificate {
        let PresentedCertificate { subject, issuer, not_before, not_after, sha256: _ } = certificate.as_ref();
        let mut client = tls.nested("client");
        client.text("subject", subject);
        client.text("issuerdn", issuer);
        validity(&mut client, "notbefore", *not_before);
        validity(&mut client, "notafter", *not_after);
        client.close();
    }
    tls.close();
}

/// A bound of a certificate's validity: no offset, no fraction.
fn validity(members: &mut Members<'_>, key: &'static str, seconds: i64) {
    members.key(key);
    members.out.push(b'"');
    let start = members.out.len();
    instant(members.out, seconds.saturating_mul(1_000_000));
    let end = members.out[start..].iter().position(|byte| *byte == b'.').unwrap_or(0);
    members.out.truncate(start + end);
    members.out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_flow_id_is_exact_in_every_reader() {
        let id = uuid::Uuid::from_u128(u128::MAX);
        assert_eq!(flow_id(&id), (1 << FLOW_ID_BITS) - 1);
    }
}
