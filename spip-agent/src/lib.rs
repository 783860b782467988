//! The internet sensor: one record for every TCP connection that arrives, on any port.
//!
//! The wings stand in their order: a wing imports those before it and none behind it. [`session`] conducts one
//! connection, [`start`] constructs everything; `cargo xtask lint` checks the order.

pub mod config;
pub mod confine;
pub mod kernel;
pub mod log;
pub mod observe;
pub mod process;
pub mod respond;
pub mod scans;
pub mod session;
pub mod start;
pub mod tls;
pub mod tools;
