//! A worker: one thread with a runtime and a listening socket of its own. Connections stay with the worker that
//! accepted them, so none of them pays for a hand-over between threads.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::watch;

use crate::accept::{self, Door};
use crate::pulse::Pulse;
use crate::registry::Registry;
use crate::vital;

/// What a worker is started with.
pub struct Worker {
    /// Its number, from 0.
    pub number: usize,
    /// Its own listening socket.
    pub listener: OwnedFd,
    /// Its own sessions.
    pub registry: Registry,
    /// What all workers share.
    pub door: Arc<Door>,
    /// Turns true when the agent stops.
    pub stop: watch::Receiver<bool>,
    /// Shows that it is alive.
    pub pulse: Pulse,
    /// How often.
    pub beat: Duration,
}

impl Worker {
    /// Starts the thread. It ends after `stop`, with an error only when its listening socket broke.
    ///
    /// # Errors
    /// The kernel refuses a thread or what its runtime needs.
    pub fn spawn(self) -> io::Result<JoinHandle<io::Result<()>>> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        vital::spawn(&format!("worker-{}", self.number), move || {
            let result = runtime.block_on(self.run());
            // Sessions that have not ended by now leave their records as they are dropped.
            drop(runtime);
            result
        })
    }

    async fn run(self) -> io::Result<()> {
        let registry = self.registry;
        let time = registry.clone();
        let mut time = tokio::spawn(async move { time.keep_time().await });
        tokio::spawn(async move { self.pulse.keep(self.number, self.beat).await });
        let result = tokio::select! {
            result = accept::run(self.listener, &self.door, &registry, self.stop) => result,
            // It never ends by itself, and without it no session ever times out.
            _ = &mut time => panic!("nobody keeps the time of the sessions"),
        };
        registry.shut_down();
        let deadline = Instant::now() + self.door.engine().timeouts.drain;
        while !registry.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        result
    }
}
