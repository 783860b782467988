//! Payloads in files of their own, one for each distinct one, named by their SHA-256.
//!
//! A session hands its payload over and goes on: a thread of its own writes, and what does not fit into its queue stays
//! in its record. A file appears whole or not at all (a temporary name, then rename), is never changed after that, and is
//! not written again when the same payload comes back. That it is there, of the right length, is looked at each time:
//! files are shipped and removed by others, and a file that was cut short is replaced. The files together stay within a
//! budget of room on the disk, in whole blocks: the oldest go first. Only names of 64 hexadecimal digits are ever touched.
//!
//! A record says by `payload_sha256` which file is meant and keeps the first bytes. Nothing makes the two appear at the
//! same moment. From the first payload that the disk refuses until as many bytes are written again, records carry theirs;
//! those that were on their way then are lost, and counted: one for each record that says otherwise.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, fstat};
use nix::sys::statvfs::fstatvfs;

use crate::config;
use crate::process::critical;
use crate::process::walk::{self, Place};

/// The SHA-256 of a payload.
pub type Hash = [u8; 32];

/// Payloads that wait for the thread …
const QUEUED: usize = 4_096;
/// … and how many bytes they may have together.
const QUEUED_BYTES: usize = 32 * 1024 * 1024;

/// Interval at which the shutdown checks whether the thread is done.
const END_PAUSE: Duration = Duration::from_millis(2);

/// Reason why payloads cannot be stored at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot use payload_dir {}: set it to a directory that the agent can make and write to", path.display())]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

/// Counts of the payloads by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that were written.
    pub stored: u64,
    /// Files that went to keep the budget.
    pub evicted: u64,
    /// Records that carry their payload: the queue was full, or the disk refuses.
    pub carried: u64,
    /// Records that say their payload is stored, and it is not: the disk refused it when that was said.
    pub lost: u64,
}

impl Counts {
    /// Each by its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 4] {
        let Self { stored, evicted, carried, lost } = *self;
        [("stored", stored), ("evicted", evicted), ("carried", carried), ("lost", lost)]
    }
}

#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    stored: AtomicU64,
    evicted: AtomicU64,
    carried: AtomicU64,
    lost: AtomicU64,
    /// Number of bytes that the disk has to take before it is trusted again: as many as it refused at once. A disk that
    /// is nearly full still takes small payloads.
    doubted_bytes: AtomicUsize,
    /// The payloads that are on their way, and how many records rely on each.
    queued: Mutex<HashMap<Hash, u64>>,
}

struct Job {
    hash: Hash,
    payload: Vec<u8>,
}

/// Takes payloads; clones share the thread behind it.
#[derive(Clone, Debug)]
pub struct PayloadStore {
    /// `None` ends the thread.
    sender: SyncSender<Option<Job>>,
    shared: Arc<Shared>,
    directory: Arc<Path>,
    min_bytes: usize,
    max_bytes: u64,
    /// The smallest room that a file takes on the disk, in bytes.
    unit: u64,
    preview_bytes: usize,
}

/// The store before its thread runs: the directory is there and has been looked through.
#[derive(Debug)]
pub struct Prepared {
    store: PayloadStore,
    receiver: Receiver<Option<Job>>,
    files: StoredFiles,
}

impl PayloadStore {
    /// Makes the directory if it is not there, and looks at what is in it; `None` when payloads are not stored.
    ///
    /// # Errors
    /// The directory cannot be made, read or written.
    pub fn prepare(config: &config::PayloadStore) -> Result<Option<Prepared>, StoreError> {
        let Some(directory) = &config.directory else { return Ok(None) };
        let mut files = StoredFiles::open(directory, config.max_bytes)
            .map_err(|source| StoreError { path: directory.clone(), source })?;
        let (sender, receiver) = sync_channel(QUEUED);
        let store = Self {
            sender,
            shared: Arc::new(Shared { evicted: std::mem::take(&mut files.evicted).into(), ..Shared::default() }),
            directory: directory.as_path().into(),
            min_bytes: config.min_bytes,
            max_bytes: config.max_bytes,
            unit: files.unit,
            preview_bytes: config.preview_bytes,
        };
        Ok(Some(Prepared { store, receiver, files }))
    }

