//! Sources of batches: the log of an agent, or a stream that shippers fill.

mod log;
pub mod stream;

use std::time::Duration;

pub use self::log::LogSource;
use crate::batch::{Batch, Place};
use crate::config::Limits;

/// Result of asking a source for the next batch.
#[derive(Debug)]
pub enum Next {
    /// A batch.
    Batch(Batch),
    /// Nothing yet; asked again, the source goes on waiting.
    Idle,
    /// Everything that was there is read. Only where the source is not followed.
    End,
}

/// Amount that the source is ahead of what was delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Bytes, as far as they are known.
    pub bytes: u64,
    /// Closed files that are not read to their end.
    pub files: u64,
    /// Messages of a stream.
    pub messages: u64,
}

impl Behind {
    /// Reports whether nothing is left.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// A source of batches.
pub trait Source: Send {
    /// Returns the next batch. Waits up to `wait` for one to begin, and up to `limits.time` for it to fill. With `exact`
    /// the batch has as many lines as that, however long that takes: it was cut before.
    ///
    /// # Errors
    /// The source cannot be read now; the text says what to do.
    fn next(&mut self, limits: Limits, exact: Option<u64>, wait: Duration) -> Result<Next, String>;

    /// Goes to `place`.
    ///
    /// # Errors
    /// The source cannot be reached now.
    fn seek(&mut self, place: &Place) -> Result<(), String>;

    /// Names the sensor of lines that come before the first record that has a name.
    fn assume_sensor(&mut self, _sensor: Option<&str>) {}

    /// Releases everything before `place`: it is delivered.
    ///
    /// # Errors
    /// The source cannot be reached now. Nothing depends on it.
    fn release(&mut self, _place: &Place) -> Result<(), String> {
        Ok(())
    }

    /// Returns what is left to deliver.
    fn behind(&mut self) -> Behind;

    /// Returns what happened to the source since the last call, for the operator.
    fn notices(&mut self) -> Vec<String>;
}
