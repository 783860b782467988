//! The service manager's socket: sd_notify(3), one datagram for each change of state.
//!
//! The socket is opened and connected once, before a sandbox is closed that allows neither a new socket nor a connection;
//! the libraries for this open one for each message. Sending never waits and never fails: a program without a service
//! manager, or with one that is gone, does its work all the same.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

/// A service manager in the environment that cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot notify the service manager at NOTIFY_SOCKET={}", address.display())]
pub struct Error {
    /// Address of its socket.
    pub address: OsString,
    /// Error of the system.
    pub source: io::Error,
}

impl Manager {
    /// Connects to the one that `NOTIFY_SOCKET` names; `WATCHDOG_USEC` and `WATCHDOG_PID` say how often it wants to hear.
    ///
    /// # Errors
    /// There is one, and it cannot be reached.
    pub fn from_environment() -> Result<Self, Error> {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Ok(Self::default());
        };
        let is_own = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let watchdog = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok()).map(Duration::from_micros);
        Ok(Self { watchdog: watchdog.filter(|interval| is_own && !interval.is_zero()), ..Self::at(address)? })
    }

    /// Connects to the one at an address: a path, or an abstract name behind `@`. Its watchdog is off.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn at(address: OsString) -> Result<Self, Error> {
        match connect(&address) {
            Ok(socket) => Ok(Self { socket: Some(socket), watchdog: None }),
            Err(source) => Err(Error { address, source }),
        }
    }

    /// Returns the upper bound of the interval between two times of `WATCHDOG=1`, where the watchdog is on.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_kind_is_refused() {
        assert!(Manager::at("vsock:2:1234".into()).is_err());
        assert!(Manager::at("/nonexistent/notify".into()).is_err());
    }
}
