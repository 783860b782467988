//! Files that this process can still reach, once the sandbox is in force. The configuration and the log ask here, so
//! that their errors name the reason: owner and mode of the file do not matter then.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Remedy for a file that the sandbox keeps from the process.
pub const OUTSIDE: &str = "it is outside of what the sandbox opened at the start: restart the agent for it";

/// Paths that stayed open, once Landlock is in force.
static IN_FORCE: OnceLock<Reach> = OnceLock::new();

/// Files and directories that stay open, with device and inode of each: what has taken the name of one since is not open.
#[derive(Debug)]
pub struct Reach {
    written: Vec<(PathBuf, Option<(u64, u64)>)>,
    read: Vec<(PathBuf, Option<(u64, u64)>)>,
}

impl Reach {
    /// Notes what is open now, before Landlock is in force.
    #[must_use]
    pub fn new(read: &BTreeSet<PathBuf>, written: &BTreeSet<PathBuf>) -> Self {
        let with_inodes = |paths: &BTreeSet<PathBuf>| paths.iter().map(|path| (path.clone(), inode(path))).collect();
        Self { written: with_inodes(written), read: with_inodes(read) }
    }
}

/// Notes that Landlock is in force and what it left open. The first call counts: Landlock cannot be loosened.
pub fn confine(reach: Reach) {
    let _ = IN_FORCE.set(reach);
}

/// Reports whether Landlock keeps the process from reading this file.
#[must_use]
pub fn cannot_read(path: &Path) -> bool {
    IN_FORCE.get().is_some_and(|open| !is_below(path, open.written.iter().chain(&open.read)))
}

/// Reports whether Landlock keeps the process from writing this file, there or not.
#[must_use]
pub fn cannot_write(path: &Path) -> bool {
    IN_FORCE.get().is_some_and(|open| !is_below(path, &open.written))
}

/// Reports whether a path, or as much of it as is there, leads to or below one of these.
fn is_below<'a>(path: &Path, opened: impl IntoIterator<Item = &'a (PathBuf, Option<(u64, u64)>)>) -> bool {
    let there = path.ancestors().find_map(|path| path.canonicalize().ok());
    there
        .is_some_and(|there| opened.into_iter().any(|(open, before)| there.starts_with(open) && inode(open) == *before))
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|found| (found.dev(), found.ino()))
}
