//! What every wing may use of the process: counters, critical threads, heartbeat, shutdown. Imports no other wing.

pub mod counters;
pub mod critical;
pub mod heartbeat;
pub mod run;
pub mod shutdown;
