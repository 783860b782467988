//! The inputs that every run begins with: bytes of real clients, and whatever was found to be hard.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The committed corpus; one directory for each target, one file for each input.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The directory of one target, which not every target has.
#[must_use]
pub fn home(target: &str) -> PathBuf {
    // A handshake needs a hello to begin with.
    directory().join(if target == "tls_handshake" { "client_hello" } else { target })
}

/// The inputs of one target, in the order of their names, so that runs repeat. Targets that read any stream have none
/// of their own and get those of all others.
///
/// # Errors
/// When the corpus cannot be read.
pub fn of(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let own = home(target);
    if own.is_dir() {
        return read(&own);
    }
    let directories = entries(&directory())?;
    let inputs: io::Result<Vec<_>> = directories.iter().map(|directory| read(directory)).collect();
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
