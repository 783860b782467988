//! A stream whose first bytes, a ClientHello and perhaps more, were read already.
//!
//! Until the handshake is over, bytes are handed on in portions that end where a record ends, whatever pieces they came
//! in. That decides two things about what a client sends in one go:
//!
//! * A record behind the last one of the handshake is not touched before the session is there, so that a broken
//!   record cannot take with it what was sent before.
//! * Bytes in a record's place that are none are recognised as what they are: something in clear. They are handed on
//!   once, so that the client is refused in the words of the protocol, then the stream seems to end. They are kept and
//!   can be had back with [`Prefixed::into_clear`], together with the stream that goes on after them.
//!
//! Never more is held than what was read before, plus one read of [`READ_BYTES`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One read during the handshake, in which a client sends some hundred bytes.
const READ_BYTES: usize = 4096;
/// Type, version and length in front of a record.
const HEADER_BYTES: usize = 5;
/// The most content of a record in any version (RFC 5246, section 6.2.3).
const MAX_CONTENT_BYTES: usize = (1 << 14) + 2048;

/// Repeats the bytes that were read from a stream, then goes on with the stream. The memory of the repeated bytes is
/// given back as soon as the last of them was taken.
#[derive(Debug)]
pub struct Prefixed<S> {
    bytes: Vec<u8>,
    taken: usize,
    /// Until the handshake is over.
    opening: Option<Opening>,
    stream: S,
}

/// Where the portions end.
#[derive(Debug)]
struct Opening {
    /// What is left of the current portion.
    left: usize,
    /// Whether the record in which the hello ends goes on after it, with what nobody may send there.
    runs_on: bool,
    /// Whether what comes next is no record, and was handed on.
    refused: bool,
}

/// What stands where a record should begin.
enum Next {
    Record { length: usize },
    Unclear,
    Clear,
}

impl<S> Prefixed<S> {
    /// Puts `bytes` back in front of a stream; the first `hello` of them are a ClientHello with its record headers.
    pub fn new(bytes: Vec<u8>, hello: usize, stream: S) -> Self {
        let opening = Opening { left: hello, runs_on: !ends_a_record(&bytes, hello), refused: false };
        Self { bytes, taken: 0, opening: Some(opening), stream }
    }

    /// The hello with its record headers, as long as nothing was taken.
    pub(super) fn hello(&self) -> &[u8] {
        let length = self.opening.as_ref().map_or(0, |opening| opening.left);
        self.bytes.get(..length).unwrap_or_default()
    }

    /// Replaces the hello, by one in a single record that says the same in other words.
    pub(super) fn replace_hello(&mut self, hello: &[u8]) {
        if let (Some(opening), 0) = (&mut self.opening, self.taken) {
            self.bytes.splice(..opening.left, hello.iter().copied());
            opening.left = hello.len();
        }
    }

    /// Ends the look for what is in clear, and the portions: the handshake is over.
    pub(super) fn end_opening(&mut self) {
        self.opening = None;
        self.give_memory_back();
    }

    /// Whether something in clear stands where a record should begin.
    #[must_use]
    pub fn is_in_clear(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.refused)
    }

    /// The bytes in clear that followed the hello, and the stream to read what follows them; without any when the
    /// client kept to the protocol as far as it was read.
    pub fn into_clear(mut self) -> (Vec<u8>, S) {
        let Some(mut opening) = self.opening else {
            return (Vec::new(), self.stream);
        };
        // What was not read during the handshake, because it failed before, may hold records.
        while opening.left <= self.bytes.len() - self.taken {
            self.taken += opening.left;
            match opening.next(&self.bytes[self.taken..]) {
                Next::Record { length } => opening.left = length,
                Next::Unclear => break,
                Next::Clear => {
                    self.bytes.drain(..self.taken);
                    return (self.bytes, self.stream);
                }
            }
        }
        (Vec::new(), self.stream)
    }

    fn give_memory_back(&mut self) {
        if self.taken == self.bytes.len() {
            self.bytes = Vec::new();
            self.taken = 0;
        }
    }
}

impl Opening {
    fn next(&self, bytes: &[u8]) -> Next {
        if bytes.is_empty() {
            return Next::Unclear;
        }
        if self.runs_on {
            return Next::Clear;
        }
        // From change_cipher_spec to heartbeat; the version is 3.x since SSL 3.0.
        let is_record = (20..=24).contains(&bytes[0]) && bytes.get(1).is_none_or(|major| *major == 3);
        match bytes.first_chunk::<HEADER_BYTES>() {
            _ if !is_record => Next::Clear,
            None => Next::Unclear,
            Some([_, _, _, high, low]) => match usize::from(u16::from_be_bytes([*high, *low])) {
                length if length > MAX_CONTENT_BYTES => Next::Clear,
                length => Next::Record { length: HEADER_BYTES + length },
            },
        }
    }
}

