//! Position of a reader in a log: the file, recognised by its content, and the offset.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// First bytes of a file by which it is recognised. The first line has the time to the microsecond and a random
/// identifier, within a few hundred bytes unless its payload is long.
pub(super) const HEAD_BYTES: usize = 1024;

/// Last bytes before a position by which it is verified.
pub(super) const TAIL_BYTES: usize = 64;

/// Place to resume at in a log. Serializable; a few hundred bytes; holds no content of the log but hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The file that is being read; `None` between two files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<Place>,
    /// The last file before it that is read to its end and was still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) done: Option<Mark>,
    /// Time in the name of the newest closed file of the agent's that is read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) through: Option<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) mark: Mark,
    /// Bytes before it, uncompressed.
    pub(super) offset: u64,
    /// Lines before it.
    pub(super) line: u64,
    /// Hash of the last [`TAIL_BYTES`] before it.
    pub(super) tail: String,
}

/// By what a file is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The last name that it was known by, without its directory; for messages, and for the time in it.
    pub(super) name: String,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Number of first bytes that are hashed; 0 when nothing was read of the file.
    pub(super) head_bytes: u32,
    pub(super) head: String,
}

impl Position {
    /// Returns the last known name of the file, without its directory, and the offset in its uncompressed bytes; `None`
    /// before the first and between two files.
    #[must_use]
    pub fn file(&self) -> Option<(&str, u64)> {
        self.file.as_ref().map(|place| (place.mark.name.as_str(), place.offset))
    }
}

impl Mark {
    /// Reports whether a file begins as this one did. A mark of nothing is like no file.
    pub(super) fn begins(&self, head: &[u8]) -> bool {
        self.head_bytes > 0 && head.get(..self.head_bytes as usize).is_some_and(|head| hash(head) == self.head)
    }
}

pub(super) fn hash(bytes: &[u8]) -> String {
    // 128 bits are plenty against chance; a collision in one's own log gains nothing.
    hex::encode(Sha256::digest(bytes).get(..16).unwrap_or_default())
}

/// Returns the name of a file as a position holds it.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
