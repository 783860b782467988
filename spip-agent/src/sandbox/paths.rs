//! Landlock: which files the process can still reach, and that it opens no connection.
//!
//! Directories that are written to are open with all that is below them. What is read again is open by its file and,
//! where the file has a directory of its own, by that directory, so that it can be replaced by renaming. A directory
//! that all of the system shares, such as `/etc`, is never opened: there, a file can be rewritten in place and read
//! again, but not replaced.
//!
//! TCP is closed in both directions for new sockets: the listening ones are bound by now. Nothing is allowed to be
//! executed. Kernels with an older Landlock enforce what they know of this.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::StepResult;

/// The newest rights that this program knows of.
const NEWEST: ABI = ABI::V6;

/// A directory with at least as many components below the root belongs to one thing.
const OWN_DIRECTORY_DEPTH: usize = 2;

pub(super) fn restrict(readable: &[PathBuf], writable: &[PathBuf]) -> StepResult {
    match try_restrict(readable, writable) {
        Ok(RulesetStatus::FullyEnforced) => StepResult::Done("files, TCP and scopes".to_owned()),
        Ok(RulesetStatus::PartiallyEnforced) => {
            StepResult::Missing("this kernel enforces only a part of it; Linux 6.12 knows all".to_owned())
        }
        Ok(RulesetStatus::NotEnforced) => StepResult::Missing(
            "this kernel has no Landlock, or it is not enabled (lsm= on the command line)".to_owned(),
        ),
        Err(error) => StepResult::Missing(error.to_string()),
    }
}

fn try_restrict(readable: &[PathBuf], writable: &[PathBuf]) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::MakeReg
        | AccessFs::MakeDir;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let with_directories = readable.iter().flat_map(|file| [Some(file.as_path()), own_directory(file)]);
    for (path, access) in
        with_directories.flatten().map(|path| (path, read)).chain(writable.iter().map(|path| (path.as_path(), write)))
    {
        ruleset = allow(ruleset, path, access)?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Adds a rule for what is there; what is not there needs none.
fn allow<R: RulesetCreatedAttr>(ruleset: R, path: &Path, access: BitFlags<AccessFs>) -> Result<R, RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(ruleset) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    ruleset.add_rule(PathBeneath::new(opened, access))
}

/// The directory of a file, unless other things live there too.
fn own_directory(file: &Path) -> Option<&Path> {
    let directory = file.parent()?;
    (directory.components().count() > OWN_DIRECTORY_DEPTH).then_some(directory)
}

/// The version of the kernel's Landlock; none where it has none, or has it not enabled.
#[allow(unsafe_code)]
pub(super) fn version() -> Option<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION` of linux/landlock.h.
    const VERSION: libc::c_ulong = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel takes no structure and makes no descriptor; it answers with a number.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    u32::try_from(answer).ok().filter(|version| *version > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_the_system_shares_is_not_opened() {
        assert_eq!(own_directory(Path::new("/etc/spip.toml")), None);
        assert_eq!(own_directory(Path::new("/spip.toml")), None);
        assert_eq!(own_directory(Path::new("/etc/spip/spip.toml")), Some(Path::new("/etc/spip")));
    }
}
