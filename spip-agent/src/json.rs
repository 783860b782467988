//! JSON strings that are safe to read in a terminal.
//!
//! JSON itself demands that quotes, backslashes and the characters below U+0020 are escaped. Log lines are read by
//! people with `tail` and `grep` too, and their text comes from strangers, so DEL, the C1 controls, the line
//! separators U+2028 and U+2029 and the marks that turn the direction of text are written as `\uXXXX` as well. Every
//! JSON parser gives back the same text. Everything else stays as it is: a log in Cyrillic remains legible.
//!
//! Payloads are long and mostly plain, so eight bytes are looked at in one step and copied as runs. Nothing here
//! allocates besides what the output buffer grows by.

use std::fmt;

/// Hexadecimal digits of the escapes, as the record's other hexadecimal fields: lower case.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// What stands for bytes that are not UTF-8: U+FFFD.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Appends `text` as a JSON string, with its quotes.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Appends `bytes` as a JSON string, with its quotes; what is not UTF-8 becomes U+FFFD, one for each maximal part of
/// a broken sequence, as `String::from_utf8_lossy` does it.
pub fn lossy_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut rest = bytes;
    loop {
        // Bytes that can begin no sequence are each a broken part of their own. Binary payloads are full of them.
        while let [0x80..=0xc1 | 0xf5..=0xff, after @ ..] = rest {
            out.extend_from_slice(REPLACEMENT);
            rest = after;
        }
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                escaped(out, valid);
                break;
            }
            Err(error) => {
                let (valid, broken) = rest.split_at(error.valid_up_to());
                // `valid` was just found to be UTF-8: `from_utf8` cannot refuse it.
                if let Ok(valid) = std::str::from_utf8(valid) {
                    escaped(out, valid);
                }
                out.extend_from_slice(REPLACEMENT);
                // No length: the input ends in the middle of a sequence.
                rest = broken.get(error.error_len().unwrap_or(broken.len())..).unwrap_or_default();
            }
        }
    }
    out.push(b'"');
}

/// Appends what `text` is inside the quotes of a JSON string.
pub fn escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    // Start of the run that is not copied yet, and the position that is looked at.
    let (mut run, mut at) = (0, 0);
    while let Some(found) = next_special(bytes, at) {
        let (replaced, length) = match bytes[found] {
            byte @ (0..0x20 | b'"' | b'\\' | 0x7f) => (u32::from(byte), 1),
            _ => match text[found..].chars().next() {
                Some(character) if hidden(character) => (u32::from(character), character.len_utf8()),
                Some(character) => {
                    at = found + character.len_utf8();
                    continue;
                }
                None => break,
            },
        };
        out.extend_from_slice(&bytes[run..found]);
        escape(out, replaced);
        at = found + length;
        run = at;
    }
    out.extend_from_slice(&bytes[run..]);
}

/// Text that is formatted straight into a JSON string, and cut where it grows over a limit: the rest is replaced by
/// `…`. The quotes are the caller's.
#[derive(Debug)]
pub struct Formatted<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
    cut: bool,
}

impl<'a> Formatted<'a> {
    /// Appends to `out` at most `limit` bytes of text, counted before they are escaped.
    pub fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        Formatted { out, left: limit, cut: false }
    }
}

impl fmt::Write for Formatted<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        if text.len() <= self.left {
            self.left -= text.len();
            escaped(self.out, text);
        } else {
            self.cut = true;
            escaped(self.out, &text[..text.floor_char_boundary(self.left)]);
            self.out.extend_from_slice("…".as_bytes());
        }
        Ok(())
    }
}

/// Appends `"key":`, preceded by a comma: the start of a further member of an object.
pub fn key(out: &mut Vec<u8>, name: &str) {
    out.push(b',');
    string(out, name);
    out.push(b':');
}

