//! A line of the flat format as a row: the columns that are filtered by, and the record itself beside them.
//!
//! A record is known by (`name`, `run`, `seq`). Lines without them get an `id`: system messages by a hash of their bytes,
//! records of versions without `run` by their session, because there `seq` begins anew with every start.
//!
//! Addresses and times are read here, and not only by the server: it would refuse a request for one of them, and a stolen
//! sensor could send nothing else.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spip_record::read;

use super::super::bulk::Item;
use crate::state::hex;

/// The last second that 32 bits hold. A table has a partition per month, and a server bears some thousands.
const LATEST: i64 = u32::MAX as i64;

const NO_ADDRESS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The fields of a line that are columns, as far as they are there.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(default)]
    timestamp: i64,
    #[serde(borrow, default)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    record_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    transport: Option<Cow<'a, str>>,
    #[serde(default)]
    source_ip: Option<IpAddr>,
    #[serde(default)]
    source_port: u16,
    #[serde(default)]
    destination_ip: Option<IpAddr>,
    #[serde(default)]
    destination_port: u16,
    #[serde(borrow, default)]
    session_id: Cow<'a, str>,
    #[serde(default)]
    is_tls: bool,
    #[serde(borrow, default)]
    protocol: Cow<'a, str>,
    #[serde(borrow, default)]
    close_reason: Cow<'a, str>,
    #[serde(default)]
    duration_us: u64,
    #[serde(default)]
    bytes_in: u64,
    #[serde(default)]
    bytes_out: u64,
    #[serde(default)]
    count: Option<u64>,
    #[serde(borrow, default)]
    payload_sha256: Cow<'a, str>,
    #[serde(borrow, default)]
    community_id: Cow<'a, str>,
    #[serde(borrow, default)]
    tls_server_name: Cow<'a, str>,
    #[serde(borrow, default)]
    tls_ja4: Cow<'a, str>,
    #[serde(borrow, default)]
    ssh_hassh: Cow<'a, str>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    run: &'a str,
    seq: u64,
    id: &'a str,
    time: String,
    record_type: &'a str,
    transport: &'a str,
    source_ip: IpAddr,
    source_port: u16,
    destination_ip: IpAddr,
    destination_port: u16,
    session_id: &'a str,
    is_tls: bool,
    protocol: &'a str,
    close_reason: &'a str,
    duration_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    count: u64,
    payload_sha256: &'a str,
    community_id: &'a str,
    tls_server_name: &'a str,
    tls_ja4: &'a str,
    ssh_hassh: &'a str,
    record: &'a str,
}

