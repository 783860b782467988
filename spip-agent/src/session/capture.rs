//! Bounded reading: how much is read, for how long beyond what is kept, and what the end of it means.
//!
//! Each worker thread reads into one buffer of its own and copies what came: a session that waits owns none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};

use crate::process::clock;
use spip_record::CloseReason;

/// One read: as much as the default payload limit.
const SCRATCH_BYTES: usize = 64 * 1024;

/// After the last byte that is kept, further ones are counted for this long at most …
const REST_TIME: Duration = Duration::from_secs(1);
/// … and up to this many.
const REST_BYTES: u64 = 16 * 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Lends this thread's buffer to `read`.
pub fn with_scratch<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| read(scratch))
}

/// End of the reading.
#[derive(Debug)]
pub struct End {
    /// Close reason of the session.
    pub reason: CloseReason,
    /// The error of the stream that was behind it.
    pub error: Option<io::Error>,
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self { reason, error: None }
    }
}

/// Bytes that are counted and no longer kept.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    until: Instant,
    most: u64,
}

impl Rest {
    /// Starts the count of the bytes that a client goes on to send in one go, after `received` bytes.
    #[must_use]
    pub fn after(received: u64) -> Self {
        Self { until: clock::now() + REST_TIME, most: received.saturating_add(REST_BYTES) }
    }

    /// Returns the end of the count.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Reports whether `received` bytes are as many as are counted.
    #[must_use]
    pub fn is_over(&self, received: u64) -> bool {
        received >= self.most
    }
}

/// Reads once into this thread's buffer, and has the bytes taken from there.
pub fn poll_read<S: AsyncRead + Unpin>(
    stream: &mut S,
    context: &mut Context<'_>,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    with_scratch(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
        take(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

/// Derives the close reason from an error of the wire.
#[must_use]
pub fn reason_of(error: &io::Error) -> CloseReason {
    match error.kind() {
        // rustls: the connection was closed without a close_notify.
        io::ErrorKind::UnexpectedEof => CloseReason::ClientClosed,
        io::ErrorKind::InvalidData => CloseReason::TlsError,
        // Besides resets: what routers on the way report of a client that is gone.
        _ => CloseReason::ClientReset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_counted_up_to_16_mib() {
        let rest = Rest::after(1_000);
        assert!(!rest.is_over(1_000 + 16 * 1024 * 1024 - 1));
        assert!(rest.is_over(1_000 + 16 * 1024 * 1024));
        assert!(Rest::after(u64::MAX).is_over(u64::MAX));
    }

    #[test]
    fn an_error_of_a_stream_says_who_ended_it() {
        for (kind, reason) in [
            (io::ErrorKind::UnexpectedEof, CloseReason::ClientClosed),
            (io::ErrorKind::InvalidData, CloseReason::TlsError),
            (io::ErrorKind::ConnectionReset, CloseReason::ClientReset),
            (io::ErrorKind::HostUnreachable, CloseReason::ClientReset),
        ] {
            assert_eq!(reason_of(&kind.into()), reason, "{kind}");
        }
    }
}
