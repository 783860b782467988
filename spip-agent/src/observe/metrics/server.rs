//! Answers `GET /metrics` and `GET /healthz`, and nothing else.
//!
//! Who may ask is decided by where it listens: an address of the loopback interface, or a socket in the file system for
//! those who may write to it. Programs of this machine can be broken or hostile, too, so a request is a few kilobytes,
//! takes a few seconds, and a handful are served at once. The answer closes the connection. That is all of HTTP that
//! Prometheus and a health check need; a whole server for it would be larger than the rest of the agent.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::runtime;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::Sources;
use crate::config::MetricsAddress;
use crate::observe::socket_file::{self, SocketFile};
use crate::process::critical;

/// Longest request that is read, headers included.
const REQUEST_BYTES: usize = 8 * 1024;
/// More headers than any such client sends.
const HEADERS: usize = 64;
/// Connections that are served at once.
const AT_ONCE: usize = 8;
/// Upper bound of the time of a request, from its connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause of the server when a connection cannot be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Its user's own, and its group's.
const UNIX_MODE: u32 = 0o660;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Reason why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {remedy}")]
pub struct Error {
    address: MetricsAddress,
    remedy: &'static str,
    source: io::Error,
}

impl Error {
    fn new(address: &MetricsAddress, source: io::Error) -> Self {
        Self { remedy: remedy(&source, address), address: address.clone(), source }
    }

    /// Returns the remedy.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        self.remedy
    }
}

/// The listening socket. Dropping it removes the name that it has in the file system.
#[derive(Debug)]
pub struct Server(Listener);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(SocketFile),
}

/// Settings of agents that follow each other on one address without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Succession {
    /// Another agent may relieve this one while it still listens.
    pub may_follow: bool,
    /// This agent relieves one that may still listen.
    pub takes_over: bool,
}

impl Server {
    /// Listens on `address`. Before the sandbox, which allows no new socket. A socket in the file system has its name
    /// when it is published.
    ///
    /// # Errors
    /// The address is taken, or cannot be had.
    pub fn bind(address: &MetricsAddress, succession: Succession) -> Result<Self, Error> {
        let listener = match address {
            MetricsAddress::Tcp(address) => bind_tcp(*address, succession).map(Listener::Tcp),
            MetricsAddress::Unix(path) => bind_unix(path, succession).map(Listener::Unix),
        };
        listener.map(Self).map_err(|source| Error::new(address, source))
    }

    /// Checks that no other process has the address, and that the machine has it. Listens for no time, and leaves
    /// nothing.
    ///
    /// # Errors
    /// [`Server::bind`] would fail, for the same reason.
    pub fn look(address: &MetricsAddress) -> Result<(), Error> {
        let free = match address {
            MetricsAddress::Tcp(address) => tcp_socket(*address, false).map(drop),
            MetricsAddress::Unix(path) => socket_file::look(path).map_err(of_file),
        };
        free.map_err(|source| Error::new(address, source))
    }

    /// Has those who ask come to this agent.
    ///
    /// # Errors
    /// The kernel refuses the name.
    pub fn publish(&self) -> io::Result<()> {
        match &self.0 {
            Listener::Tcp(_) => Ok(()),
            Listener::Unix(socket) => socket.publish(),
        }
    }

    /// The directory of the socket, where this agent has made it.
    #[must_use]
    pub fn made_directory(&self) -> Option<&Path> {
        match &self.0 {
            Listener::Tcp(_) => None,
            Listener::Unix(socket) => socket.made_directory(),
        }
    }

    /// Starts the thread that answers, for as long as the process lives; the name of a socket goes with this.
    ///
    /// # Errors
    /// The kernel refuses a thread, or what its runtime needs.
    pub fn spawn(&self, sources: Sources) -> io::Result<()> {
        let sources = Arc::new(sources);
        match &self.0 {
            Listener::Tcp(listener) => {
                let listener = listener.try_clone()?;
                spawn(async move || {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    Ok(serve(async || Ok(listener.accept().await?.0), &sources).await)
                })
            }
            Listener::Unix(socket) => {
                let listener = socket.listener()?;
                spawn(async move || {
                    let listener = tokio::net::UnixListener::from_std(listener)?;
                    Ok(serve(async || Ok(listener.accept().await?.0), &sources).await)
                })
            }
        }
    }
}

/// Runs `answer`, which does not end but by an error, in a thread of its own.
fn spawn(answer: impl AsyncFnOnce() -> io::Result<io::Error> + Send + 'static) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    critical::spawn_endless("metrics", move || runtime.block_on(answer()).unwrap_or_else(|error| error))
}

