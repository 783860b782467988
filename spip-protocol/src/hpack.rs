//! Decodes the compressed headers of HTTP/2 (RFC 7541), for reading what a client sent and nothing else.
//!
//! Own code because the crates that exist are no longer kept, decode without a bound on what they produce, or belong
//! to a whole HTTP/2 stack. One byte of a block can stand for 4 KiB of header, so the output is bounded here: a block
//! that asks for more is cut, and says so.

mod tables;

use std::collections::VecDeque;

use tables::{HUFFMAN, STATIC};

use super::reader::{End, Reader};

/// The dynamic table's limit that applies until a server says otherwise (RFC 9113, section 6.5.2).
const TABLE_BYTES: usize = 4096;
/// Size of an entry beside its bytes (RFC 7541, section 4.1).
const ENTRY_BYTES: usize = 32;

/// Reasons why a block was not decoded to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block is not whole, or one of its lengths points beyond it.
    Truncated,
    /// An index that neither table has.
    Index,
    /// An integer too large to be meant.
    Integer,
    /// Bits that are no code.
    Huffman,
    /// More headers, or longer ones, than are kept.
    TooLong,
}

impl HpackError {
    /// The error as a fact of a record.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "the header block ends early",
            Self::Index => "the header block names an entry that does not exist",
            Self::Integer => "the header block has an integer out of range",
            Self::Huffman => "the header block has an invalid Huffman code",
            Self::TooLong => "the header block is longer than what is kept",
        }
    }
}

impl From<End> for HpackError {
    fn from(_: End) -> Self {
        Self::Truncated
    }
}

/// A name and its value.
pub type Field = (Vec<u8>, Vec<u8>);

/// The state that one connection's blocks share.
#[derive(Debug)]
pub struct Decoder {
    /// Newest first.
    entries: VecDeque<Field>,
    bytes: usize,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit: TABLE_BYTES }
    }
}

impl Decoder {
    /// Appends the headers of one block, at most `budget` bytes with [`ENTRY_BYTES`] for each; what stands before an
    /// error is kept.
    pub fn decode(&mut self, block: &[u8], budget: usize, fields: &mut Vec<Field>) -> Result<(), HpackError> {
        let mut reader = Reader::new(block);
        let mut left = budget;
        while let Some(first) = reader.rest().first().copied() {
            let field = if first & 0x80 != 0 {
                let index = integer(&mut reader, 7)?;
                self.entry(index)?
            } else if first & 0x40 != 0 {
                let field = self.literal(&mut reader, 6)?;
                self.insert(field.clone());
                field
            } else if first & 0x20 != 0 {
                let limit = integer(&mut reader, 5)?;
                self.limit = limit.min(TABLE_BYTES);
                self.evict();
                continue;
            } else {
                self.literal(&mut reader, 4)?
            };
            left = left.checked_sub(size(&field)).ok_or(HpackError::TooLong)?;
            fields.push(field);
        }
        Ok(())
    }

    fn literal(&self, reader: &mut Reader<'_>, prefix: u32) -> Result<Field, HpackError> {
        let name = match integer(reader, prefix)? {
            0 => string(reader)?,
            index => self.entry(index)?.0,
        };
        Ok((name, string(reader)?))
    }

    fn entry(&self, index: usize) -> Result<Field, HpackError> {
        let at = index.checked_sub(1).ok_or(HpackError::Index)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        self.entries.get(at - STATIC.len()).cloned().ok_or(HpackError::Index)
    }

    fn insert(&mut self, field: Field) {
        self.bytes += size(&field);
        self.entries.push_front(field);
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > self.limit {
            let Some(oldest) = self.entries.pop_back() else {
                break;
            };
            self.bytes -= size(&oldest);
        }
    }
}

fn size((name, value): &Field) -> usize {
    name.len() + value.len() + ENTRY_BYTES
}

