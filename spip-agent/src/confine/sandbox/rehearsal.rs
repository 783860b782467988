//! Takes all steps in a child that ends at once: whether an agent could enter its sandbox is known before anything is
//! done that its failure could not take back.

use std::fs::File;
use std::io::{Read as _, Write as _};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe};

use super::{Error, Needs, enter};

/// As [`enter`], without an effect on this process. Files of the agent are given to its user all the same.
///
/// # Errors
/// As [`enter`]; where no child can be had, nothing is known and nothing is refused.
pub fn rehearse(needs: &Needs<'_>) -> Result<(), Error> {
    let Ok((read, write)) = pipe() else { return Ok(()) };
    // SAFETY: the process has one thread at this point of its start, so that no lock is held that the child would wait
    // for, and the child leaves by `_exit`.
    match unsafe { fork() } {
        Err(_) => Ok(()),
        Ok(ForkResult::Child) => {
            let result = enter(needs);
            let code = i32::from(result.is_err());
            if let Err(error) = result {
                // Without words the status still tells.
                let _ = File::from(write).write_all(error.to_string().as_bytes());
            }
            // SAFETY: ends this process without running what others have registered for its end.
            unsafe { libc::_exit(code) }
        }
        Ok(ForkResult::Parent { child }) => {
            drop(write);
            let mut words = String::new();
            let _ = File::from(read).read_to_string(&mut words);
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) | Err(_) => Ok(()),
                Ok(_) if words.is_empty() => Err(Error::Rehearsal("the sandbox cannot be entered".to_owned())),
                Ok(_) => Err(Error::Rehearsal(words)),
            }
        }
    }
}
