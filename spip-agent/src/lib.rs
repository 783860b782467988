//! The internet sensor: one record for every TCP connection that arrives, on any port.
//!
//! The modules stand in the order in which data flows: a connection is accepted, its origin is found, its first
//! bytes are classified, it is captured, and its record is written. [`session`] conducts one connection,
//! [`app`] constructs everything; no stage imports another.

pub mod addr;
pub mod app;
pub mod cli;
pub mod config;

pub mod descriptors;
pub mod ebpf;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod named;
pub mod notify;
pub mod pulse;
pub mod reload;
pub mod sandbox;
pub mod shell;
pub mod signals;
pub mod socket_file;
pub mod steering;
pub mod stop;
pub mod vital;
pub mod worker;

pub mod accept;
pub mod limits;
pub mod registry;
pub mod rejections;
pub mod scans;

pub mod budget;
pub mod capture;
pub mod deadline;
pub mod origin;
pub mod payload;
pub mod payload_store;
pub mod persona;
pub mod respond;
pub mod session;
pub mod tls;

pub mod convert;
pub mod messages;
pub mod record;
pub mod writer;

pub mod doctor;
pub mod init;
pub mod rules;
pub mod status;
