//! The log: its writer and rotation, system messages, and payloads that have a file of their own.

pub mod messages;
pub mod payload_files;
pub mod sensor;
pub mod writer;
