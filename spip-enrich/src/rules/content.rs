//! The `content` of a rule: bytes to be found, and where.

/// The longest pattern.
pub(super) const PATTERN_BYTES: usize = 4096;

/// Bytes that have to occur, or must not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// The bytes; lower case where `nocase` is set.
    pub(super) pattern: Vec<u8>,
    pub(super) negated: bool,
    pub(super) nocase: bool,
    /// From the start of the buffer.
    pub(super) offset: Option<usize>,
    /// Number of bytes from `offset` on in which the match must lie.
    pub(super) depth: Option<usize>,
    /// From the end of the match before.
    pub(super) distance: Option<i64>,
    /// Number of bytes from there on in which the match must lie.
    pub(super) within: Option<usize>,
    pub(super) starts: bool,
    pub(super) ends: bool,
    /// Set when the rule names it as the one to search first.
    pub(super) fast: bool,
}

impl Content {
    /// Parses the value of `content`.
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let (negated, quoted) = match value.strip_prefix('!') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, value),
        };
        let text = quoted
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .ok_or("content is not between quotes, as in Snort 3's form")?;
        let pattern = pattern(text)?;
        if pattern.is_empty() || pattern.len() > PATTERN_BYTES {
            return Err(format!("content has no bytes or more than {PATTERN_BYTES}"));
        }
        Ok(Self { pattern, negated, ..Self::default() })
    }

    /// Reports whether its place depends on the match before.
    pub(super) fn is_relative(&self) -> bool {
        self.distance.is_some() || self.within.is_some()
    }

    /// Takes an option that modifies the content before it. Returns false where it is none of these.
    pub(super) fn modify(&mut self, name: &str, value: Option<&str>) -> Result<bool, String> {
        let unsigned = || {
            let value = value.unwrap_or_default();
            value.parse::<usize>().map_err(|_| variable(name, value))
        };
        match name {
            "nocase" => {
                self.nocase = true;
                self.pattern.make_ascii_lowercase();
            }
            "offset" => self.offset = Some(unsigned()?),
            "depth" => self.depth = Some(unsigned()?),
            "within" => self.within = Some(unsigned()?),
            "distance" => {
                let value = value.unwrap_or_default();
                self.distance = Some(value.parse().map_err(|_| variable(name, value))?);
            }
            "startswith" => self.starts = true,
            "endswith" => self.ends = true,
            // Of a negated one nothing is looked for.
            "fast_pattern" => self.fast = true,
            "rawbytes" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Returns the reason why a number cannot be used: it is none, or the name of a variable.
pub(super) fn variable(name: &str, value: &str) -> String {
    if value.starts_with(|first: char| first.is_ascii_alphabetic()) {
        format!("{name} with a variable")
    } else {
        format!("{name} is no number")
    }
}

/// Reads the text of a pattern: `|41 42|` are bytes in hexadecimal, a backslash takes the next character as it is.
fn pattern(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => bytes.push(rest.next().ok_or("content ends with a backslash")?),
            b'|' => {
                let mut digits = Vec::new();
                loop {
                    match rest.next() {
                        Some(b'|') => break,
                        Some(b' ') => {}
                        Some(digit) => digits.push(digit),
                        None => return Err("content has hexadecimal bytes without an end".into()),
                    }
                }
                bytes.extend(hex::decode(digits).map_err(|_| "content has bytes that are not hexadecimal")?);
            }
            other => bytes.push(other),
        }
    }
    Ok(bytes)
}

/// Takes the backslashes out of a text.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'\\' { rest.next().unwrap_or(byte) } else { byte });
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_text_bytes_and_escapes() {
        let content = Content::parse(r#"!"a|0d 0A|\;\"\\|3b3B|é""#).unwrap();
        assert_eq!(content.pattern, [&b"a\r\n;\"\\;;"[..], "é".as_bytes()].concat());
        assert!(content.negated);
    }

    #[test]
    fn what_is_no_pattern_has_a_reason() {
        for (text, reason) in [
            (r#""""#, "no bytes"),
            (r#""|4|""#, "not hexadecimal"),
            (r#""|41""#, "without an end"),
            (r#""a",nocase"#, "quotes"),
            ("abc", "quotes"),
        ] {
            assert!(Content::parse(text).unwrap_err().contains(reason), "{text}");
        }
        let error = Content::parse("\"a\"").unwrap().modify("offset", Some("length")).unwrap_err();
        assert_eq!(error, "offset with a variable");
    }
}
