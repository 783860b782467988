//! The signals that end the program.

use std::sync::Arc;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};
use tokio::sync::Notify;

/// Blocks the signals that end the program, in this thread and all that it starts.
pub(super) fn block() -> anyhow::Result<SigSet> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("cannot block signals")?;
    Ok(signals)
}

/// Notifies at the first signal, and ends the process at the second.
///
/// A thread waits, and not the runtime: tokio's feature for signals opens a socket pair in every program that is
/// compiled together with this one, and the sandbox of the agent refuses that.
pub(super) fn watch(signals: SigSet) -> anyhow::Result<Arc<Notify>> {
    let ended = Arc::new(Notify::new());
    let watch = {
        let ended = Arc::clone(&ended);
        move || {
            if signals.wait().is_ok() {
                ended.notify_one();
            }
            if signals.wait().is_ok() {
                std::process::exit(1);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).context("cannot start threads")?;
    Ok(ended)
}
