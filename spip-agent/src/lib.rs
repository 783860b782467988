//! The internet sensor: one record for every TCP connection that arrives, on any port.
//!
//! The wings in their order: `process`, `config`, `kernel`, `tls`, `respond`, `confine`, `log`, `scans`, `session`,
//! `observe`, `start`, `tools`. A wing imports those before it and none behind it; `cargo xtask lint` checks that.
//! [`session`] conducts one connection, [`start`] constructs everything. `docs/architecture.md` has the picture.

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
