//! The directory in which the maps are pinned, so that they can be looked at by name, and outlive a crash.
//!
//! One agent owns the directory, by a lock on it that the kernel drops with the process. Another agent runs unpinned,
//! as does one that finds no bpffs: pins are a convenience, never a condition. What is pinned already is used again if
//! its shape is what this agent would make, and replaced if not. What is no map is not touched, and neither is a
//! directory in which another user could plant a map: origins are evidence. The directory is found once, by the walk of
//! [`Place`], and everything is done in the one that was found.
//!
//! An agent that relieves the owner shares no map with it: it pins its own beside, under other names, and gives them
//! theirs when it takes over ([`Staged`]). The lock is its own as soon as the other process has ended.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{MapInfo, MapType};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, fstatfs, statfs};
use nix::unistd::geteuid;

use super::loader::chain;
use crate::process::walk::Place;

/// A name in the directory, of which only the directory is needed.
const LOCK: &str = "lock";

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
    place: Arc<Place>,
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
    /// Makes the directory where it is missing, and takes it. No link of another user's leads there. With `takes_over` another agent may still have it.
    pub(super) fn open(path: &Path, takes_over: bool) -> Result<Self, Error> {
        let failed = |action| move |source| Error::Directory { action, path: path.to_path_buf(), source };
        let existing = path.ancestors().find(|ancestor| ancestor.exists());
        let kind = existing.and_then(|existing| statfs(existing).ok());
        if kind.map(|kind| kind.filesystem_type()) != Some(BPF_FS_MAGIC) {
            return Err(Error::NoBpffs(path.to_path_buf()));
        }
        let place = Place::making_directories(&path.join(LOCK), 0o755).map_err(failed("make"))?;
        let directory = place.open_directory().map_err(failed("open"))?;
        let kind = fstatfs(&directory).map_err(|error| failed("look at")(error.into()))?;
        if kind.filesystem_type() != BPF_FS_MAGIC {
            return Err(Error::NoBpffs(path.to_path_buf()));
        }
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
        Ok(Self { path: path.to_path_buf(), place: Arc::new(place), hold: Mutex::new(hold) })
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

    /// Returns the directory that was found under that path, whatever has its name now.
    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Returns the path of a map's pin, for calls that take a path.
    pub(super) fn pin(&self, map: &str) -> PathBuf {
        self.place.anchored(map.as_ref())
    }

    /// Clears the way for a map: removes a pin of another shape, and says so. A map of this shape stays, to be used.
    pub(super) fn prepare(&self, map: &str, shape: Shape) -> Result<Option<String>, Error> {
        let pin = self.path.join(map);
        if self.place.look(map.as_ref()).is_err() {
            return Ok(None);
        }
        let found = MapInfo::from_pin(self.pin(map)).map_err(|_| Error::NotAMap(pin.clone()))?;
        if Shape::of(&found) == Some(shape) {
            return Ok(None);
        }
        let failed = |source| Error::Directory { action: "replace", path: pin.clone(), source };
        self.place.remove(map.as_ref()).map_err(failed)?;
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
    place: Option<Arc<Place>>,
    /// The name that each is to have; until then it has the one that [`temporary`] makes of it.
    names: Vec<String>,
}

impl Staged {
    /// Pins these maps of a loaded object beside those in the directory; why not all of them, where that is so.
    pub(super) fn pin(ebpf: &Ebpf, pins: &Pins, maps: &[&str]) -> (Self, Option<String>) {
        let mut staged = Self { place: Some(Arc::clone(pins.place())), names: Vec::new() };
        for name in maps {
            if let Err(error) = staged.add(ebpf, name) {
                let path = pins.path().display();
                return (staged, Some(format!("the map {name} is not pinned in {path}: {error}")));
            }
        }
        (staged, None)
    }

    fn add(&mut self, ebpf: &Ebpf, name: &str) -> Result<(), String> {
        let place = self.place.as_ref().ok_or("there is no directory")?;
        let map = ebpf.map(name).ok_or("the object has no such map")?;
        let temporary = temporary(name);
        remove(place, &temporary).map_err(|error| error.to_string())?;
        map.pin(place.anchored(&temporary)).map_err(|error| chain(&error))?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Gives them their names; one that is refused does not keep the others from theirs.
    pub(super) fn publish(&mut self) -> Result<(), String> {
        let mut result = Ok(());
        let Some(place) = &self.place else { return result };
        for name in std::mem::take(&mut self.names) {
            let temporary = temporary(&name);
            if let Err(error) = place.rename(&temporary, name.as_ref()) {
                let _ = remove(place, &temporary);
                result =
                    Err(format!("the map is not pinned as {}: {error}", place.path().with_file_name(name).display()));
            }
        }
        result
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for (place, name) in self.place.iter().flat_map(|place| self.names.iter().map(move |name| (place, name))) {
            let _ = remove(place, &temporary(name));
        }
    }
}

/// Takes a pin away; one that is not there is no error.
pub(super) fn remove(place: &Place, name: &OsStr) -> io::Result<bool> {
    match place.remove(name) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The name that a pin has until it takes its place.
pub(super) fn temporary(name: &str) -> OsString {
    format!("{name}_new").into()
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
