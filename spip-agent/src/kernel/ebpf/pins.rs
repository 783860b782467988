//! The directory in which the maps are pinned, so that they can be looked at by name, and outlive a crash.
//!
//! One agent owns the directory, by a lock on it that the kernel drops with the process. Another agent runs unpinned,
//! as does one that finds no bpffs: pins are a convenience, never a condition. What is pinned already is used again if
//! its shape is what this agent would make, and replaced if not. What is no map is not touched, and neither is a
//! directory in which another user could plant a map: origins are evidence.
//!
//! An agent that relieves the owner shares no map with it: it pins its own beside, under other names, and gives them
//! theirs when it takes over ([`Staged`]). The lock is its own as soon as the other process has ended.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{MapInfo, MapType};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::geteuid;

use super::loader::chain;

/// Reasons why nothing is pinned.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is no bpffs to pin on.
    #[error("{0} is not on a bpffs: mount -t bpf bpf /sys/fs/bpf, or set bpf_pin_path")]
    NoBpffs(PathBuf),
    /// Another agent has the directory.
    #[error("{0} belongs to another agent that is running: set another bpf_pin_path for this one")]
    Taken(PathBuf),
    /// Another user could put maps there.
    #[error("{0} can be changed by another user: remove it, or set bpf_pin_path")]
    Untrusted(PathBuf),
    /// The directory cannot be made, opened or locked.
    #[error("cannot {action} {path}: check its owner and mode, or set bpf_pin_path")]
    Directory {
        /// Attempted action.
        action: &'static str,
        /// With which path.
        path: PathBuf,
        /// Error of the kernel.
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
        /// Refused step, and what it takes.
        reason: String,
    },
}

/// Definition of a map, as far as the kernel shows it.
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

/// The directory, owned or about to be.
#[derive(Debug)]
pub(super) struct Pins {
    path: PathBuf,
    hold: Mutex<Hold>,
}

/// Hold of this agent on the directory.
#[derive(Debug)]
enum Hold {
    /// The lock, held for as long as this agent runs.
    Owned { _lock: Flock<File> },
    /// Another agent has it, which this one relieves.
    Waiting(File),
    /// Between the two.
    Trying,
}

impl Pins {
    /// Makes the directory where it is missing, and takes it. With `takes_over` another agent may still have it.
    pub(super) fn open(path: &Path, takes_over: bool) -> Result<Self, Error> {
        let failed = |action| move |source| Error::Directory { action, path: path.to_path_buf(), source };
        let existing = path.ancestors().find(|ancestor| ancestor.exists());
        let kind = existing.and_then(|existing| statfs(existing).ok());
        if kind.map(|kind| kind.filesystem_type()) != Some(BPF_FS_MAGIC) {
            return Err(Error::NoBpffs(path.to_path_buf()));
        }
        DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(failed("make"))?;
        let directory = File::open(path).map_err(failed("open"))?;
        // Usually every user may make directories on a bpffs: one that was there before may be another user's.
        let found = directory.metadata().map_err(failed("look at"))?;
        let ours = found.uid() == 0 || found.uid() == geteuid().as_raw();
        if !ours || found.mode() & 0o022 != 0 {
            return Err(Error::Untrusted(path.to_path_buf()));
        }
        let hold = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Hold::Owned { _lock: lock },
            Err((directory, Errno::EWOULDBLOCK)) if takes_over => Hold::Waiting(directory),
            Err((_, Errno::EWOULDBLOCK)) => return Err(Error::Taken(path.to_path_buf())),
            Err((_, error)) => return Err(failed("lock")(error.into())),
        };
        Ok(Self { path: path.to_path_buf(), hold: Mutex::new(hold) })
    }

    /// Reports whether the pinned maps are this agent's to use: no other agent uses them.
    pub(super) fn are_owned(&self) -> bool {
        matches!(*self.hold.lock().unwrap_or_else(PoisonError::into_inner), Hold::Owned { .. })
    }

    /// Takes the lock that the agent had which was relieved, if that has ended.
    pub(super) fn claim(&self) {
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        *hold = match std::mem::replace(&mut *hold, Hold::Trying) {
            Hold::Waiting(directory) => match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => Hold::Owned { _lock: lock },
                Err((directory, _)) => Hold::Waiting(directory),
            },
            owned => owned,
        };
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a map's pin.
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

/// Maps that are pinned under other names until they take the place of another agent's. Dropping this unpins those that
/// did not.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// The name that each has, and the one that it is to have.
    names: Vec<(PathBuf, PathBuf)>,
}

impl Staged {
    /// Pins these maps of a loaded object beside those in `directory`; why not all of them, where that is so.
    pub(super) fn pin(ebpf: &Ebpf, directory: &Path, maps: &[&str]) -> (Self, Option<String>) {
        let mut staged = Self::default();
        for name in maps {
            if let Err(error) = staged.add(ebpf, &directory.join(name)) {
                return (staged, Some(format!("the map {name} is not pinned in {}: {error}", directory.display())));
            }
        }
        (staged, None)
    }

    fn add(&mut self, ebpf: &Ebpf, path: &Path) -> Result<(), String> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let map = ebpf.map(name).ok_or("the object has no such map")?;
        let temporary = temporary(path);
        remove(&temporary).map_err(|error| error.to_string())?;
        map.pin(&temporary).map_err(|error| chain(&error))?;
        self.names.push((temporary, path.to_path_buf()));
        Ok(())
    }

    /// Gives them their names; one that is refused does not keep the others from theirs.
    pub(super) fn publish(&mut self) -> Result<(), String> {
        let mut result = Ok(());
        for (temporary, path) in std::mem::take(&mut self.names) {
            if let Err(error) = fs::rename(&temporary, &path) {
                let _ = remove(&temporary);
                result = Err(format!("the map is not pinned as {}: {error}", path.display()));
            }
        }
        result
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for (temporary, _) in &self.names {
            let _ = remove(temporary);
        }
    }
}

/// Takes a pin away; one that is not there is no error.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The name that a pin has until it takes its place.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("_new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_on_another_file_system_is_refused_with_the_remedy() {
        let error = Pins::open(Path::new("/proc/spip/pins"), false).expect_err("proc is no bpffs");
        assert!(matches!(error, Error::NoBpffs(_)));
        assert!(error.to_string().contains("mount -t bpf"), "{error}");
    }
}
