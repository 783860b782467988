//! Does something in a child that ends at once, so that it has no effect on this process: its user, its rights, its
//! system calls.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reasons why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No child can be had.
    #[error("no process can be started: {0}")]
    NoChild(#[from] io::Error),
    /// The child ended without a result.
    #[error("the process that tried it ended before")]
    Ended,
}

/// Returns the result of `work` in a child. The process has one thread: others would be missing in the child, with the
/// locks that they hold.
///
/// # Errors
/// There is no child, or it ended before its result.
pub fn in_child<T: Serialize + DeserializeOwned>(work: impl FnOnce() -> T) -> Result<T, Error> {
    let (read, write) = pipe().map_err(io::Error::from)?;
    // SAFETY: the process has one thread, so that no lock is held that the child would wait for, and the child leaves by
    // `_exit`.
    match unsafe { fork() }.map_err(io::Error::from)? {
        ForkResult::Child => {
            drop(read);
            let result = serde_json::to_vec(&work()).map_err(io::Error::from);
            let written = result.and_then(|result| File::from(write).write_all(&result));
            // SAFETY: ends this process without running what others have registered for its end.
            unsafe { libc::_exit(i32::from(written.is_err())) }
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut result = Vec::new();
            let read = File::from(read).read_to_end(&mut result);
            let _ = waitpid(child, None);
            read?;
            serde_json::from_slice(&result).map_err(|_| Error::Ended)
        }
    }
}