    /// Checks that [`PayloadStore::prepare`] could use the directory, without making it.
    ///
    /// # Errors
    /// The directory could not be made or read.
    pub fn look(directory: &Path) -> Result<(), StoreError> {
        let names = || if directory.exists() { Place::named(&directory.join(OWN))?.names().map(drop) } else { Ok(()) };
        walk::try_making(&directory.join(OWN))
            .and_then(|()| names())
            .map_err(|source| StoreError { path: directory.to_owned(), source })
    }

    /// Reports whether a payload of `bytes` bytes gets a file of its own.
    #[must_use]
    pub fn keeps(&self, bytes: usize) -> bool {
        bytes >= self.min_bytes && (bytes as u64).next_multiple_of(self.unit) <= self.max_bytes
    }

    /// The part of a payload that stays in its record.
    #[must_use]
    pub fn preview<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(..self.preview_bytes).unwrap_or(payload)
    }

    /// Hands a payload over, which is copied only where it has no file. Never waits for the thread; false when there is
    /// no room for it, or the disk refuses what comes, and the record has to carry it.
    #[must_use]
    pub fn store(&self, hash: Hash, payload: &[u8]) -> bool {
        // In this order: a file has its name before it is no longer on its way.
        let on_its_way = self.shared.rely(&mut self.shared.queued(), &hash);
        let stored = on_its_way.unwrap_or_else(|| {
            length(&path_of(&self.directory, &hash)) == Some(payload.len() as u64) || self.send(hash, payload)
        });
        if !stored {
            self.shared.carried.fetch_add(1, Ordering::Relaxed);
        }
        stored
    }

    /// Queues a payload, and says whether its record may rely on it. While the disk refuses, each payload is an attempt,
    /// and its record goes without.
    fn send(&self, hash: Hash, payload: &[u8]) -> bool {
        let shared = &self.shared;
        let bytes = shared.queued_bytes.fetch_add(payload.len(), Ordering::Relaxed) + payload.len();
        let job = (bytes <= QUEUED_BYTES).then(|| Job { hash, payload: payload.to_vec() });
        // Held until the payload is noted as on its way: the thread may be done with it at once.
        let mut queued = shared.queued();
        let sent = job.is_some_and(|job| self.sender.try_send(Some(job)).is_ok());
        if !sent {
            shared.queued_bytes.fetch_sub(payload.len(), Ordering::Relaxed);
            return false;
        }
        queued.entry(hash).or_default();
        shared.rely(&mut queued, &hash).unwrap_or_default()
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            stored: count(&self.shared.stored),
            evicted: count(&self.shared.evicted),
            carried: count(&self.shared.carried),
            lost: count(&self.shared.lost),
        }
    }
}

impl Prepared {
    /// The handle for sessions.
    #[must_use]
    pub fn store(&self) -> PayloadStore {
        self.store.clone()
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn spawn(self) -> io::Result<Running> {
        let Self { store, receiver, mut files } = self;
        let shared = Arc::clone(&store.shared);
        let thread = critical::spawn("payloads", move || {
            while let Ok(Some(Job { hash, payload })) = receiver.recv() {
                shared.queued_bytes.fetch_sub(payload.len(), Ordering::Relaxed);
                let stored = files.store(&hash, &payload);
                shared.note(&mut files, &hash, payload.len(), stored);
            }
        })?;
        Ok(Running { store, thread })
    }
}

impl Shared {
    fn queued(&self) -> MutexGuard<'_, HashMap<Hash, u64>> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports whether one more record may rely on a payload; `None` when it is not on its way.
    fn rely(&self, queued: &mut HashMap<Hash, u64>, hash: &Hash) -> Option<bool> {
        let relying = queued.get_mut(hash)?;
        let believed = self.doubted_bytes.load(Ordering::Relaxed) == 0;
        *relying += u64::from(believed);
        Some(believed)
    }

