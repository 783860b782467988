//! The identity of a line: sensor, run and number. Everything else is passed over.
//!
//! A line is read at its top level only, so a key inside an object or a client's text never counts. Its fields are for
//! [`line`](super::line()) to judge, where a reader needs them.

use serde::Deserialize;

use super::Lent;
use crate::entry::Text;

/// What identifies a line among those of all sensors. A system message has none of it, a record of an older version no run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The sensor.
    pub name: Option<Text<'a>>,
    /// The run of the agent.
    pub run: Option<Text<'a>>,
    /// The number of the record in this run.
    pub seq: Option<u64>,
}

#[derive(Deserialize)]
struct Keys<'a> {
    #[serde(borrow, default)]
    name: Option<Lent<'a>>,
    #[serde(borrow, default)]
    run: Option<Lent<'a>>,
    #[serde(default)]
    seq: Option<u64>,
}

/// Reads the identity of a line, without copying.
///
/// # Errors
/// It is no JSON object, or one of the three keys has another type or comes twice.
pub fn identity(line: &[u8]) -> Result<Identity<'_>, serde_json::Error> {
    let keys: Keys<'_> = serde_json::from_slice(line)?;
    Ok(Identity { name: keys.name.map(|name| name.0), run: keys.run.map(|run| run.0), seq: keys.seq })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn keys_inside_objects_and_texts_do_not_count() {
        let line = br#"{"payload":"\",\"name\":\"no\"","ldap":{"name":"no","seq":9},"name":"s-1","run":"r","seq":7}"#;
        let identity = identity(line).expect("a record");
        assert_eq!(
            (identity.name.as_deref(), identity.run.as_deref(), identity.seq),
            (Some("s-1"), Some("r"), Some(7))
        );
        assert!(matches!((identity.name, identity.run), (Some(Cow::Borrowed(_)), Some(Cow::Borrowed(_)))));
    }

    #[test]
    fn older_lines_have_no_run_and_system_messages_nothing() {
        let older = identity(br#"{"name":"a\u0062","seq":1}"#).expect("a record");
        assert_eq!((older.name.as_deref(), older.run, older.seq), (Some("ab"), None, Some(1)));
        let message = identity(br#"{"timestamp":1,"message":"ready","record_type":"log"}"#).expect("a message");
        assert_eq!(message, Identity::default());
    }

    #[test]
    fn what_is_no_object_or_has_another_type_is_refused_at_every_length() {
        let line = br#"{"name":"s","run":"r","seq":7}"#;
        for end in 0..line.len() {
            assert!(identity(&line[..end]).is_err(), "{end}");
        }
        for line in [&b"[1]"[..], b"\xff", br#"{"run":4}"#, br#"{"seq":-1}"#, br#"{"name":"a","name":"b"}"#] {
            assert!(identity(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
