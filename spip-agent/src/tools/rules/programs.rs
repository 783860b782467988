//! Finds and runs the programs that change rules, and says in an operator's words why one of them failed.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::Error;

/// Paths of the programs.
pub(super) struct Programs {
    directories: Vec<PathBuf>,
}

impl Programs {
    /// Looks in `PATH`, and where the programs usually are, which is not in the path of every user.
    pub(super) fn from_environment() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        Self { directories: std::env::split_paths(&path).filter(|path| path.is_absolute()).chain(usual).collect() }
    }

    /// Looks in one directory only.
    #[cfg(test)]
    pub(super) fn within(directory: PathBuf) -> Self {
        Self { directories: vec![directory] }
    }

    /// Reports whether a program is there.
    pub(super) fn has(&self, program: &str) -> bool {
        self.directories.iter().any(|directory| directory.join(program).is_file())
    }

    /// A command that speaks English.
    pub(super) fn command(&self, program: &'static str) -> Result<Command, Error> {
        let path = self.directories.iter().map(|directory| directory.join(program)).find(|path| path.is_file());
        let mut command = Command::new(path.ok_or(Error::NotFound(program))?);
        command.env("LC_ALL", "C");
        Ok(command)
    }

    /// Runs a program on `input`.
    pub(super) fn feed(
        &self,
        program: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<io::Result<Output>, Error> {
        let mut command = self.command(program)?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command.spawn().and_then(|mut child| {
            if let Some(mut pipe) = child.stdin.take() {
                match pipe.write_all(input.as_bytes()) {
                    // It ended before it read all: its status and its words say why.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                    other => other?,
                }
            }
            child.wait_with_output()
        }))
    }

    /// Returns a program's version as it prints it; empty when it is missing.
    pub(super) fn version(&self, program: &'static str) -> String {
        let output = self.command(program).ok().and_then(|mut command| command.arg("--version").output().ok());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    }
}

/// The output of a program that has succeeded. `families`: what stayed as it was where it has not.
pub(super) fn checked(
    program: &'static str,
    families: &'static str,
    output: io::Result<Output>,
) -> Result<Output, Error> {
    let output = output.map_err(|error| Error::NotRun(program, error))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Permission denied") || said.contains("Operation not permitted") {
        return Err(Error::NotPermitted(program));
    }
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let said = if said.is_empty() { output.status.to_string() } else { said };
    Err(Error::Failed(program, families, said))
}
