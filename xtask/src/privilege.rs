//! Becoming root for the part of a command that needs it, and only for that part.
//!
//! Compilers never run as root when the caller is not: that would leave files in the target folder that
//! the caller cannot overwrite. What needs root is one program with its arguments, started through sudo.

use std::io::IsTerminal;
use std::process::Command;

use nix::unistd::geteuid;

use crate::process;

/// Ways in which this process can run something as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// It is root.
    Already,
    /// sudo works without asking for a password.
    Sudo,
    /// sudo is there and would ask the person at the keyboard.
    SudoAsks,
    /// Neither root nor a sudo that could be used.
    No,
}

impl Root {
    /// Finds out, without ever asking for a password.
    pub(crate) fn detect() -> Self {
        if geteuid().is_root() {
            Self::Already
        } else if process::find("sudo").is_none() {
            Self::No
        } else if process::succeeds(Command::new("sudo").args(["-n", "true"])) {
            Self::Sudo
        } else if std::io::stdin().is_terminal() {
            Self::SudoAsks
        } else {
            Self::No
        }
    }

    /// Reports whether commands can be run as root without a person at the keyboard.
    pub(crate) fn is_unattended(self) -> bool {
        matches!(self, Self::Already | Self::Sudo)
    }

    /// The command as root, with these variables set: sudo drops the environment, so that it is passed by
    /// name. `None` when there is no way.
    pub(crate) fn command(
        self,
        program: impl AsRef<std::ffi::OsStr>,
        variables: &[(&str, std::ffi::OsString)],
    ) -> Option<Command> {
        let mut command = match self {
            Self::No => return None,
            Self::Already => {
                let mut command = Command::new(program);
                command.envs(variables.iter().map(|(key, value)| (key, value)));
                return Some(command);
            }
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.arg("-n");
                sudo
            }
            Self::SudoAsks => Command::new("sudo"),
        };
        command.arg("env");
        for (key, value) in variables {
            let mut assignment = std::ffi::OsString::from(key);
            assignment.push("=");
            assignment.push(value);
            command.arg(assignment);
        }
        command.arg(program);
        Some(command)
    }
}

/// A command line that changes the system, as this caller has to type it.
pub(crate) fn as_typed(command: &str) -> String {
    if geteuid().is_root() { command.to_owned() } else { format!("sudo {command}") }
}

/// Remedy for a caller without rights.
pub(crate) const REMEDY: &str = "run it as root, or install sudo and allow it for this user";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_receives_the_environment_by_name() {
        let command = Root::Sudo.command("/bin/agent", &[("SPIP_AGENT_BIN", "/a b".into())]).expect("sudo can run it");
        assert_eq!(process::shown(&command), "sudo -n env 'SPIP_AGENT_BIN=/a b' /bin/agent");
    }

    #[test]
    fn without_sudo_there_is_no_command() {
        assert!(Root::No.command("true", &[]).is_none());
    }
}
