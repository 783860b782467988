//! The directory in which the maps are pinned, so that they can be looked at by name, and outlive a crash.
//!
//! One agent owns the directory, by a lock on it that the kernel drops with the process. Another agent runs unpinned,
//! as does one that finds no bpffs: pins are a convenience, never a condition. What is pinned already is used again if
//! its shape is what this agent would make, and replaced if not. What is no map is not touched.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Why nothing is pinned.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is no bpffs to pin on.
    #[error("{0} is not on a bpffs: mount -t bpf bpf /sys/fs/bpf, or set bpf_pin_path")]
    NoBpffs(PathBuf),
    /// Another agent has the directory.
    #[error("{0} belongs to another agent that is running: set another bpf_pin_path for this one")]
    Taken(PathBuf),
    /// The directory cannot be made, opened or locked.
    #[error("cannot {action} {path}: check its owner and mode, or set bpf_pin_path")]
    Directory {
        /// What was tried.
        action: &'static str,
        /// With which path.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// Something else is where a map should be pinned.
    #[error("{0} is no map that this agent can open: remove it, or set bpf_pin_path")]
    NotAMap(PathBuf),
    /// The maps can be made, but not with these pins.
    #[error("the maps cannot be pinned in {path}: {reason}")]
    Refused {
        /// The directory.
        path: PathBuf,
        /// What was refused, and what it takes.
        reason: String,
    },
}

/// What a map is made of, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) map_type: MapType,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
}

impl Shape {
    fn of(info: &MapInfo) -> Option<Self> {
        Some(Self {
            map_type: info.map_type().ok()?,
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
        })
    }
}

/// The directory, owned.
#[derive(Debug)]
pub(super) struct Pins {
    path: PathBuf,
    /// Held for as long as this agent runs.
    _lock: Flock<File>,
}

impl Pins {
    /// Makes the directory where it is missing, and takes it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |action| move |source| Error::Directory { action, path: path.to_path_buf(), source };
        let existing = path.ancestors().find(|ancestor| ancestor.exists());
        let kind = existing.and_then(|existing| statfs(existing).ok());
        if kind.map(|kind| kind.filesystem_type()) != Some(BPF_FS_MAGIC) {
            return Err(Error::NoBpffs(path.to_path_buf()));
        }
        fs::create_dir_all(path).map_err(failed("make"))?;
        let directory = File::open(path).map_err(failed("open"))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_path_buf(), _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(Error::Taken(path.to_path_buf())),
            Err((_, error)) => Err(failed("lock")(error.into())),
        }
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a map is pinned.
    pub(super) fn pin(&self, map: &str) -> PathBuf {
        self.path.join(map)
    }

    /// Clears the way for a map: removes a pin of another shape, and says so. A map of this shape stays, to be used.
    pub(super) fn prepare(&self, map: &str, shape: Shape) -> Result<Option<String>, Error> {
        let pin = self.pin(map);
        if fs::symlink_metadata(&pin).is_err() {
            return Ok(None);
        }
        let found = MapInfo::from_pin(&pin).map_err(|_| Error::NotAMap(pin.clone()))?;
        if Shape::of(&found) == Some(shape) {
            return Ok(None);
        }
        fs::remove_file(&pin).map_err(|source| Error::Directory { action: "replace", path: pin.clone(), source })?;
        Ok(Some(format!(
            "replaced {}: it was a map of another shape ({} bytes of key, {} of value, {} entries)",
            pin.display(),
            found.key_size(),
            found.value_size(),
            found.max_entries(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_on_another_file_system_is_refused_with_the_remedy() {
        let error = Pins::open(Path::new("/proc/spip/pins")).expect_err("proc is no bpffs");
        assert!(matches!(error, Error::NoBpffs(_)));
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
    }
}
