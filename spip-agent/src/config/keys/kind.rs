//! Accepted values of a key: bounds, words and defaults, for the parser and in words for people.

use std::borrow::Cow;
use std::fmt;

use spip_record::Format;

use crate::config::{Compress, EbpfMode, Fsync, SandboxMode, SteeringMode};

/// Accepted values and default of a key. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number.
    Integer((u64, u64), u64),
    /// A whole number that is derived from something else where the file has none, or that the file must have: in words.
    Derived((u64, u64), &'static str),
    /// A number, whole or not.
    Number((f64, f64), f64),
    /// A duration in seconds, whole or not, above zero and up to a day.
    Seconds(f64),
    /// True or false.
    Boolean(bool),
    /// One of these words; the first is the default.
    Choice(fn() -> Vec<&'static str>),
    /// This word, which is the default, or `off`.
    Switch(&'static str),
    /// Anything else.
    Other {
        /// The default: TOML in backquotes, or words.
        default: &'static str,
        /// The values that are taken.
        accepted: &'static str,
    },
}

impl Kind {
    /// Returns the default: TOML in backquotes, or words.
    pub(super) fn default(&self) -> Cow<'static, str> {
        match self {
            Self::Integer(_, default) => format!("`{default}`").into(),
            Self::Number(_, default) | Self::Seconds(default) => format!("`{default}`").into(),
            Self::Boolean(default) => format!("`{default}`").into(),
            Self::Choice(words) => quoted(words().first().unwrap_or(&"")).into(),
            Self::Switch(on) => quoted(on).into(),
            Self::Derived(_, default) | Self::Other { default, .. } => (*default).into(),
        }
    }

    /// Returns the values that are taken, in words; sizes in units of 1024 bytes.
    pub(super) fn accepted(&self, is_size: bool) -> Cow<'static, str> {
        match self {
            Self::Integer((from, to), _) | Self::Derived((from, to), _) if is_size => {
                format!("{} to {}", Size(*from), Size(*to)).into()
            }
            Self::Integer((from, to), _) | Self::Derived((from, to), _) => format!("{from} to {to}").into(),
            Self::Number((from, to), _) => format!("{from} to {to}").into(),
            Self::Seconds(_) => format!("{} to {}", SECONDS.0, SECONDS.1).into(),
            Self::Boolean(_) => "`true`, `false`".into(),
            Self::Choice(words) => words().into_iter().map(quoted).collect::<Vec<_>>().join(", ").into(),
            Self::Switch(on) => format!("{}, {}", quoted(on), quoted("off")).into(),
            Self::Other { accepted, .. } => (*accepted).into(),
        }
    }
}

/// Bounds of all durations: a thousandth, and a day.
pub(in crate::config) const SECONDS: (f64, f64) = (0.001, 86_400.0);

/// A text of TOML, as Markdown.
fn quoted(text: &str) -> String {
    format!("`\"{text}\"`")
}

/// A number of bytes in the largest unit in which it is whole.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = [" KiB", " MiB", " GiB", " TiB", " PiB"];
        let (mut number, mut unit) = (self.0, "");
        for next in UNITS {
            if number == 0 || number % 1024 != 0 {
                break;
            }
            (number, unit) = (number / 1024, next);
        }
        write!(f, "{number}{unit}")
    }
}

/// A value that the file names by a word.
pub trait Words: Copy + PartialEq + 'static {
    /// The words and their values; the first is the default.
    const WORDS: &'static [(&'static str, Self)];
    /// The value where the file has none.
    const DEFAULT: Self = Self::WORDS[0].1;

    /// Returns the word of this value.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// Returns the words of a type.
#[must_use]
pub fn words<T: Words>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

impl Words for Format {
    const WORDS: &'static [(&'static str, Self)] = &[("flat", Self::Flat), ("ecs", Self::Ecs), ("eve", Self::Eve)];
}

impl Words for Fsync {
    const WORDS: &'static [(&'static str, Self)] =
        &[("never", Self::Never), ("interval", Self::Interval), ("always", Self::Always)];
}

impl Words for Compress {
    const WORDS: &'static [(&'static str, Self)] = &[("none", Self::None), ("zstd", Self::Zstd)];
}

impl Words for EbpfMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("off", Self::Off), ("required", Self::Required)];
}

impl Words for SandboxMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("required", Self::Required), ("off", Self::Off)];
}

impl Words for SteeringMode {
    const WORDS: &'static [(&'static str, Self)] = &[("redirect", Self::Redirect), ("sk_lookup", Self::SkLookup)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_in_the_largest_unit_in_which_it_is_whole() {
        let told = [0, 1, 1_000, 4_096, 64 << 10, 1 << 30, 1 << 53].map(|bytes| Size(bytes).to_string());
        assert_eq!(told, ["0", "1", "1000", "4 KiB", "64 KiB", "1 GiB", "8 PiB"]);
    }

    #[test]
    fn a_word_is_read_as_the_value_that_it_was_written_for() {
        assert_eq!(words::<Fsync>(), ["never", "interval", "always"]);
        assert_eq!((Fsync::DEFAULT, Fsync::Always.word()), (Fsync::Never, "always"));
        assert_eq!(Kind::Choice(words::<Fsync>).accepted(false), "`\"never\"`, `\"interval\"`, `\"always\"`");
    }
}