    /// Keeps account of one payload, and says the first failure and its end.
    fn note(&self, files: &mut StoredFiles, hash: &Hash, bytes: usize, stored: io::Result<()>) {
        let mut queued = self.queued();
        let relying = queued.remove(hash).unwrap_or_default();
        self.evicted.fetch_add(std::mem::take(&mut files.evicted), Ordering::Relaxed);
        let doubted = self.doubted_bytes.load(Ordering::Relaxed);
        match stored {
            Ok(()) => {
                self.stored.fetch_add(1, Ordering::Relaxed);
                self.doubted_bytes.store(doubted.saturating_sub(bytes), Ordering::Relaxed);
                if (1..=bytes).contains(&doubted) {
                    let lost = self.lost.load(Ordering::Relaxed);
                    log::info!(target: "payloads", lost = lost; "payloads are stored again");
                }
            }
            Err(error) => {
                self.lost.fetch_add(relying, Ordering::Relaxed);
                self.doubted_bytes.store(doubted.max(bytes), Ordering::Relaxed);
                if doubted == 0 {
                    let reason = error.to_string();
                    log::warn!(target: "payloads", reason = reason.as_str();
                        "cannot store payloads: records carry them until it works again");
                }
            }
        }
    }
}

/// The store with its thread.
#[derive(Debug)]
pub struct Running {
    store: PayloadStore,
    thread: JoinHandle<()>,
}

impl Running {
    /// Ends the thread once it has written what was handed over before, or at `deadline`; what became of all payloads.
    /// Blocks the caller until then.
    #[must_use]
    pub fn finish(self, deadline: Instant) -> Counts {
        // Sessions that still hand over find the queue closed, and their records carry their payloads. While the queue
        // is full the thread has more to write, and the end is asked for again.
        while let Err(TrySendError::Full(_)) = self.store.sender.try_send(None)
            && Instant::now() < deadline
        {
            thread::sleep(END_PAUSE);
        }
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(END_PAUSE);
        }
        let unwritten: u64 = self.store.shared.queued().values().sum();
        let counts = self.store.counts();
        Counts { lost: counts.lost + unwritten, ..counts }
    }
}

/// Files of the directory, as found or written; the budget counts them.
#[derive(Debug)]
struct StoredFiles {
    directory: PathBuf,
    max_bytes: u64,
    /// The smallest room that a file takes on the disk, in bytes.
    unit: u64,
    /// On the disk, of all files together.
    bytes: u64,
    known: HashMap<Hash, Known>,
    /// By their number: the oldest first.
    order: BTreeMap<u64, Hash>,
    evicted: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    number: u64,
    /// On the disk.
    bytes: u64,
}

impl StoredFiles {
    fn open(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        let own = format!("{OWN}-{}", std::process::id());
        let place = Place::making_directories(&directory.join(&own), 0o750)?;
        let unit = fstatvfs(&place.open_directory()?)?.fragment_size().max(1);
        let mut found: Vec<((i64, i64), Hash, u64)> = Vec::new();
        for name in place.names()? {
            let Some(name) = name.to_str() else { continue };
            if let Some(stem) = name.strip_suffix(TEMPORARY) {
                // A kill left it behind.
                if hash_of_name(stem).is_some() {
                    place.remove(name.as_ref())?;
                }
                continue;
            }
            let (Some(hash), Ok(file)) = (hash_of_name(name), place.look(name.as_ref())) else { continue };
            if is_file(&file) {
                found.push(((file.st_mtime, file.st_mtime_nsec), hash, disk_bytes(&file, unit)));
            }
        }
        // Known at the start, and not when the first payload comes.
        place.open(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o640)?;
        place.remove(own.as_ref())?;
        found.sort_unstable();
        let mut files = Self {
            directory: directory.to_owned(),
            max_bytes,
            unit,
            bytes: 0,
            known: HashMap::new(),
            order: BTreeMap::new(),
            evicted: 0,
        };
        for (_, hash, bytes) in found {
            files.remember(hash, bytes);
        }
        files.make_room(0)?;
        Ok(files)
    }

