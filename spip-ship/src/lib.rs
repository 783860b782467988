//! Delivers the log of a sensor, each record once, whatever crashes in between.
//!
//! [`source`] cuts batches out of a log or a stream, [`sink`] delivers them, [`pipeline`] drives one sink and keeps its
//! [`state`]. [`app`] starts a pipeline per sink. Nothing here holds the agent up: the log is read, and it is the only queue.
#![forbid(unsafe_code)]

pub mod app;
pub mod batch;
pub mod cli;
pub mod config;
pub mod confine;
pub mod hold;
pub mod hub;
pub mod join;
pub mod line;
pub mod messages;
pub mod metrics;
pub mod nats;
pub mod pause;
pub mod pipeline;
pub mod quarantine;
pub mod replay;
pub mod sink;
pub mod source;
pub mod state;
pub mod status;
pub mod verify;
pub mod web;
