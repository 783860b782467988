//! The operator's commands beside the sensor itself.

pub mod cli;
pub mod commands;
pub mod convert;
pub mod doctor;
pub mod init;
pub mod rules;
pub mod shell;
mod translated;

/// Status of the process for a mistake on the command line or in the configuration.
pub const USAGE: u8 = 2;
