//! Signals, taken by one thread of their own: SIGTERM and SIGINT stop the agent in order, the second one at once;
//! SIGHUP has it take up what changed on disk.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

use crate::process::critical;

/// Exit status of a stop that was not waited for: 128 and the number of SIGINT, as shells have it.
const STOPPED_AT_ONCE: i32 = 130;

/// The signals that the agent takes, blocked in every thread.
pub struct Signals(SigSet);

impl Signals {
    /// Blocks the signals. To be called before any other thread exists: threads inherit the mask.
    ///
    /// # Errors
    /// The kernel refuses, which it has no reason to.
    pub fn block() -> Result<Self, Errno> {
        let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        set.thread_block()?;
        Ok(Self(set))
    }

    /// Takes signals in a thread: `stop` is called for the first stop signal, `reload` for each SIGHUP.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn spawn(
        self,
        stop: impl Fn(Signal) + Send + 'static,
        mut reload: impl FnMut() + Send + 'static,
    ) -> io::Result<()> {
        critical::spawn_endless("signals", move || {
            let mut stopping = false;
            loop {
                match self.0.wait() {
                    Ok(Signal::SIGHUP) => reload(),
                    Ok(_) if stopping => std::process::exit(STOPPED_AT_ONCE),
                    Ok(signal) => {
                        stopping = true;
                        stop(signal);
                    }
                    Err(error) => return error.into(),
                }
            }
        })
    }
}
