//! Answers `GET /metrics` and `GET /healthz`, and nothing else.
//!
//! Who may ask is decided by where it listens: an address of the loopback interface, or a socket in the file system for
//! those who may write to it. Programs of this machine can be broken or hostile, too, so a request is a few kilobytes,
//! takes a few seconds, and a handful are served at once. The answer closes the connection. That is all of HTTP that
//! Prometheus and a health check need; a whole server for it would be larger than the rest of the agent.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::runtime;
use tokio::sync::Semaphore;

use super::Sources;
use crate::config::MetricsAddress;
use crate::vital;

/// Longest request that is read, headers included.
const REQUEST_BYTES: usize = 8 * 1024;
/// More headers than any such client sends.
const HEADERS: usize = 64;
/// Requests that are served at once; others wait for their turn in the kernel's queue.
const AT_ONCE: usize = 8;
/// How long one may take, from its connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the server waits when a connection cannot be accepted.
const PAUSE: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {remedy}")]
pub struct Error {
    address: MetricsAddress,
    remedy: &'static str,
    source: io::Error,
}

/// The listening socket.
#[derive(Debug)]
pub struct Server(Listener);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Listens on `address`. Before the sandbox, which allows no new socket.
    ///
    /// # Errors
    /// The address is taken, or cannot be had.
    pub fn bind(address: &MetricsAddress) -> Result<Self, Error> {
        let listener = match address {
            MetricsAddress::Tcp(address) => TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(Listener::Tcp(listener))
            }),
            MetricsAddress::Unix(path) => bind_unix(path).map(Listener::Unix),
        };
        listener.map(Self).map_err(|source| Error { remedy: remedy(&source), address: address.clone(), source })
    }

    /// Starts the thread that answers, for as long as the process lives.
    ///
    /// # Errors
    /// The kernel refuses a thread, or what its runtime needs.
    pub fn spawn(self, sources: Sources) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (listener, sources) = (self.0, Arc::new(sources));
        vital::spawn("metrics", move || {
            runtime.block_on(async {
                match listener {
                    Listener::Tcp(listener) => {
                        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                        serve(async || listener.accept().await.map(|(stream, _)| stream), &sources).await;
                    }
                    Listener::Unix(listener) => {
                        let Ok(listener) = tokio::net::UnixListener::from_std(listener) else { return };
                        serve(async || listener.accept().await.map(|(stream, _)| stream), &sources).await;
                    }
                }
            });
        })?;
        Ok(())
    }
}

/// A socket that nobody listens on any more is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "something else listens there; stop it or choose another address",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; bring the loopback interface up",
        io::ErrorKind::NotFound => "create the directory of the socket",
        io::ErrorKind::PermissionDenied => {
            "allow the agent to write to the directory of the socket, or choose a port from 1024 on"
        }
        _ => "the kernel refused",
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    accept: impl AsyncFn() -> io::Result<S>,
    sources: &Arc<Sources>,
) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        // Never closed, so there is always a permit to wait for.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match accept().await {
            Ok(stream) => {
                let sources = Arc::clone(sources);
                tokio::spawn(async move {
                    // Who does not read, or leaves, gets no answer.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &sources)).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, sources: &Arc<Sources>) -> io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    let (response, with_body) = loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&request) {
            Ok(httparse::Status::Complete(_)) => {
                let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
                break (respond(method, target, sources), method != "HEAD");
            }
            Ok(httparse::Status::Partial) if request.len() < REQUEST_BYTES => {}
            Ok(httparse::Status::Partial) => break (Response::plain("431 Request Header Fields Too Large"), true),
            Err(_) => break (Response::plain("400 Bad Request"), true),
        }
    };
    let Response { status, content_type, body } = response;
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if with_body {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

struct Response {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Response {
    fn plain(status: &'static str) -> Self {
        Self { status, content_type: PLAIN, body: format!("{status}\n") }
    }
}

fn respond(method: &str, target: &str, sources: &Arc<Sources>) -> Response {
    if !matches!(method, "GET" | "HEAD") {
        return Response::plain("405 Method Not Allowed");
    }
    match target.split('?').next().unwrap_or_default() {
        "/metrics" => match sources.page() {
            Ok(body) => Response { status: "200 OK", content_type: OPEN_METRICS, body },
            Err(_) => Response::plain("500 Internal Server Error"),
        },
        "/healthz" => match sources.complaint() {
            None => Response { status: "200 OK", content_type: PLAIN, body: "ok\n".to_owned() },
            Some(why) => Response { status: "503 Service Unavailable", content_type: PLAIN, body: format!("{why}\n") },
        },
        _ => Response { body: "try /metrics or /healthz\n".to_owned(), ..Response::plain("404 Not Found") },
    }
}
