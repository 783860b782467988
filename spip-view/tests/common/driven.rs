//! Programs that drive the pages in a browser, and their folder: for the test in a browser and for the pictures of the
//! documentation.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

/// A program that ends with the value, and all that it started: the driver's browser outlives it otherwise.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(i32::MAX));
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// A folder that goes with the value.
pub(crate) struct Place(pub(crate) PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a program and returns what stands behind `mark` in the first line of its output that has it.
pub(crate) fn start(command: &mut Command, mark: &str) -> Result<(Running, String)> {
    let mut child = command
        .process_group(0)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} does not start"))?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let running = Running(child);
    let found =
        lines.by_ref().map_while(Result::ok).find_map(|line| line.split_once(mark).map(|(_, rest)| rest.to_owned()));
    let found = found.with_context(|| format!("{command:?} ended without printing {mark:?}"))?;
    // No process may block on a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Ok((running, found))
}
