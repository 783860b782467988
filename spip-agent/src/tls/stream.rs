//! The inside of a TLS session, as something to read from.
//!
//! A client may send good records and a broken one in one go. The library decrypts the good ones, then reports the
//! broken one instead of them; what it has decrypted by then is payload and is handed out first.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::Replay;
#[cfg(feature = "legacy-tls")]
use super::legacy;

/// A decrypted stream.
#[derive(Debug)]
pub struct Stream<S> {
    inner: Inner<S>,
    /// Error to report when all that was decrypted before has been read.
    error: Option<io::Error>,
}

/// The library that decrypts.
#[derive(Debug)]
#[cfg_attr(feature = "legacy-tls", expect(clippy::large_enum_variant, reason = "boxed as a whole, and the rule"))]
enum Inner<S> {
    Library(TlsStream<Replay<S>>),
    #[cfg(feature = "legacy-tls")]
    Legacy(Box<legacy::Stream<S>>),
}

impl<S> Stream<S> {
    /// The inside of a session whose handshake is complete.
    pub(super) fn new(mut inner: TlsStream<Replay<S>>) -> Self {
        inner.get_mut().0.end_opening();
        Self { inner: Inner::Library(inner), error: None }
    }

    /// The same, of a session that the other library has.
    #[cfg(feature = "legacy-tls")]
    pub(super) fn legacy(inner: Box<legacy::Stream<S>>) -> Self {
        Self { inner: Inner::Legacy(inner), error: None }
    }

    /// Returns the stream beneath both layers.
    pub fn transport(&mut self) -> Option<&mut S> {
        match &mut self.inner {
            Inner::Library(stream) => Some(stream.get_mut().0.stream_mut()),
            #[cfg(feature = "legacy-tls")]
            Inner::Legacy(stream) => stream.get_mut().stream_mut(),
        }
    }

    /// Takes what was decrypted already; true when that was something.
    fn take_decrypted(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let length = match &mut self.inner {
            Inner::Library(stream) => stream.get_mut().1.reader().read(buffer.initialize_unfilled()).unwrap_or(0),
            // Reads one record at a time.
            #[cfg(feature = "legacy-tls")]
            Inner::Legacy(_) => 0,
        };
        buffer.advance(length);
        length > 0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let error = match self.error.take() {
            Some(error) => error,
            None => match ready!(self.inner.poll_read(context, buffer)) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => error,
                read => return Poll::Ready(read),
            },
        };
        if self.take_decrypted(buffer) {
            self.error = Some(error);
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(error))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Library(stream) => {
                let read = Pin::new(&mut *stream).poll_read(context, buffer);
                // What the library answers by itself, such as a refusal to renegotiate, waits in there for a write.
                // A client that does not take it is not waited for; one that is gone is noticed by reading.
                if stream.get_ref().1.wants_write() {
                    let _ = Pin::new(stream).poll_flush(context);
                }
                read
            }
            #[cfg(feature = "legacy-tls")]
            Self::Legacy(stream) => legacy::poll_read(stream, context, buffer),
        }
    }

    /// To write to.
    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin + '_)> {
        match self {
            Self::Library(stream) => Pin::new(stream),
            #[cfg(feature = "legacy-tls")]
            Self::Legacy(stream) => Pin::new(&mut **stream),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.writer().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.writer().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.writer().poll_shutdown(context)
    }
}
