//! The files of a log in its directory, and which of them is older.
//!
//! The names are those of the agent's rotation and of logrotate's. Anything else beside the log is not part of it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Error;
use super::source::Compression;

/// More closed files than any rotation keeps; the directory's owner must not fill the reader's memory.
const MOST_FILES: usize = 100_000;

/// Upper bound of listings until two in a row are the same.
const ATTEMPTS: usize = 8;

/// Digits from which on a number is a date and not a count: `spip.json.20250131`.
const DATE_DIGITS: usize = 8;

/// The age of a file, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// By logrotate, with a date: `spip.json-20250131`.
    Dated(String),
    /// By logrotate: `spip.json.2` is older than `spip.json.1`.
    Numbered(Reverse<u64>),
    /// By the agent, with the time of its closing: `spip.json.20250131T235959.000001Z`.
    Closed(String),
    /// The one that is written to.
    Current,
}

/// A file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) order: Order,
    pub(super) path: PathBuf,
    pub(super) compression: Compression,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Time of the last change, renames included: seconds and nanoseconds.
    pub(super) changed: (i64, i64),
}

impl Entry {
    pub(super) fn is(&self, device: u64, inode: u64) -> bool {
        self.device == device && self.inode == inode
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compression != Compression::None
    }
}

/// Lists the files of `log`, oldest first.
///
/// Reading a directory takes its time, and a file that is renamed meanwhile may be missed under both names. So it is
/// read until two lists are the same: then the second began after the first had seen all, and a file that it holds was
/// there.
pub(super) fn list(log: &Path) -> Result<Vec<Entry>, Error> {
    let failed = |cause| Error::List { path: parent(log).to_owned(), cause };
    let mut before = list_once(log).map_err(failed)?;
    for _ in 0..ATTEMPTS {
        let entries = list_once(log).map_err(failed)?;
        let same = |(one, other): (&Entry, &Entry)| one.path == other.path && other.is(one.device, one.inode);
        if entries.len() == before.len() && before.iter().zip(&entries).all(same) {
            return Ok(entries);
        }
        before = entries;
    }
    Err(failed(io::Error::other("it changes all the time")))
}

/// Returns the directory of a log.
pub(super) fn parent(log: &Path) -> &Path {
    match log.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// Finds a regular file beside the log by its inode, whatever the rest of its name.
pub(super) fn find(log: &Path, device: u64, inode: u64) -> io::Result<Option<Entry>> {
    use std::os::unix::fs::DirEntryExt as _;
    let name = log.file_name().unwrap_or_default().as_encoded_bytes();
    for entry in fs::read_dir(parent(log))? {
        let entry = entry?;
        if entry.ino() != inode || !entry.file_name().as_encoded_bytes().starts_with(name) {
            continue;
        }
        let path = entry.path();
        let (Ok(metadata), Ok(compression)) = (fs::symlink_metadata(&path), Compression::of(&path)) else { continue };
        if metadata.is_file() && metadata.dev() == device {
            return Ok(Some(Entry {
                order: Order::Current,
                path,
                compression,
                device,
                inode,
                size: metadata.len(),
                changed: changed(&metadata),
            }));
        }
    }
    Ok(None)
}

fn list_once(log: &Path) -> io::Result<Vec<Entry>> {
    let Some(name) = log.file_name() else {
        return Err(io::Error::other("the log has no name"));
    };
    let mut found: BTreeMap<Order, Entry> = BTreeMap::new();
    for entry in fs::read_dir(parent(log))? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(rest) = file_name.as_encoded_bytes().strip_prefix(name.as_encoded_bytes()) else { continue };
        let Some((order, compression)) = std::str::from_utf8(rest).ok().and_then(order) else { continue };
        let path = entry.path();
        // Gone meanwhile, or not a file: not ours.
        let Some(metadata) = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file) else { continue };
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.len());
        let changed = changed(&metadata);
        let entry = Entry { order: order.clone(), path, compression, device, inode, size, changed };
        // Plain and compressed, while it is being compressed: the plain one is whole.
        let better = found.get(&order).is_none_or(|other| compression < other.compression);
        if better {
            found.insert(order, entry);
        }
        if found.len() > MOST_FILES {
            return Err(io::Error::other(format!("more than {MOST_FILES} closed files of one log")));
        }
    }
    Ok(found.into_values().collect())
}

