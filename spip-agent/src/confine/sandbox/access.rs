//! Checks that the process, with its remaining user and capabilities, can still open the files that it will need: a
//! log that root has opened by CAP_DAC_OVERRIDE is not opened again without.
//!
//! Asked of the kernel, after both are changed. What a directory refuses shows only at the first rotation, or at
//! SIGHUP.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, User, access, getuid};
use serde::{Deserialize, Serialize};

use super::{Files, Needs, StepResult};
use crate::config;

/// Files that the user of a process cannot use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The user, by name and number.
    pub user: String,
    /// File and remedy of each use that fails.
    pub reasons: Vec<(String, String)>,
    /// Set when there is something among it that the agent writes.
    pub writes: bool,
}

pub(super) fn judge(needs: &Needs<'_>) -> StepResult {
    let Refused { user, reasons, .. } = refused(needs.config, &needs.files, &[]);
    if reasons.is_empty() {
        return StepResult::Done("every file needed later is accessible".to_owned());
    }
    let reasons: Vec<_> = reasons.into_iter().map(|(reason, remedy)| format!("{reason}; {remedy}")).collect();
    StepResult::Missing(format!("the user {user} {}", reasons.join(", and ")))
}

/// Asks the kernel which files it refuses to this process. Those in `given` will belong to its user: of them, only the
/// directories on the way are asked for.
pub(super) fn refused(config: &config::Sandbox, files: &Files, given: &[PathBuf]) -> Refused {
    let uid = getuid();
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let chown = |paths: &str| match config.user {
        Some(_) => format!("run: chown {name} {paths}"),
        None => format!("run: chown {name} {paths}, or set user to its owner"),
    };
    let of = |paths: &[PathBuf], how: fn(&Path) -> AccessFlags| among(paths, given, how);
    let write = of(&files.writable, may_change).map(|paths| (format!("cannot write to {paths}"), chown(&paths)));
    let append = of(&files.logs, may_append).map(|paths| (format!("cannot open {paths} again"), chown(&paths)));
    let read = of(&files.replaced, may_read).map(|paths| {
        (format!("cannot read {paths} again at SIGHUP"), "let it read them and their directories".to_owned())
    });
    let know = of(&files.readable, may_read)
        .map(|paths| (format!("cannot read {paths}, and would not know its persona again"), chown(&paths)));
    Refused {
        user: format!("{name} ({uid})"),
        writes: write.is_some() || append.is_some(),
        reasons: [write, append, read, know].into_iter().flatten().collect(),
    }
}

/// Those of `paths` that are there and that the kernel refuses.
fn among(paths: &[PathBuf], given: &[PathBuf], how: impl Fn(&Path) -> AccessFlags) -> Option<String> {
    let is_refused = |path: &Path| match path.parent().filter(|_| given.iter().any(|given| given == path)) {
        Some(directory) => access(directory, AccessFlags::X_OK) == Err(Errno::EACCES),
        None => access(path, how(path)) == Err(Errno::EACCES),
    };
    let refused = paths.iter().filter(|path| is_refused(path));
    let refused: Vec<_> = refused.map(|path| path.display().to_string()).collect();
    (!refused.is_empty()).then(|| refused.join(" "))
}

fn may_change(_: &Path) -> AccessFlags {
    AccessFlags::W_OK | AccessFlags::X_OK
}

fn may_append(path: &Path) -> AccessFlags {
    // What a pipe or a device takes need not be read.
    if path.is_file() { AccessFlags::R_OK | AccessFlags::W_OK } else { AccessFlags::W_OK }
}

fn may_read(path: &Path) -> AccessFlags {
    // What is in a directory is opened by its name.
    if path.is_dir() { AccessFlags::X_OK } else { AccessFlags::R_OK }
}
