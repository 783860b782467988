//! Carries the messages of the programs to the agent's own log.
//!
//! A thread waits for them, because they are rare and their reader must not take a turn from the sessions. It ends when
//! the programs are detached.

use std::io::{self, PipeWriter};
use std::os::fd::AsFd as _;
use std::thread::JoinHandle;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::Log;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::process::critical;

/// The messages that wait.
pub(super) struct KernelLog(EbpfLogger<&'static dyn Log>);

impl KernelLog {
    /// Takes the ring buffer of the messages.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, aya_log::Error> {
        EbpfLogger::init_with_logger(ebpf, log::logger()).map(Self)
    }

    /// Starts the thread that forwards them.
    pub(super) fn forward(mut self) -> io::Result<Forwarder> {
        let (until, stop) = io::pipe()?;
        let thread = critical::spawn("ebpf-log", move || {
            loop {
                self.0.flush();
                let mut wait =
                    [PollFd::new(self.0.as_fd(), PollFlags::POLLIN), PollFd::new(until.as_fd(), PollFlags::POLLIN)];
                match poll(&mut wait, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => break,
                }
                if wait[1].any().unwrap_or(true) {
                    break;
                }
            }
            self.0.flush();
        })?;
        Ok(Forwarder { stop: Some(stop), thread: Some(thread) })
    }
}

/// The thread; dropping this ends it.
#[derive(Debug)]
pub(super) struct Forwarder {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // The thread sees the end of the pipe.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
