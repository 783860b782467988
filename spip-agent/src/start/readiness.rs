//! Tells the service manager how the agent is, over the socket of `spip-notify`, which is opened before the sandbox is closed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use spip_notify::Manager;

/// The service manager, if there is one; clones talk to the same.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    manager: Arc<Manager>,
    words: Arc<Mutex<Words>>,
}

/// State of the agent while it serves, for people.
#[derive(Debug, Default)]
struct Words {
    serves: String,
    log: Option<&'static str>,
    configuration: Option<&'static str>,
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.serves)?;
        [self.log, self.configuration].iter().flatten().try_for_each(|trouble| write!(f, "; {trouble}"))
    }
}

impl Notifier {
    /// Connects to the one that the environment names.
    ///
    /// # Errors
    /// There is one, and it cannot be reached.
    pub fn from_environment() -> Result<Self, spip_notify::Error> {
        Ok(Self { manager: Arc::new(Manager::from_environment()?), words: Arc::default() })
    }

    /// Returns the upper bound of the interval between two [`Notifier::alive`], where the watchdog is on.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.manager.watchdog()
    }

    /// Sets the description of the service, for people; sent with the next state.
    pub fn serves(&self, what: String) {
        self.words().serves = what;
    }

    /// The agent serves.
    pub fn ready(&self) {
        self.manager.tell(&format!("READY=1\nSTATUS={}", self.words()));
    }

    /// Sets the problem of the configuration since it was last read; sent with [`Notifier::ready`].
    pub fn configuration(&self, trouble: Option<&'static str>) {
        self.words().configuration = trouble;
    }

    /// Reports the problem of the log; sent at once.
    pub fn log(&self, trouble: Option<&'static str>) {
        self.words().log = trouble;
        self.manager.tell(&format!("STATUS={}", self.words()));
    }

    /// The agent reads its configuration again; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.manager.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The agent ends, within `time`.
    pub fn stopping(&self, time: Duration) {
        self.manager
            .tell(&format!("STOPPING=1\nSTATUS=records what is open\nEXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    /// The agent is alive: to be called only after checking.
    pub fn alive(&self) {
        self.manager.tell("WATCHDOG=1");
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    #[test]
    fn what_is_said_arrives_at_a_path_and_at_an_abstract_name() {
        let path = env::temp_dir().join(format!("spip-notify-{}", std::process::id()));
        let name = format!("spip-notify-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&name).expect("a name");
        for (listener, address) in [
            (UnixDatagram::bind(&path), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&by_name), format!("@{name}").into()),
        ] {
            let listener = listener.expect("a free address");
            let manager = Arc::new(Manager::at(address).expect("there is a listener"));
            let notifier = Notifier { manager, words: Arc::default() };
            notifier.serves("listens".to_owned());
            notifier.ready();
            notifier.reloading();
            notifier.configuration(Some("a mistake"));
            notifier.log(Some("a full disk"));
            notifier.ready();
            notifier.configuration(None);
            notifier.log(None);
            notifier.stopping(Duration::from_secs(6));
            let heard = || {
                let mut text = [0; 200];
                let length = listener.recv(&mut text).expect("said before");
                String::from_utf8_lossy(&text[..length]).into_owned()
            };
            assert_eq!(heard(), "READY=1\nSTATUS=listens");
            assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
            assert_eq!(heard(), "STATUS=listens; a full disk; a mistake");
            assert_eq!(heard(), "READY=1\nSTATUS=listens; a full disk; a mistake");
            assert_eq!(heard(), "STATUS=listens");
            assert!(heard().ends_with("EXTEND_TIMEOUT_USEC=6000000"));
        }
        std::fs::remove_file(&path).expect("the socket goes");
    }
}
