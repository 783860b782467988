//! The writer of the log: queue, batch, file, rotation.
