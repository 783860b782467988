//! One open file or stream, and one write to it. The rules are told in the module above.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::Error;
use super::super::queue::Batch;
use crate::process::reach;
use crate::process::walk::Place;

/// Bytes that are written to a stream at once, if lines are shorter: the usual size of a pipe.
const STREAM_BYTES: usize = 64 * 1024;

/// Time to wait in one step for a stream that another process has made non-blocking, in milliseconds.
const STREAM_WAIT_MS: u8 = 100;

/// Attempts, one a millisecond, to get the lock that another agent holds, and the time until the next series.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_RESPITE: Duration = Duration::from_secs(10);

/// The open file or stream.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    /// A file on a disk, not a pipe or a device.
    pub(super) regular: bool,
    /// Opened by its name: only then can it be read, compared with its name, and rotated.
    named: bool,
    device: u64,
    inode: u64,
    /// Offset at which our last write ended. `None`: nothing was written since the file was opened.
    pub(super) end: Option<u64>,
    /// Standard output was left in the middle of a line by an earlier process.
    broken: bool,
    /// Time at which the file reaches the age of its rotation.
    pub(super) aged: Option<Instant>,
    /// Written since it was last forced to the disk.
    pub(super) dirty: bool,
}

impl Opened {
    /// Opens or creates the file for appending.
    pub(super) fn path(key: &'static str, path: &Path, rotate_age: Option<Duration>) -> Result<Self, Error> {
        let special = is_special(key, path)?;
        let failed = |cause: io::Error| Error::Open { key, path: path.to_owned(), remedy: remedy(path, &cause), cause };
        let file = open(path, special).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if special && let Ok(flags) = fcntl(&file, FcntlArg::F_GETFL) {
            let blocking = OFlag::from_bits_truncate(flags) - OFlag::O_NONBLOCK;
            // Should it stay non-blocking, writing waits by poll.
            let _ = fcntl(&file, FcntlArg::F_SETFL(blocking));
        }
        let regular = metadata.is_file();
        Ok(Opened {
            regular,
            named: true,
            device: metadata.dev(),
            inode: metadata.ino(),
            end: None,
            broken: false,
            aged: rotate_age.filter(|_| regular).map(|age| {
                let so_far = match metadata.len() {
                    0 => Duration::ZERO,
                    _ => age_of(&metadata),
                };
                Instant::now() + age.saturating_sub(so_far)
            }),
            dirty: false,
            file,
        })
    }

    /// Standard output, whatever it is.
    pub(super) fn output(output: &OwnedFd) -> io::Result<Self> {
        let file = File::from(output.try_clone()?);
        let metadata = file.metadata()?;
        let regular = metadata.is_file();
        Ok(Opened {
            regular,
            named: false,
            device: metadata.dev(),
            inode: metadata.ino(),
            end: None,
            broken: regular && ends_inside_line(&file, metadata.len()).unwrap_or(false),
            aged: None,
            dirty: false,
            file,
        })
    }

