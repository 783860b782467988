//! The page of spip-view on the records of the demo.
//!
//! It listens on loopback of the machine, where a browser reaches it, and follows the log that the demo's agent wrote.
//! The page has to answer with every record before its address is printed. Without a terminal that is all; with one it
//! is served until Ctrl-C.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, stdin};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::sensor::Files;
use crate::interrupt;
use crate::process::{self, Running};
use crate::project::Project;
use crate::report;

/// From the start of the program to a page with all records, on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Upper bound of the time of one answer of the page.
const ANSWER_SECONDS: &str = "10";

/// Builds the program.
pub(super) fn build(project: &Project) -> Result<PathBuf> {
    let mut cargo = project.cargo("build");
    process::run(cargo.args(["--locked", "--package", "spip-view"]).env_remove("CARGO_BUILD_TARGET"))?;
    Ok(project.target.join("debug/spip-view"))
}

/// A running page.
pub(super) struct View {
    program: Running,
    address: SocketAddr,
    sessions: usize,
}

impl View {
    /// Starts the program on the log of the demo.
    pub(super) fn of(program: &Path, files: &Files) -> Result<Self> {
        let log = fs::read_to_string(files.log()).context("cannot read the log of the demo")?;
        Self::start(program, &[files.log()], &files.folder.join("view"), session_records(&log))
    }

    /// Starts the program on logs that have so many sessions.
    pub(super) fn start(program: &Path, logs: &[PathBuf], state: &Path, sessions: usize) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--listen", "127.0.0.1:0", "--log"]).args(logs);
        command.arg("--state-dir").arg(state).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = Running(process::start(&mut command)?);
        let output = program.0.stdout.take();
        let mut view = Self { program, address: SocketAddr::from(([127, 0, 0, 1], 0)), sessions };
        let mut line = String::new();
        BufReader::new(output.context("spip-view has no stdout")?).read_line(&mut line)?;
        view.address = address(&line).with_context(|| format!("spip-view printed no address: {}", line.trim()))?;
        Ok(view)
    }

    /// Waits until the page has every record, prints its address, and serves it until it is stopped.
    pub(super) fn show(mut self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while self.count()? != self.sessions {
            interrupt::check()?;
            if Instant::now() >= end {
                bail!("the page does not have the {} session records of the demo", self.sessions);
            }
            thread::sleep(interrupt::TICK);
        }
        report::step("Page", format!("http://{}/ answers with {} sessions", self.address, self.sessions));
        if !stdin().is_terminal() {
            return Ok(());
        }
        report::step("Serving", "until Ctrl-C");
        loop {
            if interrupt::check().is_err() {
                return Ok(());
            }
            if let Some(status) = self.program.0.try_wait()? {
                bail!("spip-view ended with {status}");
            }
            thread::sleep(interrupt::TICK);
        }
    }

    /// Asks the page how many sessions it has.
    fn count(&self) -> Result<usize> {
        let answer = get(self.address, "/api/v1/search?range=all&limit=1")?;
        let value: Value = serde_json::from_str(&answer).context("the page's data is no JSON")?;
        let total = value["total"]["value"].as_u64().context("the page's data has no total")?;
        Ok(usize::try_from(total)?)
    }
}

/// The records of sessions in a log: every line that is not of another type.
pub(super) fn session_records(log: &str) -> usize {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["record_type"].is_null()).count()
}

/// Reads the address out of the line that spip-view prints.
fn address(line: &str) -> Option<SocketAddr> {
    line.split_once("http://")?.1.trim().trim_end_matches('/').parse().ok()
}

/// Asks for a page and returns its body, when the status is 200.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", ANSWER_SECONDS]);
    process::output(curl.arg(format!("http://{address}{path}"))).context("the page does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_what_the_program_prints() {
        let line = "spip-view: the page is at http://127.0.0.1:8765/\n";
        assert_eq!(address(line), Some(SocketAddr::from(([127, 0, 0, 1], 8765))));
        assert_eq!(address("spip-view: no log"), None);
    }

    #[test]
    fn only_sessions_are_counted() {
        let log = "{\"source_ip\":\"192.0.2.1\"}\n{\"record_type\":\"log\"}\n{\"record_type\":\"scan\"}\n{\"sou";
        assert_eq!(session_records(log), 1);
    }
}