/// Whether a character outside ASCII is invisible or moves what stands around it: C1 controls, line and paragraph
/// separator, and the Bidi_Control characters of Unicode (UAX #9).
fn hidden(character: char) -> bool {
    matches!(
        character,
        '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

/// Appends the escape of a character of the basic plane.
fn escape(out: &mut Vec<u8>, code: u32) {
    let short = match code {
        0x22 => b'"',
        0x5c => b'\\',
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        _ => {
            let digit = |shift: u32| HEX[(code >> shift & 0xf) as usize];
            out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// The position of the next byte, from `from` on, that cannot be copied unseen: what JSON escapes, DEL, and the first
/// bytes of UTF-8 sequences in which a hidden character may stand (0xc2, 0xd8, 0xe2).
fn next_special(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let (words, _) = bytes.get(from..)?.as_chunks::<8>();
    for word in words {
        let suspects = suspects(u64::from_le_bytes(*word));
        if suspects != 0 {
            // Bytes below the first suspect are plain for certain; a carry can only mark too many above it.
            for (offset, &byte) in word.iter().enumerate().skip(suspects.trailing_zeros() as usize / 8) {
                if special(byte) {
                    return Some(at + offset);
                }
            }
        }
        at += 8;
    }
    bytes[at..].iter().position(|&byte| special(byte)).map(|offset| at + offset)
}

/// Whether a byte needs a closer look.
fn special(byte: u8) -> bool {
    matches!(byte, 0..0x20 | b'"' | b'\\' | 0x7f | 0xc2 | 0xd8 | 0xe2)
}

/// The high bit of each byte of a word that may be special: those outside ASCII, below 0x20, and equal to `"`, `\` or
/// DEL, by the usual test for a zero byte, `(x - 1) & !x & 0x80`. None is missed.
fn suspects(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    let equal = |byte: u8| zero(word ^ (ONES * u64::from(byte)));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (word | control | equal(b'"') | equal(b'\\') | equal(0x7f)) & HIGH
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn of_text(text: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        String::from_utf8(out).expect("the output is UTF-8")
    }

    fn of_bytes(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        lossy_string(&mut out, bytes);
        String::from_utf8(out).expect("the output is UTF-8")
    }

    fn parsed(json: &str) -> String {
        serde_json::from_str(json).expect("the output is a JSON string")
    }

    #[test]
    fn every_character_comes_back_and_none_that_hides_is_written_raw() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = String::from(character);
            let json = of_text(&text);
            assert_eq!(parsed(&json), text, "U+{:04X}", u32::from(character));
            let raw = json[1..json.len() - 1].contains(character);
            let must_escape = character.is_control()
                || ['"', '\\', '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}']
                    .contains(&character);
            if must_escape && !['"', '\\'].contains(&character) {
                assert!(!raw, "U+{:04X} stands in {json}", u32::from(character));
            }
        }
    }

    #[test]
    fn every_byte_at_every_place_of_a_word_is_written_as_from_utf8_lossy_reads_it() {
        for byte in 0..=255_u8 {
            for place in 0..20 {
                let mut bytes = *b"abcdefghijklmnopqrst";
                bytes[place] = byte;
                assert_eq!(parsed(&of_bytes(&bytes)), String::from_utf8_lossy(&bytes), "byte {byte:#04x} at {place}");
            }
        }
    }

    #[test]
    fn all_pairs_of_bytes_are_written_as_from_utf8_lossy_reads_them() {
        for pair in 0..=u16::MAX {
            let bytes = pair.to_be_bytes();
            assert_eq!(parsed(&of_bytes(&bytes)), String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn short_escapes_are_used_where_json_has_them() {
        assert_eq!(of_text("\"\\\u{8}\t\n\u{c}\r/"), r#""\"\\\b\t\n\f\r/""#);
        assert_eq!(of_text("\0\u{1b}\u{7f}\u{85}\u{2028}"), r#""\u0000\u001b\u007f\u0085\u2028""#);
        assert_eq!(of_text("Привет, 世界 £ ☃"), "\"Привет, 世界 £ ☃\"");
    }

    #[test]
    fn formatted_text_is_cut_at_its_limit_between_characters() {
        let mut out = Vec::new();
        let mut text = Formatted::new(&mut out, 5);
        for part in ["ab\n", "éé", "more"] {
            write!(text, "{part}").expect("writing to memory");
        }
        assert_eq!(out, "ab\\né…".as_bytes());
    }

    #[test]
    fn a_key_is_escaped_like_any_text() {
        let mut out = b"{\"a\":1".to_vec();
        key(&mut out, "b\"");
        assert_eq!(out, br#"{"a":1,"b\"":"#);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_as_from_utf8_lossy_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let json = of_bytes(&bytes);
            prop_assert!(!json.chars().any(|c| c.is_control() || hidden(c)));
            prop_assert_eq!(parsed(&json), String::from_utf8_lossy(&bytes));
            prop_assert!(json.len() <= 6 * bytes.len() + 2);
        }

        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            prop_assert_eq!(parsed(&of_text(&text)), text);
        }
    }
}
