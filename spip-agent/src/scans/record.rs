//! The record of a half-open scan: what one source asked for in one interval without ever completing a handshake. One
//! JSON object a line, as every record; the log adds `seq` and closes the object. The fields are described in
//! `docs/scans.md`.
//!
//! As with sessions there is one [`ScanEntry`], made of a [`Scan`] or of a line of the flat format, and an encoder for
//! each format. Every list in it is bounded, so a line stays below the least `max_line_bytes` that can be set.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

use spip_common::Syn;
use spip_record::Tail;
use spip_record::entry::{SynDataFacts, SynFacts, unix_micros};
use spip_record::scan::{ADDRESS_RANGES, EXACT, PORT_RANGES, ScanEntry, ShownFacts};

use crate::config::PublicAddresses;
use crate::log::sensor::Sensor;
use crate::scans::{Addresses, Ports};
use spip_protocol::syn::Tool;

/// The SYNs of one source in one interval, or of all sources without a record of their own.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The source; unspecified for the rest.
    pub source: IpAddr,
    /// Time of the first SYN.
    pub first: SystemTime,
    /// Time of the last SYN.
    pub last: SystemTime,
    /// Half-open SYNs; retransmissions are not counted.
    pub count: u64,
    /// SYNs that may have been completed or not: there was no room to wait for that.
    pub undecided: u64,
    /// Facts of the SYNs, except for the rest.
    pub shown: Option<Box<Shown>>,
}

/// Facts of the SYNs of one source.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Ports that were asked for.
    pub ports: Ports,
    /// Addresses that were asked for.
    pub addresses: Addresses,
    /// Lowest and highest port that they came from.
    pub source_ports: (u16, u16),
    /// Number of SYNs that showed each tool.
    pub tools: [u64; Tool::ALL.len()],
    /// Number of different SYNs, at most eight.
    pub variants: usize,
    /// The first SYN.
    pub syn: Syn,
    /// Data that came with SYNs, if with any.
    pub data: Option<Box<ScanData>>,
}

/// Data that came with the SYNs of one source.
#[derive(Clone, Debug, Default)]
pub struct ScanData {
    /// Number of SYNs with data.
    pub count: u64,
    /// Bytes that came with the one of which `bytes` are, or with the first one where they are not known.
    pub length: u16,
    /// First bytes of the first data that is known.
    pub bytes: Box<[u8]>,
}

/// Appends the record of `scan` in the sensor's format, without its end.
pub fn encode(scan: &Scan, sensor: &Sensor, out: &mut Vec<u8>) {
    let start = out.len();
    let limit = sensor.max_line_bytes.saturating_sub(Tail::BYTES);
    let mut entry = entry(scan, sensor);
    entry.encode(sensor.format, out);
    while out.len() - start > limit && entry.shorten() {
        out.truncate(start);
        entry.encode(sensor.format, out);
    }
}

/// Makes the record of `scan`.
#[must_use]
pub fn entry<'a>(scan: &'a Scan, sensor: &'a Sensor) -> ScanEntry<'a> {
    ScanEntry {
        name: Cow::Borrowed(&sensor.name),
        run: Some(Cow::Borrowed(sensor.run)),
        source: scan.source,
        first_us: unix_micros(scan.first),
        last_us: unix_micros(scan.last),
        count: scan.count,
        undecided: scan.undecided,
        shown: scan.shown.as_deref().map(|shown| facts(shown, &sensor.public)),
        seq: None,
    }
}

/// The range of addresses that clients ask for to reach `range`: the same where nothing is translated, or not all of it
/// alike.
fn public_range(range: (IpAddr, IpAddr), public: &PublicAddresses) -> (IpAddr, IpAddr) {
    let distance = |(from, to): (IpAddr, IpAddr)| match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => u128::from(to.to_bits().wrapping_sub(from.to_bits())),
        (IpAddr::V6(from), IpAddr::V6(to)) => to.to_bits().wrapping_sub(from.to_bits()),
        _ => u128::MAX,
    };
    let translated = public.of(range.0).zip(public.of(range.1));
    translated.filter(|translated| distance(*translated) == distance(range)).unwrap_or(range)
}

