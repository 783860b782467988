//! Ctrl-C and its kin: noted, so that what was made is taken down by the ordinary way out.
//!
//! The handler only sets a flag. Every wait of the commands that make namespaces looks at it, returns an
//! error, and the drops on the way do the rest; the same as for any other failure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Interval at which a wait looks at the flag.
pub(crate) const TICK: Duration = Duration::from_millis(50);

static CAUGHT: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: i32) {
    CAUGHT.store(true, Ordering::Relaxed);
}

/// From here on SIGINT, SIGTERM and SIGHUP are noted instead of ending the process.
pub(crate) fn catch() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores into an atomic, which is safe in a signal handler.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot catch {}", signal.as_str()))?;
    }
    Ok(())
}

/// An error when a signal was noted.
pub(crate) fn check() -> Result<()> {
    if CAUGHT.load(Ordering::Relaxed) {
        bail!("interrupted; everything that was made is gone");
    }
    Ok(())
}
