//! Payloads in files of their own, one for each distinct one, named by their SHA-256.
//!
//! A session hands its payload over and goes on: a thread of its own writes, and what does not fit into its queue is
//! counted and not stored. A file appears whole or not at all (a temporary name, then rename), is never changed after
//! that, and is not written again when the same payload comes back. The files together stay within a budget: the
//! oldest go first. Only names of 64 hexadecimal digits are ever touched.
//!
//! A record says by `payload_sha256` which file is meant and keeps the first bytes. Nothing makes the two appear at the
//! same moment. From the first payload that the disk refuses until one is written again, records carry theirs; those
//! that were on their way then are lost, and counted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use crate::config;
use crate::vital;

/// The SHA-256 of a payload.
pub type Hash = [u8; 32];

/// Payloads that wait for the thread …
const QUEUED: usize = 4_096;
/// … and how many bytes they may have together.
const QUEUED_BYTES: usize = 32 * 1024 * 1024;
/// Hashes of payloads that were stored lately: those that come back cost nobody a system call.
const REMEMBERED: usize = 65_536;

/// Why payloads cannot be stored at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot use payload_dir {}", path.display())]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

/// What became of the payloads that were handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that were written.
    pub stored: u64,
    /// Files that went to keep the budget.
    pub evicted: u64,
    /// Payloads that were not stored: the queue was full, or the disk refused.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    stored: AtomicU64,
    evicted: AtomicU64,
    lost: AtomicU64,
    /// Whether the last payload could not be written.
    failing: AtomicBool,
    known: Mutex<Known>,
}

/// The hashes that were stored lately. One that was removed and came back may stand in `order` twice, and is then
/// forgotten a little early.
#[derive(Debug, Default)]
struct Known {
    order: VecDeque<Hash>,
    present: HashSet<Hash>,
}

impl Known {
    fn insert(&mut self, hash: Hash) {
        if self.present.insert(hash) {
            self.order.push_back(hash);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.present.remove(&oldest);
        }
    }

    fn remove(&mut self, hash: &Hash) {
        self.present.remove(hash);
    }
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
    min_bytes: usize,
    preview_bytes: usize,
}

/// The store before its thread runs: the directory is there and has been looked through.
#[derive(Debug)]
pub struct Prepared {
    store: PayloadStore,
    receiver: Receiver<Option<Job>>,
    files: Files,
}

impl PayloadStore {
    /// Makes the directory if it is not there, and looks at what is in it; `None` when payloads are not stored.
    ///
    /// # Errors
    /// The directory cannot be made, read or written.
    pub fn prepare(config: &config::PayloadStore) -> Result<Option<Prepared>, StoreError> {
        let Some(directory) = &config.directory else { return Ok(None) };
        let files = Files::open(directory, config.max_bytes)
            .map_err(|source| StoreError { path: directory.clone(), source })?;
        let (sender, receiver) = sync_channel(QUEUED);
        let shared = Arc::new(Shared::default());
        let store = Self { sender, shared, min_bytes: config.min_bytes, preview_bytes: config.preview_bytes };
        Ok(Some(Prepared { store, receiver, files }))
    }

    /// Whether a payload of `bytes` bytes has a file of its own.
    #[must_use]
    pub fn keeps(&self, bytes: usize) -> bool {
        bytes >= self.min_bytes
    }

    /// The part of a payload that stays in its record.
    #[must_use]
    pub fn preview<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(..self.preview_bytes).unwrap_or(payload)
    }

    /// Hands a payload over, which is copied only where it was not stored lately. Never waits; false when there is no
    /// room for it, or the disk refuses what comes, and the record has to carry it.
    #[must_use]
    pub fn store(&self, hash: Hash, payload: &[u8]) -> bool {
        if self.known().present.contains(&hash) {
            return true;
        }
        let shared = &self.shared;
        let queued = shared.queued_bytes.fetch_add(payload.len(), Ordering::Relaxed);
        // Known before it is queued: if writing fails, the thread forgets it again.
        self.known().insert(hash);
        if queued + payload.len() <= QUEUED_BYTES
            && self.sender.try_send(Some(Job { hash, payload: payload.to_vec() })).is_ok()
        {
            // While the disk refuses, each payload is an attempt, and its record goes without.
            return !shared.failing.load(Ordering::Relaxed);
        }
        self.known().remove(&hash);
        shared.queued_bytes.fetch_sub(payload.len(), Ordering::Relaxed);
        shared.lost.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// What became of all payloads so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            stored: count(&self.shared.stored),
            evicted: count(&self.shared.evicted),
            lost: count(&self.shared.lost),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        let thread = vital::spawn("payloads", move || {
            while let Ok(Some(Job { hash, payload })) = receiver.recv() {
                shared.queued_bytes.fetch_sub(payload.len(), Ordering::Relaxed);
                let stored = files.store(&hash, &payload);
                shared.note(&mut files, &hash, stored);
            }
        })?;
        Ok(Running { store, thread })
    }
}

