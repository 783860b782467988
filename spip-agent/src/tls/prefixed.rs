//! A stream whose first bytes were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Repeats the bytes that were read from a stream, then goes on with the stream. The memory of the repeated bytes is
/// given back as soon as the last of them was taken.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Vec<u8>,
    taken: usize,
    stream: S,
}

impl<S> Prefixed<S> {
    /// Puts bytes back in front of a stream.
    pub fn new(prefix: Vec<u8>, stream: S) -> Self {
        Self { prefix, taken: 0, stream }
    }

    /// The stream beneath.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream beneath; reading from it before the prefix was taken would reorder bytes.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream beneath, and those of the first bytes that nobody took.
    pub fn into_parts(mut self) -> (Vec<u8>, S) {
        self.prefix.drain(..self.taken);
        (self.prefix, self.stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = &this.prefix[this.taken..];
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        this.taken += length;
        if this.taken == this.prefix.len() {
            this.prefix = Vec::new();
            this.taken = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn the_prefix_comes_first_and_its_memory_goes() {
        crate::tls::tests::run(async {
            let (mut far, near) = tokio::io::duplex(64);
            far.write_all(b" world").await.expect("write");
            drop(far);
            let mut stream = Prefixed::new(b"hello".to_vec(), near);
            let mut start = [0; 3];
            stream.read_exact(&mut start).await.expect("read");
            assert_eq!(stream.prefix.capacity(), 5);
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.expect("read");
            assert_eq!(rest, "lo world");
            assert_eq!(stream.prefix.capacity(), 0);
        });
    }

    #[test]
    fn what_nobody_took_can_be_had_back() {
        crate::tls::tests::run(async {
            let mut stream = Prefixed::new(b"hello".to_vec(), tokio::io::empty());
            let mut start = [0; 2];
            stream.read_exact(&mut start).await.expect("read");
            assert_eq!(stream.into_parts().0, b"llo");
        });
    }
}
