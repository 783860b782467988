//! A stream whose first bytes, a ClientHello and perhaps more, were read already.
//!
//! Until the handshake is over, bytes are handed on in portions that end where a record ends, whatever pieces they came
//! in. That decides two things about what a client sends in one go:
//!
//! * A record behind the last one of the handshake is not touched before the session is there, so that a broken
//!   record cannot take with it what was sent before.
//! * Bytes in a record's place that are none are recognised as what they are: something in clear. They are handed on
//!   once, so that the client is refused in the words of the protocol, then the stream seems to end. They are kept, and
//!   [`Replay::go_on_in_clear`] gives them back and makes the stream go on after them.
//!
//! Hellos can be rewritten on the way, a second one too, with which a client of TLS 1.3 answers the wish for another
//! group.
//!
//! Never more is held than what was read before, or part of a header, or of a second hello that is rewritten, and one
//! read of [`READ_BYTES`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use spip_protocol::client_hello::{Detection, Detector, handshake_message};

/// One read during the handshake, in which a client sends some hundred bytes.
const READ_BYTES: usize = 4096;
/// Type, version and length in front of a record.
const HEADER_BYTES: usize = 5;
/// Memory of an idle session beside its socket: 7,476 bytes measured by `cargo xtask bench tls`, 1,372 of them those of a
/// session without TLS.
const IDLE_BYTES: usize = 6 * 1024;
/// The longest handshake message that the library puts together (65,535 bytes), as its buffer grows.
const MAX_BUFFER_BYTES: usize = 72 * 1024;
/// The most content of a record in any version (RFC 5246, section 6.2.3).
const MAX_CONTENT_BYTES: usize = (1 << 14) + 2048;

/// Repeats the bytes that were read from a stream, then goes on with the stream. The memory of the repeated bytes is
/// given back as soon as the last of them was taken.
#[derive(Debug)]
pub struct Replay<S> {
    bytes: Vec<u8>,
    taken: usize,
    /// Until the handshake is over.
    opening: Option<Opening>,
    meter: Meter,
    stream: S,
}

/// Counts the bytes that the library was fed since something came out of it: as much as its buffers may hold. Clones share
/// the count.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicUsize>);

impl Meter {
    fn count(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that something came out.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Returns an upper estimate of the memory that the library holds for the session, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        let fed = self.0.load(Ordering::Relaxed);
        // A buffer may double as it grows.
        IDLE_BYTES + (2 * fed).min(MAX_BUFFER_BYTES)
    }
}

/// Says a hello, given as a handshake message, in other words, in a single record; `None` where it cannot.
pub(super) type Rewrite = fn(&[u8]) -> Option<Vec<u8>>;

/// Ends of the portions.
#[derive(Debug)]
struct Opening {
    /// Rewrite of a second hello, as long as one may come; few sessions have this.
    second: Option<Box<(Rewrite, Detector)>>,
    /// Bytes left of the current portion.
    left: usize,
    /// Set when the record in which the hello ends goes on after it, with bytes that no client may send there.
    runs_on: bool,
    course: Course,
}

/// Treatment of the bytes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// Records are handed on.
    Handshake,
    /// Passed on something that is no record: the stream seems to end.
    Refused,
    /// The handshake is over without success: records are passed over.
    Skips,
}

/// Kinds of bytes at the place of a record.
enum Next {
    Record { length: usize },
    Unclear,
    Clear,
}

impl<S> Replay<S> {
    /// Puts `bytes` back in front of a stream; the first `hello` of them are a ClientHello with its record headers.
    pub fn new(bytes: Vec<u8>, hello: usize, stream: S) -> Self {
        let runs_on = !ends_a_record(&bytes, hello);
        let opening = Opening { second: None, left: hello, runs_on, course: Course::Handshake };
        Self { bytes, taken: 0, opening: Some(opening), meter: Meter::default(), stream }
    }

    /// Returns the meter of what is read from here.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// The stream beneath.
    pub(super) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The hello with its record headers, as long as nothing was taken.
    pub(super) fn hello(&self) -> &[u8] {
        let length = self.opening.as_ref().map_or(0, |opening| opening.left);
        self.bytes.get(..length).unwrap_or_default()
    }

    /// Rewrites the hello, and has a second one rewritten where one may come; false where that is not possible with
    /// the first, and nothing has changed. Only where no record of a handshake is encrypted, thus in TLS 1.3, can a
    /// second one be told from what else may come.
    pub(super) fn rewrite_hellos(&mut self, rewrite: Rewrite, second: bool) -> bool {
        let Some(hello) = rewrite(&handshake_message(self.hello())) else { return false };
        let (Some(opening), 0) = (&mut self.opening, self.taken) else { return false };
        self.bytes.splice(..opening.left, hello.iter().copied());
        opening.left = hello.len();
        opening.second = second.then(|| Box::new((rewrite, Detector::default())));
        true
    }

    /// Ends the look for what is in clear, and the portions: the handshake is over.
    pub(super) fn end_opening(&mut self) {
        self.opening = None;
        self.give_memory_back();
    }

