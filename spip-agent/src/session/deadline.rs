//! Deadlines of a session: for its first byte, between bytes, and altogether. All deadlines run from accept on,
//! so a client that drips bytes gains nothing beyond the bound on the whole session. `OpenSessions` wakes the session
//! when one has passed.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::config::Timeouts;
use crate::process::clock;
use crate::session::limits::Source;
use crate::session::open_sessions::{OpenSessions, Registered};
use spip_record::CloseReason;

/// Events that a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its first bytes, until it is clear what they are, and the TLS handshake.
    Opening,
    /// Further bytes.
    Idle,
    /// The rest of what is no longer kept, for this long.
    Rest(Instant),
    /// The client's end of a connection whose other end is closed, for this long.
    Closing(Instant),
}

/// Watches over one session: its deadlines, and orders to end.
///
/// Every waiting session has one, so its times take half of what instants take: microseconds since `OpenSessions` was created.
pub struct Timer {
    registered: Registered,
    opening: u64,
    session: u64,
    idle: u64,
}

impl Timer {
    /// Watches over the session of `source` that was accepted at `accepted`, and enters it into `open`.
    #[must_use]
    pub fn new(open: &OpenSessions, source: Source, timeouts: &Timeouts, accepted: Instant) -> Self {
        let opening = accepted + timeouts.first_byte;
        let session = accepted + timeouts.session;
        let registered = open.enter(source, opening.min(session));
        Self {
            opening: registered.micros(opening),
            session: registered.micros(session),
            idle: micros(timeouts.idle),
            registered,
        }
    }

    /// Notes that the client did something.
    pub fn touch(&mut self) {
        self.registered.touch(clock::now());
    }

    /// Notes how much memory the session holds now, in bytes.
    pub fn hold(&self, bytes: usize) {
        self.registered.hold(bytes);
    }

    /// Polls `operation`; ready also when the session has to end, with the reason.
    pub fn poll<T>(
        &mut self,
        step: Step,
        context: &mut Context<'_>,
        operation: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, CloseReason>> {
        self.poll_until(step, None, context, operation)
    }

    /// As [`Timer::poll`]; also wakes the session when `alarm` has passed, which is the caller's to notice.
    pub fn poll_until<T>(
        &mut self,
        step: Step,
        alarm: Option<Instant>,
        context: &mut Context<'_>,
        operation: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, CloseReason>> {
        // What the client has sent comes first: it is recorded even when time is up.
        if let Poll::Ready(output) = operation(context) {
            return Poll::Ready(Ok(output));
        }
        if let Poll::Ready(reason) = self.registered.poll_ordered(context) {
            return Poll::Ready(Err(reason));
        }
        let (deadline, reason) = self.deadline(step);
        if deadline <= self.registered.micros(clock::now()) {
            return Poll::Ready(Err(reason));
        }
        self.registered.wake_at(alarm.map_or(deadline, |alarm| self.registered.micros(alarm).min(deadline)));
        Poll::Pending
    }

    /// Returns the time of the client's last activity.
    #[must_use]
    pub fn active(&self) -> Instant {
        self.registered.instant(self.registered.active())
    }

    /// Polls `operation` until it is ready, or until the session has to end.
    ///
    /// # Errors
    /// The reason why the session has to end.
    pub async fn run<T>(
        &mut self,
        step: Step,
        mut operation: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, CloseReason> {
        poll_fn(|context| self.poll(step, context, &mut operation)).await
    }

    /// The nearest deadline of `step`, and what it means when it has passed.
    fn deadline(&self, step: Step) -> (u64, CloseReason) {
        let session = (self.session, CloseReason::SessionTimeout);
        let active = self.registered.active();
        let own = match step {
            Step::Opening => (self.opening, CloseReason::FirstByteTimeout),
            Step::Idle => (active.saturating_add(self.idle), CloseReason::IdleTimeout),
            Step::Closing(until) => (self.registered.micros(until), CloseReason::ServerClosed),
            Step::Rest(until) => {
                (self.registered.micros(until).min(active + micros(REST_PAUSE)), CloseReason::PayloadLimit)
            }
        };
        if own.0 <= session.0 { own } else { session }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A client that pauses for this long has sent what it wanted to send in one go.
const REST_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts() -> Timeouts {
        Timeouts {
            first_byte: Duration::from_millis(30),
            idle: Duration::from_millis(20),
            write: Duration::from_secs(1),
            session: Duration::from_millis(60),
            drain: Duration::from_secs(1),
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(future)
    }

    /// Runs `session` under a timer, with time going on beside it.
    fn timed<T>(session: impl AsyncFnOnce(Timer) -> T) -> T {
        timed_with(&timeouts(), session)
    }

    fn timed_with<T>(timeouts: &Timeouts, session: impl AsyncFnOnce(Timer) -> T) -> T {
        block_on(async {
            let open = OpenSessions::default();
            let timer = Timer::new(&open, Source::V4([192, 0, 2, 1]), timeouts, Instant::now());
            tokio::select! {
                output = session(timer) => output,
                () = open.keep_time() => unreachable!("time does not end"),
            }
        })
    }

    #[test]
    fn silence_ends_with_the_first_byte_deadline() {
        let ended = timed(async |mut timer| timer.run(Step::Opening, |_| Poll::<()>::Pending).await);
        assert_eq!(ended, Err(CloseReason::FirstByteTimeout));
    }

    #[test]
    fn idleness_runs_from_the_last_activity() {
        let ended = timed(async |mut timer| {
            timer.touch();
            timer.run(Step::Idle, |_| Poll::<()>::Pending).await
        });
        assert_eq!(ended, Err(CloseReason::IdleTimeout));
    }

    #[test]
    fn dripping_bytes_does_not_renew_the_session() {
        // Long, so that only the bound on the whole session can end it, however slow the machine is.
        let timeouts = Timeouts { idle: Duration::from_secs(600), ..timeouts() };
        let ended = timed_with(&timeouts, async |mut timer| {
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(2));
                assert_eq!(timer.run(Step::Idle, |_| Poll::Ready(())).await, Ok(()), "a drip");
                timer.touch();
            }
            timer.run(Step::Idle, |_| Poll::<()>::Pending).await
        });
        assert_eq!(ended, Err(CloseReason::SessionTimeout));
    }

    #[test]
    fn what_is_ready_wins_over_a_deadline_that_has_passed() {
        let output = timed(async |mut timer| {
            std::thread::sleep(Duration::from_millis(70));
            timer.run(Step::Opening, |_| Poll::Ready(7)).await
        });
        assert_eq!(output, Ok(7));
    }
}
