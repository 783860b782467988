//! Bounded reading: what a client sends goes into the session's payload until the client is done, a deadline passes,
//! or as much is kept as the configuration allows.
//!
//! Each worker thread reads into one buffer of its own and copies what came: a session that waits owns none.

use std::cell::RefCell;
use std::future::poll_fn;
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

/// Bytes that are counted and no longer kept.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    until: Instant,
    most: u64,
}

/// Reads from `stream` until the client is done or the session has to end, whatever comes first; says why.
pub async fn to_end<S: AsyncRead + Unpin>(stream: &mut S, payload: &mut Payload, watch: &mut Watch) -> End {
    let mut rest = None;
    poll_fn(|context| poll_to_end(stream, payload, watch, &mut rest, context)).await
}

/// As [`to_end`]; `rest` is this function's memory from one call to the next, and begins as `None`.
pub fn poll_to_end<S: AsyncRead + Unpin>(
    stream: &mut S,
    payload: &mut Payload,
    watch: &mut Watch,
    rest: &mut Option<Rest>,
    context: &mut Context<'_>,
) -> Poll<End> {
    while !payload.is_full() {
        if let Err(end) = ready!(poll_more(stream, payload, watch, Step::Idle, context)) {
            return Poll::Ready(end);
        }
    }
    // What a client goes on to send in one go is counted.
    let Rest { until, most } = *rest.get_or_insert_with(|| Rest {
        until: Instant::now() + REST_TIME,
        most: payload.received().saturating_add(REST_BYTES),
    });
    while payload.received() < most {
        let mut count = |bytes: &[u8]| payload.count(bytes.len() as u64);
        let read = watch.poll(Step::Rest(until), context, |context| poll_read(stream, context, &mut count));
        match ready!(read) {
            Ok(Ok(1..)) => watch.touch(),
            _ => break,
        }
    }
    Poll::Ready(CloseReason::PayloadLimit.into())
}

/// Reads once, at least one byte; an error says why the session ends: the client closed or reset it, or the watch says
/// so.
pub fn poll_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    payload: &mut Payload,
    watch: &mut Watch,
    step: Step,
    context: &mut Context<'_>,
) -> Poll<Result<(), End>> {
    let read = |context: &mut Context<'_>| poll_read(stream, context, |bytes| payload.push(bytes));
    let read = ready!(watch.poll(step, context, read))?;
    watch.touch();
    Poll::Ready(match read {
        Ok(0) => Err(CloseReason::ClientClosed.into()),
        Ok(_) => Ok(()),
        Err(error) => Err(End { reason: reason_of(&error), error: Some(error) }),
    })
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
