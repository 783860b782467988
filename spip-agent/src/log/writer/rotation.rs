//! Closed log files: their names, how they are compressed, and which ones go.
//!
//! A closed file is called `<log_file>.<time>`, the time of its closing in UTC to the microsecond, so that names sort by
//! time: `spip.json.20250131T235959.000001Z`, and `….zst` once it is compressed. Only names of exactly this form are
//! ever touched; a name that exists is never taken again.
//!
//! Compressing and removing happen in a thread of their own with the lowest priority, one file at a time: the writer
//! never waits for it. A file is compressed into `….zst.part`, forced to the disk, renamed, and only then is the
//! original removed; what a kill leaves behind is cleaned up at the next start. Rotation wants one owner: agents that
//! share a file notice when one of them has rotated it, but only one of them should be configured to.
//!
//! A file that a reader of the log still needs (`hold`) stays beyond `log_keep_files`, as long as `log_keep_bytes` and the
//! free room of the disk allow. What is removed nevertheless is counted and named.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use jiff::{Timestamp, ToSpan};
use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;

use super::hold::{Lost, Readers};
use super::queue::Counters;
use super::sink::Target;
use crate::config;
use crate::process::critical;
use crate::process::walk::Place;

/// Zstandard's own default: about a tenth of the size for JSON of this kind, at hundreds of megabytes a second.
const LEVEL: i32 = 3;

/// Bytes that are read at once, and between two looks at whether to stop.
const CHUNK_BYTES: usize = 128 * 1024;

/// Ending of a compressed file.
const COMPRESSED: &str = ".zst";

/// Ending of a compressed file that is not finished.
const PARTIAL: &str = ".zst.part";

/// A name for the file that is closed now, and the time in it: later than `last`, also when the clock went back, and
/// not in use.
pub(super) fn closed_name(path: &Path, now: Timestamp, last: Option<Timestamp>) -> (PathBuf, Timestamp) {
    let mut time = now;
    if let Some(last) = last
        && as_text(time) <= as_text(last)
    {
        time = later(last);
    }
    loop {
        let name = with_ending(path, &format!(".{}", as_text(time)));
        if is_free(&name) && is_free(&with_ending(&name, COMPRESSED)) {
            return (name, time);
        }
        time = later(time);
    }
}

fn as_text(time: Timestamp) -> String {
    time.strftime("%Y%m%dT%H%M%S.%6fZ").to_string()
}

fn later(time: Timestamp) -> Timestamp {
    time.checked_add(1.microsecond()).unwrap_or(Timestamp::MIN)
}

fn is_free(path: &Path) -> bool {
    // Where even looking is refused, renaming will be too, and that says why.
    fs::symlink_metadata(path).is_err()
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Reports whether `text` is a time as [`closed_name`] writes it: `20250131T235959.000001Z`.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"00000000T000000.000000Z";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, &form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == form,
        })
}

/// The closed files of one log.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    /// Set when the agent rotates; otherwise closed files belong to another program.
    rotates: bool,
    keep_files: usize,
    keep_bytes: u64,
    compress: bool,
    /// Size at which a file is closed: so much comes at a time.
    rotate_bytes: u64,
    /// `log_min_free_bytes`
    min_free_bytes: Option<u64>,
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
}

/// A closed file: plain, compressed, or both, when the process ended between the two.
#[derive(Debug, Default)]
struct Closed {
    /// The time in its name.
    time: String,
    plain: Option<PathBuf>,
    compressed: Option<PathBuf>,
    bytes: u64,
}

/// Tells the thread of the closed files to end. A file that is being compressed stays as it was.
#[derive(Debug)]
pub(super) struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    pub(super) fn now(&self) {
        self.0.store(true, Relaxed);
    }
}

/// Tells the thread of the closed files that there is a further one.
#[derive(Debug)]
pub(super) struct ClosedFiles {
    next: SyncSender<()>,
    changed: Arc<Mutex<Option<Archive>>>,
}

impl ClosedFiles {
    pub(super) fn one_more(&self) {
        // Full: it has been told already and will see this one too.
        let _ = self.next.try_send(());
    }

    /// From now on, closed files are those of `archive`.
    pub(super) fn change(&self, archive: Archive) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(archive);
        self.one_more();
    }
}

impl Archive {
    /// `None` for standard output.
    pub(super) fn new(config: &config::Log, target: &Target, counters: Arc<Counters>) -> Option<Self> {
        let Target::Path(path) = target else {
            return None;
        };
        let rotates = config.rotate_bytes > 0 || config.rotate_age.is_some();
        Some(Archive {
            path: path.clone(),
            rotates,
            keep_files: config.keep_files,
            keep_bytes: config.keep_bytes,
            compress: config.compress == config::Compress::Zstd,
            rotate_bytes: config.rotate_bytes,
            min_free_bytes: config.min_free_bytes,
            counters,
            stop: Arc::default(),
        })
    }

