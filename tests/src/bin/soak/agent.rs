//! The agent that is soaked. It ends with this program, also when that panics; one that outlives a killed program goes
//! with its namespace, when the next test begins.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use spip_tests::Net;

/// Longer than the agent's own limit for its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running process, killed when it is dropped.
pub(crate) struct Agent(Child);

impl Agent {
    /// Starts what `SPIP_AGENT_BIN` names in the sensor's namespace.
    pub(crate) fn start(net: &Net, config: &Path) -> Self {
        let binary = std::env::var_os("SPIP_AGENT_BIN").expect("cargo xtask soak names the agent");
        let child = net.sensor.enter(|| {
            Command::new(binary)
                .arg("--config")
                .arg(config)
                .current_dir("/")
                .stdin(Stdio::null())
                .spawn()
                .expect("the agent starts")
        });
        Self(child)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Has it read its configuration again.
    pub(crate) fn reload(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// An error when it has ended by itself.
    pub(crate) fn is_running(&mut self) -> Result<(), String> {
        match self.0.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the agent ended with {status}")),
            Err(error) => Err(format!("the agent cannot be waited for: {error}")),
        }
    }

    /// Ends it in order; an error when it does not end.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus, String> {
        self.signal(Signal::SIGTERM);
        let end = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                Ok(None) => return Err(format!("the agent has not ended {PATIENCE:?} after SIGTERM")),
                Err(error) => return Err(format!("the agent cannot be waited for: {error}")),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // Not yet waited for, so the number is still its own; one that has ended is found at the next look.
        if let Ok(id) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
