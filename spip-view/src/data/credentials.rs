//! *Credentials*: names and secrets by protocol, and what one source tried in which order.

use std::net::IpAddr;

use serde::Serialize;

use super::{Count, Top};
use crate::moment::Moment;

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct CredentialsPage {
    /// How many different triples of protocol, user and secret.
    pub total: Count,
    /// Pairs, most tries first.
    pub pairs: Vec<Pair>,
    /// Names, most tries first.
    pub users: Vec<Top>,
    /// Secrets, most tries first.
    pub secrets: Vec<Top>,
    /// Protocols, most tries first.
    pub protocols: Vec<Top>,
    /// What the most active sources tried, in order.
    pub sequences: Vec<Sequence>,
}

/// A name and a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The protocol.
    pub protocol: String,
    /// The name.
    pub user: Option<String>,
    /// The secret.
    pub secret: Option<String>,
    /// Tries.
    pub count: u64,
}

/// What one source tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sequence {
    /// The source.
    pub source: IpAddr,
    /// How many tries in the range.
    pub count: u64,
    /// The first of them, in order.
    pub attempts: Vec<Attempt>,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// When.
    pub time: Moment,
    /// The session.
    pub session: String,
    /// The protocol.
    pub protocol: String,
    /// The name.
    pub user: Option<String>,
    /// The secret.
    pub secret: Option<String>,
}
