//! The transport beneath a TLS session: the client's stream as it is, or, while the handshake lasts, the packets of TDS.
//!
//! Up to TDS 7.4 a client of SQL Server agrees on encryption in the pre-login and then sends its side of the handshake in
//! packets of the pre-login's type ([MS-TDS] 3.2.5.2). The server answers in the same packets, one message for each
//! flight, because clients read one message and give it to their library. Behind the handshake both sides send records
//! without packets, and those have packets of TDS inside.
//!
//! Reading follows the client: where a packet would begin and something else does, the rest of the stream is taken as it is.
//! Memory: one read of [`READ_BYTES`], and one flight of the server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One read while packets are unwrapped.
const READ_BYTES: usize = 4096;
/// Bytes of a packet's header: type, status, length, process, number, window.
const HEADER_BYTES: usize = 8;
/// Type of the packets that carry a handshake ([MS-TDS] 2.2.3.1.1).
const PRELOGIN: u8 = 0x12;
/// Status of the last packet of a message.
const LAST: u8 = 1;
/// Bytes of a packet before client and server agree on another size ([MS-TDS] 2.2.3.1).
const PACKET_BYTES: usize = 4096;

/// Transport of the records of a handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// The stream itself.
    #[default]
    Stream,
    /// Packets of TDS.
    TdsPackets,
}

/// Takes the headers of packets away.
#[derive(Clone, Debug, Default)]
pub struct Unwrapper {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that have come.
    held: usize,
    /// Bytes left of the current packet.
    left: usize,
    /// Set once something has come that is no packet of a handshake.
    is_plain: bool,
}

impl Unwrapper {
    /// Appends the content of `bytes`, which continue those of the last call, to `content`.
    pub fn unwrap(&mut self, mut bytes: &[u8], content: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.is_plain {
                return content.extend_from_slice(bytes);
            }
            if self.left > 0 {
                let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
                content.extend_from_slice(part);
                self.left -= part.len();
                bytes = rest;
                continue;
            }
            if self.held == 0 && bytes[0] != PRELOGIN {
                self.is_plain = true;
                continue;
            }
            let (part, rest) = bytes.split_at((HEADER_BYTES - self.held).min(bytes.len()));
            self.header[self.held..][..part.len()].copy_from_slice(part);
            self.held += part.len();
            bytes = rest;
            if self.held == HEADER_BYTES {
                self.held = 0;
                let length = usize::from(u16::from_be_bytes([self.header[2], self.header[3]]));
                if let Some(left) = length.checked_sub(HEADER_BYTES) {
                    self.left = left;
                } else {
                    // A length that counts less than the header is no packet's.
                    self.is_plain = true;
                    content.extend_from_slice(&self.header);
                }
            }
        }
    }
}

/// Wraps a flight in the packets of one message.
fn wrapped(flight: &[u8]) -> Vec<u8> {
    let parts = flight.chunks(PACKET_BYTES - HEADER_BYTES);
    let count = parts.len();
    let mut packets = Vec::with_capacity(flight.len() + count * HEADER_BYTES);
    for (number, part) in (1..).zip(parts) {
        let status = if number == count { LAST } else { 0 };
        let length = u16::try_from(part.len() + HEADER_BYTES).unwrap_or_default().to_be_bytes();
        packets.extend_from_slice(&[PRELOGIN, status, length[0], length[1], 0, 0, number.to_le_bytes()[0], 0]);
        packets.extend_from_slice(part);
    }
    packets
}

/// A stream whose handshake may be in packets.
#[derive(Debug)]
pub struct Carrier<S> {
    stream: S,
    /// Until both sides send records without packets.
    packets: Option<Box<Packets>>,
}

#[derive(Debug)]
struct Packets {
    unwrapper: Unwrapper,
    /// Content that was read and not taken yet.
    content: Vec<u8>,
    /// Bytes that the library has written since the last flush.
    flight: Vec<u8>,
    /// Packets that the client has not taken yet.
    pending: Vec<u8>,
    /// Set once the handshake is over: from then on nothing is wrapped.
    is_over: bool,
}

impl<S> Carrier<S> {
    /// A stream as it is.
    pub fn plain(stream: S) -> Self {
        Self { stream, packets: None }
    }

    /// A stream whose packets `unwrapper` has begun to unwrap.
    pub fn in_packets(stream: S, unwrapper: Unwrapper) -> Self {
        let packets =
            Packets { unwrapper, content: Vec::new(), flight: Vec::new(), pending: Vec::new(), is_over: false };
        Self { stream, packets: Some(Box::new(packets)) }
    }

    /// Ends the wrapping of what is sent: the handshake is complete.
    pub fn end_handshake(&mut self) {
        if let Some(packets) = &mut self.packets {
            packets.is_over = true;
        }
        self.drop_packets();
    }

