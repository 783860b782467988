//! Gives up, before the first thread exists, everything that the process needs no more: an attacker who takes it over
//! finds no right worth having.
//!
//! [`enter`] is the sequence, from top to bottom. Each step builds on the one before: the user can only be changed
//! while there are capabilities, Landlock and the system call filter need `no_new_privs` where there are none, and the
//! filter comes last because it forbids what the steps before it do. What is open by then stays open: sockets, the
//! log, the maps.
//!
//! `auto` takes every step that the kernel offers and names the others; `required` refuses to start without one of
//! them. No step can be taken back, and threads inherit all of them.

mod access;
mod capabilities;
mod child;
mod files;
mod filter;
mod identity;
mod paths;
mod rehearsal;

use std::fmt;
use std::path::PathBuf;

use nix::unistd::geteuid;

use crate::config::{self, SandboxMode};
pub use access::Refused;
pub use child::in_child;
pub use files::{Files, directories_of};
pub use identity::expect_user;
pub(crate) use identity::find_user;
pub use paths::complaint;
pub(crate) use paths::{is_shared, is_written_to};
pub use rehearsal::{Starter, refused_files, rehearse};

/// Needs of the process after the start.
pub struct Needs<'a> {
    /// `sandbox`, `user`, `group`.
    pub config: &'a config::Sandbox,
    /// Files that are read and written.
    pub files: Files,
    /// Directories that are written to where nothing depends on it: left out where other things live, too, and where
    /// the user may not write.
    pub tidied: Vec<PathBuf>,
    /// Files made before the user is changed, which the new user gets.
    pub owned: Vec<PathBuf>,
    /// Reports whether the maps of the kernel side can be read now.
    pub reads_maps: &'a dyn Fn() -> bool,
}

/// Result of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name: `user`, `capabilities`, `files`, `no_new_privs`, `landlock`, `seccomp`.
    pub name: &'static str,
    /// Its result.
    pub result: StepResult,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// Taken; with what it comes to.
    Done(String),
    /// Not asked for.
    Skipped(&'static str),
    /// The kernel or the surroundings do not allow it, or not wholly; with the reason.
    Missing(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            StepResult::Done(what) => write!(f, "{}: {what}", self.name),
            StepResult::Skipped(why) => write!(f, "{}: skipped, {why}", self.name),
            StepResult::Missing(why) => write!(f, "{}: missing, {why}", self.name),
        }
    }
}

/// Reasons why the agent must not continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `sandbox = "required"`, and a step could not be taken.
    #[error("sandbox = \"required\": {0}; set sandbox = \"auto\" to start without it")]
    Missing(Step),
    /// A user was asked for and cannot be had: going on as another one would be the opposite of what was wanted.
    #[error(transparent)]
    User(#[from] identity::Error),
    /// Failure of a rehearsal.
    #[error("{0}")]
    Rehearsal(String),
}

/// The version of Landlock that this kernel offers; none where it offers none.
#[must_use]
pub fn landlock_version() -> Option<u32> {
    paths::version()
}

/// Looks up the user and the group that are asked for, without becoming them: which key is wrong, and why.
#[must_use]
pub fn look_up(config: &config::Sandbox) -> Vec<(&'static str, String)> {
    let user = config.user.as_deref().and_then(|name| identity::user(name).err()).map(|error| ("user", error));
    let group = config.group.as_deref().and_then(|name| identity::group(name).err()).map(|error| ("group", error));
    user.into_iter().chain(group).map(|(key, error)| (key, error.to_string())).collect()
}

/// Takes all steps. Nothing is given up with `sandbox = "off"`, but for the user that was asked for: then root's
/// capabilities go with root.
///
/// # Errors
/// The user that was asked for cannot be had, or `sandbox = "required"` and a step is missing.
pub fn enter(needs: &Needs<'_>) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    let is_off = needs.config.mode == SandboxMode::Off;
    let mut note = |name, result| {
        let step = Step { name, result };
        if needs.config.mode == SandboxMode::Required && matches!(step.result, StepResult::Missing(_)) {
            return Err(Error::Missing(step));
        }
        steps.push(step);
        Ok(())
    };
    note("user", identity::change(needs)?)?;
    if is_off {
        // What root could do stays permitted over a change of the user, and is one call away.
        if needs.config.user.is_some() && !geteuid().is_root() {
            note("capabilities", capabilities::drop_all(needs.reads_maps))?;
        }
        note("files", access::judge(needs))?;
        note("sandbox", StepResult::Skipped("sandbox = \"off\""))?;
        return Ok(steps);
    }
    note("capabilities", capabilities::drop_all(needs.reads_maps))?;
    note("files", access::judge(needs))?;
    note("no_new_privs", filter::no_new_privileges())?;
    note("landlock", paths::restrict(needs))?;
    note("seccomp", filter::install())?;
    Ok(steps)
}

#[cfg(test)]
mod tests;
