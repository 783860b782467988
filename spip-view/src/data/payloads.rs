//! *Payloads*: grouped so that variants fall together, and one of them in full.

use std::net::IpAddr;

use serde::Serialize;

use super::{Count, Series, SessionLine, Top};
use crate::moment::Moment;

/// The list of groups.
#[derive(Clone, Debug, Serialize)]
pub struct PayloadsPage {
    /// How many groups.
    pub total: Count,
    /// How many different payloads.
    pub distinct: Count,
    /// Most connections first.
    pub groups: Vec<GroupLine>,
}

/// A group of payloads that differ in numbers, hosts and tokens only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupLine {
    /// Its hash: the address of its page is `/payloads/groups/HASH`.
    pub group: String,
    /// What its members have in common: numbers, hosts and tokens are replaced by `<n>`, `<host>`, `<token>`.
    pub template: String,
    /// Connections in the range.
    pub connections: u64,
    /// First time, in all that is stored.
    pub first: Moment,
    /// Last time, in all that is stored.
    pub last: Moment,
    /// Who sent it first.
    pub source: IpAddr,
}

/// One group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupPage {
    /// The group.
    pub group: GroupLine,
    /// Connections over time.
    pub connections: Series,
    /// Whether all sessions in the range were looked at.
    pub is_exact: bool,
    /// Its members, most frequent first; the value is the SHA-256.
    pub variants: Vec<Top>,
    /// Sources.
    pub sources: Vec<Top>,
    /// Ports.
    pub ports: Vec<Top>,
    /// The newest sessions.
    pub sessions: Vec<SessionLine>,
}

/// One payload.
#[derive(Clone, Debug, Serialize)]
pub struct PayloadPage {
    /// SHA-256.
    pub sha256: String,
    /// Its group.
    pub group: String,
    /// How many bytes were kept in the session that sent it first.
    pub size: u64,
    /// The bytes: `/payloads/SHA256/download` has them as a file. As many as the record has.
    pub hex: String,
    /// As text, invalid UTF-8 as U+FFFD.
    pub text: String,
    /// Whether the bytes here are fewer than were kept.
    pub is_shortened: bool,
    /// First time, in all that is stored.
    pub first: Moment,
    /// Last time, in all that is stored.
    pub last: Moment,
    /// Connections, in all that is stored.
    pub count: u64,
    /// The newest sessions that sent it.
    pub sessions: Vec<SessionLine>,
}
