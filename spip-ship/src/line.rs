//! Identity of a line: sensor, run and number. Everything else passes through unread.
//!
//! A line is scanned at its top level only, so that a key inside an object or a text of a client's never counts.
//! Whether it is a valid record in full is for the readers of `spip-record` to decide, at the sinks that need the
//! fields.

use std::borrow::Cow;

use serde::Deserialize;

/// The facts of one line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The sensor.
    pub name: Option<Cow<'a, str>>,
    /// The run of the agent.
    pub run: Option<Cow<'a, str>>,
    /// The number of the record in this run.
    pub seq: Option<u64>,
}

#[derive(Deserialize)]
struct Keys<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    run: Option<Word<'a>>,
    #[serde(default)]
    seq: Option<u64>,
}

/// A run is a text or a number, depending on the version that wrote it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word<'a> {
    Number(u64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl<'a> Facts<'a> {
    /// Reads the facts of `line`.
    ///
    /// # Errors
    /// It is no JSON object, or one of the three keys has another type.
    pub fn of(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        let keys: Keys<'a> = serde_json::from_slice(line)?;
        let run = keys.run.map(|run| match run {
            Word::Number(number) => Cow::Owned(number.to_string()),
            Word::Text(text) => text,
        });
        Ok(Self { name: keys.name, run, seq: keys.seq })
    }
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
    fn keys_inside_objects_and_texts_do_not_count() {
        let line = br#"{"payload":"\",\"name\":\"no\"","ldap":{"name":"no","seq":9},"name":"s-1","run":"r","seq":7}"#;
        let facts = Facts::of(line).expect("a record");
        assert_eq!((facts.name.as_deref(), facts.run.as_deref(), facts.seq), (Some("s-1"), Some("r"), Some(7)));
    }

    #[test]
    fn older_lines_have_no_run_and_system_messages_nothing() {
        let facts = Facts::of(br#"{"name":"a\u0062","seq":1}"#).expect("a record");
        assert_eq!((facts.name.as_deref(), facts.run, facts.seq), (Some("ab"), None, Some(1)));
        let facts = Facts::of(br#"{"timestamp":1,"message":"ready","record_type":"log"}"#).expect("a message");
        assert_eq!(facts, Facts::default());
        assert_eq!(Facts::of(br#"{"run":42}"#).expect("a number").run.as_deref(), Some("42"));
    }

    #[test]
    fn what_is_no_object_is_refused_at_every_length() {
        let line = br#"{"name":"s","run":"r","seq":7}"#;
        for end in 0..line.len() {
            assert!(Facts::of(&line[..end]).is_err(), "{end}");
        }
        assert!(Facts::of(b"[1]").is_err() && Facts::of(b"\xff").is_err());
    }

    #[test]
    fn lines_are_split_with_and_without_a_line_feed_at_the_end() {
        assert_eq!(lines(b"a\nbc\n").collect::<Vec<_>>(), [&b"a"[..], b"bc"]);
        assert_eq!(lines(b"a\n\nb").collect::<Vec<_>>(), [&b"a"[..], b"", b"b"]);
        assert_eq!(lines(b"").count(), 0);
    }
}
