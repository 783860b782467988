//! One line of Zeek's `conn.log` in its JSON form: for converting only, because Zeek writes a file for each kind of
//! fact, and this is the one that every reader of Zeek's logs has.
//!
//! A sensor ends connections that another server would not, so `conn_state` says what was seen of the end: `SF` where
//! the client closed, `RSTO` where it reset, `S3` where the sensor closed first, `RSTR` where it refused, `OTH` where
//! the end was not seen. Packets are not counted, so there is no `history` and no `orig_pkts`.
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
    conn.word("proto", "tcp");
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
    let inner = entry.protocol.as_deref().and_then(|name| match name {
        "unknown" => None,
        "http2" | "docker" | "kubernetes" => Some("http"),
        "vnc" => Some("rfb"),
        other => Some(other),
    });
    match (entry.is_tls(), inner) {
        (true, Some(inner)) => Some(format!("ssl,{inner}")),
        (true, None) => Some("ssl".to_owned()),
        (false, inner) => inner.map(str::to_owned),
    }
}

fn conn_state(close_reason: &str) -> &'static str {
    match close_reason {
        "client_closed" | "server_closed" => "SF",
        "client_reset" => "RSTO",
        "rejected" => "RSTR",
        "first_byte_timeout" | "idle_timeout" | "session_timeout" | "payload_limit" | "tls_error" | "write_timeout"
        | "shutdown" => "S3",
        _ => "OTH",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
