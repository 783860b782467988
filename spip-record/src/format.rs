//! The formats of a log: which encoder writes a record, and how its line ends.

use crate::entry::Entry;
use crate::message::Head;
use crate::scan::ScanEntry;
use crate::{ecs, eve, flat};

/// Encoder of a format, one for each kind of line. A format is one file that has one of these, and a line in
/// [`Format::encoder`].
pub(crate) struct Encoder {
    /// Appends the record of a session, without its end.
    pub(crate) session: fn(&Entry<'_>, &mut Vec<u8>),
    /// Appends the record of a scan, without its end.
    pub(crate) scan: fn(&ScanEntry<'_>, &mut Vec<u8>),
    /// Appends a system message, up to where its fields follow.
    pub(crate) message: fn(&Head<'_>, &mut Vec<u8>),
    /// Text that closes the object of these fields, unless it is the line itself.
    pub(crate) after_fields: &'static str,
    /// End of a record.
    pub(crate) tail: Tail,
}

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
        (self.encoder().session)(entry, out);
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
        self.encoder().tail
    }

    pub(crate) fn encoder(self) -> &'static Encoder {
        match self {
            Self::Flat => &flat::ENCODER,
            Self::Ecs => &ecs::ENCODER,
            Self::Eve => &eve::ENCODER,
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
