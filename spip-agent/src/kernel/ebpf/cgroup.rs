//! Finds the cgroup v2 directory that `sock_ops` is attached to: everything below it is seen.
//!
//! The root of the hierarchy is the right one unless the operator says otherwise. Where it is mounted is not the same
//! everywhere (version 1 may be beside it), so the kernel's own list of mounts is asked.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs, statfs};

use crate::process::walk::Place;

/// The mounts that this process sees (proc_pid_mountinfo(5)).
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Reasons why there is no cgroup v2 directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The mounts cannot be listed.
    #[error("cannot read {MOUNTINFO}: set cgroup_path")]
    Mounts(#[source] io::Error),
    /// Version 2 is mounted nowhere.
    #[error("cgroup v2 is mounted nowhere: mount -t cgroup2 none DIRECTORY, or set cgroup_path")]
    NotMounted,
    /// The configured path is something else.
    #[error("cgroup_path {0} is not on a cgroup v2 file system: leave it out to have it found")]
    NotCgroup2(PathBuf),
    /// The configured path cannot be looked at.
    #[error("cannot look at cgroup_path {0}")]
    Unreadable(PathBuf, #[source] nix::Error),
    /// The directory cannot be opened.
    #[error("cannot open cgroup {0}")]
    Unopened(PathBuf, #[source] io::Error),
}

/// The configured directory, if it is one of cgroup v2, or the one where cgroup v2 is mounted.
pub(super) fn find(configured: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = configured {
        let kind = statfs(path).map_err(|error| Error::Unreadable(path.to_path_buf(), error))?;
        if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(Error::NotCgroup2(path.to_path_buf()));
        }
        return Ok(path.to_path_buf());
    }
    let mounts = fs::read(MOUNTINFO).map_err(Error::Mounts)?;
    mounted(&mounts).ok_or(Error::NotMounted)
}

/// Opens the directory that was found, through no link of another user's.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    let cgroup = Place::directory(path).map_err(|error| Error::Unopened(path.to_path_buf(), error))?;
    let kind = fstatfs(&cgroup).map_err(|error| Error::Unreadable(path.to_path_buf(), error))?;
    if kind.filesystem_type() != CGROUP2_SUPER_MAGIC {
        return Err(Error::NotCgroup2(path.to_path_buf()));
    }
    Ok(cgroup)
}

/// The mount point of cgroup v2, preferably of the hierarchy's root rather than of a part of it.
fn mounted(mountinfo: &[u8]) -> Option<PathBuf> {
    let mut part = None;
    for line in mountinfo.split(|&byte| byte == b'\n') {
        // ID PARENT DEVICE ROOT MOUNT-POINT OPTIONS [OPTIONAL…] - TYPE SOURCE OPTIONS
        let mut fields = line.split(|&byte| byte == b' ');
        let Some((root, point)) = fields.nth(3).zip(fields.next()) else {
            continue;
        };
        if fields.find(|field| field == b"-").and_then(|_| fields.next()) != Some(b"cgroup2") {
            continue;
        }
        let point = PathBuf::from(OsString::from_vec(unescaped(point)));
        if root == b"/" {
            return Some(point);
        }
        part = part.or(Some(point));
    }
    part
}

/// A path of mountinfo, in which blanks and backslashes are three octal digits behind a backslash.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (byte, after) {
            path.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            path.push(byte);
            rest = after;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"\
25 1 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:24 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
33 25 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw
";

    #[test]
    fn version_2_is_found_beside_version_1() {
        assert_eq!(mounted(HYBRID), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn the_root_of_the_hierarchy_is_preferred_to_a_part_of_it() {
        let mounts = b"30 1 0:9 /part /a rw - cgroup2 none rw\n31 1 0:9 / /b rw - cgroup2 none rw\n";
        assert_eq!(mounted(mounts), Some(PathBuf::from("/b")));
        let mounts = b"30 1 0:9 /part /a rw - cgroup2 none rw\n";
        assert_eq!(mounted(mounts), Some(PathBuf::from("/a")));
    }

    #[test]
    fn a_path_with_blanks_is_written_as_it_is() {
        let mounts = b"30 1 0:9 / /my\\040groups\\134x rw - cgroup2 none rw\n";
        assert_eq!(mounted(mounts), Some(PathBuf::from("/my groups\\x")));
    }

    #[test]
    fn a_mount_point_that_is_named_like_the_type_is_not_taken_for_it() {
        let mounts = b"30 1 0:9 / /cgroup2 rw - tmpfs cgroup2 rw\n\n- cgroup2\n";
        assert_eq!(mounted(mounts), None);
    }

    #[test]
    fn a_configured_directory_of_another_kind_is_refused_by_name() {
        let error = find(Some(Path::new("/proc"))).expect_err("proc is no cgroup");
        assert!(error.to_string().starts_with("cgroup_path /proc is not on a cgroup v2"));
    }
}
