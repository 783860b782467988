//! Detects a ClientHello at the start of a stream, from its content alone.
//!
//! A verdict is only given when no further byte can change it. Before the handshake header is whole the stream may
//! still be anything (`Undecided`), and turn out `NotTls`; from then on it is TLS, and what follows can only complete
//! the hello or break it. Thus plain payload is never held back longer than its first bytes are ambiguous, and a
//! TLS client is never recorded as plain.
//!
//! Accepted are records of any version 3.x, because RFC 8446 (section 5.1) tells receivers to ignore it, and hellos in
//! any number of records. Records without content are refused as that section demands, which also bounds their number.

use std::borrow::Cow;

/// Content type of a handshake record.
const HANDSHAKE: u8 = 22;
/// Handshake type of a ClientHello.
pub(super) const CLIENT_HELLO: u8 = 1;
/// Type, version and length in front of a record.
const RECORD_HEADER_BYTES: usize = 5;
/// Type and length in front of a handshake message.
const MESSAGE_HEADER_BYTES: usize = 4;
/// The most content of a record (RFC 8446, section 5.1).
const MAX_RECORD_BYTES: usize = 1 << 14;

/// The longest ClientHello that is read, its header included: what fits into one record.
pub const MAX_MESSAGE_BYTES: usize = MAX_RECORD_BYTES;
/// The most bytes that a hello may take on the wire, record headers included. Clients that cut a hello into small
/// records need more than its length; one byte a record, which is 6 for 1, is possible up to 5 kB.
pub const MAX_RAW_BYTES: usize = 32 * 1024;

/// State of the detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// Too few bytes; it may be TLS or not.
    Undecided,
    /// No TLS; the bytes are payload from the first one on.
    NotTls,
    /// A ClientHello, not yet whole.
    Partial,
    /// A whole ClientHello in the first `length` bytes, record headers included.
    ClientHello {
        /// End of the message. Later bytes of the same record are not counted.
        length: usize,
    },
    /// A whole SSL 2.0 ClientHello (RFC 5246, appendix E.2) in the first `length` bytes.
    Sslv2 {
        /// End of the message.
        length: usize,
        /// The version that it asks for: SSL 2.0, or a later one by a client that is ready for both.
        version: super::Version,
    },
    /// A ClientHello above [`MAX_MESSAGE_BYTES`] or [`MAX_RAW_BYTES`].
    Oversized {
        /// The length that the message says it has, header included.
        declared: usize,
    },
    /// A ClientHello that broke off into something else.
    Malformed(&'static str),
}

impl Detection {
    /// Reports whether a verdict needs more bytes.
    #[must_use]
    pub fn needs_more(self) -> bool {
        matches!(self, Self::Undecided | Self::Partial)
    }

    /// Reports whether a ClientHello was recognised, whole or not.
    #[must_use]
    pub fn is_tls(self) -> bool {
        !matches!(self, Self::Undecided | Self::NotTls)
    }
}

/// Judges the first bytes of a stream; see [`Detector`] for streams that come in pieces.
#[must_use]
pub fn detect(bytes: &[u8]) -> Detection {
    Detector::default().advance(bytes)
}

/// Judges a stream that comes in pieces, without reading any record twice: a hello in segments of one byte costs
/// no more than a small multiple of a whole one.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    /// Start of the first record that has not arrived whole.
    record: usize,
    /// Message bytes in the records before it.
    collected: usize,
    /// The first of them.
    header: [u8; MESSAGE_HEADER_BYTES],
}

impl Detector {
    /// Judges all bytes received so far: each call repeats the bytes of the one before and may add to them.
    pub fn advance(&mut self, bytes: &[u8]) -> Detection {
        match bytes.first() {
            None => Detection::Undecided,
            Some(&HANDSHAKE) => self.advance_records(bytes),
            Some(first) if first & 0x80 != 0 => sslv2(bytes),
            Some(_) => Detection::NotTls,
        }
    }

