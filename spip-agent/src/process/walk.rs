//! Finds the directory in which something is opened, made, renamed or removed, so that no user but root and the agent's
//! own user decides which one that is.
//!
//! The path is walked one directory at a time from the root, each opened in the one before without following a link,
//! and what is done then is done in the directory that was reached: renaming things meanwhile changes nothing.
//! A symbolic link is followed where root or this process's own user has made it, in a directory in which no other user
//! can have put it there. An agent that root starts could otherwise be led to any file, by the owner of its log's
//! directory.
//!
//! While the process is root it refuses a directory that belongs to another user than root and the one that it becomes
//! (`user`), or in which everybody may rename. In a directory that others may write to, it opens ordinary files alone,
//! that belong to root, to itself or to that user and have no other name: a hard link is another name.
//!
//! What root only reads ([`read`]) has the same rules, and the file itself may be changed by root and that user alone;
//! the configuration by root alone, because it says where root writes.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

pub(crate) mod read;
mod trial;

pub(crate) use trial::try_making;

/// Symbolic links that are followed on one path: as many as the kernel follows (`MAXSYMLINKS`, include/linux/namei.h).
const MOST_LINKS: usize = 40;

/// Parts of a path that are walked, links included.
const MOST_PARTS: usize = 4096;

/// The user that the process becomes; `u32::MAX`, which is no user's number, while none is known.
static HEIR: AtomicU32 = AtomicU32::new(u32::MAX);

/// Takes note of the user that the process will become, if any: the directories of its log and payloads may be that
/// user's.
pub(crate) fn expect_user(user: Option<u32>) {
    HEIR.store(user.unwrap_or(u32::MAX), Relaxed);
}

/// An open directory, and a name in it.
#[derive(Debug)]
pub(crate) struct Place {
    directory: OwnedFd,
    path: PathBuf,
    /// Others may rename and link things in it.
    is_open_to_others: bool,
    purpose: Purpose,
    /// The name stands for an open pipe or socket of a process, as `/dev/stdout` may.
    is_descriptor: bool,
}

/// Where a symbolic link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Followed {
    /// To a path, which is walked next.
    Path,
    /// To a descriptor that has no path.
    Descriptor,
}

/// What is done at the end of a walk, which decides whose the directory and the file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Root writes there, for itself or for the user that it becomes.
    Write,
    /// Root reads what that user may have written.
    Read,
    /// Root does what it reads there.
    Obey,
    /// Something is looked at, whose owner does not matter.
    Look,
}

impl Purpose {
    fn only_reads(self) -> bool {
        self != Self::Write
    }

    /// Says why root has nothing to do with what belongs to `owner`, and the remedy.
    fn reason(self, owner: u32) -> String {
        let remedy = match self {
            Self::Obey => "start the agent as that user",
            Self::Write | Self::Read | Self::Look => "set user to its owner",
        };
        format!("belongs to the user {owner}, and the agent is started as root: chown it to root, or {remedy}")
    }

    /// Reports whether a user may decide what is found.
    fn trusts(self, user: u32) -> bool {
        match self {
            Self::Look => true,
            Self::Obey => is_trusted(user),
            Self::Write | Self::Read => is_trusted(user) || is_heir(user),
        }
    }
}

