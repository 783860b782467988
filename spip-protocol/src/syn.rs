//! Fingerprints of a SYN: here its TCP options, in `p0f` its signature, in `tools` the scanners that it reveals.
//!
//! The bytes are hostile. A SYN carries at most 40 bytes of options (RFC 9293, section 3.1); anything beyond is
//! ignored. Reading ends at the end-of-options mark, at an option that claims less than its own two bytes, and at one
//! that claims more than is left; the kind of such an option is still noted, its value is not. MSS and window scale
//! count only with the length that their RFCs give them, and the first of several wins.

mod p0f;
mod tools;

pub use p0f::Signature;
pub use tools::{Tool, Tools};

/// The most option bytes that a TCP header can carry.
pub const MAX_OPTIONS_BYTES: usize = 40;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const FAST_OPEN: u8 = 34;

/// The longest Fast Open cookie (RFC 7413, section 4.1.1).
const MAX_COOKIE_BYTES: usize = 16;

/// Values of the options of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynOptions {
    kinds: [u8; MAX_OPTIONS_BYTES],
    count: usize,
    /// Maximum segment size in bytes (kind 2, RFC 9293).
    pub mss: Option<u16>,
    /// Window scale shift as sent, also when it is above the 14 that RFC 7323 allows (kind 3).
    pub scale: Option<u8>,
    cookie: Option<([u8; MAX_COOKIE_BYTES], usize)>,
}

impl SynOptions {
    /// Reads the raw option bytes of a TCP header, as sent.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Self {
        let mut options = Self { kinds: [0; MAX_OPTIONS_BYTES], count: 0, mss: None, scale: None, cookie: None };
        let mut rest = &raw[..raw.len().min(MAX_OPTIONS_BYTES)];
        while let [kind, after @ ..] = rest {
            options.note(*kind);
            rest = match *kind {
                END => break,
                NO_OPERATION => after,
                _ => {
                    let Some((value, next)) = value_of(after) else {
                        break;
                    };
                    options.read(*kind, value);
                    next
                }
            };
        }
        options
    }

    /// The kinds of all options, in the order in which they were sent, no-operations and the end mark included.
    #[must_use]
    pub fn kinds(&self) -> &[u8] {
        &self.kinds[..self.count]
    }

    /// The Fast Open cookie (kind 34, RFC 7413), empty where the sender asks for one.
    #[must_use]
    pub fn fast_open(&self) -> Option<&[u8]> {
        self.cookie.as_ref().map(|(bytes, length)| &bytes[..*length])
    }

    /// The fingerprint of a SYN with these options and this window, for display.
    #[must_use]
    pub fn muonfp(&self, window: u16) -> MuonFp<'_> {
        MuonFp { window, options: self }
    }

    fn note(&mut self, kind: u8) {
        if let Some(slot) = self.kinds.get_mut(self.count) {
            *slot = kind;
            self.count += 1;
        }
    }

    fn read(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (MAXIMUM_SEGMENT_SIZE, [high, low]) if self.mss.is_none() => {
                self.mss = Some(u16::from_be_bytes([*high, *low]));
            }
            (WINDOW_SCALE, [shift]) if self.scale.is_none() => self.scale = Some(*shift),
            (FAST_OPEN, cookie) if self.cookie.is_none() && cookie.len() <= MAX_COOKIE_BYTES => {
                let mut bytes = [0; MAX_COOKIE_BYTES];
                bytes[..cookie.len()].copy_from_slice(cookie);
                self.cookie = Some((bytes, cookie.len()));
            }
            _ => {}
        }
    }
}

/// Splits what follows a kind into the option's value and the rest; `None` when its length cannot be true.
fn value_of(after_kind: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = after_kind.split_first()?;
    rest.split_at_checked(usize::from(*length).checked_sub(2)?)
}

/// The MuonFP fingerprint `window:kinds:mss:scale`, such as `64240:2-4-8-1-3:1460:7`.
///
/// Kinds are joined by `-`; a part that the SYN does not carry is empty. Format: sundruid/muonfp.
#[derive(Clone, Copy, Debug)]
pub struct MuonFp<'a> {
    window: u16,
    options: &'a SynOptions,
}

