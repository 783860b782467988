//! The formats of a log: which encoder writes a record, and how its line ends.

use crate::entry::Entry;
use crate::{ecs, eve, flat};

/// The shape of records in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The project's own: flat keys.
    #[default]
    Flat,
    /// Elastic Common Schema.
    Ecs,
    /// Suricata's EVE.
    Eve,
}

impl Format {
    /// Appends a record, without its end.
    pub fn encode(self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Flat => flat::encode(entry, out),
            Self::Ecs => ecs::encode(entry, out),
            Self::Eve => eve::encode(entry, out),
        }
    }

    /// Appends a record, without its end: with that it is at most `max_line_bytes` long, as far as leaving out what
    /// [`Entry::shorten`] can leave out allows.
    pub fn encode_within(self, max_line_bytes: usize, mut entry: Entry<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        let limit = max_line_bytes.saturating_sub(Tail::BYTES);
        self.encode(&entry, out);
        while let Some(excess @ 1..) = (out.len() - start).checked_sub(limit) {
            if !entry.shorten(excess) {
                break;
            }
            out.truncate(start);
            self.encode(&entry, out);
        }
    }

    /// Returns the end of a record.
    #[must_use]
    pub fn tail(self) -> Tail {
        match self {
            Self::Flat => flat::TAIL,
            Self::Ecs => ecs::TAIL,
            Self::Eve => eve::TAIL,
        }
    }
}

/// The end of a record: a member with its number, and as many braces as are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The key of the number.
    pub key: &'static str,
    /// Text that closes the object, without the line feed.
    pub end: &'static str,
}

impl Tail {
    /// More than any tail has: a comma, a quoted key, a colon, 20 digits, two braces and the line feed.
    pub const BYTES: usize = 40;

    /// Writes the tail for record number `seq`, and a line feed, to the end of `space`.
    #[must_use]
    pub fn write(self, space: &mut [u8; Self::BYTES], seq: u64) -> &[u8] {
        let mut at = Self::BYTES;
        let mut put = |text: &[u8]| {
            at -= text.len();
            space[at..at + text.len()].copy_from_slice(text);
        };
        put(b"\n");
        put(self.end.as_bytes());
        let mut rest = seq;
        loop {
            put(&[b'0' + (rest % 10) as u8]);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        put(b"\":");
        put(self.key.as_bytes());
        put(b",\"");
        &space[at..]
    }
}