    /// Drops the layer once neither direction needs it.
    fn drop_packets(&mut self) {
        let is_done = |packets: &Packets| {
            let is_empty = packets.content.is_empty() && packets.flight.is_empty() && packets.pending.is_empty();
            packets.is_over && packets.unwrapper.is_plain && is_empty
        };
        if self.packets.as_deref().is_some_and(is_done) {
            self.packets = None;
        }
    }
}

impl Packets {
    /// Sends what was written so far, as one message.
    fn poll_send<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.flight.is_empty() {
            self.pending.extend(wrapped(&std::mem::take(&mut self.flight)));
        }
        while !self.pending.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(context, &self.pending))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => drop(self.pending.drain(..count)),
            }
        }
        self.pending = Vec::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Carrier<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(packets) = &mut this.packets else { return Pin::new(&mut this.stream).poll_read(context, buffer) };
        // The library waits for the client's next flight, so its own is whole. Whether it goes out is known by reading.
        let _sent = packets.poll_send(&mut this.stream, context);
        while packets.content.is_empty() {
            let mut scratch = [0; READ_BYTES];
            let mut scratch = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut scratch))?;
            if scratch.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            packets.unwrapper.unwrap(scratch.filled(), &mut packets.content);
        }
        let count = packets.content.len().min(buffer.remaining());
        buffer.put_slice(&packets.content[..count]);
        packets.content.drain(..count);
        if packets.content.is_empty() {
            packets.content = Vec::new();
        }
        this.drop_packets();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Carrier<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(packets) = &mut this.packets {
            if packets.is_over || packets.flight.len() >= READ_BYTES {
                ready!(packets.poll_send(&mut this.stream, context))?;
            }
            if !packets.is_over {
                packets.flight.extend_from_slice(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(packets) = &mut this.packets {
            ready!(packets.poll_send(&mut this.stream, context))?;
        }
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(packets) = &mut this.packets {
            // The end of the stream is not held back by a client that does not read.
            let _sent = packets.poll_send(&mut this.stream, context);
        }
        Pin::new(&mut this.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.packets.is_none() {
            return Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        self.poll_write(context, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.packets.is_none() && self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn packet(kind: u8, status: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(HEADER_BYTES + content.len()).expect("short").to_be_bytes();
        [&[kind, status, length[0], length[1], 0, 0, 0, 0], content].concat()
    }

    #[test]
    fn headers_go_in_whatever_pieces_they_come() {
        let bytes =
            [packet(PRELOGIN, 0, b"client"), packet(PRELOGIN, LAST, b""), packet(PRELOGIN, LAST, b"hello")].concat();
        let bytes = [&bytes[..], b"\x17\x03\x03\x12\x12\x12"].concat();
        for size in 1..=bytes.len() {
            let (mut unwrapper, mut content) = (Unwrapper::default(), Vec::new());
            for piece in bytes.chunks(size) {
                unwrapper.unwrap(piece, &mut content);
            }
            assert_eq!(content, b"clienthello\x17\x03\x03\x12\x12\x12", "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_packet_stays_as_it_is() {
        for bytes in [&b"\x10\x01\x00\x09\0\0\0\0x"[..], b"\x16\x03\x01", b"\x12\x01\x00\x07\0\0\0\0x\x12"] {
            let mut content = Vec::new();
            Unwrapper::default().unwrap(bytes, &mut content);
            assert_eq!(content, bytes);
        }
    }

    #[tokio::test]
    async fn a_flight_is_one_message_and_what_follows_the_handshake_is_not_wrapped() {
        let (mut client, server) = duplex(1 << 16);
        let mut server = Carrier::in_packets(server, Unwrapper::default());
        client.write_all(&packet(PRELOGIN, LAST, b"hello")).await.expect("sent");
        let mut heard = [0; 5];
        server.read_exact(&mut heard).await.expect("read");
        assert_eq!(&heard, b"hello");
        let flight = vec![7; 5_000];
        server.write_all(&flight[..1_000]).await.expect("written");
        server.write_all(&flight[1_000..]).await.expect("written");
        server.flush().await.expect("flushed");
        let mut said = vec![0; 5_000 + 2 * HEADER_BYTES];
        client.read_exact(&mut said).await.expect("read");
        assert_eq!(said[..4], [PRELOGIN, 0, 0x10, 0]);
        assert_eq!(said[PACKET_BYTES..][..2], [PRELOGIN, LAST]);
        let mut content = Vec::new();
        Unwrapper::default().unwrap(&said, &mut content);
        assert_eq!(content, flight);

        server.end_handshake();
        server.write_all(b"inside").await.expect("written");
        server.flush().await.expect("flushed");
        let mut said = [0; 6];
        client.read_exact(&mut said).await.expect("read");
        assert_eq!(&said, b"inside");
        client.write_all(b"\x17\x03\x03").await.expect("sent");
        let mut heard = [0; 3];
        server.read_exact(&mut heard).await.expect("read");
        assert!(server.packets.is_none(), "the layer is gone");
    }
}
