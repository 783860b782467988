//! Facilities of the process for every wing: counters, critical threads, heartbeat, rates, sets of ports, shutdown. Imports no
//! other wing.

pub mod clock;
pub mod counters;
pub mod critical;
pub mod heartbeat;
pub mod ports;
pub mod rate;
pub mod reach;
pub mod run;
pub mod shutdown;
pub mod stderr;
pub mod walk;
