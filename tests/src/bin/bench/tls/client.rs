//! Clients in blocking threads: full handshakes of TLS 1.3, nothing verified beyond the handshake's own signature.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use spip_tests::tls;

/// Bytes that a client sends after its handshake.
pub(crate) const PAYLOAD: &[u8] = b"GET / HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: bench\r\n\r\n";

/// Ports asked for, from the first on, so that no connection's quadruple comes back soon.
const FIRST_PORT: u16 = 1_000;
const PORTS: usize = 2_000;

/// Completes `count` handshakes with the server at `address`, `concurrent` at once; from the first connect to the last
/// close.
pub(crate) fn handshakes(address: IpAddr, count: usize, concurrent: usize) -> Duration {
    let config = config();
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    // Sockets belong to the namespace of the thread that opens them; threads inherit it.
    thread::scope(|scope| {
        for _ in 0..concurrent {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let mut stream = connect(&config, address, number);
                    stream.write_all(PAYLOAD).expect("the server takes bytes");
                    stream.conn.send_close_notify();
                    stream.flush().expect("the server takes the end");
                    stream.sock.shutdown(Shutdown::Write).expect("the connection is open");
                    let mut rest = [0; 64];
                    while let Ok(1..) = stream.sock.read(&mut rest) {}
                }
            });
        }
    });
    began.elapsed()
}

/// Completes `count` handshakes and keeps the connections open, without a byte inside.
pub(crate) fn held(address: IpAddr, count: usize) -> Vec<TcpStream> {
    let config = config();
    (0..count).map(|number| connect(&config, address, number).sock).collect()
}

fn connect(config: &Arc<ClientConfig>, address: IpAddr, number: usize) -> StreamOwned<ClientConnection, TcpStream> {
    let port = FIRST_PORT + u16::try_from(number % PORTS).expect("a few thousand");
    let mut socket = TcpStream::connect(SocketAddr::new(address, port)).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");
    let name = ServerName::try_from("www.example.com").expect("a name");
    let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
    while connection.is_handshaking() || connection.wants_write() {
        connection.complete_io(&mut socket).expect("the handshake completes");
    }
    StreamOwned::new(connection, socket)
}

fn config() -> Arc<ClientConfig> {
    let provider = CryptoProvider {
        // The group that nearly all clients and servers agree on.
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    Arc::new(tls::client(provider, &[&rustls::version::TLS13]))
}