    /// Reports whether `path` leads to this file. Returns true when that cannot be determined.
    pub(super) fn is_named(&self, path: &Path) -> bool {
        match fs::metadata(path) {
            Ok(metadata) => metadata.dev() == self.device && metadata.ino() == self.inode,
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }

    /// Reports whether the file has lost its last name.
    pub(super) fn is_removed(&self) -> bool {
        self.named && self.regular && self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// One write of whole lines, or of the rest of a line that was begun. A file that reaches `limit` bytes is not
    /// filled further than to the end of that line.
    pub(super) fn append(&mut self, batch: &mut Batch, limit: Option<u64>, lock_again: &mut Instant) -> io::Result<()> {
        let locked = self.named && self.regular && lock(&self.file, lock_again);
        let result = self.append_one(batch, limit);
        if locked {
            unlock(&self.file);
        }
        result
    }

    fn append_one(&mut self, batch: &mut Batch, limit: Option<u64>) -> io::Result<()> {
        let room = if self.named && self.regular {
            let length = self.prepare_end(batch)?;
            limit.map_or(usize::MAX, |limit| usize::try_from(limit.saturating_sub(length)).unwrap_or(usize::MAX))
        } else {
            if self.end.is_none() {
                batch.restart_line();
                self.end = Some(0);
            }
            if self.broken {
                self.file.write_all(b"\n")?;
                self.broken = false;
            }
            if self.regular { usize::MAX } else { STREAM_BYTES }
        };
        let rest = &batch.bytes[batch.written..];
        let chunk = &rest[..whole_lines(rest, room)];
        match self.file.write(chunk) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                batch.written += count;
                self.end = self.end.map(|end| end + count as u64);
                self.dirty = true;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut waiting = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
                // Whatever it says, the next write says it better.
                let _ = poll(&mut waiting, PollTimeout::from(STREAM_WAIT_MS));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Makes sure that the end of the file is the start of a line, or the place where ours is to be continued. Returns
    /// the length of the file.
    fn prepare_end(&mut self, batch: &mut Batch) -> io::Result<u64> {
        let mut length = self.file.metadata()?.len();
        if self.end != Some(length) {
            batch.restart_line();
            let mut last = [b'\n'];
            if length > 0 {
                self.file.read_exact_at(&mut last, length - 1)?;
            }
            if last != [b'\n'] {
                self.file.write_all(b"\n")?;
                length += 1;
            }
            self.end = Some(length);
        }
        Ok(length)
    }
}

/// Returns the number of bytes of `rest` to write at once: all of it, or up to the end of the line in which `room` is
/// used up.
fn whole_lines(rest: &[u8], room: usize) -> usize {
    if rest.len() <= room {
        return rest.len();
    }
    let from = room.saturating_sub(1);
    rest[from..].iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| from + at + 1)
}

/// Reports whether the next bytes on standard output would continue a line: `spip-agent >> file` after a kill.
fn ends_inside_line(file: &File, length: u64) -> io::Result<bool> {
    let appends = OFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFL)?).contains(OFlag::O_APPEND);
    if length == 0 || (!appends && (&*file).stream_position()? != length) {
        return Ok(false);
    }
    // The descriptor itself is open for writing only.
    let readable = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let mut last = [b'\n'];
    readable.read_exact_at(&mut last, length - 1)?;
    Ok(last != [b'\n'])
}

/// Returns the age of a file, by its birth where the file system knows it: a restart does not make it young again.
fn age_of(metadata: &fs::Metadata) -> Duration {
    metadata.created().ok().and_then(|born| SystemTime::now().duration_since(born).ok()).unwrap_or_default()
}

/// Checks that a file of this name could be opened or made. Makes none, and opens no pipe, whose reader would see its end.
pub(super) fn look(key: &'static str, path: &Path) -> Result<(), Error> {
    let special = is_special(key, path)?;
    if !special && fs::metadata(path).is_ok() {
        return Opened::path(key, path, None).map(drop);
    }
    let tried = Place::of(path).and_then(|place| if special { Ok(()) } else { place.try_file() });
    tried.map_err(|cause| Error::Open { key, path: path.to_owned(), remedy: remedy(path, &cause), cause })
}

/// Reports whether the name leads to a device or a pipe, and not to a file or to nothing yet.
fn is_special(key: &'static str, path: &Path) -> Result<bool, Error> {
    match fs::metadata(path).map(|metadata| metadata.file_type()) {
        Ok(kind) if kind.is_dir() => Err(not_a_file(key, path, "a directory")),
        Ok(kind) if kind.is_socket() => Err(not_a_file(key, path, "a socket")),
        Ok(kind) if kind.is_block_device() => Err(not_a_file(key, path, "a block device")),
        Ok(kind) => Ok(!kind.is_file()),
        Err(_) => Ok(false),
    }
}

fn not_a_file(key: &'static str, path: &Path, kind: &'static str) -> Error {
    Error::NotAFile { key, path: path.to_owned(), kind }
}

/// Opens the file for appending, in the directory that only root and this process's own user decide on.
fn open(path: &Path, special: bool) -> io::Result<File> {
    let flags = if special {
        // A pipe without a reader is refused instead of waited for.
        OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
    } else {
        // Read too, for the look at the last byte.
        OFlag::O_RDWR | OFlag::O_CREAT
    };
    Place::of(path)?.open(flags | OFlag::O_APPEND, 0o640)
}

