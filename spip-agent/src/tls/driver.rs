//! The library over a stream: carries records to and from it, in buffers of our own.
//!
//! The library has an interface without buffers, made for this. A buffer is given back as soon as nothing is in it, so
//! that an idle session holds none; with the library's own it would keep 4 KiB to receive into. Records are decrypted
//! one at a time, each when the one before was read: what a client sent in good order is handed out before the record
//! that breaks the protocol is looked at.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Replay;

/// One read from the stream.
const READ_BYTES: usize = 4096;
/// The longest handshake message that is put together, over as many records as it takes. A record is shorter.
const MAX_INCOMING_BYTES: usize = 65_535;
/// The most data that is encrypted at once.
const WRITE_BYTES: usize = 16 * 1024;

/// A connection of the library, and the stream that it speaks over.
pub(super) struct Driver<S> {
    connection: UnbufferedServerConnection,
    stream: Replay<S>,
    /// What was received and not taken by the library: part of a record, or whole ones.
    incoming: Buffer,
    /// What was decrypted and not read.
    decrypted: Buffer,
    /// What was encrypted and not sent.
    outgoing: Buffer,
    /// Set when the library has failed. Its alert is among what is to be sent.
    failure: Option<rustls::Error>,
    /// The client has said that it sends no more.
    is_closed: bool,
}

/// Things to do once the library lets data be sent.
#[derive(Clone, Copy)]
enum Task<'a> {
    None,
    Encrypt(&'a [u8]),
    /// Say that nothing more is sent.
    Close,
}

/// Points at which the library goes no further by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The handshake needs more bytes.
    Handshake,
    /// The task is done, and more has to be received before there is anything else.
    Traffic,
    /// A record was decrypted.
    Decrypted,
    /// The client sends no more. The library stops here once.
    Closed,
    /// Neither side sends any more.
    Ended,
}

/// Outcomes of one call of the library.
enum Turn {
    /// It has more to say.
    GoesOn,
    Stopped(Stop),
    Failed(rustls::Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Completes a handshake.
    ///
    /// There is no deadline in here. The alert, where it fails, was written as far as the client takes it at once.
    ///
    /// # Errors
    /// With the stream beneath: `InvalidData` with the library's error, `UnexpectedEof` where the client ended, or the
    /// stream's error.
    pub(super) async fn accept(config: Arc<ServerConfig>, stream: Replay<S>) -> Result<Self, (io::Error, Replay<S>)> {
        let connection = match UnbufferedServerConnection::new(config) {
            Ok(connection) => connection,
            Err(error) => return Err((broken(error), stream)),
        };
        let mut driver = Self {
            connection,
            stream,
            incoming: Buffer::default(),
            decrypted: Buffer::default(),
            outgoing: Buffer::default(),
            failure: None,
            is_closed: false,
        };
        match poll_fn(|context| driver.poll_handshake(context)).await {
            Ok(()) => Ok(driver),
            Err(error) => Err((error, driver.stream)),
        }
    }

    /// Returns the agreed parameters.
    pub(super) fn agreed(&self) -> &CommonState {
        &self.connection
    }

    /// Returns the stream beneath.
    pub(super) fn stream_mut(&mut self) -> &mut Replay<S> {
        &mut self.stream
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let stop = self.process_or_alert(context, Task::None)?;
            // A client that does not take the answer is read from all the same.
            let is_sent = self.poll_send(context)?.is_ready();
            match stop {
                Stop::Traffic | Stop::Decrypted if is_sent => return Poll::Ready(Ok(())),
                Stop::Traffic | Stop::Decrypted => return Poll::Pending,
                Stop::Closed | Stop::Ended => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Stop::Handshake => ready!(self.poll_receive(context))?,
            }
        }
    }

    /// Receives more.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end: the client has not said that it sends no more.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.incoming.rest().len() >= MAX_INCOMING_BYTES {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a handshake message is too long")));
        }
        let mut scratch = [0; READ_BYTES];
        let mut scratch = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut scratch))?;
        if scratch.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.incoming.append(scratch.filled());
        Poll::Ready(Ok(()))
    }

    /// Sends what was encrypted.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.rest().is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, self.outgoing.rest()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.outgoing.take(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// [`Self::process`]; the alert that follows from a failure is sent as far as the client takes it at once.
    fn process_or_alert(&mut self, context: &mut Context<'_>, task: Task<'_>) -> io::Result<Stop> {
        self.process(task).inspect_err(|_| {
            let _ = self.poll_send(context);
        })
    }

    /// Does `task`. Records that are decrypted on the way are kept for the reader.
    fn perform(&mut self, context: &mut Context<'_>, task: Task<'_>) -> io::Result<()> {
        loop {
            match self.process_or_alert(context, task)? {
                Stop::Traffic => return Ok(()),
                Stop::Handshake | Stop::Ended => {
                    let is_done = matches!(task, Task::Close);
                    return if is_done { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) };
                }
                // No more of them than were received already.
                Stop::Decrypted | Stop::Closed => {}
            }
        }
    }
}