fn changed(metadata: &fs::Metadata) -> (i64, i64) {
    (metadata.ctime(), metadata.ctime_nsec())
}

/// Returns what the rest of a name behind that of the log says.
pub(super) fn order(rest: &str) -> Option<(Order, Compression)> {
    if rest.is_empty() {
        return Some((Order::Current, Compression::None));
    }
    let (stem, compression) = if let Some(stem) = rest.strip_suffix(".zst") {
        (stem, Compression::Zstd)
    } else if let Some(stem) = rest.strip_suffix(".gz") {
        (stem, Compression::Gzip)
    } else {
        (rest, Compression::None)
    };
    let order = if let Some(date) = stem.strip_prefix('-') {
        is_date(date).then(|| Order::Dated(date.to_owned()))
    } else {
        let stem = stem.strip_prefix('.')?;
        if is_time(stem) {
            Some(Order::Closed(stem.to_owned()))
        } else if stem.bytes().all(|byte| byte.is_ascii_digit()) && stem.len() < DATE_DIGITS {
            stem.parse().ok().map(|number| Order::Numbered(Reverse(number)))
        } else {
            is_date(stem).then(|| Order::Dated(stem.to_owned()))
        }
    };
    order.map(|order| (order, compression))
}

/// Returns the time in the name of a closed file of the agent's, if `name` is one of a log.
pub(super) fn time_in<'a>(log: &Path, name: &'a str) -> Option<&'a str> {
    let rest = name.strip_prefix(log.file_name()?.to_str()?)?.strip_prefix('.')?;
    let stem = rest.strip_suffix(".zst").or_else(|| rest.strip_suffix(".gz")).unwrap_or(rest);
    is_time(stem).then_some(stem)
}

/// Reports whether `text` is a date as logrotate writes it: digits, with hyphens or underscores in between.
fn is_date(text: &str) -> bool {
    text.len() >= DATE_DIGITS
        && text.len() <= 32
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'_')
}

/// Reports whether `text` is a time as the agent writes it: `20250131T235959.000001Z`.
pub(super) fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"00000000T000000.000000Z";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, &form)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == form,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_oldest_first() {
        let names = [
            "-20240101.gz",
            ".20240102",
            ".10.gz",
            ".2.zst",
            ".1",
            ".20250131T235959.000001Z.zst",
            ".20250131T235959.000002Z",
            "",
        ];
        let orders: Vec<Order> = names.iter().map(|name| order(name).expect(name).0).collect();
        assert!(orders.is_sorted(), "{orders:?}");
        // Up to seven digits are a number; eight are a date.
        assert_eq!(order(".2024010"), Some((Order::Numbered(Reverse(2_024_010)), Compression::None)));
        assert_eq!(order(".20240102"), Some((Order::Dated("20240102".to_owned()), Compression::None)));
    }

    #[test]
    fn a_file_that_is_being_compressed_is_listed_once_by_its_plain_name() {
        let directory = std::env::temp_dir().join(format!("spip-directory-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        let closed = [".20250131T235959.000001Z", ".20250131T235959.000002Z", ".1"];
        for name in closed.iter().flat_map(|name| ["", ".zst"].map(|ending| format!("log{name}{ending}"))) {
            fs::write(directory.join(name), "{}\n").expect("a file");
        }
        fs::write(directory.join("log"), "{}\n").expect("a file");
        let entries = list(&directory.join("log")).expect("a directory");
        let names: Vec<_> = entries.iter().map(|entry| entry.path.file_name().expect("a name").to_owned()).collect();
        assert_eq!(names, ["log.1", &format!("log{}", closed[0]), &format!("log{}", closed[1]), "log"]);
        fs::remove_dir_all(&directory).expect("the directory goes");
    }

    #[test]
    fn other_names_are_no_part_of_the_log() {
        for name in [".", ".zst", ".old", ".bak", "-", "-x", ".1.xz", ".20250131T235959.000001Z.zst.part", "2", ".1.2"]
        {
            assert_eq!(order(name), None, "{name}");
        }
    }
}