/// Whether the records in `bytes` have one that ends after `length` bytes.
fn ends_a_record(bytes: &[u8], length: usize) -> bool {
    let mut at = 0;
    while at < length {
        let Some([_, _, _, high, low]) = bytes[at..].first_chunk() else {
            return false;
        };
        at += HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    }
    at == length
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let rest = &this.bytes[this.taken..];
            let portion = match &mut this.opening {
                None if rest.is_empty() => return Pin::new(&mut this.stream).poll_read(context, buffer),
                None => rest.len(),
                Some(Opening { refused: true, .. }) => return Poll::Ready(Ok(())),
                Some(opening) if opening.left > 0 => rest.len().min(opening.left),
                Some(opening) => match opening.next(rest) {
                    Next::Record { length } => {
                        opening.left = length;
                        continue;
                    }
                    Next::Unclear => 0,
                    Next::Clear => {
                        opening.refused = true;
                        buffer.put_slice(&rest[..rest.len().min(buffer.remaining())]);
                        return Poll::Ready(Ok(()));
                    }
                },
            };
            if portion > 0 {
                let length = portion.min(buffer.remaining());
                buffer.put_slice(&rest[..length]);
                this.taken += length;
                if let Some(opening) = &mut this.opening {
                    opening.left -= length;
                }
                this.give_memory_back();
                return Poll::Ready(Ok(()));
            }
            let mut scratch = [0; READ_BYTES];
            let mut scratch = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut scratch))?;
            if scratch.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.bytes.extend_from_slice(scratch.filled());
        }
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
    use crate::tls::tests::run;
    use tokio::io::AsyncReadExt;

    const HELLO: &[u8] = b"\x16\x03\x01\x00\x04abcd";
    const RECORD: &[u8] = b"\x14\x03\x03\x00\x01\x01";

    async fn read(stream: &mut Prefixed<&[u8]>) -> Vec<u8> {
        let mut bytes = [0; 64];
        let length = stream.read(&mut bytes).await.expect("read");
        bytes[..length].to_vec()
    }

    #[test]
    fn bytes_come_in_portions_of_a_record_until_the_handshake_is_over() {
        run(async {
            let rest = [RECORD, RECORD, b"more"].concat();
            for early in 0..rest.len() {
                let (early, late) = rest.split_at(early);
                let mut stream = Prefixed::new([HELLO, early].concat(), HELLO.len(), late);
                assert_eq!(read(&mut stream).await, HELLO);
                let mut portions = Vec::new();
                while portions.len() < RECORD.len() {
                    portions.extend(read(&mut stream).await);
                }
                assert_eq!(portions, RECORD, "never more than one record at once");
                stream.end_opening();
                let mut after = Vec::new();
                stream.read_to_end(&mut after).await.expect("read");
                assert_eq!(after, [RECORD, b"more"].concat());
                assert_eq!(stream.bytes.capacity(), 0);
            }
        });
    }

    #[test]
    fn what_is_no_record_is_handed_on_once_and_can_be_had_back() {
        run(async {
            for clear in [&b"G"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x02\x01", b"\x17\x03\x03\xff\xffx", b"\0"] {
                for early in 0..=clear.len() {
                    let (early, late) = clear.split_at(early);
                    let mut stream = Prefixed::new([HELLO, RECORD, early].concat(), HELLO.len(), late);
                    assert_eq!(read(&mut stream).await, HELLO);
                    assert_eq!(read(&mut stream).await, RECORD);
                    assert!(!stream.is_in_clear());
                    assert!(clear.starts_with(&read(&mut stream).await));
                    assert_eq!(read(&mut stream).await, b"");
                    assert!(stream.is_in_clear());
                    let (mut kept, mut rest) = stream.into_clear();
                    rest.read_to_end(&mut kept).await.expect("read");
                    assert_eq!(kept, clear);
                }
            }
        });
    }

    #[test]
    fn what_a_refused_client_sent_is_looked_through_unread() {
        for (rest, clear) in [
            (&b""[..], &b""[..]),
            (RECORD, b""),
            (b"QUIT\r\n", b"QUIT\r\n"),
            (b"\x14\x03\x03\x00\x01\x01QUIT", b"QUIT"),
            (b"\x14\x03\x03\x00\x01", b""),
            (b"\x14\x03", b""),
        ] {
            let stream = Prefixed::new([HELLO, rest].concat(), HELLO.len(), ());
            assert_eq!(stream.into_clear().0, clear);
        }
    }

    #[test]
    fn what_stands_in_the_hellos_own_record_behind_it_is_in_clear() {
        run(async {
            let mut stream = Prefixed::new(HELLO.to_vec(), HELLO.len() - 1, RECORD);
            assert_eq!(read(&mut stream).await, HELLO[..HELLO.len() - 1]);
            assert_eq!(read(&mut stream).await, b"d");
            assert!(stream.is_in_clear());
            let (kept, rest) = stream.into_clear();
            assert_eq!((&kept[..], rest), (&b"d"[..], RECORD));
        });
    }

    #[test]
    fn a_stream_that_ends_inside_a_header_ends() {
        run(async {
            let mut stream = Prefixed::new([HELLO, b"\x16\x03"].concat(), HELLO.len(), &b"\x01"[..]);
            assert_eq!(read(&mut stream).await, HELLO);
            assert_eq!(read(&mut stream).await, b"");
            assert!(!stream.is_in_clear());
            assert_eq!(stream.into_clear().0, b"");
        });
    }

    #[test]
    fn a_replaced_hello_changes_nothing_behind_it() {
        run(async {
            let mut stream = Prefixed::new([HELLO, RECORD].concat(), HELLO.len(), &b"!"[..]);
            stream.replace_hello(b"\x16\x03\x01\x00\x01x");
            assert_eq!(read(&mut stream).await, b"\x16\x03\x01\x00\x01x");
            assert_eq!(read(&mut stream).await, RECORD);
            assert_eq!(read(&mut stream).await, b"!");
            assert!(stream.is_in_clear());
        });
    }
}