fn facts<'a>(shown: &'a Shown, public: &PublicAddresses) -> ShownFacts<'a> {
    let mut ranges = shown.ports.ranges();
    let ports: Vec<_> = ranges.by_ref().take(PORT_RANGES).collect();
    let mut addresses = shown.addresses.ranges();
    let counted = Tool::ALL.iter().zip(shown.tools).filter(|(_, count)| *count > 0);
    let destination = Ipv6Addr::from(shown.syn.destination).to_canonical();
    ShownFacts {
        ports,
        port_count: shown.ports.count().into(),
        addresses: addresses.by_ref().take(ADDRESS_RANGES).map(|range| public_range(range, public)).collect(),
        // No source sends as many SYNs.
        address_count: u64::try_from(shown.addresses.count()).map_or(EXACT, |count| count.min(EXACT)),
        is_truncated: ranges.next().is_some() || addresses.next().is_some() || shown.addresses.is_incomplete(),
        source_ports: shown.source_ports,
        tools: counted.map(|(tool, count)| (Cow::Borrowed(tool.name()), count)).collect(),
        variants: shown.variants as u64,
        syn: Some(SynFacts::Seen {
            syn: &shown.syn,
            destination: SocketAddr::new(public.of(destination).unwrap_or(destination), shown.syn.destination_port),
        }),
        syn_data: shown.data.as_deref().map(|data| SynDataFacts {
            count: Some(data.count),
            length: data.length.into(),
            bytes: Cow::Borrowed(&data.bytes),
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::scans::Store;
    use spip_record::Format;

    fn sensor(format: Format) -> Sensor {
        Sensor {
            name: "test \"1\"".to_owned(),
            run: "0123456789ab",
            community_id_seed: 0,
            format,
            max_line_bytes: 1 << 20,
            public: Default::default(),
        }
    }

    pub(crate) fn written(scan: &Scan, format: Format) -> Vec<u8> {
        let mut line = Vec::new();
        encode(scan, &sensor(format), &mut line);
        line.extend_from_slice(format.tail().write(&mut [0; Tail::BYTES], 7));
        line
    }

    #[test]
    fn a_scan_that_is_read_is_written_in_every_format_as_it_was_logged() {
        let rest = Scan { source: IpAddr::from([0; 4]), undecided: 9, shown: None, ..scan([]) };
        let with_data = |bytes: &[u8]| {
            let mut scan = scan([80]);
            let data = Some(Box::new(ScanData { count: 2, length: 600, bytes: bytes.into() }));
            scan.shown.as_mut().expect("something").data = data;
            scan
        };
        for scan in [scan([22, 23, 80]), rest, with_data(b"GET /\0\xff"), with_data(b"")] {
            let flat = written(&scan, Format::Flat);
            let entry = ScanEntry::read(&flat).expect("a scan");
            for format in [Format::Flat, Format::Ecs, Format::Eve] {
                let mut line = Vec::new();
                entry.encode(format, &mut line);
                line.extend_from_slice(format.tail().write(&mut [0; Tail::BYTES], 7));
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

    pub(crate) fn scan(ports: impl IntoIterator<Item = u16>) -> Scan {
        let mut shown = Shown {
            ports: Ports::default(),
            addresses: Addresses::default(),
            source_ports: (40_000, 40_001),
            tools: [5, 0, 0, 5],
            variants: 1,
            syn: Syn { ip_version: 4, ttl: 57, window: 1024, ip_id: 54_321, sequence: 1, ..Syn::ZERO },
            data: None,
        };
        ports.into_iter().for_each(|port| shown.ports.insert(port));
        shown.addresses.insert(spip_common::packet::mapped([198, 51, 100, 1]), &mut Store::default());
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
                "timestamp": 1000, "record_type": "scan", "schema": "spip/1", "name": "test \"1\"", "run": "0123456789ab",
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
        assert_eq!(line["destination_ports"].as_array().map(Vec::len), Some(PORT_RANGES));
        assert_eq!(line["destinations_truncated"], true);
    }

    #[test]
    fn a_list_longer_than_the_agent_writes_is_read_as_far_as_that() {
        let line = String::from_utf8(written(&scan([22]), Format::Flat)).expect("text");
        let many = format!("[{}\"22\"]", "\"22\",".repeat(100_000));
        let long = line.replace(r#"["22"]"#, &many);
        let mut flat = Vec::new();
        ScanEntry::read(long.as_bytes()).expect("a scan").encode(Format::Flat, &mut flat);
        flat.push(b'}');
        let value: Value = serde_json::from_slice(&flat).expect("JSON");
        assert_eq!(value["destination_ports"].as_array().map(Vec::len), Some(PORT_RANGES));
    }

    #[test]
    fn the_longest_scan_keeps_to_the_bound_of_a_line() {
        let mut longest = scan((0..=u16::MAX).rev().filter(|port| port % 3 != 1));
        let shown = longest.shown.as_mut().expect("something");
        // Ranges of the longest addresses.
        let store = &mut Store::default();
        for number in 0..1_000_u128 {
            let address = 0x2001_0db8_1111_1111_1111_1111_1111_1111_u128 + number * 3;
            shown.addresses.insert(address.to_be_bytes(), store);
            shown.addresses.insert((address + 1).to_be_bytes(), store);
        }
        shown.syn.options_len = 40;
        shown.syn.options = [1; 40];
        shown.tools = [u64::MAX >> 11; Tool::ALL.len()];
        // Each of these bytes takes six characters as text.
        let bytes = Box::new([0x01; spip_common::map::SYN_DATA_BYTES]);
        shown.data = Some(Box::new(ScanData { count: u64::MAX >> 11, length: u16::MAX, bytes }));
        (longest.count, longest.undecided) = (u64::MAX >> 11, u64::MAX >> 11);
        longest.source = "2001:db8:1111:1111:1111:1111:1111:1111".parse().expect("an address");
        for format in [Format::Flat, Format::Ecs, Format::Eve] {
            // The longest name that the configuration takes, and no character of it stands for itself.
            let named = |max_line_bytes| Sensor { name: "\u{202e}".repeat(85), max_line_bytes, ..sensor(format) };
            let mut line = Vec::new();
            encode(&longest, &named(64 << 10), &mut line);
            assert!(line.len() > 30_000, "{} bytes: the lists are full", line.len());
            for bound in [8 << 10, 16 << 10, 32 << 10] {
                let mut line = Vec::new();
                encode(&longest, &named(bound), &mut line);
                assert!(line.len() + Tail::BYTES <= bound, "{} of {bound} bytes", line.len());
                assert!(line.len() > bound / 3, "{} of {bound} bytes: more than need be was left out", line.len());
            }
        }
    }

    #[test]
    fn a_scan_of_nobody_in_particular_names_no_address_as_related() {
        let rest = Scan { source: IpAddr::from([0; 4]), shown: None, ..scan([]) };
        let of = |scan: &Scan| serde_json::from_slice::<Value>(&written(scan, Format::Ecs)).expect("JSON");
        assert_eq!(of(&scan([22]))["related"]["ip"], json!(["192.0.2.7"]));
        assert_eq!(of(&rest).get("related"), None);
    }

    #[test]
    fn the_rest_has_numbers_and_nothing_else() {
        let rest = Scan { source: IpAddr::from([0; 4]), undecided: 9, shown: None, ..scan([]) };
        let line = encoded(&rest);
        assert_eq!((&line["source_ip"], &line["count"], &line["undecided"]), (&json!("0.0.0.0"), &json!(5), &json!(9)));
        assert!(line.get("syn").is_none() && line.get("destination_ports").is_none(), "{line}");
    }
}
