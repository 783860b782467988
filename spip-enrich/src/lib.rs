//! Enrichment of records: the source's network, known scanners, exploits.
//!
//! Pure look-ups in data from files: no function here opens a connection, resolves a name or fetches an address. The
//! same record gives the same answer with the same data, so that old logs can be enriched again when data gets better.
//! Readers of a log use [`Enricher`]; what it is made of can be used by itself.
#![forbid(unsafe_code)]

mod enricher;
pub mod export;
pub mod facts;
pub mod geo;
pub mod indicators;
pub mod ranges;
pub mod requests;
pub mod rules;
pub mod scanners;
pub mod special;
pub mod starter;

pub use enricher::{Change, Config, Enricher, Error};
pub use facts::Facts;
