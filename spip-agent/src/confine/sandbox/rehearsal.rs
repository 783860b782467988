//! Tries in a child what the start does with the rights of its process: all steps, before anything is done that their
//! failure could not take back, and, for doctor, opening files as the user that starts the agent and as the one that it
//! becomes.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, getuid, setgroups, setresgid, setresuid};

use super::access::{self, Refused};
use super::child::{self, in_child};
use super::{Error, Files, Needs, capabilities, enter, identity};
use crate::config;

/// As [`enter`], without an effect on this process. Files of the agent are given to its user all the same.
///
/// # Errors
/// As [`enter`]; where no child can be had, nothing is known and nothing is refused.
pub fn rehearse(needs: &Needs<'_>) -> Result<(), Error> {
    match in_child(|| enter(needs).map(drop).map_err(|error| error.to_string())) {
        Ok(Ok(())) | Err(child::Error::NoChild(_)) => Ok(()),
        Ok(Err(words)) => Err(Error::Rehearsal(words)),
        Err(child::Error::Ended) => Err(Error::Rehearsal("the sandbox cannot be entered".to_owned())),
    }
}

/// The user that starts the agent, with the groups that its process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Starter {
    /// The user.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// Groups beside it.
    pub groups: Vec<Gid>,
}

impl From<User> for Starter {
    /// Returns the user with the groups that a login or a service of it has.
    fn from(user: User) -> Self {
        let name = CString::new(user.name).unwrap_or_default();
        let groups = getgrouplist(&name, user.gid).unwrap_or_default();
        Self { uid: user.uid, gid: user.gid, groups }
    }
}

impl Starter {
    /// Makes this process one of this user.
    ///
    /// # Errors
    /// It may not become another user.
    pub fn assume(&self) -> Result<(), String> {
        if getuid() == self.uid && geteuid() == self.uid {
            return Ok(());
        }
        let become_it = || {
            setgroups(&self.groups)?;
            setresgid(self.gid, self.gid, self.gid)?;
            setresuid(self.uid, self.uid, self.uid)
        };
        become_it().map_err(|error| format!("cannot become the user {}: {error}", self.uid))
    }
}

/// Asks the kernel, in a child, which of its files the agent could not use again with its final user and rights.
///
/// `starter` starts it, where that is another user than this process's. With `gives`, the files that the start gives to
/// its later user count as given. Changes nothing.
///
/// # Errors
/// The reason why it cannot be tried.
pub fn refused_files(
    config: &config::Sandbox,
    files: &Files,
    starter: Option<&Starter>,
    gives: bool,
) -> Result<Refused, String> {
    let tried = in_child(|| {
        starter.map_or(Ok(()), Starter::assume)?;
        let given = identity::become_wanted(config, if gives { &files.owned } else { &[] })
            .map_err(|error| error.to_string())?;
        capabilities::drop_all(&|| true);
        Ok(access::refused(config, files, &given))
    });
    tried.map_err(|error| error.to_string())?
}