    /// Writes a payload, over what has its name.
    fn store(&mut self, hash: &Hash, payload: &[u8]) -> io::Result<()> {
        let name = hex::encode(hash);
        let temporary = format!("{name}{TEMPORARY}");
        // Found anew each time: the operator may have replaced the directory.
        let place = Place::named(&self.directory.join(&name))?;
        let there = place.look(name.as_ref()).ok().filter(is_file).map(|file| disk_bytes(&file, self.unit));
        match there {
            // Not of the right length, or it would not be written again.
            Some(there) => self.remember(*hash, there),
            // The operator took it away, if it was there.
            None => self.forget(hash),
        }
        let bytes = (payload.len() as u64).next_multiple_of(self.unit);
        self.make_room(bytes.saturating_sub(there.unwrap_or(0)))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let written = place.open_beside(temporary.as_ref(), flags, 0o640).and_then(|mut file| {
            file.write_all(payload)?;
            place.rename(temporary.as_ref(), name.as_ref())?;
            Ok(fstat(&file)?)
        });
        match written {
            Ok(file) => self.remember(*hash, disk_bytes(&file, self.unit)),
            Err(error) => {
                let _ = place.remove(temporary.as_ref());
                return Err(error);
            }
        }
        // The file system may have taken more than was reckoned with.
        self.make_room(0)
    }

    /// The file is now the newest.
    fn remember(&mut self, hash: Hash, bytes: u64) {
        self.forget(&hash);
        let number = self.order.last_key_value().map_or(0, |(last, _)| last + 1);
        self.order.insert(number, hash);
        self.known.insert(hash, Known { number, bytes });
        self.bytes += bytes;
    }

    fn forget(&mut self, hash: &Hash) {
        if let Some(known) = self.known.remove(hash) {
            self.order.remove(&known.number);
            self.bytes -= known.bytes;
        }
    }

    /// Removes the oldest files until `more` bytes fit.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        while self.bytes + more > self.max_bytes {
            let Some((_, &hash)) = self.order.first_key_value() else { break };
            let name = hex::encode(hash);
            match Place::named(&self.directory.join(&name)).and_then(|place| place.remove(name.as_ref())) {
                Ok(()) => self.evicted += 1,
                // The operator took it away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.forget(&hash);
        }
        Ok(())
    }
}

fn path_of(directory: &Path, hash: &Hash) -> PathBuf {
    directory.join(hex::encode(hash))
}

fn is_file(found: &FileStat) -> bool {
    found.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// Returns the room that a file takes on the disk: its blocks (of 512 bytes, whatever the file system's are), and at least its
/// length in whole `unit`s, because some file systems choose the blocks only later.
fn disk_bytes(found: &FileStat, unit: u64) -> u64 {
    let [blocks, length] = [found.st_blocks, found.st_size].map(|number| u64::try_from(number).unwrap_or(0));
    blocks.saturating_mul(512).max(length.next_multiple_of(unit))
}

/// Returns the length of the file of this name; `None` when there is none.
fn length(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
}

/// Ends the name of a file that is being written.
const TEMPORARY: &str = ".part";

/// Beginning of the name of the file that is made and removed at the start, to know that files can be made.
const OWN: &str = ".spip";

fn hash_of_name(name: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    let is_lower = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_lower && hex::decode_to_slice(name, &mut hash).is_ok()).then_some(hash)
}

#[cfg(test)]
mod tests;
