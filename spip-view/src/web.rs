//! The server.

pub mod routes;

use std::path::PathBuf;

use crate::config::Config;

/// Serves.
///
/// # Errors
/// Something.
pub fn run(_config: &Config, _read_once: &[PathBuf]) -> anyhow::Result<()> {
    anyhow::bail!("the page is not there yet")
}
