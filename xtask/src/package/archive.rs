//! The archive for machines without dpkg: the same files, to be unpacked at `/` or looked at, the same to the byte each
//! time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::Release;
use crate::architecture::Architecture;
use crate::process;

/// Builds `PROGRAM-VERSION-ARCHITECTURE.tar.gz` in `folder`.
pub(super) fn build(
    release: &Release,
    architecture: Architecture,
    program: &str,
    root: &Path,
    folder: &Path,
) -> Result<PathBuf> {
    let name = format!("{program}-{}-{}", release.version, architecture.name());
    let archive = folder.join(format!("{name}.tar"));
    process::output(
        Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"])
            .arg(format!("--mtime=@{}", release.time))
            .arg(format!("--transform=s,^\\.,{name},"))
            .arg("--create")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(root)
            .arg("."),
    )?;
    process::output(Command::new("gzip").args(["-9", "-n", "-f"]).arg(&archive))?;
    Ok(folder.join(format!("{name}.tar.gz")))
}

/// Every regular file below a folder, sorted.
pub(super) fn all_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(all_files(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Gives everything below a folder, and itself, one time of change.
pub(super) fn set_times(folder: &Path, seconds: u64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            set_times(&path, seconds)?;
        } else {
            fs::File::open(&path)?.set_modified(time)?;
        }
    }
    fs::File::open(folder)?.set_modified(time)?;
    Ok(())
}
