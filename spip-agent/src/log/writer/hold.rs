//! Which closed files a reader of the log still needs, by the markers beside the log (`spip_record::log::Hold`).
//!
//! The directory of markers belongs to another user, so what is in it decides nothing but that: it is read within bounds,
//! links are not followed, and whatever is odd counts as a reader that needs everything. What that can cost is bounded by
//! `log_keep_bytes` and by the free room that `log_min_free_bytes` asks for.

use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use spip_record::log::{Hold, MAX_MARKER_BYTES, hold_directory};

/// Markers that are looked at. A log has one or two readers.
const MAX_MARKERS: usize = 64;

/// Ending of a marker that is being written.
const ASIDE: &str = ".new";

/// The readers of a log, as far as their markers say.
#[derive(Debug, Default)]
pub(super) struct Readers(Vec<Hold>);

impl Readers {
    /// Looks at the markers of `log`. Without a directory of markers there are none.
    pub(super) fn of(log: &Path) -> Self {
        let Ok(entries) = fs::read_dir(hold_directory(log)) else { return Self::default() };
        let paths = entries.flatten().map(|entry| entry.path());
        let markers = paths.filter(|path| !path.as_os_str().as_encoded_bytes().ends_with(ASIDE.as_bytes()));
        Self(markers.take(MAX_MARKERS).map(|path| Hold::parse(&read(&path))).collect())
    }

    /// Reports whether one of them needs the closed file with `time` in its name.
    pub(super) fn need(&self, time: &str) -> bool {
        self.0.iter().any(|hold| hold.needs(time))
    }
}

/// Files that were removed although a reader needed them.
#[derive(Default)]
pub(super) struct Lost {
    first: Option<String>,
    files: u64,
}

impl Lost {
    pub(super) fn add(&mut self, time: String) {
        self.first.get_or_insert(time);
        self.files += 1;
    }

    pub(super) fn report(self, path: &Path) {
        if let Some(first) = self.first {
            log::warn!(
                target: "log",
                path = path.display().to_string().as_str(), files = self.files, first = first.as_str();
                "closed log files were removed that a reader still needed: the room for the log is used up; raise \
                 log_keep_bytes or free some room, and see whether spip-ship delivers"
            );
        }
    }
}

/// Reads the first line of a marker; nothing of what is no file.
fn read(path: &Path) -> Vec<u8> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits();
    let mut marker = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        // An error leaves less of it, which then needs everything.
        let _ = file.take(MAX_MARKER_BYTES as u64).read_to_end(&mut marker);
    }
    let end = memchr::memchr(b'\n', &marker).unwrap_or(marker.len());
    marker.truncate(end);
    marker
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "20260101T000000.000001Z";
    const NEW: &str = "20260102T000000.000001Z";

    #[test]
    fn the_reader_that_is_farthest_behind_decides_and_odd_markers_need_everything() {
        let place = std::env::temp_dir().join(format!("spip-log-hold-{}", std::process::id()));
        let log = place.join("log");
        assert!(!Readers::of(&log).need(OLD), "no directory");
        let directory = hold_directory(&log);
        fs::create_dir_all(&directory).expect("a directory");
        assert!(!Readers::of(&log).need(OLD), "no marker");
        let marker = |name: &str, text: &str| fs::write(directory.join(name), text).expect("a marker");
        marker("one", &format!("read through {NEW}\nstate_dir /x\n"));
        marker("one.new", "half");
        assert!(!Readers::of(&log).need(OLD) && !Readers::of(&log).need(NEW));
        marker("two", &format!("read through {OLD}\n"));
        assert!(!Readers::of(&log).need(OLD) && Readers::of(&log).need(NEW));
        let odd = directory.join("odd");
        std::os::unix::fs::symlink(directory.join("one"), &odd).expect("a link");
        assert!(Readers::of(&log).need(OLD), "a link is not followed");
        fs::remove_file(&odd).expect("the link");
        nix::unistd::mkfifo(&odd, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(Readers::of(&log).need(OLD), "a pipe is not waited for");
        fs::remove_dir_all(&place).expect("ours");
    }
}
