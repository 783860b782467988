//! Batches: whole lines of one or more sensors, and the places before and after them.

use serde::{Deserialize, Serialize};
use spip_record::log::Position;

/// Lines of a batch, and of a message. A record has some hundred bytes, but a line may have two, and costs an engine's row
/// or a refusal of some hundred bytes all the same.
pub const MAX_LINES: u64 = 200_000;

/// A place in the source, and how many lines are before it.
///
/// `total` counts since the shipper's state was made. It orders two places of one shipper without looking at files, which
/// may be gone: what an engine has acknowledged is compared with what is stored by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Lines before it, refused ones included.
    pub total: u64,
    /// Its place.
    pub at: At,
}

/// A place in a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// Before everything that is there.
    #[default]
    Beginning,
    /// In a log.
    Log {
        /// The reader's position at or before it.
        position: Box<Position>,
        /// Lines between the position and the place.
        #[serde(default)]
        skip: u64,
    },
    /// In a stream, after a message.
    Stream {
        /// The sequence of the message.
        seq: u64,
    },
}

/// Lines of one sensor and one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The sensor.
    pub sensor: String,
    /// The run of the agent; empty for lines of versions that had none.
    pub run: String,
    /// Number of the first record that has one.
    pub first_seq: Option<u64>,
    /// Number of the last record that has one.
    pub last_seq: Option<u64>,
    /// Number of lines.
    pub count: u64,
    /// The lines, each with its line feed.
    pub bytes: Vec<u8>,
}

/// A line that cannot be delivered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The sensor, if it is known.
    pub sensor: String,
    /// Reason.
    pub reason: String,
    /// The line, or its beginning.
    pub line: Vec<u8>,
}

/// A batch: the lines that are delivered at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The lines, in the order of the source.
    pub parts: Vec<Part>,
    /// Lines that are no records.
    pub rejects: Vec<Reject>,
    /// The place before the batch.
    pub start: Place,
    /// The place after it.
    pub end: Place,
}

impl Batch {
    /// Returns the number of lines to deliver.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.parts.iter().map(|part| part.count).sum()
    }

    /// Returns the number of bytes to deliver.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes.len() as u64).sum()
    }

    /// Returns the number of lines that were read for it, refused ones included.
    #[must_use]
    pub fn lines_read(&self) -> u64 {
        self.end.total.saturating_sub(self.start.total)
    }
}
