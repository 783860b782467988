//! Landlock: which files the process can still reach, and that it opens no connection.
//!
//! Directories that are written to are open with all that is below them. What is read again is open by its file and,
//! where the file has a directory of its own, by that directory, so that it can be replaced by renaming; behind a
//! symbolic link by both directories, so that it can be led to another file. A directory that all of the system shares,
//! such as `/etc`, is not opened for reading: there, a file can be rewritten in place and read again, but not replaced.
//!
//! A log in such a directory opens it for writing all the same, because a log that cannot be rotated is none; that is
//! reported as a step that was not wholly taken.
//!
//! TCP is closed in both directions for new sockets: the listening ones are bound by now. Nothing is allowed to be
//! executed. Kernels with an older Landlock enforce what they know of this.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::unistd::{AccessFlags, access};

use super::{Files, Needs, StepResult};
use crate::process::reach::{self, Reach};

/// The newest rights that this program knows of.
const NEWEST: ABI = ABI::V6;

/// Directories in which things of several owners live (hier(7), and where distributions keep certificates); so do all
/// that one of these is below.
const SHARED: &[&str] = &[
    "/boot",
    "/dev/shm",
    "/etc/letsencrypt/archive",
    "/etc/letsencrypt/live",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/private",
    "/etc/ssl/certs",
    "/etc/ssl/private",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run/lock",
    "/run/user",
    "/sbin",
    "/bin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr/bin",
    "/usr/lib",
    "/usr/local/bin",
    "/usr/local/etc",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/local/share",
    "/usr/local/var",
    "/usr/sbin",
    "/usr/share",
    "/var/backups",
    "/var/cache",
    "/var/lib",
    "/var/lock",
    "/var/log",
    "/var/mail",
    "/var/run",
    "/var/spool",
    "/var/tmp",
];

/// Directories whose entries are users' homes.
const HOMES: &[&str] = &["/home", "/run/user"];

pub(super) fn restrict(needs: &Needs<'_>) -> StepResult {
    let opened = Opened::new(needs);
    let in_force = Reach::new(&opened.read, &opened.written);
    let status = try_restrict(&opened);
    if matches!(status, Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced)) {
        reach::confine(in_force);
    }
    let missing = match status {
        Ok(RulesetStatus::FullyEnforced) => None,
        Ok(RulesetStatus::PartiallyEnforced) => {
            Some("this kernel enforces only a part of it; Linux 6.12 enforces all".to_owned())
        }
        Ok(RulesetStatus::NotEnforced) => {
            let reason = "this kernel has no Landlock, or it is not enabled (lsm= on the command line)";
            return StepResult::Missing(reason.to_owned());
        }
        Err(error) => return StepResult::Missing(error.to_string()),
    };
    let missing: Vec<_> = missing.into_iter().chain(complaint(&needs.files)).collect();
    if missing.is_empty() {
        StepResult::Done(format!("files, TCP and scopes; {opened}"))
    } else {
        StepResult::Missing(format!("{}; {opened}", missing.join("; ")))
    }
}

/// Returns what is open for writing and should not be: directories of other programs, and files that decide how the
/// next agent starts.
#[must_use]
pub fn complaint(files: &Files) -> Option<String> {
    let list = |paths: BTreeSet<PathBuf>| {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        (!paths.is_empty()).then(|| paths.join(" "))
    };
    let shared = list(files.writable.iter().filter(|path| is_shared(path)).cloned().collect());
    let shared =
        shared.map(|shared| format!("other programs use {shared} too, and everything there can be written to"));
    let held = list(files.replaced.iter().filter(|file| is_written_to(file, &files.writable)).cloned().collect());
    let held = held.map(|held| format!("{held} can be written to, in a directory of a log or of payload_dir"));
    let complaints: Vec<_> = shared.into_iter().chain(held).collect();
    (!complaints.is_empty()).then(|| format!("{}; have files in a directory of its own", complaints.join("; ")))
}

/// Reports whether a file is below one of these directories, under its name or behind a symbolic link: each link on the
/// way can be replaced.
pub(crate) fn is_written_to(file: &Path, directories: &[PathBuf]) -> bool {
    let named = std::path::absolute(file).ok();
    // The directories of its name may be symbolic links themselves.
    let there = named.as_deref().and_then(|named| Some(canonical(named.parent()?)?.join(named.file_name()?)));
    let names: Vec<_> = named.into_iter().chain(there).chain(canonical(file)).collect();
    let directories =
        directories.iter().flat_map(|directory| canonical(directory).into_iter().chain([directory.clone()]));
    directories.into_iter().any(|directory| names.iter().any(|name| name.starts_with(&directory)))
}

/// Paths that stay open.
#[derive(Debug, PartialEq, Eq)]
struct Opened {
    written: BTreeSet<PathBuf>,
    read: BTreeSet<PathBuf>,
}