    fn advance_records(&mut self, bytes: &[u8]) -> Detection {
        loop {
            let rest = bytes.get(self.record..).unwrap_or_default();
            let length = match record_length(rest) {
                Ok(Some(length)) => length,
                Ok(None) => return self.waiting(),
                Err(reason) => return self.broken(reason),
            };
            let content = &rest[RECORD_HEADER_BYTES..];
            let content = &content[..content.len().min(length)];
            self.copy_header(content);
            let known = self.collected + content.len();
            if known > 0 && self.header[0] != CLIENT_HELLO {
                return Detection::NotTls;
            }
            if known >= MESSAGE_HEADER_BYTES {
                let [_, high, middle, low] = self.header;
                let message = MESSAGE_HEADER_BYTES + u32::from_be_bytes([0, high, middle, low]) as usize;
                // Never negative: an earlier record would have completed the message.
                let missing = message.saturating_sub(self.collected);
                let end = self.record + RECORD_HEADER_BYTES + missing.min(length);
                if message > MAX_MESSAGE_BYTES || end > MAX_RAW_BYTES {
                    return Detection::Oversized { declared: message };
                }
                if content.len() >= missing {
                    return Detection::ClientHello { length: end };
                }
            }
            if content.len() < length {
                return if known >= MESSAGE_HEADER_BYTES { Detection::Partial } else { Detection::Undecided };
            }
            self.collected = known;
            self.record += RECORD_HEADER_BYTES + length;
        }
    }

    /// Keeps the first bytes of the message; repeats what an earlier call kept of the same record.
    fn copy_header(&mut self, content: &[u8]) {
        let slots = self.header.iter_mut().skip(self.collected);
        for (slot, byte) in slots.zip(content) {
            *slot = *byte;
        }
    }

    fn waiting(&self) -> Detection {
        if self.is_recognised() { Detection::Partial } else { Detection::Undecided }
    }

    fn broken(&self, reason: &'static str) -> Detection {
        if self.is_recognised() { Detection::Malformed(reason) } else { Detection::NotTls }
    }

    fn is_recognised(&self) -> bool {
        self.collected >= MESSAGE_HEADER_BYTES
    }
}

/// The length of the record that starts here, once its header is whole; an error as soon as it cannot be a
/// handshake record.
fn record_length(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) {
        return Err("another record inside the client hello");
    }
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Err("a record of an unknown version inside the client hello");
    }
    let Some([_, _, _, high, low]) = bytes.first_chunk() else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes([*high, *low])) {
        0 => Err("an empty record inside the client hello"),
        length if length > MAX_RECORD_BYTES => Err("a record too long inside the client hello"),
        length => Ok(Some(length)),
    }
}

/// Judges bytes that start like an SSL 2.0 record. Such a hello has no magic number, but its lengths have to agree
/// with each other, which other protocols do not do by chance.
fn sslv2(bytes: &[u8]) -> Detection {
    use super::Version;
    /// The record's length, and the fields in front of the lists.
    const LENGTH_BYTES: usize = 2;
    const FIXED_BYTES: usize = 9;
    let at = |index: usize| bytes.get(index).copied();
    // A record above 16 kB would be a hello with thousands of ciphers.
    let plausible = at(0).is_none_or(|byte| byte & 0xc0 == 0x80)
        && at(2).is_none_or(|kind| kind == CLIENT_HELLO)
        && at(3).is_none_or(|major| major == 0 || major == 3)
        && at(4).is_none_or(|minor| if at(3) == Some(0) { minor == 2 } else { minor <= 4 });
    if !plausible {
        return Detection::NotTls;
    }
    let Some(head) = bytes.first_chunk::<{ LENGTH_BYTES + FIXED_BYTES }>() else {
        return Detection::Undecided;
    };
    let field = |index: usize| usize::from(u16::from_be_bytes([head[index], head[index + 1]]));
    let length = field(0) & 0x3fff;
    let (ciphers, session, challenge) = (field(5), field(7), field(9));
    let consistent = ciphers > 0
        && ciphers % 3 == 0
        && matches!(session, 0 | 16)
        && (16..=32).contains(&challenge)
        && FIXED_BYTES + ciphers + session + challenge == length;
    if !consistent {
        return Detection::NotTls;
    }
    let length = LENGTH_BYTES + length;
    if bytes.len() < length {
        return Detection::Partial;
    }
    Detection::Sslv2 { length, version: Version(u16::from_be_bytes([head[3], head[4]])) }
}

/// Joins the contents of the records in `raw`: the handshake message that a [`Detection::ClientHello`] has found.
///
/// Borrows where one record carries all of it. Reading ends at the end of the bytes, also in the middle of a record.
#[must_use]
pub fn handshake_message(raw: &[u8]) -> Cow<'_, [u8]> {
    let (first, mut rest) = split_record(raw);
    if rest.is_empty() {
        return Cow::Borrowed(first);
    }
    let mut message = Vec::with_capacity(raw.len() - RECORD_HEADER_BYTES);
    message.extend_from_slice(first);
    while !rest.is_empty() {
        let (content, next) = split_record(rest);
        message.extend_from_slice(content);
        rest = next;
    }
    Cow::Owned(message)
}

/// The content of the first record, as far as it is there, and what follows it.
fn split_record(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
        return (&[], &[]);
    };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    rest.split_at(length.min(rest.len()))
}
