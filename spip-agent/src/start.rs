//! Start, reload and end of the agent. Constructs what all other wings conduct.

pub mod app;
pub mod config_check;
pub mod engine;
pub mod readiness;
pub mod reload;
pub mod resources;
pub mod signals;
pub mod worker;
