//! The rows of a day that each kind of values is counted from.

use std::borrow::Cow;

use super::key;
use crate::row::Kind;

/// Rows `s` of sessions or scans, and what they count.
pub(crate) struct Rows {
    /// The key of the value.
    pub(crate) key: String,
    /// Its number.
    pub(crate) n: &'static str,
    /// The table, joined with those that the key needs.
    pub(crate) tables: Cow<'static, str>,
    /// A condition.
    pub(crate) narrowing: String,
}

/// Returns the tables of sessions with their marks of some kinds.
pub(crate) fn marked(kinds: &[Kind]) -> String {
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind as u8).to_string()).collect();
    format!("sessions s JOIN marks m ON m.session = s.id AND m.kind IN ({})", kinds.join(", "))
}

/// Returns the rows of a kind.
pub(crate) fn of(kind: Kind) -> Rows {
    let sessions = Cow::Borrowed("sessions s");
    let scans = Cow::Borrowed("scans s");
    let all = || "1".to_owned();
    let port = || format!("s.port + (s.flags & {} <> 0) * {}", key::UDP, key::UDP_PORTS);
    let (key, n, tables, narrowing) = match kind {
        Kind::Connections => ("0".to_owned(), "s.n", sessions, all()),
        Kind::Sessions => ("0".to_owned(), "1", sessions, all()),
        Kind::Rejected => ("0".to_owned(), "s.n", sessions, format!("s.flags & {} <> 0", key::REJECTED)),
        Kind::BytesIn => ("0".to_owned(), "s.bytes_in", sessions, all()),
        Kind::Source => ("s.source".to_owned(), "s.n", sessions, key::HAS_SOURCE.to_owned()),
        Kind::HalfOpen => ("0".to_owned(), "s.n", scans, all()),
        Kind::Scans => ("0".to_owned(), "1", scans, all()),
        Kind::ScanSource => ("s.source".to_owned(), "s.n", scans, key::HAS_SOURCE.to_owned()),
        Kind::Port => (port(), "s.n", sessions, all()),
        Kind::Credential => {
            ("t.credential".to_owned(), "s.n", "sessions s JOIN tries t ON t.session = s.id".into(), all())
        }
        // Ports of scans are in the roll-ups only: a part of an hour counts with its hour.
        Kind::ScanPort | Kind::ScanBlock => ("NULL".to_owned(), "s.n", scans, all()),
        // Two numbers in one are written as `Key::pair` does.
        Kind::CampaignSource => (
            "CASE typeof(s.source) WHEN 'integer' THEN (s.campaign << 32) | (s.source + 2147483648)
             ELSE unhex(printf('%08x', s.campaign) || hex(s.source)) END"
                .to_owned(),
            "s.n",
            sessions,
            format!("s.campaign IS NOT NULL AND {}", key::HAS_SOURCE),
        ),
        Kind::CampaignPort => (
            format!("(s.campaign << 32) | ({} + 2147483648)", port()),
            "s.n",
            sessions,
            "s.campaign IS NOT NULL".to_owned(),
        ),
        Kind::Tag | Kind::Cve | Kind::Indicator => ("m.fact".to_owned(), "s.n", marked(&[kind]).into(), all()),
        kind => (format!("s.{}", kind.column().unwrap_or("NULL")), "s.n", sessions, all()),
    };
    Rows { key, n, tables, narrowing }
}
