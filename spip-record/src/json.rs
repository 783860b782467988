//! JSON strings that are safe to read in a terminal.
//!
//! JSON itself demands that quotes, backslashes and the characters below U+0020 are escaped. Log lines are read by
//! people with `tail` and `grep` too, and their text comes from clients, so every character that [`is_hidden`] names is
//! written as `\uXXXX` as well. Every JSON parser gives back the same text. Everything else stays as it is: a log in
//! Cyrillic remains legible.
//!
//! One character is replaced, not escaped: U+0000 is written as U+2400 (`␀`). JSON may hold `\u0000`, but PostgreSQL
//! (`jsonb` and `text`) and every reader whose strings end at a zero byte refuse or cut such a line.
//!
//! Payloads are long and mostly plain, so eight bytes are looked at in one step and copied as runs. Nothing here
//! allocates besides what the output buffer grows by.

use std::fmt;
use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// Hexadecimal digits of the escapes, as the record's other hexadecimal fields: lower case.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Replacement of bytes that are not UTF-8: U+FFFD.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Replacement of U+0000: U+2400, SYMBOL FOR NULL.
const NUL: &[u8] = "\u{2400}".as_bytes();

/// Appends `text` as a JSON string, with its quotes; U+0000 becomes U+2400.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Appends `bytes` as a JSON string, with its quotes; what is not UTF-8 becomes U+FFFD, one for each maximal part of
/// a broken sequence, as `String::from_utf8_lossy` does it, and U+0000 becomes U+2400.
pub fn lossy_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    lossy_escaped(out, bytes);
    out.push(b'"');
}

/// Appends `value` as JSON whose strings are as safe as those of [`string`].
///
/// Writes `null` when the value cannot be JSON, which no value of this crate is.
pub fn value(out: &mut Vec<u8>, value: &impl Serialize) {
    let start = out.len();
    if value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, TerminalSafe)).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// Escapes in the runs of text that the library would copy as they are.
struct TerminalSafe;

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if end_of_plain(fragment.as_bytes(), 0) == fragment.len() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut safe = Vec::with_capacity(fragment.len());
        escaped(&mut safe, fragment);
        writer.write_all(&safe)
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::AsciiControl(0) => writer.write_all(NUL),
            other => CompactFormatter.write_char_escape(writer, other),
        }
    }
}

/// Appends what `text` is inside the quotes of a JSON string.
pub fn escaped(out: &mut Vec<u8>, text: &str) {
    lossy_escaped(out, text.as_bytes());
}

fn lossy_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    // Start of the run that is not copied yet, and the position that is looked at.
    let (mut run, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let (length, replaced) = match byte {
            0..0x20 | b'"' | b'\\' | 0x7f => (1, Some(u32::from(byte))),
            0x20..0x7f => {
                at = end_of_plain(bytes, at + 1);
                continue;
            }
            0x80.. => match sequence(&bytes[at..]) {
                Ok((length, code)) if hidden(code) => (length, Some(code)),
                Ok((length, _)) => {
                    at += length;
                    continue;
                }
                Err(length) => (length, None),
            },
        };
        out.extend_from_slice(&bytes[run..at]);
        match replaced {
            Some(0) => out.extend_from_slice(NUL),
            Some(code) => escape(out, code),
            None => out.extend_from_slice(REPLACEMENT),
        }
        at += length;
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

/// Appends `number` in decimal digits.
pub fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `"key":`, preceded by a comma: the start of a further member of an object.
pub fn key(out: &mut Vec<u8>, name: &str) {
    out.push(b',');
    string(out, name);
    out.push(b':');
}

/// The UTF-8 sequence at the start of `bytes`, which begin with a byte outside ASCII: its length and character, or the
/// length of its maximal part if it is broken (The Unicode Standard, table 3-7 and section 3.9, "U+FFFD substitution of
/// maximal subparts").
fn sequence(bytes: &[u8]) -> Result<(usize, u32), usize> {
    let first = bytes.first().copied().unwrap_or_default();
    let (length, second) = match first {
        0xc2..=0xdf => (2, 0x80..=0xbf),
        0xe0 => (3, 0xa0..=0xbf),
        0xed => (3, 0x80..=0x9f),
        0xe1..=0xef => (3, 0x80..=0xbf),
        0xf0 => (4, 0x90..=0xbf),
        0xf1..=0xf3 => (4, 0x80..=0xbf),
        0xf4 => (4, 0x80..=0x8f),
        _ => return Err(1),
    };
    let mut code = u32::from(first & (0x7f >> length));
    for at in 1..length {
        match bytes.get(at) {
            Some(byte) if at == 1 && !second.contains(byte) => return Err(1),
            Some(byte @ 0x80..=0xbf) => code = code << 6 | u32::from(byte & 0x3f),
            _ => return Err(at),
        }
    }
    Ok((length, code))
}

/// Reports whether a character must not be shown as it is: a control character, a line or paragraph separator, or one
/// that is invisible or moves what stands around it.
///
/// Text with such characters reads otherwise than it compares, or carries words that are invisible (to a person, that
/// is: tag characters spell ASCII). Readers that show decoded text replace them.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    matches!(character, '\0'..='\x1f' | '\x7f') || hidden(u32::from(character))
}

