//! The smallest client of HTTP/1.1 that a measurement needs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

fn get(address: &str, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the server is there");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the request is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{path}: {}",
        String::from_utf8_lossy(&answer[..answer.len().min(400)])
    );
    answer
}

/// Asks for a page. Returns milliseconds of CPU time that the server needed for it.
pub(crate) fn cpu(server: &crate::Server, path: &str) -> f64 {
    let before = server.cpu_ms();
    get(&server.address, path);
    server.cpu_ms() - before
}

/// Asks for data.
pub(crate) fn json(address: &str, path: &str) -> serde_json::Value {
    let answer = get(address, path);
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a body") + 4;
    serde_json::from_slice(&answer[at..]).expect("JSON")
}
