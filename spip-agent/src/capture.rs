//! Bounded reading: what a client sends goes into the session's payload until the client is done, a deadline passes,
//! or as much is kept as the configuration allows.
//!
//! Each worker thread reads into one buffer of its own and copies what came: a session that waits owns none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};

use crate::deadline::{Step, Watch};
use crate::payload::Payload;
use crate::record::CloseReason;

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

/// How the reading ended.
#[derive(Debug)]
pub struct End {
    /// What that means for the session.
    pub reason: CloseReason,
    /// The error of the stream that was behind it.
    pub error: Option<io::Error>,
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        Self { reason, error: None }
    }
}

/// Reads from `stream` until the client is done or the session has to end, whatever comes first; says why.
pub async fn to_end<S: AsyncRead + Unpin>(stream: &mut S, payload: &mut Payload, watch: &mut Watch) -> End {
    while !payload.is_full() {
        if let Err(end) = more(stream, payload, watch, Step::Idle).await {
            return end;
        }
    }
    count_rest(stream, payload, watch).await;
    CloseReason::PayloadLimit.into()
}

/// Reads once, at least one byte.
///
/// # Errors
/// Why the session ends: the client closed or reset it, or the watch says so.
pub async fn more<S: AsyncRead + Unpin>(
    stream: &mut S,
    payload: &mut Payload,
    watch: &mut Watch,
    step: Step,
) -> Result<(), End> {
    let read = watch.run(step, |context| poll_read(stream, context, |bytes| payload.push(bytes))).await?;
    watch.touch();
    match read {
        Ok(0) => Err(CloseReason::ClientClosed.into()),
        Ok(_) => Ok(()),
        Err(error) => Err(End { reason: reason_of(&error), error: Some(error) }),
    }
}

/// Counts what a client goes on to send in one go.
async fn count_rest<S: AsyncRead + Unpin>(stream: &mut S, payload: &mut Payload, watch: &mut Watch) {
    let step = Step::Rest(Instant::now() + REST_TIME);
    let most = payload.received().saturating_add(REST_BYTES);
    while payload.received() < most {
        let read = watch.run(step, |context| poll_read(stream, context, |bytes| payload.count(bytes.len() as u64)));
        match read.await {
            Ok(Ok(1..)) => watch.touch(),
            _ => break,
        }
    }
}

fn poll_read<S: AsyncRead + Unpin>(
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

/// What an error of the wire says of the client.
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
