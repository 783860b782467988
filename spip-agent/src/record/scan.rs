//! The record of a half-open scan: what one source asked for in one interval without ever completing a handshake. One
//! JSON object a line, as every record; the log adds `seq` and closes the object. The fields are described in
//! `docs/scans.md`.

use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use spip_common::Syn;

use super::{Format, SCHEMA, Sensor, flat};
use crate::json;
use crate::protocol::syn::{Tool, Tools};
use crate::scans::{Addresses, Ports};

/// Ranges of ports that a record lists: 12 kB at most.
const PORT_RANGES_MAX: usize = 1_024;

/// What one source did in one interval, or all that have no record of their own.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The source; unspecified for the rest.
    pub source: IpAddr,
    /// When the first SYN came.
    pub first: SystemTime,
    /// When the last one came.
    pub last: SystemTime,
    /// SYNs that nobody completed; retransmissions are not counted.
    pub count: u64,
    /// SYNs that may have been completed or not: there was no room to wait for that.
    pub undecided: u64,
    /// What the SYNs showed, except for the rest.
    pub shown: Option<Box<Shown>>,
}

/// What the SYNs of one source showed.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Ports that were asked for.
    pub ports: Ports,
    /// Addresses that were asked for.
    pub addresses: Addresses,
    /// Lowest and highest port that they came from.
    pub source_ports: (u16, u16),
    /// How many SYNs showed each tool.
    pub tools: [u64; Tool::ALL.len()],
    /// How many different SYNs there were, at most eight.
    pub variants: usize,
    /// The first SYN.
    pub syn: Syn,
}

mod entry;

pub use entry::ScanEntry;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: u64,
    record_type: &'static str,
    schema: &'static str,
    name: &'a str,
    time: String,
    source_ip: IpAddr,
    count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    undecided: u64,
    first_time: String,
    last_time: String,
    #[serde(flatten)]
    ends: Option<Ends>,
}

#[derive(Serialize)]
struct Ends {
    destination_ports: Vec<String>,
    destination_port_count: u32,
    destination_ips: Vec<String>,
    destination_ip_count: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    destinations_truncated: bool,
    source_port_min: u16,
    source_port_max: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolCount>,
    syn_variants: usize,
}

#[derive(Serialize)]
struct ToolCount {
    tool: &'static str,
    count: u64,
}

/// Appends the record of `scan` in the sensor's format, without its end.
pub fn encode(scan: &Scan, sensor: &Sensor, out: &mut Vec<u8>) {
    if sensor.format == Format::Flat {
        return encode_flat(scan, sensor, out);
    }
    // One a source and interval: it is written twice rather than told in two ways.
    let mut line = Vec::new();
    encode_flat(scan, sensor, &mut line);
    line.push(b'}');
    // What was just written can be read.
    if let Ok(entry) = ScanEntry::read(&line) {
        entry.encode(sensor.format, out);
    }
}

fn encode_flat(scan: &Scan, sensor: &Sensor, out: &mut Vec<u8>) {
    let first_time = time(scan.first);
    let line = Line {
        timestamp: scan.first.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        record_type: "scan",
        schema: SCHEMA,
        name: &sensor.name,
        time: first_time.clone(),
        source_ip: scan.source,
        count: scan.count,
        undecided: scan.undecided,
        first_time,
        last_time: time(scan.last),
        ends: scan.shown.as_deref().map(Ends::of),
    };
    json::value(out, &line);
    out.pop();
    if let Some(shown) = &scan.shown {
        out.extend_from_slice(b",\"syn\":");
        flat::encode_syn(&shown.syn, Tools::of(&shown.syn), out);
    }
}

impl Ends {
    fn of(shown: &Shown) -> Self {
        let mut ranges = shown.ports.ranges();
        let ports: Vec<String> = ranges.by_ref().take(PORT_RANGES_MAX).map(range).collect();
        let counted = Tool::ALL.iter().zip(shown.tools).filter(|(_, count)| *count > 0);
        Self {
            destination_ports: ports,
            destination_port_count: shown.ports.count(),
            destination_ips: shown.addresses.ranges().map(range).collect(),
            // Below 2^53, as all numbers of a record: nobody sends as many SYNs.
            destination_ip_count: u64::try_from(shown.addresses.count()).unwrap_or(u64::MAX),
            destinations_truncated: ranges.next().is_some() || shown.addresses.is_incomplete(),
            source_port_min: shown.source_ports.0,
            source_port_max: shown.source_ports.1,
            tools: counted.map(|(tool, count)| ToolCount { tool: tool.name(), count }).collect(),
            syn_variants: shown.variants,
        }
    }
}

fn range<T: PartialEq + std::fmt::Display>((from, to): (T, T)) -> String {
    if from == to { from.to_string() } else { format!("{from}-{to}") }
}

