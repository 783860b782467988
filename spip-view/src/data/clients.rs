//! *Clients*: what kind of programs came, and who shares one of their marks.

use serde::Serialize;

use super::{Fact, Series, SessionLine, Top, TopList};
use crate::moment::Moment;
use crate::row::Kind;

/// The lists.
#[derive(Clone, Debug, Serialize)]
pub struct ClientsPage {
    /// JA4, JA3, HASSH, SSH identification, HTTP fingerprint, SYN, user agent, tools: most connections first.
    pub kinds: Vec<TopList>,
}

/// One fingerprint, and who shares it.
#[derive(Clone, Debug, Serialize)]
pub struct FingerprintPage {
    /// Its kind.
    pub kind: Kind,
    /// Its value.
    pub value: String,
    /// First time, in all that is stored.
    pub first: Moment,
    /// Last time, in all that is stored.
    pub last: Moment,
    /// Connections, in all that is stored.
    pub count: u64,
    /// Connections over time.
    pub connections: Series,
    /// Whether all sessions in the range were looked at.
    pub is_exact: bool,
    /// Sources that share it.
    pub sources: Vec<Top>,
    /// Ports.
    pub ports: Vec<Top>,
    /// Groups of payloads.
    pub payloads: Vec<Top>,
    /// Other fingerprints of the same sessions.
    pub others: Vec<Fact>,
    /// The newest sessions.
    pub sessions: Vec<SessionLine>,
}
