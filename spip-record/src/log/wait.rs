//! Waits until something changes in the directory of a log.

use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// The longest wait: file systems of a network tell nothing of what others write.
const LONGEST: Duration = Duration::from_secs(1);

/// Between two looks where inotify is not to be had: too many watches, or no directory yet.
const POLL: Duration = Duration::from_millis(250);

/// Upper bound of reads of events at once; those that are left wake the reader again.
const DRAINS: usize = 64;

/// A watch on one directory, made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Changes(Option<Inotify>);

impl Changes {
    /// Begins to watch. A watch that is not needed is not made: to end one takes the kernel some ten milliseconds.
    fn begin(&mut self, directory: &Path) {
        let watched = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).and_then(|inotify| {
            let flags = AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVED_FROM
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_ONLYDIR;
            inotify.add_watch(directory, flags).map(|_| inotify)
        });
        self.0 = watched.ok();
    }

    /// Waits for a change since the last wait, for `timeout` at most.
    pub(super) fn wait(&mut self, directory: &Path, timeout: Duration) {
        let timeout = timeout.min(LONGEST);
        if self.0.is_none() {
            self.begin(directory);
            if self.0.is_some() {
                // Something may have happened before it was watched for.
                return;
            }
        }
        let Some(inotify) = &self.0 else {
            thread::sleep(timeout.min(POLL));
            return;
        };
        let milliseconds = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
        let mut descriptors = [PollFd::new(std::os::fd::AsFd::as_fd(inotify), PollFlags::POLLIN)];
        // A signal ends the wait early, as a change does.
        if !matches!(poll(&mut descriptors, PollTimeout::from(milliseconds)), Ok(1..)) {
            return;
        }
        for _ in 0..DRAINS {
            match inotify.read_events() {
                // The directory itself is gone, or events were lost: watched anew.
                Ok(events) => {
                    let ended = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_UNMOUNT;
                    if events.iter().any(|event| event.mask.intersects(ended)) {
                        self.0 = None;
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}
