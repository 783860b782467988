//! Tries, before the start, what the start would make: walks the same path by the same rules, and makes nothing that stays.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{self, FsType, fstatfs};
use nix::unistd::{AccessFlags, faccessat};

use super::{Missing, Place, Walk};

/// File systems of the kernel, whose directories take no files whatever their mode.
const OF_KERNEL: [FsType; 7] = [
    statfs::PROC_SUPER_MAGIC,
    statfs::SYSFS_MAGIC,
    statfs::CGROUP_SUPER_MAGIC,
    statfs::CGROUP2_SUPER_MAGIC,
    statfs::BPF_FS_MAGIC,
    statfs::DEBUGFS_MAGIC,
    statfs::TRACEFS_MAGIC,
];

/// Checks that [`Place::making_directories`] would reach the directory of `path`, and that a file could be made there. Where
/// directories are missing, the one in which the first of them would be made is tried.
///
/// # Errors
/// The walk is refused, or the directory takes no file.
pub(crate) fn try_making(path: &Path) -> io::Result<()> {
    Walk { missing: Missing::Reached, follows_last: false, ..Walk::new(path)? }.run()?.try_file()
}

impl Place {
    /// Checks that a file could be made in the directory, with one without a name, which is gone when it is closed.
    pub(crate) fn try_file(&self) -> io::Result<()> {
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        match openat(&self.directory, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(_) => Ok(()),
            // Not every file system has such files.
            Err(Errno::EOPNOTSUPP) => {
                if fstatfs(&self.directory).is_ok_and(|found| OF_KERNEL.contains(&found.filesystem_type())) {
                    let path = self.path.parent().unwrap_or(&self.path).display();
                    return Err(io::Error::other(format!(
                        "{path} is on a file system of the kernel, which takes no files"
                    )));
                }
                let flags = AccessFlags::W_OK | AccessFlags::X_OK;
                Ok(faccessat(&self.directory, ".", flags, AtFlags::AT_EACCESS)?)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_takes_files_also_when_it_has_to_be_made_and_nothing_is_left_in_it() {
        let directory = std::env::temp_dir().join(format!("spip-walk-trial-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        try_making(&directory.join("a/b/file")).expect("can be made");
        try_making(&directory.join("file")).expect("is there");
        assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 0);
        fs::write(directory.join("file"), "").expect("a file");
        let error = try_making(&directory.join("file/a/b")).expect_err("a file");
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
        fs::remove_dir_all(&directory).expect("ours");
        for path in ["/proc/spip/a", "/sys/spip"] {
            try_making(Path::new(path)).expect_err(path);
        }
    }

    #[test]
    fn a_directory_that_the_start_would_refuse_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "only root can give files away");
            return eprintln!("skipped: only root can give files away");
        }
        let directory = std::env::temp_dir().join(format!("spip-walk-trial-owner-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        std::os::unix::fs::chown(&directory, Some(65_533), Some(65_533)).expect("root");
        let error = try_making(&directory.join("a/file")).expect_err("another user's").to_string();
        fs::remove_dir_all(&directory).expect("ours");
        assert!(error.contains("belongs to the user 65533"), "{error}");
    }
}
