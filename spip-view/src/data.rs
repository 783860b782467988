//! Data of the pages: one file a page, with its types and its queries. Each has a function that takes a [`Reader`] and
//! a [`Filter`] and returns the data of the page, which is served as JSON as it is and drawn as HTML.
//!
//! [`Reader`]: crate::store::Reader
//! [`Filter`]: crate::filter::Filter
//!
//! Shared here: the shapes that all pages use. Text in them is as the client sent it: the code that shows it escapes
//! it.

pub(crate) mod ask;
pub mod campaigns;
pub mod clients;
mod columns;
pub mod credentials;
mod examined;
pub mod export;
pub mod health;
pub mod indicators;
mod line;
pub(crate) mod names;
pub mod new;
pub mod now;
pub mod payloads;
pub mod places;
pub mod ports;
mod record;
pub mod scans;
pub mod search;
pub mod session;
pub mod sources;
pub mod tags;
pub(crate) mod tally;

pub(crate) use line::{newest, session_id, summary};
pub(crate) use record::Records;

/// Reports whether a character is shown as it is: no control, no mark that turns the direction, nothing without width.
pub(crate) fn is_shown(c: char) -> bool {
    !spip_record::json::is_hidden(c)
}

use std::net::IpAddr;

use serde::Serialize;

use crate::moment::Moment;
use crate::row::Kind;

/// A number, and whether it is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The number; a lower bound where it is not exact.
    pub value: u64,
    /// Set when everything was counted.
    pub is_exact: bool,
}

/// One line of a list of the most frequent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Top {
    /// The value as addresses of pages need it: an address, a port (`53/udp`), a hash, a text.
    pub value: String,
    /// Text to show when it differs from `value`: of a group its template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Connections.
    pub count: u64,
}

/// A list of the most frequent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopList {
    /// Kind of the counted values.
    pub kind: Kind,
    /// The most frequent first.
    pub items: Vec<Top>,
    /// Number of different values.
    pub distinct: Count,
}

/// Numbers over time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Series {
    /// Begin of the first column.
    pub start: Moment,
    /// Width of a column, microseconds.
    pub step_us: i64,
    /// A number a column.
    pub points: Vec<u64>,
}

/// Totals of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Records of sessions.
    pub sessions: u64,
    /// Connections that they stand for.
    pub connections: u64,
    /// Connections that a limit refused, among them.
    pub rejected: u64,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Records of half-open scans.
    pub scans: u64,
    /// Half-open SYNs that they stand for.
    pub half_open: u64,
}

/// A session in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionLine {
    /// Its key in the store: the address of its page is `/sessions/ID`.
    pub id: String,
    /// The accept.
    pub time: Moment,
    /// The sensor.
    pub sensor: String,
    /// The client.
    pub source: IpAddr,
    /// Its port.
    pub source_port: u16,
    /// The address that it asked for.
    pub destination: IpAddr,
    /// The port that it asked for.
    pub port: u16,
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// Set when the client spoke TLS.
    pub is_tls: bool,
    /// Protocol that the client spoke.
    pub protocol: Option<String>,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// From accept to end, microseconds.
    pub duration_us: u64,
    /// Reason why the session ended.
    pub close_reason: String,
    /// Connections that the record stands for.
    pub count: u64,
    /// Code of the source's country, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// The first rules that matched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<SessionTag>,
    /// Summary in one line: the request of HTTP, the identification of SSH, the first printable bytes.
    pub summary: Option<String>,
}

/// A rule that matched a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionTag {
    /// Its number.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// Tags of a session in a list.
pub(crate) const LINE_TAGS: usize = 3;

/// A fact about a client, and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Kind of the value.
    pub kind: Kind,
    /// Its value.
    pub value: String,
    /// Text to show when it differs from the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Connections.
    pub count: u64,
}

#[cfg(test)]
pub(crate) mod tests;
