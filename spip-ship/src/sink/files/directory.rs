//! The directory of one sensor: its current log and the closed ones, named as the agent names them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::unistd::geteuid;

/// Name of the current log.
const CURRENT: &str = "spip.jsonl";

/// Longer lines are looked at in pieces, of which none is the one that is looked for.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes that are compared at a time.
const CHUNK: usize = 64 * 1024;

/// The directory of one sensor.
pub(super) struct Directory {
    path: PathBuf,
}

/// Makes a directory that the operator's group can read.
pub(super) fn create(path: &Path) -> io::Result<()> {
    // The directory above the first one is outside of what this process may open.
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    inherit_owner(path);
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Gives what root made, as with `replay`, to the owner of the directory around it: the service goes on writing there.
fn inherit_owner(path: &Path) {
    let around = path.parent().and_then(|around| fs::metadata(around).ok());
    if let Some(around) = around.filter(|_| geteuid().is_root())
        && let Err(error) = chown(path, Some(around.uid()), Some(around.gid()))
    {
        log::debug!("files: cannot give {} to the owner of its directory: {error}", path.display());
    }
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn current(&self) -> PathBuf {
        self.path.join(CURRENT)
    }

    /// Returns inode and length of the current log; zeros where there is none.
    pub(super) fn end(&self) -> io::Result<(u64, u64)> {
        match fs::metadata(self.current()) {
            Ok(metadata) => Ok((metadata.ino(), metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((0, 0)),
            Err(error) => Err(error),
        }
    }

    /// Looks for the first line of `bytes` in the current log, and returns inode and offset of where it begins.
    pub(super) fn find(&self, bytes: &[u8]) -> io::Result<Option<(u64, u64)>> {
        let Some(line) = bytes.split_inclusive(|byte| *byte == b'\n').next() else { return Ok(None) };
        let file = match File::open(self.current()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        let (mut reader, mut offset, mut read) = (BufReader::new(file), 0, Vec::new());
        loop {
            read.clear();
            let count = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut read)?;
            // The last line may be torn: it is the beginning of the one that comes again.
            if count == 0 {
                return Ok(None);
            }
            if read == line || (!read.ends_with(b"\n") && line.starts_with(&read)) {
                return Ok(Some((inode, offset)));
            }
            offset += count as u64;
        }
    }

    /// Appends `bytes`, but for what of them stands behind `before` already: inode and length before the first attempt.
    pub(super) fn append(&self, bytes: &[u8], before: Option<(u64, u64)>) -> io::Result<()> {
        let path = self.current();
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&path)?;
        let metadata = file.metadata()?;
        let length = metadata.len();
        if length == 0 {
            inherit_owner(&path);
        }
        let start = match before {
            Some((inode, start)) if inode == metadata.ino() && start <= length => start,
            // The file was made by an earlier attempt.
            Some((0, 0)) => 0,
            _ => length,
        };
        let written = common(&mut file, start, bytes)?;
        let end = start + written as u64;
        if written == bytes.len() {
            log::debug!("files: {} has this batch already", path.display());
        } else if end < length {
            // Another program wrote here: its bytes stay, and end with a line feed.
            let mut last = [0];
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
            log::warn!("files: {} was also written by another program; nothing of it is removed", path.display());
            file.write_all(bytes)?;
        } else {
            file.write_all(bytes.get(written..).unwrap_or_default())?;
        }
        file.sync_data()?;
        if length == 0 { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }

    /// Closes the current log when it has `limit` bytes, and removes the oldest closed ones beyond `keep`.
    pub(super) fn rotate(&self, limit: u64, keep: usize) -> io::Result<()> {
        if self.end()?.1 < limit {
            return Ok(());
        }
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ").to_string();
        let closed = self.path.join(format!("{CURRENT}.{time}"));
        // A clock that stands still or goes back: the current log grows until it goes on.
        let newest = self.closed()?.pop();
        if closed.exists() || newest.is_some_and(|newest| newest >= closed) {
            return Ok(());
        }
        fs::rename(self.current(), closed)?;
        let mut all = self.closed()?;
        let gone = all.len().saturating_sub(keep);
        for path in all.drain(..gone) {
            fs::remove_file(path)?;
        }
        File::open(&self.path)?.sync_all()
    }

    /// Returns the closed logs, oldest first.
    fn closed(&self) -> io::Result<Vec<PathBuf>> {
        let mut closed = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_closed = name.to_str().and_then(|name| name.strip_prefix(CURRENT)).is_some_and(|rest| {
                rest.len() == ".20250131T235959.000001Z".len() && rest.starts_with('.') && rest.ends_with('Z')
            });
            if is_closed {
                closed.push(entry.path());
            }
        }
        closed.sort();
        Ok(closed)
    }
}

/// Returns how many of the first `bytes` stand in the file from `start` on.
fn common(file: &mut File, start: u64, bytes: &[u8]) -> io::Result<usize> {
    file.seek(SeekFrom::Start(start))?;
    let mut read = [0; CHUNK];
    let mut same = 0;
    loop {
        let count = file.read(&mut read)?;
        let expected = bytes.get(same..).unwrap_or_default();
        let equal = read.iter().take(count).zip(expected).take_while(|(one, other)| one == other).count();
        same += equal;
        if count == 0 || equal < count {
            return Ok(same);
        }
    }
}
