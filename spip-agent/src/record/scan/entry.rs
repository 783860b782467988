//! A scan as other formats tell it: their envelope, and everything that is known under `spip`, as the flat format has it.
//!
//! No schema has fields for a scan of many ports, so nothing but the envelope is told in their words. In EVE the
//! `event_type` is `scan`, which Suricata does not have: it is neither a flow nor an alert.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::json;
use crate::record::object::{Members, address};
use crate::record::read::{self, Value};
use crate::record::{Format, ecs, eve};

/// Keys that a line may have: ten times what a scan has.
const KEYS_MAX: usize = 256;

/// A scan that was read from a line of the flat format.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanEntry {
    name: String,
    source: IpAddr,
    first_us: i64,
    last_us: i64,
    own: Vec<(String, Value)>,
    /// Number of the record in its run.
    pub seq: Option<u64>,
}

impl ScanEntry {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no JSON object, lacks what every scan has, or has a key twice.
    pub fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        let Value::Object(mut members) = read::any(line)? else { return Err(read::wrong("no JSON object")) };
        if members.len() > KEYS_MAX {
            return Err(read::wrong("too many keys"));
        }
        for (at, (key, _)) in members.iter().enumerate() {
            if members.iter().take(at).any(|(other, _)| other == key) {
                return Err(read::wrong(&format!("{key} comes twice")));
            }
        }
        let mut take = |key: &str| {
            let at = members.iter().position(|(own, _)| own == key);
            at.map(|at| members.remove(at).1)
        };
        // Told by the envelope.
        let _ = (take("timestamp"), take("time"));
        let mut text = |key: &str| match take(key) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(read::wrong(&format!("{key} is missing: not a scan of {}", super::SCHEMA))),
        };
        let (name, source) = (text("name")?, text("source_ip")?);
        let (first, last) = (text("first_time")?, text("last_time")?);
        let source = source.parse::<IpAddr>().map_err(|error| read::wrong(&format!("source_ip: {error}")))?;
        let us = |time: &str| {
            let time = time.parse::<Timestamp>().map_err(|error| read::wrong(&error.to_string()));
            time.map(Timestamp::as_microsecond)
        };
        let seq = match take("seq") {
            Some(Value::Number(number)) => number.as_u64(),
            _ => None,
        };
        Ok(Self { name, source: source.to_canonical(), first_us: us(&first)?, last_us: us(&last)?, own: members, seq })
    }

    /// Appends the record, without its end.
    pub fn encode(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Flat => {}
            Format::Ecs => self.ecs(out),
            Format::Eve => self.eve(out),
        }
    }

    fn ecs(&self, out: &mut Vec<u8>) {
        let mut record = Members::open(out);
        record.time("@timestamp", self.first_us);
        ecs::version(&mut record);
        ecs::observer(&self.name, &mut record);
        record.constant(r#","source":{"ip":"#);
        address(record.out, self.source);
        record.constant(r#"},"network":{"transport":"tcp","direction":"inbound","type":"#);
        record.constant(if self.source.is_ipv4() { r#""ipv4"}"# } else { r#""ipv6"}"# });
        record.constant(r#","related":{"ip":["#);
        address(record.out, self.source);
        record.constant("]}");
        let mut spip = record.nested("spip");
        self.own(&mut spip);
        spip.close();
        let mut event = record.nested("event");
        event.constant(
            r#""kind":"event","module":"spip","dataset":"spip.scan","category":["network"],"type":["connection","info"]"#,
        );
        event.time("start", self.first_us);
        event.time("end", self.last_us);
    }

    fn eve(&self, out: &mut Vec<u8>) {
        let mut event = Members::open(out);
        eve::time(&mut event, "timestamp", self.first_us);
        event.constant(r#","event_type":"scan","src_ip":"#);
        address(event.out, self.source);
        event.constant(r#","proto":"TCP""#);
        event.text("host", &self.name);
        let mut spip = event.nested("spip");
        self.own(&mut spip);
        spip.time("first_time", self.first_us);
        spip.time("last_time", self.last_us);
    }

    /// What the envelope has no place for.
    fn own(&self, spip: &mut Members<'_>) {
        for (key, value) in &self.own {
            if spip.out.last() != Some(&b'{') {
                spip.out.push(b',');
            }
            json::string(spip.out, key);
            spip.out.push(b':');
            json::value(spip.out, value);
        }
    }
}
