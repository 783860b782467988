//! A worker: one thread with a runtime and a listening socket of its own. Connections stay with the worker that
//! accepted them, so none of them pays for a hand-over between threads.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::runtime;

use crate::process::critical;
use crate::process::heartbeat::Heartbeat;
use crate::process::shutdown::Deadline;
use crate::session::accept::{self, Intake};
use crate::session::open_sessions::OpenSessions;

/// Interval at which the end checks whether the sessions have ended.
const END_PAUSE: Duration = Duration::from_millis(5);

/// Settings of a worker.
pub struct Worker {
    /// Its number, from 0.
    pub number: usize,
    /// Its own listening socket.
    pub listener: OwnedFd,
    /// Leaves connections that wait at the shutdown to the next agent, which has the same socket.
    pub leaves_queue: bool,
    /// Its own sessions.
    pub open: OpenSessions,
    /// State that all workers share.
    pub intake: Arc<Intake>,
    /// Shows that it is alive.
    pub heartbeat: Heartbeat,
    /// Interval of the heartbeat.
    pub beat: Duration,
    /// Channel for its end.
    pub ended: mpsc::Sender<io::Result<()>>,
}

impl Worker {
    /// Starts the thread. It ends when the agent is told to stop, or when its listening socket broke.
    ///
    /// # Errors
    /// The kernel refuses a thread or what its runtime needs.
    pub fn spawn(self) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let ended = self.ended.clone();
        critical::spawn(&format!("worker-{}", self.number), move || {
            let result = runtime.block_on(self.run());
            // Sessions that have not ended by now leave their records as they are dropped.
            drop(runtime);
            // There is no receiver when the end came before the worker's.
            let _ = ended.send(result);
        })?;
        Ok(())
    }

    async fn run(self) -> io::Result<()> {
        let open = self.open;
        let time = open.clone();
        let mut time = tokio::spawn(async move { time.keep_time().await });
        tokio::spawn(async move { self.heartbeat.keep(self.number, self.beat).await });
        if self.number == 0 {
            let intake = Arc::clone(&self.intake);
            tokio::spawn(async move { accept::keep_memory(&intake).await });
        }
        let result = tokio::select! {
            result = accept::run(self.listener, &self.intake, &open, self.leaves_queue) => result,
            // It never ends by itself, and without it no session ever times out.
            _ = &mut time => panic!("nobody keeps the time of the sessions"),
        };
        // The first worker that ends, for whatever reason, takes the others with it.
        drain(&open, &self.intake, self.intake.stop()).await;
        result
    }
}

/// Ends the sessions, and waits until they have handed over their records.
async fn drain(open: &OpenSessions, intake: &Intake, deadline: Deadline) {
    // A client that was active a moment ago may be about to send the rest.
    open.shut_down(deadline.idle_since());
    while !open.is_empty() && Instant::now() < deadline.grace() {
        tokio::time::sleep(END_PAUSE).await;
    }
    open.shut_down(None);
    // A session that waits for the log is not among the open ones any more, but has its place until its record is handed over.
    while intake.limits.open() > 0 && Instant::now() < deadline.sessions() {
        tokio::time::sleep(END_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::session::tests::Bench;
    use spip_record::CloseReason;

    #[test]
    fn a_worker_whose_listening_socket_breaks_takes_the_others_with_it() {
        let bench = Bench::new("worker-broken");
        let (ended, end) = mpsc::channel();
        let worker = Worker {
            number: 0,
            // It does not listen.
            listener: Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket").into(),
            leaves_queue: false,
            open: bench.intake.sessions_by_worker[0].clone(),
            intake: Arc::clone(&bench.intake),
            heartbeat: Heartbeat::new(1),
            beat: Duration::from_secs(1),
            ended,
        };
        let mut stopped = bench.intake.stopped();
        worker.spawn().expect("a thread");
        runtime::Builder::new_current_thread().build().expect("runtime").block_on(stopped.asked());
        end.recv().expect("it tells its end").expect_err("the socket broke");
        assert_eq!(bench.records().len(), 0);
    }

    #[test]
    fn the_end_waits_for_sessions_whose_records_wait_for_the_log() {
        let mut bench = Bench::new("worker-drain");
        let log = bench.intake.engine().log.clone();
        while log.try_record(br#"{"filler":1"#) {}
        let (_client, mut guard, socket) = bench.connect(b"waits");
        assert_eq!(guard.serve_now(&socket), None);
        let unwritten = guard.try_finish(CloseReason::ClientClosed).expect_err("the log is full");
        let runtime = runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            tokio::spawn(Box::new(guard).finish_later(unwritten));
            let open = bench.intake.sessions_by_worker[0].clone();
            assert!(open.is_empty(), "nobody could tell it to end");
            bench.write();
            drain(&open, &bench.intake, Deadline::new(Instant::now(), Duration::from_secs(600))).await;
        });
        drop(runtime);
        let records = bench.records();
        assert_eq!(records.iter().filter(|record| record["payload"] == "waits").count(), 1);
        assert_eq!(records.iter().filter(|record| record["close_reason"] == "client_closed").count(), 1);
    }
}