/// An integer whose first byte gives it `prefix` bits (RFC 7541, section 5.1).
fn integer(reader: &mut Reader<'_>, prefix: u32) -> Result<usize, HpackError> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(reader.u8()?) & mask;
    if value < mask {
        return Ok(value);
    }
    // Three more bytes reach two million, beyond every payload that is kept.
    for shift in [0, 7, 14] {
        let byte = reader.u8()?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(HpackError::Integer)
}

/// A string, plain or Huffman coded (RFC 7541, section 5.2).
fn string(reader: &mut Reader<'_>) -> Result<Vec<u8>, HpackError> {
    let coded = reader.rest().first().is_some_and(|byte| byte & 0x80 != 0);
    let length = integer(reader, 7)?;
    let bytes = reader.take(length)?;
    if coded { huffman(bytes) } else { Ok(bytes.to_vec()) }
}

/// Decodes the canonical code of RFC 7541, appendix B, bit by bit. The shortest code has five bits, so the result is
/// at most 8/5 of the input.
fn huffman(bytes: &[u8]) -> Result<Vec<u8>, HpackError> {
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    'symbols: loop {
        // In a canonical code the codes of one length are consecutive numbers, and the next length goes on where
        // they end: `first` is the first code of the length at hand.
        let (mut code, mut first, mut length) = (0_u32, 0_u32, 0_u32);
        let mut padding = true;
        for (group, symbols) in HUFFMAN {
            while length < *group {
                let Some(bit) = bits.next() else {
                    // What ends inside a code is padding: at most seven ones.
                    return if length < 8 && padding { Ok(text) } else { Err(HpackError::Huffman) };
                };
                padding &= bit == 1;
                code = code << 1 | bit;
                first <<= 1;
                length += 1;
            }
            let at = usize::try_from(code - first).map_err(|_| HpackError::Huffman)?;
            if let Some(symbol) = symbols.get(at) {
                text.push(*symbol);
                continue 'symbols;
            }
            first += u32::try_from(symbols.len()).map_err(|_| HpackError::Huffman)?;
        }
        // Thirty ones: the end-of-string symbol, which may not occur.
        return Err(HpackError::Huffman);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(decoder: &mut Decoder, block: &str) -> Vec<(String, String)> {
        let block = hex::decode(block.replace(' ', "")).expect("hex");
        let mut fields = Vec::new();
        decoder.decode(&block, 64 * 1024, &mut fields).expect("a valid block");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        fields.into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// Three requests on one connection, each with the headers that it must give.
    fn assert_requests(blocks: [&str; 3]) {
        let mut decoder = Decoder::default();
        let expected: [&[(&str, &str)]; 3] = [
            &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
            &[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "www.example.com"),
                ("cache-control", "no-cache"),
            ],
            &[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/index.html"),
                (":authority", "www.example.com"),
                ("custom-key", "custom-value"),
            ],
        ];
        for (block, expected) in blocks.into_iter().zip(expected) {
            let fields = decode(&mut decoder, block);
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(fields, expected);
        }
    }

    #[test]
    fn the_plain_requests_of_rfc_7541_appendix_c_3_are_decoded() {
        assert_requests([
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ]);
    }

    #[test]
    fn the_huffman_coded_requests_of_rfc_7541_appendix_c_4_are_decoded() {
        assert_requests([
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ]);
    }

    #[test]
    fn every_symbol_has_one_code_and_only_the_end_of_string_is_left() {
        let mut seen = [0_u32; 256];
        // Each code of n bits takes 2^(30-n) of the 2^30 codes of 30 bits.
        let mut taken = 0_u64;
        for (bits, symbols) in HUFFMAN {
            for symbol in *symbols {
                seen[usize::from(*symbol)] += 1;
                taken += 1 << (30 - bits);
            }
        }
        assert!(seen.iter().all(|count| *count == 1));
        assert_eq!(taken, (1 << 30) - 1);
    }

    #[test]
    fn a_block_that_unfolds_is_cut_at_the_budget() {
        let mut decoder = Decoder::default();
        // One header of 3,000 bytes goes into the table, then a byte each repeats it.
        let mut block = vec![0x40, 0x01, b'a', 0x7f, 0xb9, 0x16];
        block.extend(std::iter::repeat_n(b'v', 3000));
        block.extend(std::iter::repeat_n(0xbe, 60_000));
        let mut fields = Vec::new();
        assert_eq!(decoder.decode(&block, 32 * 1024, &mut fields), Err(HpackError::TooLong));
        assert_eq!(fields.len(), 10);
    }

    #[test]
    fn an_index_without_entry_and_an_integer_without_end_are_refused() {
        let mut fields = Vec::new();
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&[0xbe], 100, &mut fields), Err(HpackError::Index));
        assert_eq!(decoder.decode(&[0x80], 100, &mut fields), Err(HpackError::Index));
        assert_eq!(decoder.decode(&[0xff, 0xff, 0xff, 0xff, 0xff], 100, &mut fields), Err(HpackError::Integer));
        assert_eq!(decoder.decode(&[0x41, 0x05, b'a'], 100, &mut fields), Err(HpackError::Truncated));
    }

    proptest! {
        #[test]
        fn arbitrary_blocks_give_no_panic_and_keep_the_budget(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..4)) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let mut fields = Vec::new();
                let _outcome = decoder.decode(&block, 1000, &mut fields);
                prop_assert!(fields.iter().map(size).sum::<usize>() <= 1000);
                prop_assert!(decoder.bytes <= TABLE_BYTES);
            }
        }
    }
}
