//! Finds the operator's files and notices when they change.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Error;

/// Upper bound of files that are used of a directory.
const FILES: usize = 1000;

/// A file and its state: another state means other contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) path: PathBuf,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
}

impl Stamp {
    fn of(path: PathBuf) -> std::io::Result<Self> {
        let metadata = fs::metadata(&path)?;
        Ok(Self {
            path,
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        })
    }
}

/// The databases of a directory.
pub(super) fn geo(directory: &Path) -> Result<Vec<Stamp>, Error> {
    let stamps = list("geo", directory, |name| matches!(extension(name), Some("mmdb" | "csv")))?;
    wanted("geo", directory, "file *.mmdb or *.csv", stamps)
}

/// The lists of a directory: every file but hidden ones and documentation.
pub(super) fn scanners(directory: &Path) -> Result<Vec<Stamp>, Error> {
    let stamps =
        list("scanners", directory, |name| !matches!(extension(name), Some("md" | "mmdb" | "json" | "tmp" | "part")))?;
    wanted("scanners", directory, "list", stamps)
}

/// The rules of directories and files.
pub(super) fn rules(paths: &[PathBuf]) -> Result<Vec<Stamp>, Error> {
    let mut stamps = Vec::new();
    for path in paths {
        let error = |cause| Error::List { option: "rules", path: path.clone(), cause };
        if fs::metadata(path).map_err(error)?.is_dir() {
            let found = list("rules", path, |name| extension(name) == Some("rules"))?;
            stamps.extend(wanted("rules", path, "file *.rules", found)?);
        } else {
            stamps.push(Stamp::of(path.clone()).map_err(error)?);
        }
    }
    Ok(stamps)
}

fn extension(name: &OsStr) -> Option<&str> {
    Path::new(name).extension()?.to_str()
}

fn wanted(option: &'static str, path: &Path, wanted: &'static str, stamps: Vec<Stamp>) -> Result<Vec<Stamp>, Error> {
    if stamps.is_empty() { Err(Error::Empty { option, path: path.to_owned(), wanted }) } else { Ok(stamps) }
}

/// Lists the regular files of a directory that are wanted, sorted by name.
fn list(option: &'static str, directory: &Path, is_wanted: impl Fn(&OsStr) -> bool) -> Result<Vec<Stamp>, Error> {
    let error = |cause| Error::List { option, path: directory.to_owned(), cause };
    let mut stamps = Vec::new();
    for entry in fs::read_dir(directory).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().first() == Some(&b'.');
        if hidden || !is_wanted(&name) || stamps.len() == FILES {
            continue;
        }
        // A file may be gone by now: then it is not there.
        let path = entry.path();
        if path.is_file()
            && let Ok(stamp) = Stamp::of(path)
        {
            stamps.push(stamp);
        }
    }
    stamps.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(stamps)
}
