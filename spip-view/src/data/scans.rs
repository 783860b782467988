//! *Scans*: who asks without ever connecting, for what, in which order.

use std::net::IpAddr;

use serde::Serialize;

use super::{Count, Series, Top, Totals};
use crate::moment::Moment;

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct ScansPage {
    /// Totals of the range.
    pub totals: Totals,
    /// Half-open SYNs over time.
    pub half_open: Series,
    /// Connections over time.
    pub completed: Series,
    /// How many sources scanned.
    pub sources: Count,
    /// Sources, most SYNs first.
    pub top_sources: Vec<Top>,
    /// Ports that most scans of at most 1,024 ports asked for: records of scans, not SYNs.
    pub ports: Vec<Top>,
    /// Tools that showed, by records of scans.
    pub tools: Vec<Top>,
    /// Sources that swept over addresses: at least 8 addresses in one record.
    pub sweeps: Vec<ScanLine>,
    /// The newest scans.
    pub latest: Vec<ScanLine>,
}

/// Half-open SYNs of one source in one interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScanLine {
    /// When the first SYN came.
    pub time: Moment,
    /// When the last one came.
    pub last: Moment,
    /// The sensor.
    pub sensor: String,
    /// The source; 0.0.0.0 is the rest.
    pub source: IpAddr,
    /// Half-open SYNs.
    pub count: u64,
    /// Ports as ranges, ascending: `22-24,80`; shortened with `…` where they are many.
    pub ports: String,
    /// How many different ports.
    pub port_count: u64,
    /// Addresses as ranges.
    pub destinations: String,
    /// How many different addresses.
    pub destination_count: u64,
    /// Tools that showed.
    pub tools: Option<String>,
    /// Whether the same source also completed connections, in all that is stored.
    pub has_connected: bool,
}
