//! Splits bytes into lines, and reads which record a line is.

use spip_record::read::{self, Identity};

/// Bytes of a name or run. An agent accepts names of 255 bytes, and a longer one would exceed what servers take as a subject.
const MAX_NAME_BYTES: usize = 255;

/// Reads the identity of a line.
///
/// # Errors
/// The reason for which it is no record that can be delivered.
pub fn identity(line: &[u8]) -> Result<Identity<'_>, String> {
    let identity = read::identity(line).map_err(|error| format!("not a record: {error}"))?;
    for (key, text) in [("name", &identity.name), ("run", &identity.run)] {
        let bytes = text.as_deref().unwrap_or_default().len();
        if bytes > MAX_NAME_BYTES {
            return Err(format!("not a record: its {key} has {bytes} bytes, more than {MAX_NAME_BYTES}"));
        }
    }
    Ok(identity)
}

/// Iterates over the lines of `bytes`, each without its line feed.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, behind) = match memchr::memchr(b'\n', rest) {
            Some(end) => (rest.get(..end)?, rest.get(end + 1..)?),
            None => (rest, &[][..]),
        };
        rest = behind;
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_agent_accepts_are_refused() {
        let line =
            |name: usize, run: usize| format!(r#"{{"name":"{}","run":"{}"}}"#, "n".repeat(name), "r".repeat(run));
        assert!(identity(line(255, 255).as_bytes()).is_ok());
        assert!(identity(line(256, 1).as_bytes()).expect_err("a long name").contains("its name has 256 bytes"));
        assert!(identity(line(1, 1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn lines_are_split_with_and_without_a_line_feed_at_the_end() {
        assert_eq!(lines(b"a\nbc\n").collect::<Vec<_>>(), [&b"a"[..], b"bc"]);
        assert_eq!(lines(b"a\n\nb").collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
        assert_eq!(lines(b"").count(), 0);
    }
}
