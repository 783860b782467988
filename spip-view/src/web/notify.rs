//! Tells the service manager that the page is served and that it ends: sd_notify(3). The socket is made before the process
//! gives up making sockets.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// Connects to what `NOTIFY_SOCKET` names. One that cannot be reached is reported and not waited for.
    pub(super) fn from_environment() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        match connect(&address) {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                eprintln!("spip-view: cannot reach NOTIFY_SOCKET={}: {error}", address.display());
                Self::default()
            }
        }
    }

    /// Sends `text`.
    pub(super) fn tell(&self, text: &str) {
        if let Some(socket) = &self.0 {
            // A service manager that does not listen must not be waited for.
            let _ = socket.send(text.as_bytes());
        }
    }
}

fn connect(address: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match address.as_bytes().split_first() {
        Some((b'/', _)) => SocketAddr::from_pathname(address)?,
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => return Err(std::io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
