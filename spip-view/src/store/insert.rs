//! Rows of a day: what a session and a scan become in its file, and what is counted of them.

use rusqlite::types::Value;

use super::dayfile::DayFile;
use super::key;
use super::rollup::{Key, Place};
use super::writer::Kept;
use crate::meaning::Class;
use crate::moment::{DAY, HOUR, Moment};
use crate::row::{Kind, Row, ScanRow};

/// Ports of a scan that are counted one by one; of more, blocks of 256.
const COUNTED_PORTS: u64 = 1_024;

/// Ranges of a scan that are kept as text.
const KEPT_RANGES: usize = 64;

pub(super) fn port_key(row: &Row) -> i64 {
    i64::from(row.port) + if row.is_udp { key::UDP_PORTS } else { 0 }
}

fn hour(time: Moment) -> u8 {
    u8::try_from(time.0.rem_euclid(DAY) / HOUR).unwrap_or(0)
}

fn signed(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The key of a session, and the numbers that it is stored with.
pub(super) struct Numbers<'a> {
    pub(super) id: i64,
    pub(super) sensor: i64,
    pub(super) source: &'a Value,
    pub(super) facts: &'a [(Kind, i64)],
    pub(super) profile: Option<i64>,
}

/// Adds a session to its day.
pub(super) fn session(file: &mut DayFile, row: &Row, numbers: &Numbers<'_>, record: Kept<'_>) -> rusqlite::Result<i64> {
    let Numbers { id, sensor, source, facts, profile } = *numbers;
    let of = |kind| facts.iter().find(|(own, _)| *own == kind).map_or(Value::Null, |(_, id)| Value::Integer(*id));
    let is_rejected = row.close_reason == "rejected";
    let class = Class::of(&row.meaning);
    let flags = [
        (row.is_tls, key::TLS),
        (row.is_udp, key::UDP),
        (row.is_truncated, key::TRUNCATED),
        (is_rejected, key::REJECTED),
        (class == Class::Listed, key::LISTED),
        (class == Class::Claimed, key::CLAIMED),
        (!row.credentials.is_empty(), key::TRIED),
    ];
    let flags: i64 = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| flag).sum();
    let (block, line) = match record {
        Kept::Here(record) => {
            let (block, line) = file.record(record)?;
            (Value::Integer(block), Value::Integer(line))
        }
        Kept::In(place, line) => (Value::Integer(file.place(&place)?), Value::Integer(line)),
        Kept::Nowhere => (Value::Null, Value::Null),
    };
    let columns = [
        profile.map_or(Value::Null, Value::Integer),
        signed(row.count),
        Value::Integer(flags),
        source.clone(),
        Value::Integer(row.source_port.into()),
        of(Kind::Destination),
        Value::Integer(row.port.into()),
        Value::Integer(sensor),
        signed(row.duration_us),
        signed(row.bytes_in),
        signed(row.bytes_out),
        Value::Integer(key::uuid(&row.session_id)),
        of(Kind::CloseReason),
        of(Kind::Limit),
        of(Kind::Country),
        of(Kind::Network),
        of(Kind::Scanner),
        block,
        line,
    ];
    let id = file.session(id, &columns)?;
    let credentials = facts.iter().filter(|(kind, _)| *kind == Kind::Credential);
    for (ordinal, (_, credential)) in credentials.enumerate() {
        file.credential(id, ordinal, *credential)?;
    }
    for (kind, fact) in facts.iter().filter(|(kind, _)| Kind::MARKS.contains(kind)) {
        file.mark(id, *kind, *fact)?;
    }
    let zero = Key::Number(0);
    let mut counters = file.rollup.at(Place { hour: hour(row.time), sensor, class });
    counters.add(Kind::Connections, zero, row.count);
    counters.add(Kind::Sessions, zero, 1);
    counters.add(Kind::BytesIn, zero, row.bytes_in);
    if is_rejected {
        counters.add(Kind::Rejected, zero, row.count);
    }
    counters.add(Kind::Sensor, Key::Number(sensor), row.count);
    let source = (!row.source.is_unspecified()).then(|| Key::read(source.into()));
    if let Some(source) = source {
        counters.add(Kind::Source, source, row.count);
    }
    for (kind, id) in facts {
        counters.add(*kind, Key::Number(*id), row.count);
    }
    if let Some((_, campaign)) = facts.iter().find(|(kind, _)| *kind == Kind::Campaign) {
        counters.add(Kind::CampaignPort, Key::pair(*campaign, Key::Number(port_key(row))), row.count);
        if let Some(source) = source {
            counters.add(Kind::CampaignSource, Key::pair(*campaign, source), row.count);
        }
    }
    Ok(id)
}

pub(super) fn scan(
    file: &mut DayFile,
    id: i64,
    row: &ScanRow,
    sensor: i64,
    source: Value,
    facts: [Option<i64>; 5],
) -> rusqlite::Result<()> {
    let [tool, syn, country, network, scanner] = facts.map(|id| id.map_or(Value::Null, Value::Integer));
    let class = Class::of(&row.meaning);
    let zero = Key::Number(0);
    let mut counters = file.rollup.at(Place { hour: hour(row.time), sensor, class });
    counters.add(Kind::Scans, zero, 1);
    counters.add(Kind::HalfOpen, zero, row.count);
    if !row.source.is_unspecified() {
        counters.add(Kind::ScanSource, Key::read((&source).into()), row.count);
    }
    let mut last_block = -1;
    for (first, last) in &row.ports {
        for block in i64::from(first >> 8)..=i64::from(last >> 8) {
            if block > last_block {
                counters.add(Kind::ScanBlock, Key::Number(block), 1);
                last_block = block;
            }
        }
        if row.port_count <= COUNTED_PORTS {
            for port in *first..=*last {
                counters.add(Kind::ScanPort, Key::Number(port.into()), 1);
            }
        }
    }
    let values = [
        signed(row.count),
        signed(row.undecided),
        Value::Integer(if class == Class::Listed { key::LISTED } else { 0 }),
        source,
        Value::Integer(sensor),
        Value::Integer(row.last.0.saturating_sub(row.time.0)),
        Value::Text(ranges(&row.ports)),
        signed(row.port_count),
        Value::Text(ranges(&row.destinations)),
        signed(row.destination_count),
        tool,
        syn,
        country,
        network,
        scanner,
    ];
    file.scan(id, &values)
}

/// Writes ranges as `22-24,80`, the first of many followed by `…`.
fn ranges<T: std::fmt::Display + PartialEq>(ranges: &[(T, T)]) -> String {
    let shown: Vec<String> = ranges
        .iter()
        .take(KEPT_RANGES)
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    let mut text = shown.join(",");
    if ranges.len() > KEPT_RANGES {
        text.push_str(",…");
    }
    text
}