impl Place {
    /// Finds the directory in which `path` is, or would be, and follows the links under its own name.
    ///
    /// # Errors
    /// There is no such directory, or another user decides which one it is.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Walk::new(path)?.run()
    }

    /// The same without following a link under its own name.
    pub(crate) fn named(path: &Path) -> io::Result<Self> {
        Walk { follows_last: false, ..Walk::new(path)? }.run()
    }

    /// The same, and makes the directories that are missing.
    pub(crate) fn making_directories(path: &Path, mode: u32) -> io::Result<Self> {
        let missing = Missing::Made(Mode::from_bits_truncate(mode));
        Walk { missing, follows_last: false, ..Walk::new(path)? }.run()
    }

    /// Returns the path without symbolic links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory of any owner, through links that root or this process's own user has made.
    pub(crate) fn directory(path: &Path) -> io::Result<File> {
        // The last part is walked as every other, because a name follows it.
        let place = Walk { follows_last: false, purpose: Purpose::Look, ..Walk::new(&path.join("_"))? }.run()?;
        place.open_directory()
    }

    /// Opens the directory itself.
    pub(crate) fn open_directory(&self) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&self.directory, ".", flags, Mode::empty())?))
    }

    /// Returns a name of the directory as a path that leads nowhere else, whatever is renamed: for calls that take no
    /// descriptor.
    pub(crate) fn anchored(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(name)
    }

    /// Returns the names that are in the directory.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let entries = std::fs::read_dir(self.anchored(OsStr::new(".")))?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// Opens the file. A symbolic link that has come under its name meanwhile is refused.
    pub(crate) fn open(&self, flags: OFlag, mode: u32) -> io::Result<File> {
        self.open_beside(self.path.file_name().unwrap_or_default(), flags, mode)
    }

    /// Opens another file of the directory.
    pub(crate) fn open_beside(&self, name: &OsStr, flags: OFlag, mode: u32) -> io::Result<File> {
        if self.is_descriptor {
            // What the process was started with is for the one to decide that started it.
            return Ok(File::from(openat(&self.directory, name, flags | OFlag::O_CLOEXEC, Mode::empty())?));
        }
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if self.is_open_to_others && geteuid().is_root() {
            // Not even opened: that alone has an effect on pipes and devices.
            match self.look(name) {
                Ok(found) => self.judge(name, &found)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let file = File::from(openat(&self.directory, name, flags, Mode::from_bits_truncate(mode))?);
        if self.is_open_to_others && geteuid().is_root() {
            self.judge(name, &nix::sys::stat::fstat(&file)?)?;
        }
        Ok(file)
    }

    /// Renames a file of the directory, over what has the other name.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.directory, from, &self.directory, to)?)
    }

    /// Removes a file of the directory.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Looks at a name of the directory without following a link.
    pub(crate) fn look(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Refuses what others may have put under a name.
    fn judge(&self, name: &OsStr, found: &FileStat) -> io::Result<()> {
        let path = self.path.with_file_name(name);
        if kind(found) != SFlag::S_IFREG && !is_trusted(found.st_uid) {
            return Err(refused(&path, "is no ordinary file, in a directory that others may write to"));
        }
        if !self.purpose.trusts(found.st_uid) {
            let remedy = if self.purpose == Purpose::Write { "remove it" } else { "chown it to root" };
            return Err(refused(&path, &format!("belongs to the user {}; {remedy}", found.st_uid)));
        }
        if found.st_nlink > 1 && self.purpose != Purpose::Look {
            return Err(refused(&path, "is a file with another name, too, in a directory that others may write to"));
        }
        Ok(())
    }
}

/// What becomes of a directory that is missing on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// It is an error.
    Refused,
    /// It is made, with this mode.
    Made(Mode),
    /// The walk ends in the directory in which it would be made.
    Reached,
}

/// A path on its way.
struct Walk {
    /// Parts of the path still to be walked, the next one last.
    rest: Vec<OsString>,
    directory: OwnedFd,
    /// The path of the directory, without links.
    path: PathBuf,
    /// Of the directory.
    found: FileStat,
    links: usize,
    missing: Missing,
    follows_last: bool,
    purpose: Purpose,
}

impl Walk {
    fn new(path: &Path) -> io::Result<Self> {
        let mut walk = Self {
            rest: Vec::new(),
            directory: root()?,
            path: PathBuf::from("/"),
            found: nix::sys::stat::stat("/")?,
            links: 0,
            missing: Missing::Refused,
            follows_last: true,
            purpose: Purpose::Write,
        };
        walk.push(&std::path::absolute(path)?)?;
        Ok(walk)
    }

