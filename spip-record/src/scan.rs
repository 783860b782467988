//! A scan as it is written: made of one that was seen, or read from a line of the flat format.
//!
//! No schema has fields for a scan of many ports, so nothing but the envelope is told in the words of others; the rest
//! stands under `spip`.

use std::fmt::Display;
use std::io::Write as _;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::entry::{SynDataFacts, SynFacts, Text};
use crate::object::{Members, list};
use crate::read::{Capped, Hex, Json, Lent, need, syn_data};
use crate::{Format, SCHEMA, time};

/// Ranges of ports that a record lists: 14 kB at most.
pub const PORT_RANGES: usize = 1_024;

/// Ranges of addresses that a record lists: 21 kB at most.
pub const ADDRESS_RANGES: usize = 256;

/// Tools that are read: more than are known.
const TOOLS: usize = 64;

/// The largest number of a record.
pub const EXACT: u64 = 1 << 53;

/// A scan, or all of one interval that have no record of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanEntry<'a> {
    /// The sensor.
    pub name: Text<'a>,
    /// The run of the agent, as in [`crate::Entry::run`].
    pub run: Option<Text<'a>>,
    /// The source; unspecified for the rest.
    pub source: IpAddr,
    /// Time of the first SYN, microseconds since 1970.
    pub first_us: i64,
    /// Time of the last SYN, microseconds since 1970.
    pub last_us: i64,
    /// Half-open SYNs; retransmissions are not counted.
    pub count: u64,
    /// SYNs of which the sensor could not tell whether a handshake followed.
    pub undecided: u64,
    /// Facts of the SYNs; absent in the record that counts the rest.
    pub shown: Option<ShownFacts<'a>>,
    /// Number of the record in its run; only in what was read.
    pub seq: Option<u64>,
}

/// Facts of the SYNs of one source.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownFacts<'a> {
    /// Ranges of ports that were asked for, the first [`PORT_RANGES`] of them.
    pub ports: Vec<(u16, u16)>,
    /// Number of different ports.
    pub port_count: u64,
    /// Ranges of addresses that were asked for, the first [`ADDRESS_RANGES`] of them.
    pub addresses: Vec<(IpAddr, IpAddr)>,
    /// Number of different addresses, at most [`EXACT`].
    pub address_count: u64,
    /// Set when not all ports and addresses are listed.
    pub is_truncated: bool,
    /// Lowest and highest source port.
    pub source_ports: (u16, u16),
    /// Number of SYNs that showed each tool.
    pub tools: Vec<(Text<'a>, u64)>,
    /// Number of different SYNs.
    pub variants: u64,
    /// The first SYN.
    pub syn: Option<SynFacts<'a>>,
    /// Data that came with SYNs, if with any.
    pub syn_data: Option<SynDataFacts<'a>>,
}

