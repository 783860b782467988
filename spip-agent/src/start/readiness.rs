//! Tells the service manager how the agent is, in the way of sd_notify(3): one datagram for each change of state.
//!
//! The socket is opened and connected before the sandbox is closed, which allows neither a new socket nor a connection;
//! the libraries for this open one for each message. Nothing here ever waits or fails: an agent without a service
//! manager, or with one that is gone, does its work all the same.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The service manager, if there is one; clones talk to the same.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
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

/// A setting of the service manager in the environment that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot notify the service manager at NOTIFY_SOCKET={}", address.display())]
pub struct Error {
    address: OsString,
    source: io::Error,
}

impl Notifier {
    /// The one that `NOTIFY_SOCKET` names; `WATCHDOG_USEC` and `WATCHDOG_PID` say how often it wants to hear.
    ///
    /// # Errors
    /// There is one, and it cannot be reached.
    pub fn from_environment() -> Result<Self, Error> {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Ok(Self::default());
        };
        let socket = connect(&address).map_err(|source| Error { address, source })?;
        let own_process = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let watchdog = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok()).map(Duration::from_micros);
        let watchdog = watchdog.filter(|interval| own_process && !interval.is_zero());
        Ok(Self { socket: Some(Arc::new(socket)), watchdog, words: Arc::default() })
    }

    /// Returns the upper bound of the interval between two [`Notifier::alive`], where the watchdog is on.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sets the description of the service, for people; sent with the next state.
    pub fn serves(&self, what: String) {
        self.words().serves = what;
    }

    /// The agent serves.
    pub fn ready(&self) {
        self.tell(&format!("READY=1\nSTATUS={}", self.words()));
    }

    /// Sets the problem of the configuration since it was last read; sent with [`Notifier::ready`].
    pub fn configuration(&self, trouble: Option<&'static str>) {
        self.words().configuration = trouble;
    }

    /// Reports the problem of the log; sent at once.
    pub fn log(&self, trouble: Option<&'static str>) {
        self.words().log = trouble;
        self.tell(&format!("STATUS={}", self.words()));
    }

    /// The agent reads its configuration again; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The agent ends, within `time`.
    pub fn stopping(&self, time: Duration) {
        self.tell(&format!("STOPPING=1\nSTATUS=records what is open\nEXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    /// The agent is alive: to be called only after checking.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // A service manager that does not listen must not be waited for.
            let _ = socket.send(text.as_bytes());
        }
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let bytes = address.as_bytes();
    let address = match bytes.split_first() {
        Some((b'/', _)) => SocketAddr::from_pathname(address)?,
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
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
            let socket = Some(Arc::new(connect(&address).expect("there is a listener")));
            let notifier = Notifier { socket, watchdog: None, words: Arc::default() };
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

    #[test]
    fn an_address_of_another_kind_is_refused() {
        assert!(connect(OsStr::new("vsock:2:1234")).is_err());
        assert!(connect(OsStr::new("/nonexistent/notify")).is_err());
    }
}
