//! The inside of a TLS session, as something to read from, whichever library decrypts it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::driver::Driver;
#[cfg(feature = "legacy-tls")]
use super::legacy;

/// A decrypted stream.
#[derive(Debug)]
pub struct Stream<S>(Library<S>);

/// The library that decrypts.
#[derive(Debug)]
#[cfg_attr(feature = "legacy-tls", expect(clippy::large_enum_variant, reason = "boxed as a whole, and the rule"))]
enum Library<S> {
    Usual(Driver<S>),
    #[cfg(feature = "legacy-tls")]
    Legacy(Box<legacy::Stream<S>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// The inside of a session whose handshake is complete.
    pub(super) fn new(mut driver: Driver<S>) -> Self {
        driver.stream_mut().end_opening();
        Self(Library::Usual(driver))
    }

    /// The same, of a session that the other library has.
    #[cfg(feature = "legacy-tls")]
    pub(super) fn legacy(inner: Box<legacy::Stream<S>>) -> Self {
        Self(Library::Legacy(inner))
    }

    /// Returns the stream beneath both layers.
    pub fn transport(&mut self) -> Option<&mut S> {
        match &mut self.0 {
            Library::Usual(driver) => Some(driver.stream_mut().stream_mut()),
            #[cfg(feature = "legacy-tls")]
            Library::Legacy(stream) => stream.get_mut().stream_mut(),
        }
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin + '_)> {
        match &mut self.0 {
            Library::Usual(driver) => Pin::new(driver),
            #[cfg(feature = "legacy-tls")]
            Library::Legacy(stream) => Pin::new(&mut **stream),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Library::Usual(driver) => Pin::new(driver).poll_read(context, buffer),
            #[cfg(feature = "legacy-tls")]
            Library::Legacy(stream) => legacy::poll_read(stream, context, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writer().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_shutdown(context)
    }
}
