//! Records of spip: their fields, the formats in which they are written, lines read back, and the log that holds them.
//!
//! No socket and no runtime; [`log`] alone reads files. The sensor makes an [`Entry`] from a session, a [`ScanEntry`] from a half-open
//! scan and a [`message::Shape`] for system messages; an encoder turns each of them into a line. Readers of a log
//! follow a log with [`log`] and call [`read::line`].
#![forbid(unsafe_code)]

pub mod ecs;
pub mod enrichment;
pub mod entry;
pub mod eve;
mod extension;
pub mod flat;
mod format;
pub mod json;
pub mod log;
pub mod message;
mod object;
mod outcome;
pub mod read;
pub mod scan;
mod time;
pub mod turn;
mod url;
pub mod zeek;

pub use entry::Entry;
pub use format::{Format, Tail};
pub use outcome::{CloseReason, Conflict, DestinationSource, Limit, Transport};
pub use scan::ScanEntry;

/// Version of the flat format, and of the names under `spip` in the others. What may change without a new number is said
/// in `docs/records.md`.
pub const SCHEMA: &str = "spip/1";

#[cfg(test)]
mod tests;
