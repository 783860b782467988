//! The operator's view of what arrived: a follower of the sensor's log, a bounded store, and a page on it.
//!
//! The data goes one way. `ingest` turns lines into rows, `store` keeps them in one file a day, `query` and `filter` say
//! which of them are meant, `data` answers one question a file, and `web`, `pages` and `report` show the answers; `retag`
//! works out again what stored records mean. A stage
//! knows the stages before it, never those behind it.
//!
//! Everything in a record was sent by a client and is hostile: to the store (bounds), to the browser (escaping), to the
//! terminal (control characters).

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod confine;
pub mod data;
pub mod filter;
pub mod ingest;
pub mod meaning;
pub mod moment;
pub mod pages;
pub mod query;
pub mod report;
pub mod retag;
pub mod row;
pub mod store;
pub mod web;
