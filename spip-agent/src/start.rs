//! Start, reload and end of the agent. Constructs what all other wings conduct.

pub mod app;
pub mod config_check;
pub mod readiness;
pub mod reload;
pub mod signals;
pub mod worker;