impl<S> Driver<S> {
    /// Has the library take what was received, up to the next point at which it stops. After a failure it is not asked
    /// again.
    fn process(&mut self, task: Task<'_>) -> io::Result<Stop> {
        while self.failure.is_none() {
            match self.turn(task) {
                Turn::GoesOn => {}
                Turn::Stopped(stop) => return Ok(stop),
                Turn::Failed(error) => {
                    self.failure = Some(error);
                    // An alert, if there is one, is what the library returns next, before it looks at anything.
                    let _ = self.turn(Task::None);
                    self.incoming = Buffer::default();
                }
            }
        }
        Err(broken(self.failure.clone().unwrap_or(rustls::Error::HandshakeNotComplete)))
    }

    /// Calls the library once.
    fn turn(&mut self, task: Task<'_>) -> Turn {
        let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(self.incoming.rest_mut());
        let turn = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                match self.outgoing.write(0, |buffer| data.encode(buffer), required_by_encode) {
                    Ok(()) => Turn::GoesOn,
                    Err(_) => Turn::Failed(rustls::Error::EncryptError),
                }
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Turn::GoesOn
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut turn = Turn::Stopped(Stop::Decrypted);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            self.decrypted.append(record.payload);
                        }
                        Err(error) => turn = Turn::Failed(error),
                    }
                }
                turn
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let outgoing = &mut self.outgoing;
                let done = match task {
                    Task::None => Ok(()),
                    Task::Encrypt(data) => outgoing.write(
                        data.len() + RECORD_OVERHEAD,
                        |buffer| traffic.encrypt(data, buffer),
                        required_by_encrypt,
                    ),
                    Task::Close => outgoing.write(
                        RECORD_OVERHEAD,
                        |buffer| traffic.queue_close_notify(buffer),
                        required_by_encrypt,
                    ),
                };
                match done {
                    Ok(()) => Turn::Stopped(Stop::Traffic),
                    Err(_) => Turn::Failed(rustls::Error::EncryptError),
                }
            }
            Ok(ConnectionState::PeerClosed) => {
                self.is_closed = true;
                Turn::Stopped(Stop::Closed)
            }
            Ok(ConnectionState::Closed) => Turn::Stopped(Stop::Ended),
            // Early data is not allowed, so that there is no other state.
            Ok(_) => Turn::Stopped(Stop::Handshake),
            Err(error) => Turn::Failed(error),
        };
        self.incoming.take(discard);
        turn
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Driver<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let decrypted = self.decrypted.rest();
            if !decrypted.is_empty() {
                let length = decrypted.len().min(buffer.remaining());
                buffer.put_slice(&decrypted[..length]);
                self.decrypted.take(length);
                return Poll::Ready(Ok(()));
            }
            if self.is_closed {
                return Poll::Ready(Ok(()));
            }
            let stop = self.process_or_alert(context, Task::None)?;
            // What the library answers by itself, such as a refusal to renegotiate. A client that does not take it is
            // not waited for; one that is gone is noticed by reading.
            let _ = self.poll_send(context);
            if matches!(stop, Stop::Traffic | Stop::Handshake) {
                ready!(self.poll_receive(context))?;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Driver<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Never more than one portion waits.
        ready!(self.poll_send(context))?;
        let portion = &bytes[..bytes.len().min(WRITE_BYTES)];
        self.perform(context, Task::Encrypt(portion))?;
        let _ = self.poll_send(context)?;
        Poll::Ready(Ok(portion.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Said once, however often it is asked for. After a failure the alert has said it.
        if self.failure.is_none() {
            self.perform(context, Task::Close)?;
        }
        ready!(self.poll_send(context))?;
        match ready!(Pin::new(&mut self.stream).poll_shutdown(context)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }
}

impl<S> fmt::Debug for Driver<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Driver").field("failure", &self.failure).finish_non_exhaustive()
    }
}

/// Bytes that a record has beside its data, and some.
const RECORD_OVERHEAD: usize = 128;

/// Bytes, taken from the front. Their memory goes with the last of them.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    taken: usize,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn rest_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.taken..]
    }

    fn take(&mut self, length: usize) {
        self.taken += length;
        if self.taken >= self.bytes.len() {
            *self = Self::default();
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        // What was taken must not add up.
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends what `write` puts into `room` bytes, or into as many as `required` says that it needs.
    fn write<E>(
        &mut self,
        mut room: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
        required: impl Fn(&E) -> Option<usize>,
    ) -> Result<(), E> {
        let before = self.bytes.len();
        let written = loop {
            self.bytes.resize(before + room, 0);
            let written = write(&mut self.bytes[before..]);
            match written.as_ref().err().and_then(&required).filter(|required| *required > room) {
                Some(required) => room = required,
                None => break written,
            }
        };
        self.bytes.truncate(before + *written.as_ref().unwrap_or(&0));
        written.map(drop)
    }
}

fn required_by_encode(error: &EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(size) => Some(size.required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

fn required_by_encrypt(error: &EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// The library's error, as one of a stream.
fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