impl Opened {
    /// Of what is needed, that which is there.
    fn new(needs: &Needs<'_>) -> Self {
        let user_may_write = |path: &Path| access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
        let tidied = needs.tidied.iter().filter(|path| user_may_write(path) && !is_shared(path));
        let replaced = needs.files.replaced.iter().flat_map(|file| {
            let named = std::path::absolute(file).ok();
            let meant = file.canonicalize().ok();
            let directories = [&named, &meant].map(|path| path.as_deref().and_then(own_directory).map(Path::to_owned));
            // Behind directories that are symbolic links, one directory may have two names.
            directories.into_iter().flatten().chain(meant)
        });
        let written = outermost(needs.files.writable.iter().chain(tidied).filter_map(canonical).collect());
        let read = replaced.chain(needs.files.readable.iter().cloned()).filter_map(|path| canonical(&path));
        let read = read.filter(|path| !written.iter().any(|directory| path.starts_with(directory))).collect();
        let read = outermost(read);
        Self { written, read }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |paths: &BTreeSet<PathBuf>| match paths.is_empty() {
            true => "nothing".to_owned(),
            false => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "),
        };
        write!(f, "writable: {}; readable: {}", list(&self.written), list(&self.read))
    }
}

/// Without what is below another one, and so open with it.
fn outermost(paths: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let is_below = |path: &&PathBuf| paths.iter().any(|other| other != *path && path.starts_with(other));
    paths.iter().filter(|path| !is_below(path)).cloned().collect()
}

fn canonical(path: impl AsRef<Path>) -> Option<PathBuf> {
    path.as_ref().canonicalize().ok()
}

fn try_restrict(opened: &Opened) -> Result<RulesetStatus, RulesetError> {
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
    let read = opened.read.iter().map(|path| (path, read));
    for (path, access) in read.chain(opened.written.iter().map(|path| (path, write))) {
        ruleset = allow(ruleset, path, access)?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Adds a rule for what is there; what has gone by now needs none.
fn allow<R: RulesetCreatedAttr>(ruleset: R, path: &Path, access: BitFlags<AccessFs>) -> Result<R, RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(ruleset) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    ruleset.add_rule(PathBeneath::new(opened, access))
}

/// The directory of a file, unless other things live there too.
fn own_directory(file: &Path) -> Option<&Path> {
    file.parent().filter(|directory| !is_shared(directory))
}

/// Reports whether several programs share a directory, under the given name or its true one.
pub(crate) fn is_shared(directory: &Path) -> bool {
    let shared = |path: &Path| {
        let above = |list: &[&str]| list.iter().any(|shared| Path::new(shared).starts_with(path));
        above(SHARED) || HOMES.iter().any(|homes| path.parent() == Some(Path::new(homes)))
    };
    shared(directory) || canonical(directory).is_some_and(|path| shared(&path))
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
    fn a_configuration_beside_the_log_can_be_written_to() {
        let complaint = |replaced: &str, writable: &str| {
            let (replaced, writable) = (vec![replaced.into()], vec![writable.into()]);
            complaint(&Files { replaced, writable, ..Files::default() })
        };
        for (file, directory) in [("/a/spip.toml", "/a"), ("/a/b/key.pem", "/a"), ("/a/b/persona.toml", "/a/b")] {
            let said = complaint(file, directory).expect("it is below");
            assert!(
                said.starts_with(&format!("{file} can be written to")) && said.contains("directory of its own"),
                "{said}"
            );
        }
        for (file, directory) in
            [("/a/spip.toml", "/a/log"), ("/a/spip.toml", "/a/spip"), ("/etc/spip/x", "/data/spip")]
        {
            assert_eq!(complaint(file, directory), None);
        }
        // A link, and what it leads to.
        let own = std::env::temp_dir().join(format!("spip-held-{}", std::process::id()));
        for name in ["live", "archive"] {
            std::fs::create_dir_all(own.join(name)).expect("a directory");
        }
        std::fs::write(own.join("archive/key"), "").expect("a file");
        std::os::unix::fs::symlink(own.join("archive/key"), own.join("live/key")).expect("a link");
        let said =
            |name: &str| complaint(&own.join("live/key").display().to_string(), &own.join(name).display().to_string());
        assert!(said("archive").is_some() && said("live").is_some() && said("other").is_none());
        std::fs::remove_dir_all(&own).expect("ours");
    }

    #[test]
    fn a_directory_that_the_system_shares_is_not_opened() {
        for shared in [
            "/etc/spip.toml",
            "/spip.toml",
            "/run/x.sock",
            "/var/log/spip.json",
            "/etc/ssl/private/key.pem",
            "/etc/ssl/cert.pem",
            "/etc/letsencrypt/live/key.pem",
            "/usr/local/etc/spip.toml",
            "/home/alice/spip.toml",
            "/root/spip.toml",
            "/run/user/1000/spip.toml",
            "/tmp/spip.toml",
        ] {
            assert_eq!(own_directory(Path::new(shared)), None, "{shared}");
        }
        for own in
            ["/etc/spip/spip.toml", "/var/log/spip/x", "/home/alice/spip/x", "/data/x", "/etc/letsencrypt/live/a/x"]
        {
            assert_eq!(own_directory(Path::new(own)), Path::new(own).parent());
        }
    }
}
