//! Destinations of batches: one file per kind, behind one trait.
//!
//! A sink answers for one batch at a time. It never drops anything by itself: what it cannot deliver now is a
//! [`Failure`], and the pipeline asks again with growing pauses while the log keeps the rest; what its engine refuses
//! for good is a [`Reject`], which goes to the quarantine.

mod bulk;
pub mod clickhouse;
pub mod elasticsearch;
pub mod files;
pub mod http;
pub mod nats;

use std::time::Duration;

use crate::batch::{Batch, Place, Reject};
use crate::state::State;

/// Result of delivering a batch.
#[derive(Debug)]
pub enum Delivery {
    /// The engine has all of it, but for the rejects.
    Stored {
        /// Lines that the engine had already.
        duplicates: u64,
        /// Lines that the engine refuses for good.
        rejects: Vec<Reject>,
    },
    /// The engine is at another place than the state says: go on there.
    Elsewhere(Place),
    /// The batch is too large for the engine: cut it into smaller ones. A single line that is too large is refused.
    TooLarge(String),
}

/// Reason why nothing can be delivered now.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Message: what happened, and what to do about it.
    pub message: String,
    /// Pause that the engine asks for.
    pub after: Option<Duration>,
}

impl Failure {
    /// Makes a failure without a wish of the engine's.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), after: None }
    }
}

/// One destination.
pub trait Sink: Send {
    /// Reports whether a batch that was under way when the shipper ended must be sent again with the same lines.
    fn needs_same_cuts(&self) -> bool {
        true
    }

    /// Reports whether the engine knows the place, so that delivery may go on while the state cannot be stored.
    fn knows_place(&self) -> bool {
        false
    }

    /// Connects, checks the destination, and returns the place at which the engine is, if it is another one than the
    /// state's.
    ///
    /// # Errors
    /// The engine cannot be reached, or is not as it has to be.
    fn open(&mut self, state: &State) -> Result<Option<Place>, Failure>;

    /// Takes notice of the batch that comes next, before it is stored that it is under way.
    ///
    /// # Errors
    /// The destination cannot be looked at now.
    fn prepare(&mut self, _batch: &Batch) -> Result<(), Failure> {
        Ok(())
    }

    /// Delivers `batch`, and returns once the engine has acknowledged it.
    ///
    /// # Errors
    /// Some of it is not acknowledged. The same batch is given again.
    fn deliver(&mut self, batch: &Batch, state: &State) -> Result<Delivery, Failure>;

    /// Delivers lines that the engine lost, outside of the order of places.
    ///
    /// # Errors
    /// Some of it is not acknowledged.
    fn replay(&mut self, batch: &Batch, state: &State) -> Result<Delivery, Failure> {
        self.deliver(batch, state)
    }

    /// Returns what is to be stored with the place, for a sink that has a state of its own.
    fn own_state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}
