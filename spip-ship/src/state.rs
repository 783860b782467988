//! State of a sink across restarts: its place in the source, and the batch that was being delivered.
//!
//! A state is written aside, forced to the disk and renamed, and carries a hash of itself. One that is missing or
//! damaged is reported, and the sink starts from what its engine knows. The identity of the shipper is made with the
//! state: an engine that finds another one in its last message knows that another shipper writes under the same name.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::batch::Place;

/// The version of the file. A later one is refused, because going on would deliver twice.
const VERSION: u32 = 1;

/// A state is a few kilobytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// State that a sink keeps across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Version of this file.
    pub version: u32,
    /// Identity of the shipper: random, made with the state.
    pub shipper: String,
    /// The sensor of the last batch.
    #[serde(default)]
    pub sensor: Option<String>,
    /// Everything before it is delivered.
    pub place: Place,
    /// Lines of the batch behind `place` that was under way: after a crash exactly these are sent again.
    #[serde(default)]
    pub under_way: Option<u64>,
    /// Lines that were delivered.
    #[serde(default)]
    pub shipped: u64,
    /// Lines that went to quarantine.
    #[serde(default)]
    pub quarantined: u64,
    /// Time of writing, Unix seconds.
    #[serde(default)]
    pub updated: i64,
    /// Additional state of the sink.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub own: serde_json::Value,
}

/// Result of looking for a state in the directory.
#[derive(Debug)]
pub enum Found {
    /// A state.
    State(Box<State>),
    /// None: the first start, or it was removed.
    Missing,
    /// A file that cannot be trusted, and why.
    Damaged(String),
}

/// The file of a sink's state.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

impl State {
    /// Makes a state that has delivered nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: VERSION,
            shipper: random_identity(),
            sensor: None,
            place: Place::default(),
            under_way: None,
            shipped: 0,
            quarantined: 0,
            updated: 0,
            own: serde_json::Value::Null,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

fn random_identity() -> String {
    let mut bytes = [0_u8; 8];
    // Without randomness, time and process are as good between the few shippers of one sensor.
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if read.is_err() {
        let seed = format!("{:?}{}", std::time::SystemTime::now(), std::process::id());
        bytes.copy_from_slice(&Sha256::digest(seed.as_bytes())[..8]);
    }
    hex(&bytes)
}

/// Writes `bytes` in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Store {
    /// Names the state of the sink `name` in `directory`.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Self {
        Self { path: directory.join(format!("{name}.state")) }
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the state.
    ///
    /// # Errors
    /// The file is there and cannot be read, or was written by a later version.
    pub fn load(&self) -> io::Result<Found> {
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(error) => return Err(error),
        };
        let Some((sum, json)) = bytes.split_once_at(b'\n') else {
            return Ok(Found::Damaged("it is empty or cut off".to_owned()));
        };
        let json = json.strip_suffix(b"\n").unwrap_or(json);
        if sum != hex(&Sha256::digest(json)).as_bytes() {
            return Ok(Found::Damaged("its checksum is wrong".to_owned()));
        }
        match serde_json::from_slice::<State>(json) {
            Ok(state) if state.version == VERSION => Ok(Found::State(Box::new(state))),
            Ok(state) => {
                Err(io::Error::other(format!("version {} is not known: run the newer spip-ship", state.version)))
            }
            Err(error) => Ok(Found::Damaged(error.to_string())),
        }
    }

    /// Writes `state` so that a crash leaves the old one or this one.
    ///
    /// # Errors
    /// The disk is full, or the directory cannot be written.
    pub fn save(&self, state: &State) -> io::Result<()> {
        let json = serde_json::to_vec(state)?;
        let mut bytes = hex(&Sha256::digest(&json)).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&json);
        bytes.push(b'\n');
        write_durably(&self.path, &bytes, 0o640)
    }

    /// Notes for `status` why delivery waits, or that it does not. Nothing depends on it: a full disk keeps it away.
    pub fn note_trouble(&self, trouble: Option<&str>) {
        let path = self.path.with_extension("trouble");
        let _ = match trouble {
            Some(text) => fs::write(&path, text),
            None => fs::remove_file(&path),
        };
    }

    /// Returns why delivery waits, and since when.
    #[must_use]
    pub fn trouble(&self) -> Option<(String, SystemTime)> {
        let file = File::open(self.path.with_extension("trouble")).ok()?;
        let since = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        Some((String::from_utf8_lossy(&bytes).into_owned(), since))
    }

    /// Puts a damaged file aside, so that it can be looked at.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn put_aside(&self) -> io::Result<PathBuf> {
        let aside = self.path.with_extension("state.damaged");
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }
}

