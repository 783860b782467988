//! The inside of a TLS session, as something to read from.
//!
//! A client may send good records and a broken one in one go. The library decrypts the good ones, then reports the
//! broken one instead of them; what it has decrypted by then is payload and is handed out first.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::Prefixed;

/// A decrypted stream.
#[derive(Debug)]
pub struct Stream<S> {
    inner: TlsStream<Prefixed<S>>,
    /// To be reported when all that was decrypted before has been read.
    error: Option<io::Error>,
}

impl<S> Stream<S> {
    /// The inside of a session whose handshake is complete.
    pub(super) fn new(mut inner: TlsStream<Prefixed<S>>) -> Self {
        inner.get_mut().0.end_opening();
        Self { inner, error: None }
    }

    /// The library's view of the session.
    pub(super) fn connection(&self) -> &rustls::ServerConnection {
        self.inner.get_ref().1
    }

    /// Takes what was decrypted already; true when that was something.
    fn take_decrypted(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let (_, connection) = self.inner.get_mut();
        let length = connection.reader().read(buffer.initialize_unfilled()).unwrap_or(0);
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
            None => match ready!(Pin::new(&mut self.inner).poll_read(context, buffer)) {
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