    /// Puts the parts of a path before what is left.
    fn push(&mut self, path: &Path) -> io::Result<()> {
        for part in path.components().rev() {
            match part {
                Component::Normal(_) | Component::ParentDir => self.rest.push(part.as_os_str().to_owned()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        if path.is_absolute() {
            (self.directory, self.path, self.found) = (root()?, PathBuf::from("/"), nix::sys::stat::stat("/")?);
        }
        if self.rest.len() > MOST_PARTS {
            return Err(Errno::ENAMETOOLONG.into());
        }
        Ok(())
    }

    fn run(mut self) -> io::Result<Place> {
        while let Some(name) = self.rest.pop() {
            let is_last = self.rest.is_empty() && name != "..";
            if is_last && !self.follows_last {
                return self.arrive(&name);
            }
            let entry = match openat(&self.directory, name.as_os_str(), AS_IT_IS, Mode::empty()) {
                Ok(entry) => entry,
                Err(Errno::ENOENT) if is_last => return self.arrive(&name),
                Err(Errno::ENOENT) => match self.missing {
                    Missing::Refused => return Err(Errno::ENOENT.into()),
                    Missing::Made(mode) => self.make_directory(&name, mode)?,
                    Missing::Reached => return self.arrive(&name),
                },
                Err(error) => return Err(error.into()),
            };
            let found = nix::sys::stat::fstat(&entry)?;
            if kind(&found) == SFlag::S_IFLNK {
                if self.follow(&name, &entry, &found)? == Followed::Descriptor {
                    return Ok(Place { is_descriptor: true, ..self.arrive(&name)? });
                }
            } else if is_last {
                return self.arrive(&name);
            } else if kind(&found) == SFlag::S_IFDIR {
                if name == ".." {
                    self.path.pop();
                } else {
                    self.path.push(&name);
                }
                (self.directory, self.found) = (entry, found);
            } else {
                return Err(Errno::ENOTDIR.into());
            }
        }
        Err(Errno::EISDIR.into())
    }

    fn follow(&mut self, name: &OsStr, link: &OwnedFd, found: &FileStat) -> io::Result<Followed> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        let is_fixed = self.purpose.only_reads() && (!geteuid().is_root() || is_read_only(&self.directory));
        if !is_fixed {
            self.judge_link(&self.path.join(name), found)?;
        }
        let target = readlinkat(link, "")?;
        if self.rest.is_empty() && is_descriptor(&target) && self.is_procfs() {
            return Ok(Followed::Descriptor);
        }
        self.push(Path::new(&target))?;
        Ok(Followed::Path)
    }

    /// Refuses a link that others have made, or may have put where it is.
    fn judge_link(&self, path: &Path, found: &FileStat) -> io::Result<()> {
        if !is_trusted(found.st_uid) {
            return Err(refused(path, &format!("is a symbolic link that the user {} has made", found.st_uid)));
        }
        if !is_trusted(self.found.st_uid) {
            let owner = self.found.st_uid;
            return Err(refused(path, &format!("is a symbolic link in a directory of the user {owner}")));
        }
        if may_be_renamed_by_others(&self.found) {
            return Err(refused(path, "is a symbolic link in a directory that others may write to"));
        }
        Ok(())
    }

    fn is_procfs(&self) -> bool {
        fstatfs(&self.directory).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
    }

    /// Makes a directory that is missing on the way.
    fn make_directory(&self, name: &OsStr, mode: Mode) -> io::Result<OwnedFd> {
        self.refuse()?;
        match mkdirat(&self.directory, name, mode) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(openat(&self.directory, name, AS_IT_IS, Mode::empty())?)
    }

    fn arrive(self, name: &OsStr) -> io::Result<Place> {
        self.refuse()?;
        let may_change = !is_trusted(self.found.st_uid) || self.found.st_mode & 0o022 != 0;
        let is_open_to_others = may_change && !(self.purpose.only_reads() && is_read_only(&self.directory));
        let path = self.path.join(name);
        Ok(Place { directory: self.directory, path, is_open_to_others, purpose: self.purpose, is_descriptor: false })
    }

    /// Refuses a directory whose owner may lead root to other files, or in which everybody may.
    fn refuse(&self) -> io::Result<()> {
        let is_fixed = self.purpose.only_reads() && is_read_only(&self.directory);
        if !geteuid().is_root() || is_fixed {
            return Ok(());
        }
        let owner = self.found.st_uid;
        if !self.purpose.trusts(owner) {
            return Err(refused(&self.path, &self.purpose.reason(owner)));
        }
        if self.found.st_mode & 0o1002 == 0o002 && self.purpose != Purpose::Look {
            return Err(refused(
                &self.path,
                "may be written to by everybody, and the agent is started as root: chmod o-w it",
            ));
        }
        Ok(())
    }
}

/// Opens a name for nothing but to know what it is; a link stays a link.
const AS_IT_IS: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn root() -> io::Result<OwnedFd> {
    Ok(open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}

/// Reports whether the target of a link of procfs names an open pipe or socket: `pipe:[4711]`.
fn is_descriptor(target: &OsStr) -> bool {
    let target = target.as_encoded_bytes();
    !target.starts_with(b"/") && target.ends_with(b"]") && target.windows(2).any(|two| two == b":[")
}

/// Reports whether something is on a mount that can only be read: what is mounted was root's decision, as a volume of a
/// container is, and under this name it is changed by none of the machine's users.
fn is_read_only(descriptor: &impl AsFd) -> bool {
    fstatvfs(descriptor).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY))
}

/// Reports whether a user may decide where the agent writes: root, and the agent's own.
fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

fn is_heir(user: u32) -> bool {
    user != u32::MAX && user == HEIR.load(Relaxed)
}

/// Reports whether others than its owner may rename what is in a directory: where it is sticky, only its owner may.
fn may_be_renamed_by_others(directory: &FileStat) -> bool {
    directory.st_mode & 0o022 != 0 && directory.st_mode & 0o1000 == 0
}

fn refused(path: &Path, reason: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, format!("{} {reason}", path.display()))
}

#[cfg(test)]
mod tests;
