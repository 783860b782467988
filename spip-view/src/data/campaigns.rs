//! *Campaigns*: sources that belong together, found by the program.
//!
//! Sessions with a payload are keyed by their fingerprints (JA4, HASSH, HTTP fingerprint, SYN without its window scale's
//! neighbours) and the group of the payload. Sources that share a key within the range are one campaign.

use std::net::IpAddr;

use serde::Serialize;

use super::{Fact, Series, Top};
use crate::moment::Moment;

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct CampaignsPage {
    /// Whether all sessions of the range were looked at.
    pub is_exact: bool,
    /// Largest and newest first.
    pub campaigns: Vec<Campaign>,
}

/// Sources that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Campaign {
    /// Names it: a hash of what its sources share.
    pub id: String,
    /// Why they were grouped: what all of them share.
    pub shared: Vec<Fact>,
    /// What to show of the payload that they share.
    pub label: Option<String>,
    /// How many sources.
    pub sources: u64,
    /// Some of them.
    pub examples: Vec<IpAddr>,
    /// Ports, most connections first.
    pub ports: Vec<Top>,
    /// Connections.
    pub connections: u64,
    /// First time in the range.
    pub first: Moment,
    /// Last time in the range.
    pub last: Moment,
    /// Connections over time.
    pub series: Series,
    /// A query that finds its sessions.
    pub query: String,
}
