//! Headers of a message: what a reader needs to place it, and what delivery resumes from.

use async_nats::HeaderMap;

use crate::batch::{Batch, Part, Place};
use crate::config::{Compression, NatsSink};
use crate::state::State;

/// The sensor.
pub(crate) const SENSOR: &str = "Spip-Sensor";
/// The run of the agent; absent for lines without one.
pub(crate) const RUN: &str = "Spip-Run";
/// Number of lines.
pub(crate) const COUNT: &str = "Spip-Count";
/// Numbers of the first and the last record.
const FIRST_SEQ: &str = "Spip-First-Seq";
const LAST_SEQ: &str = "Spip-Last-Seq";
/// The place behind the batch: file identity and offset.
const PLACE: &str = "Spip-Place";
/// Identity of the shipper's state.
const SHIPPER: &str = "Spip-Shipper";
/// Compression of the payload: `zstd`, or absent.
pub(crate) const ENCODING: &str = "Content-Encoding";

/// Progress of the engine, from the headers of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) shipper: String,
    pub(super) place: Place,
}

impl Mark {
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let shipper = headers.get(SHIPPER)?.as_str().to_owned();
        let place = serde_json::from_str(headers.get(PLACE)?.as_str()).ok()?;
        Some(Self { shipper, place })
    }
}

/// Makes the headers of a batch.
pub(super) fn of(batch: &Batch, part: &Part, state: &State, config: &NatsSink, expected: u64, again: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Stream", config.access.stream.as_str());
    headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string().as_str());
    let id = format!("{}-{}-{}-{expected}-{again}", state.shipper, batch.start.total, batch.end.total);
    headers.insert("Nats-Msg-Id", id.as_str());
    headers.insert("Content-Type", "application/x-ndjson");
    if config.compression == Compression::Zstd {
        headers.insert(ENCODING, "zstd");
    }
    headers.insert(SENSOR, clean(&part.sensor).as_str());
    if !part.run.is_empty() {
        headers.insert(RUN, clean(&part.run).as_str());
    }
    for (name, seq) in [(FIRST_SEQ, part.first_seq), (LAST_SEQ, part.last_seq)] {
        if let Some(seq) = seq {
            headers.insert(name, seq.to_string().as_str());
        }
    }
    headers.insert(COUNT, part.count.to_string().as_str());
    headers.insert(SHIPPER, state.shipper.as_str());
    if let Ok(place) = serde_json::to_string(&batch.end) {
        headers.insert(PLACE, place.as_str());
    }
    headers
}

/// Makes a text fit for a header: a line feed would be another header.
fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).take(256).collect()
}
