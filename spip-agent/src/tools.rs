//! The operator's commands beside the sensor itself.

pub mod cli;
pub mod convert;
pub mod doctor;
pub mod init;
pub mod rules;
pub mod shell;