impl MuonFp<'_> {
    /// Appends the fingerprint's text.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        number(out, self.window);
        out.push(b':');
        for (index, kind) in self.options.kinds().iter().enumerate() {
            if index > 0 {
                out.push(b'-');
            }
            number(out, *kind);
        }
        out.push(b':');
        if let Some(mss) = self.options.mss {
            number(out, mss);
        }
        out.push(b':');
        if let Some(scale) = self.options.scale {
            number(out, scale);
        }
    }
}

/// Appends a number in decimal.
fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_fast_open_cookie_is_one_of_at_most_sixteen_bytes() {
        let cookie = |length: usize| {
            let mut raw = vec![FAST_OPEN, u8::try_from(length + 2).expect("short")];
            raw.extend((0..length).map(|number| number as u8));
            SynOptions::parse(&raw).fast_open().map(<[u8]>::to_vec)
        };
        assert_eq!(cookie(0), Some(Vec::new()), "the sender asks for one");
        assert_eq!(cookie(8), Some((0..8).collect()));
        assert_eq!(cookie(16), Some((0..16).collect()));
        assert_eq!(cookie(17), None);
        assert_eq!(SynOptions::parse(&LINUX).fast_open(), None);
        assert_eq!(SynOptions::parse(&[FAST_OPEN, 10, 1, 2]).fast_open(), None, "cut off");
    }

    const LINUX: [u8; 20] = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

    fn text(fingerprint: MuonFp<'_>) -> String {
        let mut out = Vec::new();
        fingerprint.write_to(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    fn muonfp(window: u16, raw: &[u8]) -> String {
        text(SynOptions::parse(raw).muonfp(window))
    }

    #[test]
    fn a_linux_syn_has_its_known_fingerprint() {
        let options = SynOptions::parse(&LINUX);
        assert_eq!(options.kinds(), [2, 4, 8, 1, 3]);
        assert_eq!((options.mss, options.scale), (Some(1460), Some(7)));
        assert_eq!(text(options.muonfp(64240)), "64240:2-4-8-1-3:1460:7");
    }

    #[test]
    fn parts_that_are_absent_stay_empty() {
        assert_eq!(muonfp(1024, &[]), "1024:::");
        assert_eq!(muonfp(1024, &[2, 4, 0x05, 0xb4]), "1024:2:1460:");
        assert_eq!(muonfp(0, &[3, 3, 0]), "0:3::0");
    }

    #[test]
    fn the_end_mark_is_noted_and_ends_the_list() {
        assert_eq!(muonfp(1, &[1, 3, 3, 8, 0, 2, 4, 5, 180]), "1:1-3-0::8");
    }

    #[test]
    fn an_option_shorter_than_itself_ends_the_list() {
        assert_eq!(muonfp(1, &[2, 0, 5, 180, 3, 3, 7]), "1:2::");
        assert_eq!(muonfp(1, &[2, 1, 5, 180, 3, 3, 7]), "1:2::");
    }

    #[test]
    fn an_option_longer_than_the_rest_ends_the_list() {
        assert_eq!(muonfp(1, &[1, 2, 4, 5]), "1:1-2::");
        assert_eq!(muonfp(1, &[8, 255, 1]), "1:8::");
        assert_eq!(muonfp(1, &[8]), "1:8::");
    }

    #[test]
    fn a_value_of_the_wrong_length_does_not_count() {
        assert_eq!(muonfp(1, &[2, 3, 9, 3, 4, 1, 2, 4, 2]), "1:2-3-4::");
    }

    #[test]
    fn every_truncation_is_read_as_far_as_it_goes() {
        let whole = SynOptions::parse(&LINUX);
        for length in 0..=LINUX.len() {
            let part = SynOptions::parse(&LINUX[..length]);
            assert!(whole.kinds().starts_with(part.kinds()), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_bounds(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            let options = SynOptions::parse(&raw);
            prop_assert!(options.kinds().len() <= raw.len().min(MAX_OPTIONS_BYTES));
            prop_assert_eq!(text(options.muonfp(7)).split(':').count(), 4);
            if raw.len() > MAX_OPTIONS_BYTES {
                prop_assert_eq!(options, SynOptions::parse(&raw[..MAX_OPTIONS_BYTES]));
            }
        }
    }
}
