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

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

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
        Walk { make: Some(Mode::from_bits_truncate(mode)), follows_last: false, ..Walk::new(path)? }.run()
    }

    /// Returns the path without symbolic links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file. A symbolic link that has come under its name meanwhile is refused.
    pub(crate) fn open(&self, flags: OFlag, mode: u32) -> io::Result<File> {
        self.open_beside(self.path.file_name().unwrap_or_default(), flags, mode)
    }

    /// Opens another file of the directory.
    pub(crate) fn open_beside(&self, name: &OsStr, flags: OFlag, mode: u32) -> io::Result<File> {
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
        if !is_trusted(found.st_uid) && !is_heir(found.st_uid) {
            return Err(refused(&path, &format!("belongs to the user {}; remove it", found.st_uid)));
        }
        if found.st_nlink > 1 {
            return Err(refused(&path, "is a file with another name, too, in a directory that others may write to"));
        }
        Ok(())
    }
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
    /// The mode of the directories that are made.
    make: Option<Mode>,
    follows_last: bool,
}

impl Walk {
    fn new(path: &Path) -> io::Result<Self> {
        let mut walk = Self {
            rest: Vec::new(),
            directory: root()?,
            path: PathBuf::from("/"),
            found: nix::sys::stat::stat("/")?,
            links: 0,
            make: None,
            follows_last: true,
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
                Err(Errno::ENOENT) if self.make.is_some() => self.make_directory(&name)?,
                Err(error) => return Err(error.into()),
            };
            let found = nix::sys::stat::fstat(&entry)?;
            if kind(&found) == SFlag::S_IFLNK {
                self.follow(&name, &entry, &found)?;
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

    fn follow(&mut self, name: &OsStr, link: &OwnedFd, found: &FileStat) -> io::Result<()> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::ELOOP.into());
        }
        let path = self.path.join(name);
        if !is_trusted(found.st_uid) {
            return Err(refused(&path, &format!("is a symbolic link that the user {} has made", found.st_uid)));
        }
        if !is_trusted(self.found.st_uid) {
            let owner = self.found.st_uid;
            return Err(refused(&path, &format!("is a symbolic link in a directory of the user {owner}")));
        }
        if may_be_renamed_by_others(&self.found) {
            return Err(refused(&path, "is a symbolic link in a directory that others may write to"));
        }
        let target = readlinkat(link, "")?;
        self.push(Path::new(&target))
    }

    /// Makes a directory that is missing on the way.
    fn make_directory(&mut self, name: &OsStr) -> io::Result<OwnedFd> {
        self.refuse()?;
        match mkdirat(&self.directory, name, self.make.unwrap_or(Mode::empty())) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(openat(&self.directory, name, AS_IT_IS, Mode::empty())?)
    }

    fn arrive(self, name: &OsStr) -> io::Result<Place> {
        self.refuse()?;
        let is_open_to_others = !is_trusted(self.found.st_uid) || self.found.st_mode & 0o022 != 0;
        Ok(Place { directory: self.directory, path: self.path.join(name), is_open_to_others })
    }

    /// Refuses a directory whose owner may lead root to other files, or in which everybody may.
    fn refuse(&self) -> io::Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let owner = self.found.st_uid;
        if !is_trusted(owner) && !is_heir(owner) {
            let reason = format!(
                "belongs to the user {owner}, and the agent is started as root: chown it to root, or set user to its owner"
            );
            return Err(refused(&self.path, &reason));
        }
        if self.found.st_mode & 0o1002 == 0o002 {
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
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    use super::*;

    /// Not the one that other tests expect.
    const OTHER: u32 = 65_533;

    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("spip-walk-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).expect("a directory for the test");
            Self(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn make(&self, name: &str, owner: u32, mode: u32) {
            fs::create_dir_all(self.path(name)).expect("a directory for the test");
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("ours");
            chown(self.path(name), Some(owner), Some(owner)).expect("root");
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn append(path: &Path) -> io::Result<File> {
        Place::of(path)?.open(OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT, 0o640)
    }

    fn refusal(path: &Path) -> String {
        append(path).expect_err("refused").to_string()
    }

    fn is_root() -> bool {
        if !geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "only root can give files away");
            eprintln!("skipped: only root can give files away");
        }
        geteuid().is_root()
    }

    #[test]
    fn own_links_are_followed_in_own_directories_and_a_circle_ends() {
        let own = Directory::new("own");
        fs::create_dir_all(own.path("a/b")).expect("ours");
        symlink(own.path("a"), own.path("absolute")).expect("ours");
        symlink("../a/b", own.path("a/relative")).expect("ours");
        symlink("log", own.path("a/b/name")).expect("ours");
        let place = Place::of(&own.path("absolute/relative/name")).expect("own links");
        let directory = own.0.canonicalize().expect("ours");
        assert_eq!(place.path(), directory.join("a/b/log"));
        place.open(OFlag::O_WRONLY | OFlag::O_CREAT, 0o640).expect("ours");
        assert!(own.path("a/b/log").is_file());
        symlink("round", own.path("round")).expect("ours");
        assert_eq!(Place::of(&own.path("round")).expect_err("a circle").raw_os_error(), Some(libc::ELOOP));
        let made = Place::making_directories(&own.path("x/y/z"), 0o750).expect("ours");
        assert!(own.path("x/y").is_dir() && made.path().ends_with("x/y/z"));
        assert!(Place::of(&own.path("no/where")).is_err());
    }

    #[test]
    fn what_others_have_made_does_not_lead_root_to_another_file() {
        if !is_root() {
            return;
        }
        let own = Directory::new("others");
        fs::write(own.path("precious"), "as it was").expect("ours");
        for (name, owner, mode) in
            [("theirs", OTHER, 0o755), ("open", 0, 0o777), ("sticky", 0, 0o1777), ("group", 0, 0o775)]
        {
            own.make(name, owner, mode);
            let link = own.path(&format!("{name}/link"));
            symlink(own.path("precious"), &link).expect("ours");
            lchown(&link, Some(OTHER), Some(OTHER)).expect("root");
            assert!(refusal(&link).contains("is a symbolic link that the user 65533 has made"), "{name}");
            // A directory on the way, and a second name of the file.
            let way = own.path(&format!("{name}/way"));
            symlink(&own.0, &way).expect("ours");
            lchown(&way, Some(OTHER), Some(OTHER)).expect("root");
            assert!(refusal(&way.join("precious")).contains("has made"), "{name}");
            fs::hard_link(own.path("precious"), own.path(&format!("{name}/hard"))).expect("ours");
            refusal(&own.path(&format!("{name}/hard")));
            let foreign = own.path(&format!("{name}/foreign"));
            fs::write(&foreign, "").expect("ours");
            chown(&foreign, Some(OTHER), Some(OTHER)).expect("root");
            refusal(&foreign);
            nix::unistd::mkfifo(&own.path(&format!("{name}/pipe")), Mode::S_IRWXU).expect("ours");
            chown(own.path(&format!("{name}/pipe")), Some(OTHER), Some(OTHER)).expect("root");
            refusal(&own.path(&format!("{name}/pipe")));
        }
        // Made by root, where another user may have put it.
        symlink(own.path("precious"), own.path("theirs/of_root")).expect("ours");
        assert!(refusal(&own.path("theirs/of_root")).contains("in a directory of the user 65533"));
        assert!(refusal(&own.path("theirs/log")).contains("belongs to the user 65533"));
        assert!(refusal(&own.path("open/log")).contains("by everybody"));
        append(&own.path("sticky/log")).expect("nobody else may rename it");
        append(&own.path("group/log")).expect("as in /var/log, which a group may write to");
        assert_eq!(fs::read_to_string(own.path("precious")).expect("ours"), "as it was");
    }
}