    /// Reports whether bytes in clear stand at the place of a record.
    #[must_use]
    pub fn is_in_clear(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.course == Course::Refused)
    }

    /// Gives up the handshake: from now on records are passed over, what is left of one that was begun too, and only
    /// what stands where a record should begin is read, up to the end. Returns what has come of that already.
    #[must_use]
    pub fn go_on_in_clear(&mut self) -> Vec<u8> {
        let Some(opening) = &mut self.opening else { return Vec::new() };
        opening.course = Course::Skips;
        if !self.pass_over() {
            return Vec::new();
        }
        let clear = self.bytes.split_off(self.taken);
        self.give_memory_back();
        clear
    }

    /// Passes over the records in what was read; whether something in clear follows them.
    fn pass_over(&mut self) -> bool {
        while let Some(opening) = &mut self.opening {
            let skipped = opening.left.min(self.bytes.len() - self.taken);
            self.taken += skipped;
            opening.left -= skipped;
            if opening.left > 0 {
                return false;
            }
            match opening.next(&self.bytes[self.taken..]) {
                Next::Record { length } => opening.left = length,
                Next::Unclear => return false,
                Next::Clear => self.opening = None,
            }
        }
        true
    }

    fn give_memory_back(&mut self) {
        if self.taken == self.bytes.len() {
            self.bytes = Vec::new();
            self.taken = 0;
        }
    }
}

/// Part of a second hello in a record.
enum Second {
    None,
    /// Its end is yet to come.
    Partial,
    /// All of it, in the next `length` bytes.
    Rewritten {
        length: usize,
        hello: Vec<u8>,
    },
}

impl Opening {
    /// Looks for a second hello where a record begins.
    fn second_hello(&mut self, bytes: &[u8]) -> Second {
        let Some((rewrite, detector)) = self.second.as_deref_mut() else { return Second::None };
        let verdict = detector.advance(bytes);
        if verdict.needs_more() {
            return Second::Partial;
        }
        let rewrite = *rewrite;
        *detector = Detector::default();
        if let Detection::ClientHello { length } = verdict {
            // There is no third one.
            self.second = None;
            if ends_a_record(bytes, length)
                && let Some(hello) = rewrite(&handshake_message(&bytes[..length]))
            {
                return Second::Rewritten { length, hello };
            }
        }
        Second::None
    }

    fn next(&self, bytes: &[u8]) -> Next {
        if bytes.is_empty() {
            return Next::Unclear;
        }
        if self.runs_on {
            return Next::Clear;
        }
        match bytes.first_chunk::<HEADER_BYTES>() {
            _ if !begins_a_record(bytes) => Next::Clear,
            None => Next::Unclear,
            Some([_, _, _, high, low]) => match usize::from(u16::from_be_bytes([*high, *low])) {
                length if length > MAX_CONTENT_BYTES => Next::Clear,
                length => Next::Record { length: HEADER_BYTES + length },
            },
        }
    }
}

/// Reports whether `bytes` are the start of a TLS record, as far as they go: from change_cipher_spec to heartbeat; the
/// version is 3.x since SSL 3.0.
fn begins_a_record(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|kind| (20..=24).contains(kind)) && bytes.get(1).is_none_or(|major| *major == 3)
}

/// Reports whether one of the records in `bytes` ends after `length` bytes.
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

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.opening.as_ref().is_some_and(|opening| opening.course == Course::Skips) {
                this.pass_over();
            }
            let rest = &this.bytes[this.taken..];
            let portion = match &mut this.opening {
                None if rest.is_empty() => {
                    let before = buffer.filled().len();
                    let read = Pin::new(&mut this.stream).poll_read(context, buffer);
                    this.meter.count(buffer.filled().len() - before);
                    return read;
                }
                None => rest.len(),
                Some(Opening { course: Course::Skips, .. }) => 0,
                Some(Opening { course: Course::Refused, .. }) => return Poll::Ready(Ok(())),
                Some(opening) if opening.left > 0 => rest.len().min(opening.left),
                Some(opening) => match opening.next(rest) {
                    Next::Record { length } => match opening.second_hello(rest) {
                        Second::Partial => 0,
                        Second::Rewritten { length, hello } => {
                            this.bytes.splice(this.taken..this.taken + length, hello);
                            continue;
                        }
                        Second::None => {
                            opening.left = length;
                            continue;
                        }
                    },
                    Next::Unclear => 0,
                    Next::Clear => {
                        opening.course = Course::Refused;
                        buffer.put_slice(&rest[..rest.len().min(buffer.remaining())]);
                        return Poll::Ready(Ok(()));
                    }
                },
            };
            if portion > 0 {
                let length = portion.min(buffer.remaining());
                buffer.put_slice(&rest[..length]);
                this.meter.count(length);
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
            // At most part of a header is left. What was taken before it must not add up.
            this.bytes.drain(..this.taken);
            this.taken = 0;
            this.bytes.extend_from_slice(scratch.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
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
mod tests;
