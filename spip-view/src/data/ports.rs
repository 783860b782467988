//! *Ports*: all 65,536 over time at a glance, and what is spoken on one.

use serde::Serialize;

use super::{Count, Series, SessionLine, Top, Totals};
use crate::moment::Moment;

/// The map and the list.
#[derive(Clone, Debug, Serialize)]
pub struct PortsPage {
    /// The heat map.
    pub heat: Heat,
    /// How many ports were asked for.
    pub total: Count,
    /// Most connections first.
    pub ports: Vec<PortLine>,
}

/// Ports over time. `cells[row][column]`: rows are ranges of ports, ascending; columns are steps of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heat {
    /// The first port of the first row.
    pub first_port: u16,
    /// The last port of the last row.
    pub last_port: u16,
    /// Ports of a row.
    pub ports_per_row: u32,
    /// Begin of the first column.
    pub start: Moment,
    /// Width of a column, microseconds.
    pub step_us: i64,
    /// Connections.
    pub cells: Vec<Vec<u64>>,
    /// The greatest cell.
    pub most: u64,
}

/// A port in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortLine {
    /// The port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// Connections in the range.
    pub connections: u64,
    /// When it was first asked for, in all that is stored.
    pub first: Option<Moment>,
    /// Connections over the range, for a small chart.
    pub series: Vec<u64>,
}

/// One port.
#[derive(Clone, Debug, Serialize)]
pub struct PortPage {
    /// The port.
    pub port: u16,
    /// When it was first asked for, in all that is stored.
    pub first: Option<Moment>,
    /// Totals of the range.
    pub totals: Totals,
    /// Whether all of its sessions in the range were looked at.
    pub is_exact: bool,
    /// Connections over time.
    pub connections: Series,
    /// What was spoken.
    pub protocols: Vec<Top>,
    /// Groups of payloads.
    pub payloads: Vec<Top>,
    /// Sources.
    pub sources: Vec<Top>,
    /// Scans that asked for it without ever connecting: records.
    pub scans: u64,
    /// The newest sessions.
    pub sessions: Vec<SessionLine>,
}
