//! Runs `iptables-save` and `iptables-restore`, and says in an operator's words why one of them failed.
//!
//! The tools, not netlink: they know whether this machine's rules are those of nftables or of the older tables, and what
//! they do is what `show` prints.

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::Error;
use super::saved::Saved;

/// Seconds to wait for another program that changes rules.
const WAIT: &str = "--wait=5";

/// An address family: each has tools and tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn save(self) -> &'static str {
        match self {
            Self::V4 => "iptables-save",
            Self::V6 => "ip6tables-save",
        }
    }

    fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    /// The command that reads a plan, as a person would type it.
    pub(super) fn restore_command(self) -> String {
        format!("{} --noflush {WAIT}", self.restore())
    }

    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Paths of the tools.
pub(super) struct Iptables {
    directories: Vec<PathBuf>,
}

impl Iptables {
    /// Looks in `PATH`, and where the tools usually are, which is not in the path of every user.
    pub(super) fn from_environment() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        Self { directories: std::env::split_paths(&path).filter(|path| path.is_absolute()).chain(usual).collect() }
    }

    /// Our part of the present rules.
    pub(super) fn saved(&self, family: Family) -> Result<Saved, Error> {
        let mut command = self.command(family.save())?;
        let output = command.args(["-t", "nat"]).stdin(Stdio::null()).output();
        let output = checked(family.save(), family, output)?;
        Ok(Saved::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Applies a plan in one transaction.
    pub(super) fn restore(&self, family: Family, input: &str) -> Result<(), Error> {
        let tool = family.restore();
        let mut command = self.command(tool)?;
        command.args(["--noflush", WAIT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.spawn().and_then(|mut child| {
            if let Some(mut pipe) = child.stdin.take() {
                match pipe.write_all(input.as_bytes()) {
                    // It ended before it read all: its status and its words say why.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                    other => other?,
                }
            }
            child.wait_with_output()
        });
        checked(tool, family, output).map(drop)
    }

    fn command(&self, tool: &'static str) -> Result<Command, Error> {
        let path = self.directories.iter().map(|directory| directory.join(tool)).find(|path| path.is_file());
        let mut command = Command::new(path.ok_or(Error::NotFound(tool))?);
        command.env("LC_ALL", "C");
        Ok(command)
    }
}

fn checked(tool: &'static str, family: Family, output: io::Result<Output>) -> Result<Output, Error> {
    let output = output.map_err(|error| Error::NotRun(tool, error))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Permission denied") || said.contains("Operation not permitted") {
        return Err(Error::NotPermitted(tool));
    }
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let said = if said.is_empty() { output.status.to_string() } else { said };
    Err(Error::Failed(tool, family.name(), said))
}