    /// Starts the thread. It ends when its [`ClosedFiles`] are dropped, or by [`Cancellation`].
    pub(super) fn spawn(mut self, stack_bytes: usize) -> io::Result<(ClosedFiles, Cancellation)> {
        let (sender, next) = mpsc::sync_channel(1);
        let stop = Cancellation(Arc::clone(&self.stop));
        let changed = Arc::new(Mutex::new(None::<Archive>));
        let closed_files = ClosedFiles { next: sender, changed: Arc::clone(&changed) };
        critical::spawn_with(thread::Builder::new().stack_size(stack_bytes), "spip-log-files", move || {
            yield_to_everyone();
            self.tidy(true);
            while next.recv().is_ok() && !self.stopped() {
                let changed = changed.lock().unwrap_or_else(PoisonError::into_inner).take();
                match changed {
                    Some(archive) => {
                        self = Archive { stop: self.stop, ..archive };
                        self.tidy(true);
                    }
                    None => self.tidy(false),
                }
            }
        })?;
        Ok((closed_files, stop))
    }

    /// Brings the closed files into the state that is configured. Errors are named and left for the next time.
    pub(super) fn tidy(&self, at_start: bool) {
        if !self.rotates {
            return;
        }
        let result = self
            .remove_partial(at_start)
            .and_then(|()| self.prune())
            .and_then(|()| self.compress_all())
            .and_then(|()| self.prune());
        if let Err(error) = result
            && !self.stopped()
        {
            log::warn!(
                target: "log",
                path = self.path.display().to_string().as_str(),
                error = error.to_string().as_str();
                "closed log files cannot be compressed or removed; check the rights and the room of their directory"
            );
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// All closed files, oldest first.
    fn closed(&self) -> io::Result<Vec<Closed>> {
        let mut found: BTreeMap<String, Closed> = BTreeMap::new();
        for (path, ending) in self.neighbours()? {
            let (time, compressed) = match ending.strip_suffix(COMPRESSED) {
                Some(time) => (time, true),
                None => (ending.as_str(), false),
            };
            if !is_time(time) {
                continue;
            }
            // Gone in between, or not a file: not ours.
            let Some(bytes) =
                fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
            else {
                continue;
            };
            let closed = found.entry(time.to_owned()).or_default();
            time.clone_into(&mut closed.time);
            closed.bytes += bytes;
            if compressed {
                closed.compressed = Some(path);
            } else {
                closed.plain = Some(path);
            }
        }
        Ok(found.into_values().collect())
    }

    /// Files beside the log whose names begin with its name and a dot, with what follows.
    fn neighbours(&self) -> io::Result<Vec<(PathBuf, String)>> {
        let Some((directory, name)) = self.path.parent().zip(self.path.file_name()) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for neighbour in Place::named(&self.path)?.names()? {
            let ending = neighbour
                .as_encoded_bytes()
                .strip_prefix(name.as_encoded_bytes())
                .and_then(|rest| rest.strip_prefix(b"."))
                .and_then(|rest| std::str::from_utf8(rest).ok())
                .map(str::to_owned);
            if let Some(ending) = ending {
                found.push((directory.join(&neighbour), ending));
            }
        }
        Ok(found)
    }

    /// Removes what an earlier process has begun to compress. Later in life nothing is left over but by an error.
    fn remove_partial(&self, at_start: bool) -> io::Result<()> {
        if !at_start {
            return Ok(());
        }
        for (path, ending) in self.neighbours()? {
            if ending.strip_suffix(PARTIAL).is_some_and(is_time) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the oldest closed files until count and size are kept. The newest one stays in any case: a bound that is
    /// smaller than one file would otherwise throw everything away.
    fn prune(&self) -> io::Result<()> {
        let closed = self.closed()?;
        let readers = Readers::of(&self.path);
        let mut bytes: u64 = closed.iter().map(|closed| closed.bytes).sum();
        let mut files = closed.len();
        let mut lost = Lost::default();
        for closed in closed {
            let too_many = self.keep_files > 0 && files > self.keep_files;
            let too_large = self.keep_bytes > 0 && bytes > self.keep_bytes && files > 1;
            let is_needed = readers.need(&closed.time);
            let is_held = is_needed && too_many && !too_large && self.has_room();
            if is_held || !too_many && !too_large {
                break;
            }
            for path in [closed.plain, closed.compressed].into_iter().flatten() {
                remove(&path)?;
            }
            bytes -= closed.bytes;
            files -= 1;
            if is_needed {
                lost.add(closed.time);
                self.counters.unread_removed.fetch_add(1, Relaxed);
            }
        }
        let beyond = if self.keep_files > 0 { files.saturating_sub(self.keep_files) } else { 0 };
        self.note_held(beyond as u64);
        lost.report(&self.path);
        Ok(())
    }

    /// Reports whether the disk has room for another file above what is to stay free.
    fn has_room(&self) -> bool {
        let Some(found) = self.path.parent().and_then(|directory| statvfs(directory).ok()) else { return true };
        let unit = found.fragment_size();
        let [free, size] = [found.blocks_available(), found.blocks()].map(|blocks| unit.saturating_mul(blocks));
        free >= config::least_free(self.min_free_bytes, size).saturating_add(self.rotate_bytes)
    }

    /// Keeps how many files are held, and reports when that begins and ends.
    fn note_held(&self, files: u64) {
        let before = self.counters.held_files.swap(files, Relaxed);
        let path = self.path.display().to_string();
        if before == 0 && files > 0 {
            log::warn!(
                target: "log",
                path = path.as_str(), held_files = files;
                "closed log files are kept beyond log_keep_files, because a reader still needs them: see whether spip-ship \
                 delivers, or remove its marker from {path}.hold"
            );
        } else if before > 0 && files == 0 {
            log::info!(target: "log", path = path.as_str(); "no closed log file is kept beyond log_keep_files any more");
        }
    }

    fn compress_all(&self) -> io::Result<()> {
        if !self.compress {
            return Ok(());
        }
        for plain in self.closed()?.into_iter().filter_map(|closed| closed.plain) {
            let partial = with_ending(&plain, PARTIAL);
            let result = self.compress_one(&plain, &partial);
            if result.is_err() {
                // Nothing can be done about a part that cannot be removed; the next start tries again.
                let _ = remove(&partial);
            }
            result?;
        }
        Ok(())
    }

    fn compress_one(&self, plain: &Path, partial: &Path) -> io::Result<()> {
        let (place, name) = (Place::named(plain)?, |path: &Path| path.file_name().unwrap_or_default().to_owned());
        let mut from = place.open(OFlag::O_RDONLY, 0)?;
        let to = place.open_beside(&name(partial), OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, 0o640)?;
        let mut encoder = zstd::Encoder::new(to, LEVEL)?;
        encoder.include_checksum(true)?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut copied = 0;
        loop {
            if self.stopped() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match from.read(&mut buffer)? {
                0 => break,
                count => {
                    encoder.write_all(&buffer[..count])?;
                    copied += count as u64;
                }
            }
        }
        let to = encoder.finish()?;
        to.sync_all()?;
        put_in_place(&place, &from, copied, plain, partial)
    }
}

/// Puts a compressed file, of the `copied` bytes that `from` had, in the place of the plain one.
///
/// Another agent that shares the log may have written to it until it noticed: nothing of that is thrown away.
pub(super) fn put_in_place(
    place: &Place,
    from: &fs::File,
    copied: u64,
    plain: &Path,
    partial: &Path,
) -> io::Result<()> {
    if from.metadata()?.len() != copied {
        return Err(io::Error::other("a closed log file still changes"));
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
    place.rename(&name(partial), &name(&with_ending(plain, COMPRESSED)))?;
    place.remove(&name(plain))
}

/// Removes a file from the directory of the log.
fn remove(path: &Path) -> io::Result<()> {
    Place::named(path)?.remove(path.file_name().unwrap_or_default())
}

/// Gives this thread the lowest priority.
fn yield_to_everyone() {
    // SAFETY: setpriority takes three numbers and touches no memory. 0 means the calling thread on Linux. A refusal is
    // harmless: the thread then runs as any other.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn names_sort_by_time_also_when_the_clock_goes_back() {
        let path = Path::new("/nowhere/at/all/spip.json");
        let now = time("2025-01-31T23:59:59.000001Z");
        let (first, last) = closed_name(path, now, None);
        // The directory is not there: no name in it is in use.
        assert_eq!(first, Path::new("/nowhere/at/all/spip.json.20250131T235959.000001Z"));
        let (second, _) = closed_name(path, time("2024-01-01T00:00:00Z"), Some(last));
        assert_eq!(second, Path::new("/nowhere/at/all/spip.json.20250131T235959.000002Z"));
        assert!(first < second);
        // The same microsecond, though the file under its name is gone.
        assert_eq!(closed_name(path, now, Some(last)).0, second);
    }

    #[test]
    fn only_our_own_times_are_recognised() {
        assert!(is_time("20250131T235959.000001Z"));
        for other in
            ["", "1", "20250131", "20250131T235959.000001", "20250131T235959.000001ZZ", "2025013xT235959.000001Z"]
        {
            assert!(!is_time(other), "{other}");
        }
    }
}
