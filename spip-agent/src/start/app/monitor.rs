//! Monitors, beside the sessions: accepts that fail, workers that hang, a log that is not
//! written; what the service manager is told of it; and memory that is given back when a load is over.

use std::time::{Duration, Instant};

use crate::log::writer::{self, Log};
use crate::process::heartbeat::Heartbeat;
use crate::process::shutdown::Stopped;
use crate::process::stderr;
use crate::session::accept::{Faults, Intake};
use crate::start::readiness::Notifier;

/// Interval at which errors of accept are reported, if there were any.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Interval of checks that the log is written.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Interval of checks that a load is over.
const EBB_INTERVAL: Duration = Duration::from_secs(1);

/// So much less payload than there was is worth a walk through all of the heap.
const EBB_BYTES: usize = 16 << 20;

/// Time that the end of the process may take beyond the drain.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// Says once an interval how many accepts failed, if any did.
pub(super) async fn report_faults(intake: &Intake, mut stopped: Stopped) {
    let mut stopping = false;
    let mut before = Faults::default();
    while !stopping {
        stopping = tokio::time::timeout(REPORT_INTERVAL, stopped.asked()).await.is_ok();
        let faults = intake.faults();
        let (errors, shortages) = (faults.errors - before.errors, faults.shortages - before.shortages);
        before = faults;
        if errors > 0 || shortages > 0 {
            log::warn!(target: "accept", accept_errors = errors, shortages = shortages, open = intake.limits.open();
                "accepts failed; raise the descriptor limit (ulimit -n) if shortages go on");
        }
    }
}

/// Tells the watchdog of the service manager that the agent is alive, for as long as every worker is.
pub(super) async fn say_alive(notifier: &Notifier, heartbeat: &Heartbeat, mut stopped: Stopped) {
    let Some(watchdog) = notifier.watchdog() else { return };
    while tokio::time::timeout(watchdog / 4, stopped.asked()).await.is_err() {
        if heartbeat.oldest() < watchdog / 2 {
            notifier.alive();
        }
    }
}

/// Looks at the room on the disk of the log until the agent stops.
pub(super) async fn watch_disk(intake: &Intake, mut stopped: Stopped) {
    let ledger = intake.engine().ledger.clone();
    loop {
        ledger.look_at_disk();
        if tokio::time::timeout(LOG_INTERVAL, stopped.asked()).await.is_ok() {
            return;
        }
    }
}

/// Says when a write to the log hangs, which its writer cannot say, and tells the service manager while nothing can be
/// written. The watchdog is fed all the same: a new agent would write to the same place, without what waits in this
/// one.
pub(super) async fn watch_log(log: &Log, notifier: &Notifier, mut stopped: Stopped) {
    let (mut faulty, mut stalled) = (false, false);
    while tokio::time::timeout(LOG_INTERVAL, stopped.asked()).await.is_err() {
        let stats = log.stats();
        if stats.faulty != faulty {
            faulty = stats.faulty;
            notifier.log(faulty.then_some("the log cannot be written: records, then connections, wait"));
        }
        // An error has been said by the writer.
        let hangs = stats.waiting >= writer::STALLED && !stats.failing;
        if hangs && !stalled {
            let (seconds, bytes) = (stats.waiting.as_secs(), stats.queued_bytes);
            stderr::emergency(&format!(
                "a write to the log has not returned for {seconds} s; {bytes} bytes wait in memory, then connections wait: \
                 look whether its disk or file server answers, or its reader reads"
            ));
        } else if stalled && stats.waiting < writer::STALLED {
            stderr::to_stderr(log::Level::Info, "the log is written again");
        }
        stalled = if stalled { stats.waiting >= writer::STALLED } else { hangs };
    }
}

/// Gives memory back to the system when a load is over. The allocator keeps what lies below anything that lives on: of
/// many payloads of many lengths nearly all.
pub(super) async fn give_memory_back(intake: &Intake, mut stopped: Stopped) {
    let mut ebb = Ebb::default();
    while tokio::time::timeout(EBB_INTERVAL, stopped.asked()).await.is_err() {
        if ebb.is_reached(intake.engine().memory.taken()) {
            trim_heap();
        }
    }
}

/// Payload in memory, since memory was last given back.
#[derive(Debug, Default)]
struct Ebb {
    most: usize,
}

impl Ebb {
    /// Reports whether so much is gone that memory is given back now.
    fn is_reached(&mut self, bytes: usize) -> bool {
        self.most = self.most.max(bytes);
        let reached = self.most - bytes >= EBB_BYTES.max(bytes);
        if reached {
            self.most = bytes;
        }
        reached
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn trim_heap() {
    // SAFETY: takes no pointer, and locks what it walks through.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators are not known to keep it.
#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

/// Tells the service manager that the agent stops, and how long that may take.
pub(super) async fn say_stopping(notifier: &Notifier, mut stopped: Stopped) {
    let deadline = stopped.asked().await;
    notifier.stopping(deadline.log().saturating_duration_since(Instant::now()) + LAST_STEPS);
}

/// Stops the agent when the reader of its records is gone.
pub(super) async fn stop_when_log_closes(intake: &Intake, mut stopped: Stopped) {
    let log = intake.engine().log.clone();
    tokio::select! {
        () = log.closed() => { intake.stop(); }
        _ = stopped.asked() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_when_most_payload_is_gone_and_it_was_much() {
        let reached = |taken: &[usize]| {
            let mut ebb = Ebb::default();
            taken.iter().filter(|&&megabytes| ebb.is_reached(megabytes << 20)).count()
        };
        assert_eq!(reached(&[0, 15, 0, 15, 0]), 0, "little");
        assert_eq!(reached(&[100, 51, 100, 51]), 0, "the load goes on");
        assert_eq!(reached(&[100, 50, 50, 50]), 1);
        assert_eq!(reached(&[100, 50, 10, 0, 0]), 2);
        assert_eq!(reached(&[16, 0, 16, 0]), 2);
    }
}
