//! *New*: what appeared for the first time in the range, over all ports.
//!
//! First means: the store has nothing earlier of it. What was seen only in days that retention has removed is new again.

use std::net::IpAddr;

use serde::Serialize;

use super::Count;
use crate::moment::Moment;
use crate::row::Kind;

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct NewPage {
    /// Since when the store has records: what came before that cannot be known.
    pub since: Option<Moment>,
    /// One section a kind: groups of payloads, paths, ports, JA4, HASSH, user agents, credentials, … Sections
    /// without anything are left out.
    pub sections: Vec<NewSection>,
    /// Sources that were here before the range and came back with something that nobody had sent.
    pub returned: Vec<Returned>,
}

/// What is new of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct NewSection {
    /// The kind.
    pub kind: Kind,
    /// How many are new.
    pub total: Count,
    /// Newest first.
    pub items: Vec<NewItem>,
}

/// Something that appeared for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewItem {
    /// Its value, as addresses of pages need it.
    pub value: String,
    /// What to show where that is another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it first came.
    pub first: Moment,
    /// When it last came.
    pub last: Moment,
    /// Who brought it.
    pub source: IpAddr,
    /// The session that brought it.
    pub session: Option<String>,
    /// The port that it was sent to first.
    pub port: Option<u16>,
    /// Connections since then, in all that is stored.
    pub count: u64,
}

/// A source that came back with something new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Returned {
    /// The source.
    pub source: IpAddr,
    /// When it first came.
    pub first: Moment,
    /// When it came back with it.
    pub time: Moment,
    /// What kind of thing it brought.
    pub kind: Kind,
    /// Its value.
    pub value: String,
    /// What to show where that is another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The session that brought it.
    pub session: Option<String>,
}
