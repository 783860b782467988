//! The floor: a bare accept-read-log loop, what a sensor costs that knows and guarantees nothing.
//!
//! One blocking thread a core with a listening socket each. A session is accept, reads until the end, one short line
//! into a buffer that is written when it is large. No deadline, no limit, no destination, no TLS, no guarantee.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use socket2::{Domain, Socket, Type};

const BUFFER_BYTES: usize = 64 * 1024;

/// Serves until it is killed.
pub(crate) fn run(port: u16, log: &Path) {
    let log = File::options().create(true).append(true).open(log).expect("the log can be opened");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut threads = Vec::new();
    for _ in 0..cores {
        let listener = listen(port);
        let log = log.try_clone().expect("a descriptor is left");
        threads.push(thread::spawn(move || serve(&listener, log)));
    }
    println!("ready");
    for thread in threads {
        let _ = thread.join();
    }
}

fn listen(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.set_reuse_port(true).expect("reuse");
    socket.set_only_v6(false).expect("dual stack");
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into()).expect("the port is free");
    socket.listen(65_535).expect("listening");
    socket.into()
}

fn serve(listener: &TcpListener, mut log: File) {
    let mut lines: Vec<u8> = Vec::with_capacity(2 * BUFFER_BYTES);
    let mut buffer = [0; 4096];
    loop {
        let Ok((mut stream, peer)) = listener.accept() else { continue };
        let mut bytes = 0;
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            bytes += length;
        }
        drop(stream);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (ip, port) = (peer.ip(), peer.port());
        let _ = writeln!(lines, r#"{{"timestamp":{now},"source_ip":"{ip}","source_port":{port},"bytes":{bytes}}}"#);
        if lines.len() >= BUFFER_BYTES {
            let _ = log.write_all(&lines);
            lines.clear();
        }
    }
}
