//! The agent in the sensor's namespace: rules, start, its output, its end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write, stdout};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::PURPOSE;
use crate::interrupt;
use crate::network::{self, Namespace};
use crate::process;
use crate::report;

/// The agent's own port, behind which REDIRECT puts every other.
const PORT: u16 = 10_000;

/// From start to `ready`, which includes loading the kernel side.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// From SIGTERM to the end; the agent's own drain limit is 5 s.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Directory of the pins, when a bpffs is mounted there.
const BPFFS: &str = "/sys/fs/bpf";

/// A running agent. Dropped, it is stopped.
pub(super) struct Sensor {
    agent: Child,
    lines: Receiver<Value>,
}

/// Files of the agent: a folder with its configuration and its log, and its pins. Dropped, they are removed.
pub(super) struct Files {
    pub(super) folder: PathBuf,
    pins: PathBuf,
}

impl Files {
    /// Creates them for the sensor `name`.
    pub(super) fn create(name: &str, has_ipv6: bool) -> Result<Self> {
        let sensor = name;
        let name = format!("{PURPOSE}-{}-{sensor}", std::process::id());
        let files = Self { folder: std::env::temp_dir().join(&name), pins: Path::new(BPFFS).join(&name) };
        // Fails when it exists: no other user may have put a configuration there.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&files.folder)
            .with_context(|| format!("cannot create {}", files.folder.display()))?;
        let address = if has_ipv6 { "::" } else { "0.0.0.0" };
        let configuration = format!(
            "name = \"{sensor}\"\nip = \"{address}\"\nport = {PORT}\nread_timeout_seconds = 5\n\
             bpf_pin_path = \"{}\"\nstate_dir = \"{}\"\n",
            files.pins.display(),
            files.folder.display()
        );
        fs::write(files.configuration(), configuration)
            .with_context(|| format!("cannot write {}", files.configuration().display()))?;
        Ok(files)
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("spip.toml")
    }

    /// Returns the path of the agent's log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("spip.jsonl")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for folder in [&self.folder, &self.pins] {
            remove(folder);
        }
    }
}

fn remove(folder: &Path) {
    if folder.exists()
        && let Err(error) = fs::remove_dir_all(folder)
    {
        report::note(format!("cannot remove {}: {error}", folder.display()));
    }
}

/// Removes folders and pins of runs that were killed.
pub(super) fn remove_stale() {
    for parent in [std::env::temp_dir(), BPFFS.into()] {
        for name in network::names(&parent) {
            if network::is_stale(&name, PURPOSE) {
                remove(&parent.join(name));
            }
        }
    }
}

impl Sensor {
    /// Installs the rules, starts the agent and waits until it says that it is ready.
    pub(super) fn start(agent: &Path, namespace: &Namespace, files: &Files) -> Result<Self> {
        let mut rules = namespace.command(agent);
        rules.args(["rules", "install", "--yes", "--local", "--config"]).arg(files.configuration());
        process::output(&mut rules).context("the rules were not installed")?;
        let mut command = namespace.command(agent);
        command.arg("--config").arg(files.configuration()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut agent = process::start(&mut command)?;
        let output = agent.stdout.take();
        let (sender, lines) = channel();
        let mut sensor = Self { agent, lines };
        let output = output.context("the agent has no stdout")?;
        let log = File::create(files.log()).with_context(|| format!("cannot create {}", files.log().display()))?;
        thread::spawn(move || show(output, &log, &sender));
        sensor.wait_until_ready()?;
        Ok(sensor)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let end = Instant::now() + READY_LIMIT;
        let ready = |line: &Value| line["record_type"] == "log" && line["message"] == "ready";
        if self.wait_for(end, ready)?.is_none() {
            bail!("the agent did not get ready in {} s", READY_LIMIT.as_secs());
        }
        Ok(())
    }

    /// The next session record that satisfies `wanted`; `None` when it does not come by `end`.
    pub(super) fn record(&mut self, end: Instant, wanted: impl Fn(&Value) -> bool) -> Result<Option<Value>> {
        self.wait_for(end, |line| line["record_type"] != "log" && wanted(line))
    }

    fn wait_for(&mut self, end: Instant, wanted: impl Fn(&Value) -> bool) -> Result<Option<Value>> {
        while Instant::now() < end {
            interrupt::check()?;
            match self.lines.recv_timeout(interrupt::TICK) {
                Ok(line) if wanted(&line) => return Ok(Some(line)),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.agent.wait()?;
                    interrupt::check()?;
                    bail!("the agent ended with {status}");
                }
            }
        }
        Ok(None)
    }

    /// Ends the agent as an operator would, and tells whether it ended well.
    pub(super) fn stop(mut self) -> Result<()> {
        match self.end()? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the agent ended with {status}"),
            None => bail!("the agent had to be killed"),
        }
    }

    /// `None` when it had to be killed.
    fn end(&mut self) -> Result<Option<std::process::ExitStatus>> {
        if let Some(status) = self.agent.try_wait()? {
            return Ok(Some(status));
        }
        let id = Pid::from_raw(i32::try_from(self.agent.id())?);
        kill(id, Signal::SIGTERM).context("cannot stop the agent")?;
        let end = Instant::now() + STOP_LIMIT;
        while Instant::now() < end {
            if let Some(status) = self.agent.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(interrupt::TICK);
        }
        self.agent.kill()?;
        self.agent.wait()?;
        Ok(None)
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            report::note(format!("{error:#}"));
        }
    }
}

/// Puts session records on stdout as they come, says system messages, keeps both in the log and passes them on.
fn show(output: ChildStdout, mut log: &File, lines: &Sender<Value>) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        if let Err(error) = writeln!(log, "{line}") {
            report::note(format!("cannot write the log of the demo: {error}"));
        }
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            report::note(format!("the agent wrote no JSON: {}", line.escape_debug()));
            continue;
        };
        if value["record_type"] == "log" {
            report::step("Agent", said(&value));
        } else if writeln!(stdout().lock(), "{line}").is_err() {
            // The reader of our output has left.
            return;
        }
        if lines.send(value).is_err() {
            return;
        }
    }
}

/// A system message for people: what it says, and why where it gives a reason.
fn said(message: &Value) -> String {
    let text = message["message"].as_str().unwrap_or_default();
    match message["reason"].as_str() {
        Some(reason) => format!("{text} ({reason})"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reason_is_said_with_the_message() {
        assert_eq!(said(&json!({"message": "ready"})), "ready");
        let message = json!({"message": "eBPF is not used", "reason": "needs CAP_BPF"});
        assert_eq!(said(&message), "eBPF is not used (needs CAP_BPF)");
    }
}
