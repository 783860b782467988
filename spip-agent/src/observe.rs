//! Observation of the agent: metrics and status.

pub mod metrics;
pub mod socket_file;
pub mod status;
