//! Becomes an ordinary user. Files that the agent has made as root are given to that user first, so that the log can be
//! opened again and rotated.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::prctl;
use nix::unistd::{Gid, Group, Uid, User, fchownat, geteuid, getgid, getuid, setgroups, setresgid, setresuid};

use super::{Needs, StepResult};
use crate::config;
use crate::process::walk;

/// Reasons why the user cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such user.
    #[error("user = {0:?}: there is no such user; create it, or name another")]
    NoUser(String),
    /// There is no such group.
    #[error("group = {0:?}: there is no such group; create it, or name another")]
    NoGroup(String),
    /// The process may not become another user.
    #[error("user = {user:?}: cannot become this user ({cause}); start as root, or as this user without the key")]
    Refused {
        /// The name that was asked for.
        user: String,
        /// Error of the system.
        cause: Errno,
    },
}

/// Becomes the user and group of the configuration. Capabilities that are permitted stay permitted.
pub(super) fn change(needs: &Needs<'_>) -> Result<StepResult, Error> {
    let (Some(name), Some((uid, gid))) = (&needs.config.user, wanted(needs.config)?) else {
        return Ok(StepResult::Skipped("no user is configured"));
    };
    let mut missing = Vec::new();
    if (getuid(), getgid()) != (uid, gid) {
        for path in &needs.owned {
            match give(path, uid, gid) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => missing.push(format!("{} keeps its owner: {error}", path.display())),
            }
        }
        become_user(uid, gid).map_err(|cause| Error::Refused { user: name.clone(), cause })?;
    }
    let result = format!("runs as {uid}:{gid}");
    Ok(if missing.is_empty() {
        StepResult::Done(result)
    } else {
        StepResult::Missing(format!("{result}, and {}", missing.join(", and ")))
    })
}

/// Becomes the user and group of the configuration, if any, without giving anything. Returns those of `owned` that
/// [`change`] would give.
pub(super) fn become_wanted(config: &config::Sandbox, owned: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let (Some(name), Some((uid, gid))) = (&config.user, wanted(config)?) else { return Ok(Vec::new()) };
    if (getuid(), getgid()) == (uid, gid) {
        return Ok(Vec::new());
    }
    let given = owned.iter().filter(|path| matches!(to_give(path, uid, gid), Ok(Some(_)))).cloned().collect();
    become_user(uid, gid).map_err(|cause| Error::Refused { user: name.clone(), cause })?;
    Ok(given)
}

/// Gives what the agent has made to the user.
fn give(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    if let Some(opened) = to_give(path, uid, gid)? {
        fchownat(opened.as_fd(), "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
    }
    Ok(())
}

/// Opens what is to be given to the user; nothing where it is the user's, or the operator's. In a directory of that user anything can be under the name by now: only what
/// is of its kind, has no other name and belongs to this process is given away, and no link is followed.
fn to_give(path: &Path, uid: Uid, gid: Gid) -> io::Result<Option<File>> {
    let opened = File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    let found = opened.metadata()?;
    let kind = found.file_type();
    if found.uid() == uid.as_raw() && found.gid() == gid.as_raw() {
        return Ok(None);
    }
    // The log may be a device or a pipe, which is the operator's.
    if !kind.is_file() && !kind.is_dir() && !kind.is_socket() {
        return if kind.is_symlink() { Err(io::Error::other("it is a symbolic link")) } else { Ok(None) };
    }
    if !kind.is_dir() && found.nlink() > 1 {
        return Err(io::Error::other("it is a file with another name, too"));
    }
    if found.uid() != geteuid().as_raw() && found.uid() != uid.as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    Ok(Some(opened))
}

/// The user and the group that are asked for, if any are.
fn wanted(config: &config::Sandbox) -> Result<Option<(Uid, Gid)>, Error> {
    let Some(name) = &config.user else { return Ok(None) };
    let (uid, own_group) = user(name)?;
    let gid = config.group.as_deref().map(group).transpose()?.unwrap_or(own_group);
    Ok(Some((uid, gid)))
}

fn become_user(uid: Uid, gid: Gid) -> Result<(), Errno> {
    if geteuid().is_root() {
        setgroups(&[])?;
    }
    prctl::set_keepcaps(true)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // The next change of the user, if there were one, would not take them along.
    prctl::set_keepcaps(false)
}

pub(super) fn user(name: &str) -> Result<(Uid, Gid), Error> {
    let user = find_user(name).ok_or_else(|| Error::NoUser(name.to_owned()))?;
    Ok((user.uid, user.gid))
}

/// Lets directories of the user that the process will become be used before it is that user.
pub fn expect_user(config: &config::Sandbox) {
    walk::expect_user(config.user.as_deref().and_then(find_user).map(|user| user.uid.as_raw()));
}

/// The user that `user` means: a number, or a name.
pub(crate) fn find_user(name: &str) -> Option<User> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    found.ok().flatten()
}

pub(super) fn group(name: &str) -> Result<Gid, Error> {
    let found = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    found.ok().flatten().map(|group| group.gid).ok_or_else(|| Error::NoGroup(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_planted_under_the_name_of_the_log_is_not_given_away() {
        if !geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "only root can give files away");
            return eprintln!("skipped: only root can give files away");
        }
        let directory = std::env::temp_dir().join(format!("spip-give-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
        let path = |name: &str| directory.join(name);
        let owner = |name: &str| fs::metadata(path(name)).expect("there").uid();
        for name in ["log", "precious", "linked", "others"] {
            fs::write(path(name), "").expect("a file for the test");
        }
        symlink(path("precious"), path("symbolic")).expect("a link for the test");
        fs::hard_link(path("linked"), path("hard")).expect("a link for the test");
        std::os::unix::fs::chown(path("others"), Some(1), Some(1)).expect("root");
        give(&path("log"), uid, gid).expect("made by this process");
        for name in ["symbolic", "hard", "others"] {
            give(&path(name), uid, gid).expect_err(name);
        }
        let missing = give(&path("missing"), uid, gid).expect_err("nothing there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!((owner("log"), owner("precious"), owner("linked"), owner("others")), (65_534, 0, 0, 1));
        fs::remove_dir_all(&directory).expect("the directory goes");
    }
}