/// The same for what is outside ASCII: C1 controls, U+2028 and U+2029, the Default_Ignorable_Code_Point characters of
/// Unicode 16 (DerivedCoreProperties.txt), among which are those without width, the Bidi_Control characters of UAX #9,
/// the variation selectors and the tags, and the annotation marks U+FFF9 to U+FFFB.
fn hidden(code: u32) -> bool {
    matches!(
        code,
        0x80..=0x9f
            | 0xad
            | 0x34f
            | 0x61c
            | 0x115f..=0x1160
            | 0x17b4..=0x17b5
            | 0x180b..=0x180f
            | 0x200b..=0x200f
            | 0x2028..=0x202e
            | 0x2060..=0x206f
            | 0x3164
            | 0xfe00..=0xfe0f
            | 0xfeff
            | 0xffa0
            | 0xfff0..=0xfffb
            | 0x1_bca0..=0x1_bca3
            | 0x1_d173..=0x1_d17a
            | 0xe_0000..=0xe_0fff
    )
}

/// Appends the escape of a character: of one beyond the basic plane, as two surrogates.
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
            let mut units = [0; 2];
            let units = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf16(&mut units);
            for unit in units {
                let digit = |shift: u32| HEX[usize::from(*unit >> shift & 0xf)];
                out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Returns the end of the run of plain ASCII that continues at `from`.
fn end_of_plain(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    let (words, rest) = bytes.get(from..).unwrap_or_default().as_chunks::<8>();
    for word in words {
        let suspects = suspects(u64::from_le_bytes(*word));
        if suspects != 0 {
            // The lowest suspect is one for certain: a borrow can only mark too many above it.
            return at + suspects.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let plain = |&byte: &u8| matches!(byte, 0x20..0x7f) && byte != b'"' && byte != b'\\';
    at + rest.iter().take_while(|byte| plain(byte)).count()
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

    #[test]
    fn a_run_of_plain_text_ends_at_the_first_byte_that_is_not_and_at_no_other() {
        let plain: Vec<u8> = (0x20..0x7f).filter(|byte| !b"\"\\".contains(byte)).collect();
        for from in 0..8 {
            assert_eq!(end_of_plain(&plain, from), plain.len());
            for at in from..plain.len() {
                for special in [0, 0x1f, b'"', b'\\', 0x7f, 0x80, 0xff] {
                    let mut bytes = plain.clone();
                    bytes[at] = special;
                    assert_eq!(end_of_plain(&bytes, from), at, "{special:#x} from {from}");
                }
            }
        }
    }

    #[test]
    fn values_are_escaped_as_strings_are() {
        let text = "a\"\\\u{7f}\u{85}\u{2028}\u{202e}\n\u{e9}\0\u{1}\0";
        let mut as_value = Vec::new();
        value(&mut as_value, &vec![text]);
        assert_eq!(as_value, format!("[{}]", of_text(text)).into_bytes());
        assert_eq!(serde_json::from_slice::<Vec<String>>(&as_value).expect("JSON"), [read_back(text)]);
        let text = String::from_utf8(as_value).expect("text");
        assert!(!text.contains(['\u{7f}', '\u{85}', '\u{2028}', '\u{202e}', '\n']), "{text}");
    }

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

    /// The text that a reader gets for `text`.
    fn read_back(text: &str) -> String {
        text.replace('\0', "␀")
    }

    fn parsed(json: &str) -> String {
        serde_json::from_str(json).expect("the output is a JSON string")
    }

    #[test]
    fn every_character_comes_back_and_none_that_hides_is_written_raw() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = String::from(character);
            let json = of_text(&text);
            assert_eq!(parsed(&json), read_back(&text), "U+{:04X}", u32::from(character));
            let raw = json[1..json.len() - 1].contains(character);
            if character.is_control() || is_hidden(character) {
                assert!(!raw, "U+{:04X} stands in {json}", u32::from(character));
            }
        }
    }

    #[test]
    fn characters_without_width_tags_and_those_that_turn_the_direction_are_hidden() {
        let hidden = [
            "\u{1b}\u{9b}\u{2028}\u{2029}",
            "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}",
            "\u{ad}\u{200b}\u{200c}\u{200d}\u{2060}\u{2061}\u{2062}\u{2063}\u{2064}\u{feff}\u{180e}\u{3164}\u{ffa0}",
            "\u{fe0f}\u{e0100}\u{e0001}\u{e0041}\u{e007f}\u{fff9}\u{fffa}\u{fffb}",
        ];
        for character in hidden.concat().chars() {
            assert!(is_hidden(character), "U+{:04X}", u32::from(character));
        }
        for character in "aé世☃🦀 \u{a0}\u{fffd}\u{64b}".chars() {
            assert!(!is_hidden(character), "U+{:04X}", u32::from(character));
        }
        assert_eq!(of_text("\u{200b}\u{e0041}\u{feff}"), r#""\u200b\udb40\udc41\ufeff""#);
    }

    #[test]
    fn every_byte_at_every_place_of_a_word_is_written_as_from_utf8_lossy_reads_it() {
        for byte in 0..=255_u8 {
            for place in 0..20 {
                let mut bytes = *b"abcdefghijklmnopqrst";
                bytes[place] = byte;
                assert_eq!(
                    parsed(&of_bytes(&bytes)),
                    read_back(&String::from_utf8_lossy(&bytes)),
                    "byte {byte:#04x} at {place}"
                );
            }
        }
    }

    #[test]
    fn all_pairs_of_bytes_are_written_as_from_utf8_lossy_reads_them() {
        for pair in 0..=u16::MAX {
            let bytes = pair.to_be_bytes();
            assert_eq!(parsed(&of_bytes(&bytes)), read_back(&String::from_utf8_lossy(&bytes)));
        }
    }

    #[test]
    fn broken_sequences_are_written_as_from_utf8_lossy_reads_them() {
        // The bounds of every range that the tables of UTF-8 know.
        const BOUNDS: [u8; 18] = [
            0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xe0, 0xe2, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff,
        ];
        for number in 0..BOUNDS.len().pow(4) {
            let byte = |place: u32| BOUNDS[number / BOUNDS.len().pow(place) % BOUNDS.len()];
            let bytes = [byte(0), byte(1), byte(2), byte(3)];
            assert_eq!(parsed(&of_bytes(&bytes)), read_back(&String::from_utf8_lossy(&bytes)), "{bytes:02x?}");
        }
    }

    #[test]
    fn short_escapes_are_used_where_json_has_them() {
        assert_eq!(of_text("\"\\\u{8}\t\n\u{c}\r/"), r#""\"\\\b\t\n\f\r/""#);
        assert_eq!(of_text("\u{1}\u{1b}\u{7f}\u{85}\u{2028}"), r#""\u0001\u001b\u007f\u0085\u2028""#);
        assert_eq!(of_text("Привет, 世界 £ ☃"), "\"Привет, 世界 £ ☃\"");
    }

    #[test]
    fn a_zero_byte_becomes_its_symbol_wherever_text_is_written() {
        assert_eq!(of_text("a\0b"), "\"a␀b\"");
        assert_eq!(of_bytes(b"\0\xff\0"), "\"␀\u{fffd}␀\"");
        let mut out = Vec::new();
        key(&mut out, "a\0");
        assert_eq!(out, ",\"a␀\":".as_bytes());
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
            prop_assert!(!json.chars().any(is_hidden));
            prop_assert_eq!(parsed(&json), read_back(&String::from_utf8_lossy(&bytes)));
            prop_assert!(!json.contains("\\u0000"));
            prop_assert!(json.len() <= 6 * bytes.len() + 2);
        }

        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            prop_assert_eq!(parsed(&of_text(&text)), read_back(&text));
        }
    }
}
