//! A listening socket in the file system, for those who ask what the agent does.
//!
//! It is made under another name and renamed when its agent is ready for it, so that there is never a moment without
//! one, and an agent that fails before replaces no other. A socket file that is there is replaced when no agent answers
//! behind it, or when this agent relieves the one that does; otherwise the other agent keeps it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::process::walk::{self, Place};

/// Reasons why there is no socket.
#[derive(Debug)]
pub enum Error {
    /// Another agent answers there.
    Taken,
    /// Something else has the name.
    NotASocket,
    /// The kernel refuses.
    Refused(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

/// A socket that listens under a name of its own. Dropping it removes that name.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    place: Place,
    path: PathBuf,
    temporary: PathBuf,
    inode: u64,
    made_directory: bool,
}

impl SocketFile {
    /// Makes a socket that is to be `path`, with this mode: at no moment can anybody else open it. A directory that is
    /// missing is made.
    ///
    /// # Errors
    /// Another process has the name, or the kernel refuses.
    pub fn open(path: &Path, mode: u32, backlog: i32, takes_over: bool) -> Result<Self, Error> {
        judge_owner(path, takes_over)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let made_directory = !directory.exists();
        let place = Place::making_directories(path, 0o755)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}-{}", std::process::id()));
        let _ = place.remove(temporary.file_name().unwrap_or_default());
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // The file gets the mode that the socket has when it is bound, less what the umask takes away.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).map_err(io::Error::from)?;
        socket.bind(&SockAddr::unix(&temporary)?)?;
        let made = set_mode(&temporary, mode).and_then(|inode| {
            socket.listen(backlog)?;
            Ok(inode)
        });
        let inode = made.inspect_err(|_| drop(place.remove(temporary.file_name().unwrap_or_default())))?;
        let listener = OwnedFd::from(socket).into();
        Ok(Self { listener, place, path: path.to_path_buf(), temporary, inode, made_directory })
    }

    /// Gives the socket its name, replacing a previous owner.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn publish(&self) -> io::Result<()> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
        self.place.rename(&name(&self.temporary), &name(&self.path))
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the socket, where it was made with it.
    #[must_use]
    pub fn made_directory(&self) -> Option<&Path> {
        self.path.parent().filter(|_| self.made_directory)
    }

    /// The socket itself, by another descriptor.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        for path in [&self.temporary, &self.path] {
            let name = path.file_name().unwrap_or_default();
            if self.place.look(name).is_ok_and(|found| found.st_ino == self.inode) {
                let _ = self.place.remove(name);
            }
        }
    }
}

/// Checks that [`SocketFile::open`] could make a socket of this name, without making it.
///
/// # Errors
/// It would fail, for the same reason.
pub fn look(path: &Path) -> Result<(), Error> {
    judge_owner(path, false)?;
    Ok(walk::try_making(path)?)
}

/// Checks that a socket may have this name, as far as that depends on its present owner.
fn judge_owner(path: &Path, takes_over: bool) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(Error::NotASocket),
        Ok(_) if !takes_over && UnixStream::connect(path).is_ok() => Err(Error::Taken),
        _ => Ok(()),
    }
}

/// Gives the socket that was just made its mode; its number. The directory's owner may have put something else
/// there, whose mode an agent that is started as root must not change.
fn set_mode(path: &Path, mode: u32) -> io::Result<u64> {
    let opened = File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    let found = opened.metadata()?;
    if !found.file_type().is_socket() || found.uid() != geteuid().as_raw() || found.nlink() != 1 {
        return Err(io::Error::other(format!("{} was replaced", path.display())));
    }
    // By this name a descriptor stands for what it was opened on.
    fs::set_permissions(format!("/proc/self/fd/{}", opened.as_raw_fd()), Permissions::from_mode(mode))?;
    Ok(found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("spip-socket-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).expect("directory");
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn open(path: &Path, takes_over: bool) -> Result<SocketFile, Error> {
        SocketFile::open(path, 0o660, 8, takes_over)
    }

    fn published(path: &Path, takes_over: bool) -> SocketFile {
        let socket = open(path, takes_over).expect("socket");
        socket.publish().expect("renamed");
        socket
    }

    #[test]
    fn the_socket_has_its_mode_and_goes_with_its_agent() {
        let directory = Directory::new("mode");
        let path = directory.0.join("s.sock");
        let socket = published(&path, false);
        assert_eq!(fs::metadata(&path).expect("socket").permissions().mode() & 0o777, 0o660);
        drop(socket);
        assert_eq!(fs::read_dir(&directory.0).expect("directory").count(), 0);
    }

    #[test]
    fn what_was_put_in_its_place_keeps_its_mode() {
        let directory = Directory::new("planted");
        let (precious, planted) = (directory.0.join("precious"), directory.0.join("planted"));
        fs::write(&precious, "").expect("file");
        fs::set_permissions(&precious, Permissions::from_mode(0o600)).expect("own file");
        std::os::unix::fs::symlink(&precious, &planted).expect("link");
        set_mode(&planted, 0o660).expect_err("a link");
        set_mode(&precious, 0o660).expect_err("a file");
        assert_eq!(fs::metadata(&precious).expect("file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_socket_that_is_answered_stays_and_a_stale_one_is_replaced() {
        let directory = Directory::new("stale");
        let path = directory.0.join("s.sock");
        let first = published(&path, false);
        assert!(matches!(open(&path, false), Err(Error::Taken)));
        // Who relieves the first one and fails before it is ready leaves everything as it was.
        let inode = || fs::metadata(&path).expect("socket").ino();
        let before = inode();
        drop(open(&path, true).expect("socket"));
        assert_eq!(inode(), before);
        assert!(UnixStream::connect(&path).is_ok());
        // Who is ready has the name from then on, also when the first one ends.
        let second = published(&path, true);
        drop(first);
        assert!(path.exists());
        drop(second);
        // A crash leaves the file without anybody behind it.
        drop(UnixListener::bind(&path).expect("socket"));
        assert!(path.exists());
        let _third = published(&path, false);
    }

    #[test]
    fn a_missing_directory_is_made_and_named() {
        let directory = Directory::new("missing");
        let path = directory.0.join("run/s.sock");
        let socket = published(&path, false);
        assert_eq!(socket.made_directory(), path.parent());
        assert_eq!(published(&path, true).made_directory(), None);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = Directory::new("file");
        let path = directory.0.join("s.sock");
        fs::write(&path, "precious").expect("file");
        assert!(matches!(open(&path, true), Err(Error::NotASocket)));
        assert_eq!(fs::read(&path).expect("file"), b"precious");
    }
}
