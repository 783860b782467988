//! The inputs that every run begins with: bytes of real clients, and whatever was found to be hard.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Target;

/// The committed corpus; directories of inputs, one file for each.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The directories of one target, its own first. Targets that read any stream have those of all others.
///
/// # Errors
/// When the corpus cannot be read.
pub fn homes(target: &Target) -> io::Result<Vec<PathBuf>> {
    if target.seeds.is_empty() {
        entries(&directory())
    } else {
        Ok(target.seeds.iter().map(|name| home(name)).collect())
    }
}

fn home(name: &str) -> PathBuf {
    directory().join(name)
}

/// Returns the directory of inputs that were found: every later run of the target begins with them.
#[must_use]
pub fn found(target: &Target) -> PathBuf {
    home(target.seeds.first().map_or("found", AsRef::as_ref))
}

/// The inputs of one target, in the order of their names, so that runs repeat.
///
/// # Errors
/// When the corpus cannot be read.
pub fn of(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let inputs: io::Result<Vec<_>> = homes(target)?.iter().map(|directory| read(directory)).collect();
    Ok(inputs?.concat())
}

fn read(directory: &Path) -> io::Result<Vec<Vec<u8>>> {
    entries(directory)?.iter().map(fs::read).collect()
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let paths: io::Result<Vec<_>> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths?;
    paths.sort();
    Ok(paths)
}
