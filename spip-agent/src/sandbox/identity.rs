//! Becomes an ordinary user. Files that the agent has made as root are given to that user first, so that the log can be
//! opened again and rotated.

use std::os::unix::fs::chown;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{
    AccessFlags, Gid, Group, Uid, User, access, geteuid, getgid, getuid, setgroups, setresgid, setresuid,
};

use super::{Needs, StepResult};

/// Why the user cannot be changed.
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
        /// What the system said.
        cause: Errno,
    },
}

/// Becomes the user and group of the configuration. Capabilities that are permitted stay permitted.
pub(super) fn change(needs: &Needs<'_>) -> Result<StepResult, Error> {
    let Some(name) = &needs.config.user else {
        return Ok(StepResult::Skipped("no user is configured"));
    };
    let (uid, own_group) = user(name)?;
    let gid = needs.config.group.as_deref().map(group).transpose()?.unwrap_or(own_group);
    if (getuid(), getgid()) != (uid, gid) {
        for path in needs.owned.iter().filter(|path| path.exists()) {
            // What is refused here shows below, as a directory that cannot be written to.
            let _ = chown(path, Some(uid.as_raw()), Some(gid.as_raw()));
        }
        become_user(uid, gid).map_err(|cause| Error::Refused { user: name.clone(), cause })?;
    }
    let refused: Vec<_> = needs
        .writable
        .iter()
        .filter(|directory| access(*directory, AccessFlags::W_OK | AccessFlags::X_OK).is_err())
        .map(|directory| directory.display().to_string())
        .collect();
    if refused.is_empty() {
        Ok(StepResult::Done(format!("runs as {uid}:{gid}")))
    } else {
        let directories = refused.join(" ");
        let remedy = format!("run: chown {name} {directories}");
        Ok(StepResult::Missing(format!("runs as {uid}:{gid}, which cannot write to {directories}; {remedy}")))
    }
}

fn become_user(uid: Uid, gid: Gid) -> Result<(), Errno> {
    if geteuid().is_root() {
        setgroups(&[])?;
    }
    prctl::set_keepcaps(true)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

fn user(name: &str) -> Result<(Uid, Gid), Error> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let user = found.ok().flatten().ok_or_else(|| Error::NoUser(name.to_owned()))?;
    Ok((user.uid, user.gid))
}

fn group(name: &str) -> Result<Gid, Error> {
    let found = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    found.ok().flatten().map(|group| group.gid).ok_or_else(|| Error::NoGroup(name.to_owned()))
}