fn remedy(path: &Path, cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        None if cause.kind() == ErrorKind::PermissionDenied => {
            "use a directory of root's, or of the user that the key user names"
        }
        Some(libc::ENOENT | libc::ENOTDIR) if reach::cannot_write(path) => {
            "create its directory and restart the agent, whose sandbox keeps to what it opened at the start"
        }
        Some(libc::ENOENT | libc::ENOTDIR) => "create its directory",
        Some(libc::EACCES) if reach::cannot_write(path) => reach::OUTSIDE,
        Some(libc::EACCES | libc::EPERM) => {
            "allow the agent to read and write the file, and to create files in its directory"
        }
        Some(libc::EROFS) => "choose a directory on a disk that can be written to",
        Some(libc::ENOSPC | libc::EDQUOT) => "make room on its disk",
        Some(libc::ENXIO) => "start the reader of the pipe first",
        _ => "choose another file, or leave the key out",
    }
}

/// Takes the lock that agents hold while they write to a file that they may share, and says whether it did: it goes
/// without when another process holds the lock for long or the file system has none.
pub(super) fn lock(file: &File, again: &mut Instant) -> bool {
    if Instant::now() < *again {
        return false;
    }
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return true,
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            Err(TryLockError::Error(_)) => break,
        }
    }
    *again = Instant::now() + LOCK_RESPITE;
    false
}

/// Gives the lock back.
pub(super) fn unlock(file: &File) {
    // Closing the file would give it back too.
    let _ = file.unlock();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, lchown, symlink};

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn a_link_is_followed_where_its_maker_may_write_anywhere_and_no_other() {
        let directory = std::env::temp_dir().join(format!("spip-opened-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        let path = |name: &str| directory.join(name);
        // The operator's own, by way of another, to a file that is made.
        symlink("second", path("first")).expect("a link for the test");
        symlink(path("log"), path("second")).expect("a link for the test");
        Opened::path("log_file", &path("first"), None).expect("own links");
        assert!(path("log").is_file());
        symlink(path("round"), path("round")).expect("a link for the test");
        Opened::path("log_file", &path("round"), None).expect_err("a circle");
        if geteuid().is_root() {
            fs::write(path("precious"), "as it was").expect("a file for the test");
            symlink(path("precious"), path("planted")).expect("a link for the test");
            chown(&directory, Some(65_534), Some(65_534)).expect("root");
            lchown(path("planted"), Some(65_534), Some(65_534)).expect("root");
            let error = Opened::path("log_file", &path("planted"), None).expect_err("somebody else's link").to_string();
            assert!(error.contains("is a symbolic link that the user 65534 has made"), "{error}");
        } else {
            assert!(std::env::var_os("CI").is_none(), "only root can make links of another user");
        }
        fs::remove_dir_all(&directory).expect("the directory goes");
    }

    #[test]
    fn a_restart_does_not_make_a_file_young_again() {
        let directory = std::env::temp_dir().join(format!("spip-age-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        let (hour, pause) = (Duration::from_secs(3600), Duration::from_millis(30));
        let path = directory.join("log");
        fs::write(&path, "{}\n").expect("a file");
        thread::sleep(pause);
        let opened = Opened::path("log_file", &path, Some(hour)).expect("a file");
        // Not every file system knows when a file was made.
        let has_birth = fs::metadata(&path).expect("a file").created().is_ok();
        let due = opened.aged.expect("it is rotated by age").saturating_duration_since(Instant::now());
        assert!(due <= hour - pause || !has_birth, "its birth counts: {due:?}");
        // The age of an empty file counts from its first line, that is from now at the earliest.
        let asked = Instant::now() + hour;
        let path = directory.join("empty");
        fs::write(&path, "").expect("a file");
        thread::sleep(pause);
        let opened = Opened::path("log_file", &path, Some(hour)).expect("a file");
        assert!(opened.aged.is_some_and(|aged| aged >= asked + pause));
        assert!(Opened::path("log_file", &path, None).expect("a file").aged.is_none());
        fs::remove_dir_all(&directory).expect("the directory goes");
    }

    #[test]
    fn a_chunk_ends_with_the_line_in_which_the_room_is_used_up() {
        let lines = b"aa\nbbb\nc\n";
        for (room, expected) in [(0, 3), (1, 3), (3, 3), (4, 7), (7, 7), (8, 9), (9, 9), (100, 9)] {
            assert_eq!(whole_lines(lines, room), expected, "room {room}");
        }
    }
}
