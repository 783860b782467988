//! The internet sensor: one record for every TCP connection that arrives, on any port.
//!
//! The modules stand in the order in which data flows: a connection is accepted, its origin is found, its first
//! bytes are classified, it is captured, and its record is written. [`session`] conducts one connection,
//! [`app`] constructs everything; no stage imports another.

pub mod addr;
pub mod cli;
pub mod config;
pub mod ebpf;
pub mod messages;
pub mod protocol;
pub mod record;
pub mod rules;
pub mod tls;
pub mod writer;