/// `SO_REUSEPORT` lets an agent begin to listen beside the one that it relieves; any other is found out by a first try
/// without it.
fn bind_tcp(address: SocketAddr, succession: Succession) -> io::Result<TcpListener> {
    let bind = |reuse_port: bool| -> io::Result<Socket> {
        let socket = tcp_socket(address, reuse_port)?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    };
    if succession.takes_over {
        return bind(true).map(TcpListener::from);
    }
    let alone = bind(false)?;
    if !succession.may_follow {
        return Ok(alone.into());
    }
    drop(alone);
    bind(true).map(TcpListener::from)
}

fn tcp_socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket without a listener is replaced.
fn bind_unix(path: &Path, succession: Succession) -> io::Result<SocketFile> {
    let socket = SocketFile::open(path, UNIX_MODE, BACKLOG, succession.takes_over).map_err(of_file)?;
    socket.listener()?.set_nonblocking(true)?;
    Ok(socket)
}

fn of_file(error: socket_file::Error) -> io::Error {
    match error {
        socket_file::Error::Taken | socket_file::Error::NotASocket => io::ErrorKind::AddrInUse.into(),
        socket_file::Error::Refused(error) => error,
    }
}

fn remedy(error: &io::Error, address: &MetricsAddress) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "something else listens there; stop it or set metrics to another address",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; bring the loopback interface up",
        io::ErrorKind::PermissionDenied => {
            "allow the agent to make the socket and its directory, or choose a port from 1024 on"
        }
        _ if matches!(address, MetricsAddress::Unix(_)) => {
            "set metrics to a socket in a directory where the agent can make files, or to an address such as 127.0.0.1:9464"
        }
        _ => "set metrics to another address, such as 127.0.0.1:9464",
    }
}

/// A connection that is being served.
struct Open {
    task: AbortHandle,
    /// Set when its request is whole: then it only takes the answer.
    asked: Arc<AtomicBool>,
}

/// Makes room among the connections that are served: the oldest whose request is not whole ends, so that programs that
/// connect and stay silent keep no other client out.
fn make_room(open: &mut VecDeque<Open>) {
    open.retain(|connection| !connection.task.is_finished());
    if open.len() < AT_ONCE {
        return;
    }
    if let Some(oldest) = open.iter().position(|connection| !connection.asked.load(Ordering::Relaxed))
        && let Some(connection) = open.remove(oldest)
    {
        connection.task.abort();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    accept: impl AsyncFn() -> io::Result<S>,
    sources: &Arc<Sources>,
) -> io::Error {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut open = VecDeque::new();
    loop {
        match accept().await {
            Ok(stream) => {
                make_room(&mut open);
                // Where all are taking their answers, the newcomer waits for one of them.
                let permit = match Arc::clone(&room).acquire_owned().await {
                    Ok(permit) => permit,
                    // It is never closed.
                    Err(closed) => return io::Error::other(closed),
                };
                let (sources, asked) = (Arc::clone(sources), Arc::new(AtomicBool::new(false)));
                let is_asked = Arc::clone(&asked);
                let task = tokio::spawn(async move {
                    // Who does not read, or leaves, gets no answer.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &sources, &is_asked)).await;
                    drop(permit);
                });
                open.push_back(Open { task: task.abort_handle(), asked });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    sources: &Arc<Sources>,
    asked: &AtomicBool,
) -> io::Result<()> {
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
    asked.store(true, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_have_ended_are_forgotten_and_the_oldest_silent_one_makes_room() {
        let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let open_one = |is_asked: bool, ends: bool| {
                let task = tokio::spawn(async move {
                    if !ends {
                        std::future::pending::<()>().await;
                    }
                });
                Open { task: task.abort_handle(), asked: Arc::new(AtomicBool::new(is_asked)) }
            };
            let mut open: VecDeque<_> = (0..AT_ONCE + 5).map(|_| open_one(true, true)).collect();
            tokio::task::yield_now().await;
            make_room(&mut open);
            assert_eq!(open.len(), 0, "all have ended");
            // The first takes its answer, the others have not asked.
            open.extend((0..AT_ONCE).map(|number| open_one(number == 0, false)));
            let second = open[1].task.clone();
            make_room(&mut open);
            tokio::task::yield_now().await;
            assert!(open.len() == AT_ONCE - 1 && second.is_finished() && !open[0].task.is_finished());
            make_room(&mut open);
            assert_eq!(open.len(), AT_ONCE - 1, "there is room");
            open.iter().for_each(|one| one.task.abort());
        });
    }
}