impl Shared {
    /// Keeps account of one payload, and says the first failure and its end.
    fn note(&self, files: &mut Files, hash: &Hash, stored: io::Result<bool>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in files.gone.drain(..) {
            known.remove(&gone);
        }
        self.evicted.fetch_add(std::mem::take(&mut files.evicted), Ordering::Relaxed);
        match stored {
            Ok(new) => {
                self.stored.fetch_add(u64::from(new), Ordering::Relaxed);
                if self.failing.swap(false, Ordering::Relaxed) {
                    let lost = self.lost.load(Ordering::Relaxed);
                    log::info!(target: "payloads", lost = lost; "payloads are stored again");
                }
            }
            Err(error) => {
                known.remove(hash);
                self.lost.fetch_add(1, Ordering::Relaxed);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let reason = error.to_string();
                    log::warn!(target: "payloads", reason = reason.as_str();
                        "payloads cannot be stored; the records carry them until they can");
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
    /// Ends the thread once it has written what was handed over before; what became of all payloads. Blocks the
    /// caller for as long as the disk takes for at most what the queue holds.
    #[must_use]
    pub fn finish(self) -> Counts {
        // Sessions that still hand over find the queue closed, and their records carry their payloads.
        let _ = self.store.sender.send(None);
        let _ = self.thread.join();
        self.store.counts()
    }
}

/// The files of the directory, the oldest first.
#[derive(Debug)]
struct Files {
    directory: PathBuf,
    max_bytes: u64,
    bytes: u64,
    order: VecDeque<(Hash, u64)>,
    sizes: HashMap<Hash, u64>,
    evicted: u64,
    gone: Vec<Hash>,
}

impl Files {
    fn open(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
        let mut found: Vec<(SystemTime, Hash, u64)> = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if let Some(stem) = name.strip_suffix(TEMPORARY) {
                // A kill left it behind.
                if hash_of_name(stem).is_some() {
                    fs::remove_file(entry.path())?;
                }
                continue;
            }
            let (Some(hash), Ok(metadata)) = (hash_of_name(&name), entry.metadata()) else { continue };
            if metadata.is_file() {
                found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), hash, metadata.len()));
            }
        }
        // Known at the start, and not when the first payload comes.
        let probe = directory.join(format!(".spip-{}", std::process::id()));
        OpenOptions::new().write(true).create_new(true).mode(0o640).open(&probe)?;
        fs::remove_file(&probe)?;
        found.sort_unstable();
        let order: VecDeque<_> = found.into_iter().map(|(_, hash, bytes)| (hash, bytes)).collect();
        let mut files = Self {
            directory: directory.to_owned(),
            max_bytes,
            bytes: order.iter().map(|(_, bytes)| bytes).sum(),
            sizes: order.iter().copied().collect(),
            order,
            evicted: 0,
            gone: Vec::new(),
        };
        files.make_room(0)?;
        files.gone.clear();
        Ok(files)
    }

    /// Whether a file was written; false where there was one.
    fn store(&mut self, hash: &Hash, payload: &[u8]) -> io::Result<bool> {
        if self.sizes.contains_key(hash) {
            return Ok(false);
        }
        let bytes = payload.len() as u64;
        if bytes > self.max_bytes {
            return Err(io::Error::other("larger than payload_store_max_bytes"));
        }
        self.make_room(bytes)?;
        let name = hex::encode(hash);
        let temporary = self.directory.join(format!("{name}{TEMPORARY}"));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(&temporary)
            .and_then(|mut file| file.write_all(payload))
            .and_then(|()| fs::rename(&temporary, self.directory.join(&name)));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.bytes += bytes;
        self.sizes.insert(*hash, bytes);
        self.order.push_back((*hash, bytes));
        Ok(true)
    }

    /// Removes the oldest files until `more` bytes fit.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        while self.bytes + more > self.max_bytes {
            let Some((hash, bytes)) = self.order.front().copied() else { break };
            match fs::remove_file(self.directory.join(hex::encode(hash))) {
                Ok(()) => self.evicted += 1,
                // The operator took it away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.order.pop_front();
            self.sizes.remove(&hash);
            self.bytes -= bytes;
            self.gone.push(hash);
        }
        Ok(())
    }
}

/// Ends the name of a file that is being written.
const TEMPORARY: &str = ".part";

fn hash_of_name(name: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    let is_lower = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_lower && hex::decode_to_slice(name, &mut hash).is_ok()).then_some(hash)
}

#[cfg(test)]
mod tests;
