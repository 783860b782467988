//! What the agent shows of itself: metrics and status.

pub mod metrics;
pub mod socket_file;
pub mod status;
