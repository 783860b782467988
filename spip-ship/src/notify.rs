//! Tells the service manager how the shipper is: sd_notify(3), one datagram for each change.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Connects to what `NOTIFY_SOCKET` names. One that cannot be reached is reported and not waited for.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        let socket = connect(&address)
            .inspect_err(|error| log::warn!("cannot reach NOTIFY_SOCKET={}: {error}", address.display()))
            .ok();
        let is_own = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let watchdog = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok()).map(Duration::from_micros);
        Self { socket, watchdog: watchdog.filter(|interval| is_own && !interval.is_zero()) }
    }

    /// Returns how often [`Notifier::tell`] has to say `WATCHDOG=1`.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends `text`.
    pub fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // A service manager that does not listen must not be waited for.
            let _ = socket.send(text.as_bytes());
        }
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes().split_first() {
        Some((b'/', _)) => SocketAddr::from_pathname(address)?,
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
