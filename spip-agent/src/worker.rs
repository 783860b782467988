//! A worker: one thread with a runtime and a listening socket of its own. Connections stay with the worker that
//! accepted them, so none of them pays for a hand-over between threads.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::watch;

use crate::accept::{self, Door};
use crate::registry::Registry;

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
    /// How long open sessions may take to write their records after that.
    pub drain: Duration,
}

impl Worker {
    /// Starts the thread. It ends after `stop`, with an error only when its listening socket broke.
    ///
    /// # Errors
    /// The kernel refuses a thread or what its runtime needs.
    pub fn spawn(self) -> io::Result<JoinHandle<io::Result<()>>> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        thread::Builder::new().name(format!("worker-{}", self.number)).spawn(move || {
            let result = runtime.block_on(self.run());
            // Sessions that have not ended by now leave their records as they are dropped.
            drop(runtime);
            result
        })
    }

    async fn run(self) -> io::Result<()> {
        let registry = self.registry;
        let time = registry.clone();
        tokio::spawn(async move { time.keep_time().await });
        let result = accept::run(self.listener, &self.door, &registry, self.stop).await;
        registry.shut_down();
        let deadline = Instant::now() + self.drain;
        while !registry.is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        result
    }
}