impl<'a> ScanEntry<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no JSON object, lacks what every scan has or what belongs to a key that it has, or has a key twice.
    pub fn read(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        let keys: Keys<'a> = serde_json::from_slice(line)?;
        // The rest of an interval shows nothing.
        let is_shown = keys.destination_ports.is_some()
            || keys.destination_ips.is_some()
            || keys.source_port_min.is_some()
            || keys.source_port_max.is_some()
            || !keys.tools.0.is_empty()
            || keys.syn.is_some();
        Ok(Self {
            name: keys.name.0,
            run: keys.run.map(|text| text.0),
            source: keys.source_ip.to_canonical(),
            first_us: keys.first_time.0,
            last_us: keys.last_time.0,
            count: keys.count,
            undecided: keys.undecided,
            shown: match is_shown {
                true => Some(ShownFacts {
                    ports: need(keys.destination_ports, "destination_ports")?
                        .0
                        .into_iter()
                        .map(|range| range.0)
                        .collect(),
                    port_count: keys.destination_port_count,
                    addresses: need(keys.destination_ips, "destination_ips")?
                        .0
                        .into_iter()
                        .map(|range| range.0)
                        .collect(),
                    address_count: keys.destination_ip_count,
                    is_truncated: keys.destinations_truncated,
                    source_ports: (
                        need(keys.source_port_min, "source_port_min")?,
                        need(keys.source_port_max, "source_port_max")?,
                    ),
                    tools: keys.tools.0.into_iter().map(|tool| (tool.tool.0, tool.count)).collect(),
                    variants: keys.syn_variants,
                    syn: keys.syn.map(SynFacts::Read),
                    syn_data: syn_data(keys.syn_data_count, keys.syn_data_length, keys.syn_data_hex)?,
                }),
                false => None,
            },
            seq: keys.seq,
        })
    }

    /// Leaves out most of the data of SYNs, then half of the longer list, so that the line becomes shorter; false when there is nothing left.
    pub fn shorten(&mut self) -> bool {
        let Some(shown) = &mut self.shown else { return false };
        if shown.syn_data.as_mut().is_some_and(SynDataFacts::shorten) {
            return true;
        }
        let (ports, addresses) = (shown.ports.len(), shown.addresses.len());
        // One of each says what it was about.
        if ports.max(addresses) <= 1 {
            return false;
        }
        if ports >= addresses {
            shown.ports.truncate(ports / 2);
        } else {
            shown.addresses.truncate(addresses / 2);
        }
        shown.is_truncated = true;
        true
    }

    /// Appends the record, without its end.
    pub fn encode(&self, format: Format, out: &mut Vec<u8>) {
        (format.encoder().scan)(self, out);
    }

    /// Writes the facts that the envelopes of ECS and EVE have no field for.
    pub(crate) fn own(&self, spip: &mut Members<'_>) {
        spip.word("record_type", "scan");
        spip.word("schema", SCHEMA);
        spip.optional("run", self.run.as_deref());
        self.counts(spip);
        self.ends(spip);
    }

    /// Writes how many SYNs came.
    pub(crate) fn counts(&self, record: &mut Members<'_>) {
        record.number("count", self.count);
        if self.undecided > 0 {
            record.number("undecided", self.undecided);
        }
    }

    /// Writes what the SYNs asked for, and from where.
    pub(crate) fn ends(&self, record: &mut Members<'_>) {
        let Some(shown) = &self.shown else { return };
        record.key("destination_ports");
        list(record.out, &shown.ports, range);
        record.number("destination_port_count", shown.port_count);
        record.key("destination_ips");
        list(record.out, &shown.addresses, range);
        record.number("destination_ip_count", shown.address_count);
        if shown.is_truncated {
            record.flag("destinations_truncated", true);
        }
        record.number("source_port_min", shown.source_ports.0);
        record.number("source_port_max", shown.source_ports.1);
        if !shown.tools.is_empty() {
            record.key("tools");
            list(record.out, &shown.tools, |out, (tool, count)| {
                let mut object = Members::open(out);
                object.text("tool", tool);
                object.number("count", *count);
                object.close();
            });
        }
        record.number("syn_variants", shown.variants);
        if let Some(syn) = &shown.syn {
            record.key("syn");
            syn.write(record.out);
        }
        if let Some(data) = &shown.syn_data {
            data.write(record);
        }
    }
}

/// Appends a range, or what is alone in it.
fn range<T: Display + PartialEq>(out: &mut Vec<u8>, (from, to): &(T, T)) {
    // Writing to memory cannot fail.
    let _ = if from == to { write!(out, "\"{from}\"") } else { write!(out, "\"{from}-{to}\"") };
}

/// The keys of a line. Those that are not known are passed over.
#[derive(Deserialize)]
struct Keys<'a> {
    #[serde(borrow)]
    name: Lent<'a>,
    #[serde(borrow, default)]
    run: Option<Lent<'a>>,
    source_ip: IpAddr,
    first_time: time::Read,
    last_time: time::Read,
    count: u64,
    #[serde(default)]
    undecided: u64,
    destination_ports: Option<Capped<Range<u16>, PORT_RANGES>>,
    #[serde(default)]
    destination_port_count: u64,
    destination_ips: Option<Capped<Range<IpAddr>, ADDRESS_RANGES>>,
    #[serde(default)]
    destination_ip_count: u64,
    #[serde(default)]
    destinations_truncated: bool,
    source_port_min: Option<u16>,
    source_port_max: Option<u16>,
    #[serde(borrow, default)]
    tools: Capped<ToolCount<'a>, TOOLS>,
    #[serde(default)]
    syn_variants: u64,
    syn: Option<Json>,
    syn_data_count: Option<u64>,
    syn_data_length: Option<u32>,
    syn_data_hex: Option<Hex>,
    seq: Option<u64>,
}

#[derive(Deserialize)]
struct ToolCount<'a> {
    #[serde(borrow)]
    tool: Lent<'a>,
    count: u64,
}

/// A range as text.
struct Range<T>((T, T));

impl<'de, T: FromStr<Err: Display> + Copy> Deserialize<'de> for Range<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ends<T>(PhantomData<T>);
        impl<T: FromStr<Err: Display> + Copy> serde::de::Visitor<'_> for Ends<T> {
            type Value = Range<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a range")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Range<T>, E> {
                let end = |text: &str| text.parse::<T>().map_err(E::custom);
                match text.split_once('-') {
                    Some((from, to)) => Ok(Range((end(from)?, end(to)?))),
                    None => end(text).map(|only| Range((only, only))),
                }
            }
        }
        deserializer.deserialize_str(Ends(PhantomData))
    }
}
