//! Clients: connect from a chosen address, send, stop halfway, reset, refuse to read.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::PATIENCE;
use crate::namespace::Namespace;

impl Namespace {
    /// Connects from inside the namespace.
    ///
    /// # Panics
    /// When the connection is refused or takes longer than [`PATIENCE`].
    #[must_use]
    pub fn connect(&self, to: impl Into<SocketAddr>) -> TcpStream {
        let to = to.into();
        self.enter(|| open(None, to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}")))
    }

    /// Connects from inside the namespace, from an address and port of choice; port 0 is any. Several connections
    /// may share one port, as those of scanners do.
    ///
    /// # Panics
    /// When the address cannot be taken or the connection is refused.
    #[must_use]
    pub fn connect_from(&self, from: impl Into<SocketAddr>, to: impl Into<SocketAddr>) -> TcpStream {
        let (from, to) = (from.into(), to.into());
        self.enter(|| {
            open(Some(from), to).unwrap_or_else(|error| panic!("cannot connect from {from} to {to}: {error}"))
        })
    }

    /// Opens one connection for each pair of own and remote address, all from one thread, those that fail left out.
    pub fn connect_all(&self, pairs: impl Iterator<Item = (Option<SocketAddr>, SocketAddr)> + Send) -> Vec<TcpStream> {
        // Said, and shown by a test that fails: what refused a connection is half of why.
        let said = |from, to| open(from, to).inspect_err(|error| eprintln!("{to}: {error}")).ok();
        self.enter(|| pairs.filter_map(|(from, to)| said(from, to)).collect())
    }

    /// Sends `bytes` in one connection, ends it properly, waits until the other side has ended it too, and returns
    /// the address that the client had.
    ///
    /// # Panics
    /// When the connection is refused or reset.
    pub fn deliver(&self, to: impl Into<SocketAddr>, bytes: &[u8]) -> SocketAddr {
        let mut stream = self.connect(to);
        let from = stream.local_addr().expect("a connected socket has an address");
        stream.write_all(bytes).expect("the sensor takes bytes");
        half_close(&stream);
        read_to_end(&mut stream);
        from
    }
}

fn open(from: Option<SocketAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        if from.port() != 0 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&from.into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

/// Ends the client's half of the connection.
///
/// # Panics
/// When the connection is gone already.
pub fn half_close(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("the connection is open");
}

/// Reads until the other side closes, or resets, and returns what it sent.
///
/// # Panics
/// When the other side keeps the connection open for longer than [`PATIENCE`].
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        let waited = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(!waited, "the sensor still holds the connection after {PATIENCE:?}");
    }
    bytes
}

/// Closes with a RST, as a client does that has gone away.
///
/// # Panics
/// When the socket refuses the option.
pub fn reset(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("the option exists since Linux 2.4");
}

/// Connects with the smallest receive buffer that the kernel grants and never reads: what the sensor might answer
/// soon meets a window of zero.
///
/// # Panics
/// When the connection is refused.
#[must_use]
pub fn tiny_window(from: &Namespace, to: impl Into<SocketAddr>) -> TcpStream {
    let to = to.into();
    from.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_recv_buffer_size(1).expect("the kernel rounds up");
        socket.connect_timeout(&to.into(), PATIENCE).expect("the sensor listens");
        socket.into()
    })
}