/// RFC 3339 in UTC, microseconds.
fn time(time: SystemTime) -> String {
    let timestamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{timestamp:.6}")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    fn sensor(format: Format) -> Sensor {
        Sensor { name: "test \"1\"".to_owned(), community_id_seed: 0, format, max_line_bytes: 1 << 20 }
    }

    fn written(scan: &Scan, format: Format) -> Vec<u8> {
        let mut line = Vec::new();
        encode(scan, &sensor(format), &mut line);
        line.extend_from_slice(format.tail().write(&mut [0; crate::record::Tail::BYTES], 7));
        line
    }

    #[test]
    fn a_scan_that_is_read_is_written_in_every_format_as_it_was_logged() {
        let rest = Scan { source: IpAddr::from([0; 4]), undecided: 9, shown: None, ..scan([]) };
        for scan in [scan([22, 23, 80]), rest] {
            let flat = written(&scan, Format::Flat);
            let entry = ScanEntry::read(&flat).expect("a scan");
            for format in [Format::Ecs, Format::Eve] {
                let mut line = Vec::new();
                entry.encode(format, &mut line);
                line.extend_from_slice(format.tail().write(&mut [0; crate::record::Tail::BYTES], 7));
                assert_eq!(String::from_utf8_lossy(&line), String::from_utf8_lossy(&written(&scan, format)));
            }
        }
    }

    #[test]
    fn a_scan_has_the_envelope_of_its_format_and_its_facts_under_spip() {
        let ecs: Value = serde_json::from_slice(&written(&scan([22]), Format::Ecs)).expect("JSON");
        assert_eq!((&ecs["source"]["ip"], &ecs["event"]["dataset"]), (&json!("192.0.2.7"), &json!("spip.scan")));
        assert_eq!((&ecs["event"]["start"], &ecs["event"]["sequence"]), (&ecs["@timestamp"], &json!(7)));
        let eve: Value = serde_json::from_slice(&written(&scan([22]), Format::Eve)).expect("JSON");
        assert_eq!((&eve["src_ip"], &eve["event_type"]), (&json!("192.0.2.7"), &json!("scan")));
        for own in [&ecs["spip"], &eve["spip"]] {
            assert_eq!((&own["record_type"], &own["destination_ports"]), (&json!("scan"), &json!(["22"])));
            assert_eq!(own["syn"]["tools"], json!(["zmap", "stateless"]));
        }
    }

    fn encoded(scan: &Scan) -> Value {
        let sensor = sensor(Format::Flat);
        let mut line = Vec::new();
        encode(scan, &sensor, &mut line);
        line.push(b'}');
        serde_json::from_slice(&line).expect("JSON")
    }

    fn scan(ports: impl IntoIterator<Item = u16>) -> Scan {
        let mut shown = Shown {
            ports: Ports::default(),
            addresses: Addresses::default(),
            source_ports: (40_000, 40_001),
            tools: [5, 0, 0, 5],
            variants: 1,
            syn: Syn { ip_version: 4, ttl: 57, window: 1024, ip_id: 54_321, sequence: 1, ..Syn::ZERO },
        };
        ports.into_iter().for_each(|port| shown.ports.insert(port));
        shown.addresses.insert(spip_common::packet::mapped([198, 51, 100, 1]));
        Scan {
            source: IpAddr::from([192, 0, 2, 7]),
            first: SystemTime::UNIX_EPOCH + Duration::from_micros(1_000_000_250),
            last: SystemTime::UNIX_EPOCH + Duration::from_secs(1_060),
            count: 5,
            undecided: 0,
            shown: Some(Box::new(shown)),
        }
    }

    #[test]
    fn a_scan_is_one_line_with_everything_in_it() {
        assert_eq!(
            encoded(&scan([22, 23, 24, 80])),
            json!({
                "timestamp": 1000, "record_type": "scan", "schema": "spip/1", "name": "test \"1\"",
                "time": "1970-01-01T00:16:40.000250Z", "source_ip": "192.0.2.7", "count": 5,
                "first_time": "1970-01-01T00:16:40.000250Z", "last_time": "1970-01-01T00:17:40.000000Z",
                "destination_ports": ["22-24", "80"], "destination_port_count": 4,
                "destination_ips": ["198.51.100.1"], "destination_ip_count": 1,
                "source_port_min": 40000, "source_port_max": 40001,
                "tools": [{"tool": "zmap", "count": 5}, {"tool": "stateless", "count": 5}], "syn_variants": 1,
                "syn": {
                    "ttl": 57, "window": 1024, "options": [], "muonfp": "1024:::",
                    "p0f": "4:57+7:0:0:1024,0:::0", "tools": ["zmap", "stateless"],
                },
            })
        );
    }

    #[test]
    fn a_scan_of_every_second_port_is_counted_whole_and_listed_in_part() {
        let line = encoded(&scan((0..=u16::MAX).filter(|port| port % 2 == 1)));
        assert_eq!(line["destination_port_count"], 32_768);
        assert_eq!(line["destination_ports"].as_array().map(Vec::len), Some(PORT_RANGES_MAX));
        assert_eq!(line["destinations_truncated"], true);
    }

    #[test]
    fn the_rest_has_numbers_and_nothing_else() {
        let rest = Scan { source: IpAddr::from([0; 4]), undecided: 9, shown: None, ..scan([]) };
        let line = encoded(&rest);
        assert_eq!((&line["source_ip"], &line["count"], &line["undecided"]), (&json!("0.0.0.0"), &json!(5), &json!(9)));
        assert!(line.get("syn").is_none() && line.get("destination_ports").is_none(), "{line}");
    }
}
