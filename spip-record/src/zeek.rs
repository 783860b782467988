//! One line of Zeek's `conn.log` in its JSON form: for converting only, because Zeek writes a file for each kind of
//! fact, and this is the one that every reader of Zeek's logs has.
//!
//! A sensor ends connections that another server would not, and sees no packets, only what its socket tells. So
//! `conn_state` claims of the end what is known of it, and is `OTH` where that is not enough for another state;
//! `history` and the counts of packets, which cannot be known, are absent.
//!
//! Fields: <https://docs.zeek.org/en/v8.0.1/scripts/base/protocols/conn/main.zeek.html>.

use std::io::Write as _;

use super::entry::Entry;
use super::object::Members;

/// The digits of Zeek's identifiers.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Appends the line of `entry`, without its end.
pub fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let mut conn = Members::open(out);
    seconds(&mut conn, "ts", entry.accepted_us.unsigned_abs(), entry.accepted_us < 0);
    conn.key("uid");
    uid(conn.out, entry.session_id.as_u128());
    conn.endpoint("id.orig_h", "id.orig_p", entry.source);
    conn.endpoint("id.resp_h", "id.resp_p", entry.destination);
    conn.word("proto", entry.transport.name());
    if let Some(service) = service(entry) {
        conn.text("service", &service);
    }
    seconds(&mut conn, "duration", entry.duration_us, false);
    conn.number("orig_bytes", entry.bytes_in);
    conn.number("resp_bytes", entry.bytes_out);
    conn.word("conn_state", conn_state(&entry.close_reason));
    conn.flag("local_orig", false);
    conn.flag("local_resp", true);
    conn.number("missed_bytes", 0);
    conn.text("community_id", &entry.community_id);
    conn.close();
}

fn seconds(members: &mut Members<'_>, key: &'static str, us: u64, negative: bool) {
    members.key(key);
    let sign = if negative { "-" } else { "" };
    // Writing to memory cannot fail.
    let _ = write!(members.out, "{sign}{}.{:06}", us / 1_000_000, us % 1_000_000);
}

/// A name like those that Zeek gives to connections: `C` and 17 digits, made from the UUID.
fn uid(out: &mut Vec<u8>, mut id: u128) {
    out.extend_from_slice(b"\"C");
    for _ in 0..17 {
        out.push(BASE62[(id % 62) as usize]);
        id /= 62;
    }
    out.push(b'"');
}

/// Zeek's names of the protocols, TLS and what is inside it separated by a comma.
fn service(entry: &Entry<'_>) -> Option<String> {
    let inner = entry.protocol.as_deref().and_then(analyzer);
    // Its analyzer of HTTP reads no HTTP/2.
    let is_http2 = entry.http.as_ref().is_some_and(|http| http.version.as_deref() == Some("2"));
    match (entry.is_tls(), inner.filter(|name| *name != "http" || !is_http2)) {
        (true, Some(inner)) => Some(format!("ssl,{inner}")),
        (true, None) => Some("ssl".to_owned()),
        (false, inner) => inner.map(str::to_owned),
    }
}

/// The name of Zeek's analyzer of a protocol, as `service` has it; nothing where Zeek 8 has none of its own.
fn analyzer(protocol: &str) -> Option<&'static str> {
    Some(match protocol {
        "bittorrent" => "bittorrent",
        "dns" => "dns",
        "docker" | "http" | "kubernetes" => "http",
        "ftp" => "ftp",
        "imap" => "imap",
        "ldap" => "ldap_tcp",
        "modbus" => "modbus",
        "mqtt" => "mqtt",
        "mysql" => "mysql",
        "pop3" => "pop3",
        "postgresql" => "postgresql",
        "rdp" => "rdp",
        "redis" => "redis",
        "sip" => "sip",
        "smb" => "smb",
        "smtp" => "smtp",
        "socks" => "socks",
        "ssh" => "ssh",
        "telnet" => "telnet",
        "vnc" => "rfb",
        _ => return None,
    })
}

/// Zeek's state of a connection that ended so.
fn conn_state(close_reason: &str) -> &'static str {
    match close_reason {
        // The sensor closes as soon as the client has.
        "client_closed" => "SF",
        "client_reset" => "RSTO",
        // All that had come was read, so closing sent a FIN. What the client answered is not recorded.
        "server_closed" | "first_byte_timeout" | "idle_timeout" | "session_timeout" | "write_timeout" | "shutdown" => {
            "S3"
        }
        // The sensor closed, by a FIN or, where bytes were left unread, by a reset: S3 or RSTR.
        "rejected" | "payload_limit" => "OTH",
        // Either side may have closed first.
        "tls_error" => "OTH",
        // The end was not seen.
        _ => "OTH",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CloseReason;
    use crate::tests::sessions;

    /// The names that Zeek 8 has for analyzers of protocols that are spoken here, of its `Analyzer::Tag`:
    /// <https://docs.zeek.org/en/current/script-reference/proto-analyzers.html>.
    const ANALYZERS: [&str; 20] = [
        "bittorrent",
        "dns",
        "ftp",
        "http",
        "imap",
        "ldap_tcp",
        "modbus",
        "mqtt",
        "mysql",
        "pop3",
        "postgresql",
        "rdp",
        "redis",
        "rfb",
        "sip",
        "smb",
        "smtp",
        "socks",
        "ssh",
        "telnet",
    ];

    #[test]
    fn a_service_is_an_analyzer_of_zeeks_or_absent() {
        let mut used = std::collections::BTreeSet::new();
        for entry in sessions() {
            let Some(service) = service(&entry) else {
                assert!(!entry.is_tls(), "{entry:?}");
                continue;
            };
            let inner = service.strip_prefix("ssl").map_or(service.as_str(), |rest| rest.trim_start_matches(','));
            assert!(inner.is_empty() || ANALYZERS.contains(&inner), "{service}: {entry:?}");
            assert_eq!(entry.is_tls(), service.starts_with("ssl"), "{entry:?}");
            used.insert(inner.to_owned());
        }
        assert!(ANALYZERS.iter().all(|name| used.contains(*name)), "{used:?}");
        for (protocol, expected) in
            [("ldap", Some("ldap_tcp")), ("vnc", Some("rfb")), ("memcached", None), ("http2", None)]
        {
            assert_eq!(analyzer(protocol), expected, "{protocol}");
        }
    }

    #[test]
    fn every_end_has_the_state_that_the_documentation_gives_it_and_no_other() {
        let page = include_str!("../../docs/records.md");
        for reason in CloseReason::NAMES {
            let row = format!("| `{reason}` | `{}` |", conn_state(reason));
            assert_eq!(page.matches(&row).count(), 1, "docs/records.md lacks {row}");
        }
        // No state claims who closed, or how, where that is not known.
        for reason in ["tls_error", "rejected", "payload_limit", "aborted"] {
            assert_eq!(conn_state(reason), "OTH", "{reason}");
        }
        assert_eq!((conn_state("client_closed"), conn_state("server_closed")), ("SF", "S3"));
    }

    #[test]
    fn an_identifier_has_the_length_and_the_digits_of_zeeks() {
        for id in [0, 1, u128::MAX] {
            let mut out = Vec::new();
            uid(&mut out, id);
            let text = String::from_utf8(out).expect("ASCII");
            assert_eq!(text.len(), 20, "{text}");
            assert!(text.trim_matches('"').chars().all(|c| c.is_ascii_alphanumeric()), "{text}");
        }
    }
}
