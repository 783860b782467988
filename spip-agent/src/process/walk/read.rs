//! Opens the operator's files for reading, so that no other user decides what root reads.
//!
//! An agent that root starts does what its configuration says, shows the certificate and the texts that are named there, and
//! quotes a line with a mistake. So root refuses a file that another user may change or exchange: its directory and itself
//! belong to root (or to the user that the agent becomes), and neither the group nor everybody may write to it. The
//! configuration belongs to root alone: it names the files that root opens, before the agent becomes that user.
//!
//! On a mount that is read-only none of this is asked: a volume of a container belongs to whom it belongs to on the host, and
//! root has mounted it. An ordinary user reads what the kernel lets it read.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::unistd::geteuid;

use super::{Place, Purpose, Walk, is_read_only, kind, refused};

/// Opens a file that root, or the user that the agent becomes, has written.
///
/// # Errors
/// There is no such file, it is none, or another user may change it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_for(path, Purpose::Read)
}

/// Opens the configuration, which root alone has written.
///
/// # Errors
/// There is no such file, it is none, or another user may change it.
pub(crate) fn open_configuration(path: &Path) -> io::Result<File> {
    open_for(path, Purpose::Obey)
}

/// Reports whether a file is there and can be read, whatever its owner and mode: for a time at which it is not known yet
/// which user the agent becomes.
///
/// # Errors
/// There is no such file, it is none, or it cannot be read.
pub(crate) fn look(path: &Path) -> io::Result<()> {
    open_for(path, Purpose::Look).map(drop)
}

fn open_for(path: &Path, purpose: Purpose) -> io::Result<File> {
    let place = Walk { purpose, ..Walk::new(path)? }.run()?;
    if place.is_descriptor {
        return place.open(OFlag::O_RDONLY, 0);
    }
    // Opening a pipe would wait for its writer.
    let file = place.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, 0)?;
    let found = fstat(&file)?;
    if kind(&found) == SFlag::S_IFDIR {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if kind(&found) != SFlag::S_IFREG {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if geteuid().is_root() && purpose != Purpose::Look && !is_read_only(&file) {
        place.judge_file(&found)?;
    }
    Ok(file)
}

impl Place {
    /// Refuses a file that others may change.
    fn judge_file(&self, found: &FileStat) -> io::Result<()> {
        let owner = found.st_uid;
        if !self.purpose.trusts(owner) {
            return Err(refused(&self.path, &self.purpose.reason(owner)));
        }
        if found.st_mode & 0o002 != 0 {
            return Err(refused(&self.path, "may be written to by everybody, and root reads it: chmod o-w it"));
        }
        if found.st_mode & 0o020 != 0 && found.st_gid != 0 {
            let reason = format!("may be written to by the group {}, and root reads it: chmod g-w it", found.st_gid);
            return Err(refused(&self.path, &reason));
        }
        Ok(())
    }
}