/// Appends the row of a line to `out`.
///
/// # Errors
/// The line is no record of the flat format.
pub(super) fn write(item: &Item<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    let wrong = |error: serde_json::Error| format!("not a record of the flat format: {error}");
    let record = std::str::from_utf8(item.line).map_err(|error| format!("not UTF-8: {error}"))?;
    let identity = read::identity(item.line).map_err(wrong)?;
    let fields: Fields<'_> = serde_json::from_slice(item.line).map_err(wrong)?;
    let id = match (&identity.seq, &identity.run) {
        (Some(_), Some(_)) => String::new(),
        (Some(_), None) if !fields.session_id.is_empty() => fields.session_id.clone().into_owned(),
        _ => hex(&Sha256::digest(item.line)[..16]),
    };
    let time: Timestamp = match &fields.time {
        Some(time) => time.parse().map_err(|error: jiff::Error| format!("time {time:?}: {error}"))?,
        None => Timestamp::from_second(fields.timestamp).map_err(|error| format!("timestamp: {error}"))?,
    };
    if !(0..=LATEST).contains(&time.as_second()) {
        return Err(format!("time {time} is not between 1970 and 2106"));
    }
    // The column has microseconds.
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let row = Row {
        name: identity.name.as_deref().unwrap_or(item.sensor),
        run: identity.run.as_deref().unwrap_or_default(),
        seq: identity.seq.unwrap_or_default(),
        id: &id,
        time,
        record_type: fields.record_type.as_deref().unwrap_or("session"),
        transport: fields.transport.as_deref().unwrap_or("tcp"),
        source_ip: fields.source_ip.unwrap_or(NO_ADDRESS),
        source_port: fields.source_port,
        destination_ip: fields.destination_ip.unwrap_or(NO_ADDRESS),
        destination_port: fields.destination_port,
        session_id: &fields.session_id,
        is_tls: fields.is_tls,
        protocol: &fields.protocol,
        close_reason: &fields.close_reason,
        duration_us: fields.duration_us,
        bytes_in: fields.bytes_in,
        bytes_out: fields.bytes_out,
        count: fields.count.unwrap_or(1),
        payload_sha256: &fields.payload_sha256,
        community_id: &fields.community_id,
        tls_server_name: &fields.tls_server_name,
        tls_ja4: &fields.tls_ja4,
        ssh_hassh: &fields.ssh_hassh,
        record,
    };
    serde_json::to_writer(&mut *out, &row).map_err(wrong)?;
    out.write_all(b"\n").map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str) -> serde_json::Value {
        let mut out = Vec::new();
        write(&Item { sensor: "subject", line: line.as_bytes() }, &mut out).expect("a record");
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn a_record_is_known_by_name_run_and_seq_and_carries_itself() {
        let line =
            r#"{"timestamp":5,"source_ip":"192.0.2.1","source_port":9,"name":"s","run":"r","seq":7,"session_id":"u"}"#;
        let row = row(line);
        assert_eq!((row["name"].as_str(), row["run"].as_str(), row["seq"].as_u64()), (Some("s"), Some("r"), Some(7)));
        assert_eq!((row["id"].as_str(), row["record"].as_str()), (Some(""), Some(line)));
    }

    #[test]
    fn lines_without_run_or_seq_have_an_identity_of_their_own() {
        assert_eq!(row(r#"{"name":"s","seq":1,"session_id":"u-1"}"#)["id"], "u-1");
        let one = row(r#"{"timestamp":1,"message":"ready","record_type":"log"}"#);
        let other = row(r#"{"timestamp":2,"message":"ready","record_type":"log"}"#);
        assert_eq!((one["name"].as_str(), one["record_type"].as_str()), (Some("subject"), Some("log")));
        assert_ne!(one["id"], other["id"]);
    }

    #[test]
    fn what_a_server_would_refuse_is_refused_before() {
        let cases = [
            (r#"{"source_ip":"x"}"#, "flat format"),
            (r#"{"destination_ip":"192.0.2.1/24"}"#, "flat format"),
            (r#"{"time":"yesterday"}"#, "time \"yesterday\""),
            (r#"{"time":"9999-01-01T00:00:00Z"}"#, "not between 1970 and 2106"),
            (r#"{"timestamp":-1}"#, "not between 1970 and 2106"),
            (r#"{"timestamp":9223372036854775807}"#, "timestamp"),
        ];
        for (line, expected) in cases {
            let refused = write(&Item { sensor: "s", line: line.as_bytes() }, &mut Vec::new());
            let reason = refused.expect_err(line);
            assert!(reason.contains(expected), "{line}: {reason}");
        }
        assert_eq!(row(r#"{"timestamp":1795944926}"#)["time"], "2026-11-29T09:35:26.000000Z");
        let row = row(r#"{"time":"2026-11-29T11:35:26.123456789+02:00"}"#);
        assert_eq!(row["time"], "2026-11-29T09:35:26.123456Z");
    }

    #[test]
    fn what_has_another_type_is_refused_with_a_reason() {
        for line in ["{", r#"{"source_port":70000}"#, r#"{"time":5}"#, r#"{"seq":-1}"#] {
            let refused = write(&Item { sensor: "s", line: line.as_bytes() }, &mut Vec::new());
            assert!(refused.expect_err(line).contains("flat format"), "{line}");
        }
    }
}
