//! A server of a test: HTTP/1.1, one connection at a time, with what it was asked for in a list.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &'_ &str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.headers.lines().find(named).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }
}

/// The answer: a status and a body; status 0 ends the connection without an answer.
pub(crate) type Answer = (u16, String);

/// A server that asks `answer` what to say.
pub(crate) struct Web {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Web {
    pub(crate) fn start(mut answer: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                while let Some(request) = receive(&client) {
                    kept.lock().expect("no panic").push(request.clone());
                    let (status, body) = answer(&request);
                    if status == 0 {
                        break;
                    }
                    let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    if (&client).write_all(text.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        Self { url, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn receive(client: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(client);
    let mut headers = String::new();
    loop {
        let before = headers.len();
        if reader.read_line(&mut headers).ok()? == 0 {
            return None;
        }
        if headers.get(before..) == Some("\r\n") {
            break;
        }
    }
    let path = headers.split_whitespace().nth(1)?.to_owned();
    let request = Request { path, headers, body: String::new() };
    let length = request.header("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { body: String::from_utf8(body).ok()?, ..request })
}
