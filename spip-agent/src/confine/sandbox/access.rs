//! Checks that the process, with its remaining user and capabilities, can still open the files that it will need: a
//! log that root has opened by CAP_DAC_OVERRIDE is not opened again without.
//!
//! Asked of the kernel, after both are changed. What a directory refuses shows only at the first rotation, or at
//! SIGHUP.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, User, access, getuid};

use super::{Needs, StepResult};

pub(super) fn judge(needs: &Needs<'_>) -> StepResult {
    let files = &needs.files;
    let uid = getuid();
    let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let chown = |paths: &str| match needs.config.user {
        Some(_) => format!("run: chown {name} {paths}"),
        None => format!("run: chown {name} {paths}, or set user to its owner"),
    };
    let missing = [
        refused(&files.writable, may_change).map(|paths| format!("cannot write to {paths}; {}", chown(&paths))),
        refused(&files.logs, may_append).map(|paths| format!("cannot open {paths} again; {}", chown(&paths))),
        refused(&files.replaced, may_read)
            .map(|paths| format!("cannot read {paths} again at SIGHUP; let it read them and their directories")),
        refused(&files.readable, may_read)
            .map(|paths| format!("cannot read {paths}, and would not know its persona again; {}", chown(&paths))),
    ];
    let missing: Vec<_> = missing.into_iter().flatten().collect();
    if missing.is_empty() {
        StepResult::Done("every file needed later is accessible".to_owned())
    } else {
        StepResult::Missing(format!("the user {name} ({uid}) {}", missing.join(", and ")))
    }
}

/// Those of `paths` that are there and that the kernel refuses.
fn refused(paths: &[PathBuf], how: impl Fn(&Path) -> AccessFlags) -> Option<String> {
    let refused = paths.iter().filter(|path| access(path.as_path(), how(path)) == Err(Errno::EACCES));
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