/// Writes `bytes` aside, forces them to the disk, and renames the file to `path`. It has exactly `mode`, whatever the umask
/// of the process is: other users read some of these files. A symbolic link beside `path` is not followed.
///
/// # Errors
/// The disk is full, or the directory cannot be written.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(mode).custom_flags(libc::O_NOFOLLOW).open(&aside)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&aside, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

trait SplitOnce {
    fn split_once_at(&self, byte: u8) -> Option<(&[u8], &[u8])>;
}

impl SplitOnce for Vec<u8> {
    fn split_once_at(&self, byte: u8) -> Option<(&[u8], &[u8])> {
        let at = memchr::memchr(byte, self)?;
        Some((self.get(..at)?, self.get(at + 1..)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("spip-ship-state-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a temporary directory");
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_state_comes_back_as_it_was_stored() {
        let directory = Directory::new("same");
        let store = Store::new(&directory.0, "nats");
        assert!(matches!(store.load(), Ok(Found::Missing)));
        let state = State { sensor: Some("s".to_owned()), shipped: 7, under_way: Some(3), ..State::new() };
        store.save(&state).expect("a writable directory");
        let Ok(Found::State(found)) = store.load() else { panic!("a state") };
        assert_eq!(*found, state);
    }

    #[test]
    fn a_state_with_any_byte_changed_or_cut_off_is_damaged() {
        let directory = Directory::new("damaged");
        let store = Store::new(&directory.0, "nats");
        store.save(&State::new()).expect("a writable directory");
        let bytes = fs::read(store.path()).expect("it was written");
        for index in 0..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            fs::write(store.path(), &changed).expect("a writable directory");
            assert!(matches!(store.load(), Ok(Found::Damaged(_))), "byte {index}");
            fs::write(store.path(), &bytes[..index]).expect("a writable directory");
            assert!(matches!(store.load(), Ok(Found::Damaged(_))), "cut at {index}");
        }
    }

    #[test]
    fn a_later_version_is_not_overwritten() {
        let directory = Directory::new("later");
        let store = Store::new(&directory.0, "nats");
        store.save(&State { version: 2, ..State::new() }).expect("a writable directory");
        assert!(store.load().expect_err("a later version").to_string().contains("version 2"));
    }

    #[test]
    fn the_mode_is_exact_and_a_link_beside_the_file_is_not_followed() {
        let directory = Directory::new("mode");
        let (path, other) = (directory.0.join("marker"), directory.0.join("other"));
        // 0o666 is a mode that every usual umask would change.
        write_durably(&path, b"one", 0o666).expect("a writable directory");
        assert_eq!(fs::metadata(&path).expect("it was written").permissions().mode() & 0o777, 0o666);
        fs::write(&other, "kept").expect("a writable directory");
        std::os::unix::fs::symlink(&other, directory.0.join("marker.new")).expect("a link");
        assert!(write_durably(&path, b"two", 0o644).is_err());
        assert_eq!(fs::read(&other).expect("it is there"), b"kept");
        assert_eq!(fs::read(&path).expect("it is there"), b"one");
    }

    #[test]
    fn two_shippers_have_two_identities() {
        assert_ne!(State::new().shipper, State::new().shipper);
    }
}
