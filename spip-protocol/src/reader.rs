//! Reads bytes from left to right, and says when they end.
//!
//! Every recogniser reads through this type and decides only from what it has read. That is what makes a verdict
//! stable: reading a longer input takes the same steps, so it can only replace "the bytes ended here" by an answer,
//! never one answer by another. For that reason nothing here tells how many bytes are left, except [`Reader::rest`],
//! which is for extracting facts and not for deciding.

/// The bytes ended before the question could be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End;

/// A position in bytes that a client sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the unread bytes. Not for recognisers: their number is no fact of the protocol.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], End> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(End)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `length` bytes as a message of their own, or what there is of them, and whether that is all. Not for
    /// recognisers.
    pub(super) fn up_to(&mut self, length: usize) -> (Self, bool) {
        let (message, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, b""));
        self.rest = rest;
        (Self { rest: message }, message.len() == length)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], End> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(End)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub(super) fn u8(&mut self) -> Result<u8, End> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, most significant first.
    pub(super) fn be16(&mut self) -> Result<u16, End> {
        self.array().map(u16::from_be_bytes)
    }

    /// Three bytes, most significant first.
    pub(super) fn be24(&mut self) -> Result<u32, End> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_be_bytes([0, a, b, c]))
    }

    /// Four bytes, most significant first.
    pub(super) fn be32(&mut self) -> Result<u32, End> {
        self.array().map(u32::from_be_bytes)
    }

    /// Two bytes, least significant first.
    pub(super) fn le16(&mut self) -> Result<u16, End> {
        self.array().map(u16::from_le_bytes)
    }

    /// Three bytes, least significant first.
    pub(super) fn le24(&mut self) -> Result<u32, End> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    /// Four bytes, least significant first.
    pub(super) fn le32(&mut self) -> Result<u32, End> {
        self.array().map(u32::from_le_bytes)
    }

    /// Consumes exactly these bytes and reports whether they came. "No" is known at the first byte that differs.
    pub(super) fn literal(&mut self, expected: &[u8]) -> Result<bool, End> {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                Ok(true)
            }
            None if expected.starts_with(self.rest) => Err(End),
            None => Ok(false),
        }
    }

    /// Consumes one of these and reports whether one came. "No" is known once the bytes differ from all of them.
    pub(super) fn one_of(&mut self, expected: &[&[u8]]) -> Result<bool, End> {
        let mut undecided = Ok(false);
        for literal in expected {
            match self.literal(literal) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(End) => undecided = Err(End),
            }
        }
        undecided
    }

    /// The bytes before the next `end`, which is consumed too; `None` when the next `limit` bytes have no `end`.
    pub(super) fn until(&mut self, end: u8, limit: usize) -> Result<Option<&'a [u8]>, End> {
        let window = self.rest.get(..limit).unwrap_or(self.rest);
        match window.iter().position(|byte| *byte == end) {
            Some(at) => {
                let taken = self.take(at)?;
                self.take(1)?;
                Ok(Some(taken))
            }
            None if window.len() == limit => Ok(None),
            None => Err(End),
        }
    }

    /// The next line of at most `limit` bytes, without its LF or CR LF; `None` when it is longer.
    pub(super) fn line(&mut self, limit: usize) -> Result<Option<&'a [u8]>, End> {
        let line = self.until(b'\n', limit)?;
        Ok(line.map(|line| line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// A number of seven bits a byte, least significant group first, of at most `limit` bytes (MQTT, Minecraft);
    /// `None` when it is longer.
    pub(super) fn varint(&mut self, limit: u32) -> Result<Option<u32>, End> {
        let mut value = 0_u32;
        for group in 0..limit.min(5) {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f).checked_shl(7 * group).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_refused_at_the_first_byte_that_differs() {
        assert_eq!(Reader::new(b"SS").literal(b"SSH-"), Err(End));
        assert_eq!(Reader::new(b"ST").literal(b"SSH-"), Ok(false));
        let mut reader = Reader::new(b"SSH-2");
        assert_eq!(reader.literal(b"SSH-"), Ok(true));
        assert_eq!(reader.rest(), b"2");
    }

    #[test]
    fn a_line_longer_than_its_limit_is_known_only_when_the_limit_was_seen() {
        assert_eq!(Reader::new(b"abc").line(4), Err(End));
        assert_eq!(Reader::new(b"abcd").line(4), Ok(None));
        assert_eq!(Reader::new(b"ab\r\nrest").line(4), Ok(Some(b"ab".as_slice())));
    }

    #[test]
    fn a_varint_of_too_many_bytes_is_none() {
        assert_eq!(Reader::new(&[0xff; 6]).varint(4), Ok(None));
        assert_eq!(Reader::new(&[0x80, 0x01]).varint(4), Ok(Some(128)));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint(5), Ok(Some(u32::MAX)));
    }
}
