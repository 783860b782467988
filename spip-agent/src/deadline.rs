//! How long a session may wait: for its first byte, between bytes, and altogether. All deadlines run from accept on,
//! so a client that drips bytes gains nothing beyond the bound on the whole session.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::config::Timeouts;
use crate::record::CloseReason;
use crate::registry::Registered;

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its first bytes, until it is clear what they are, and the TLS handshake.
    Opening,
    /// Further bytes.
    Idle,
    /// The rest of what is no longer kept, for this long.
    Rest(Instant),
}

/// Watches over one session: its deadlines, and orders to end.
pub struct Watch {
    registered: Registered,
    opening: Instant,
    session: Instant,
    idle: Duration,
    active: Instant,
    /// Set at the first wait. It is moved only when it fires: most sessions end before, and activity costs nothing.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// Watches over the session that was accepted at `accepted`.
    #[must_use]
    pub fn new(registered: Registered, timeouts: &Timeouts, accepted: Instant) -> Self {
        Self {
            registered,
            opening: accepted + timeouts.first_byte,
            session: accepted + timeouts.session,
            idle: timeouts.idle,
            active: accepted,
            timer: None,
        }
    }

    /// Notes that the client did something.
    pub fn touch(&mut self) {
        self.active = Instant::now();
        self.registered.touch();
    }

    /// Polls `operation` until it is ready, or until the session has to end, with the reason.
    ///
    /// # Errors
    /// The reason why the session has to end.
    pub async fn run<T>(
        &mut self,
        step: Step,
        mut operation: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, CloseReason> {
        std::future::poll_fn(|context| {
            // What the client has sent comes first: it is recorded even when time is up.
            if let Poll::Ready(output) = operation(context) {
                return Poll::Ready(Ok(output));
            }
            if let Poll::Ready(reason) = self.registered.poll_ordered(context) {
                return Poll::Ready(Err(reason));
            }
            self.poll_deadline(step, context).map(Err)
        })
        .await
    }

    fn poll_deadline(&mut self, step: Step, context: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let (deadline, reason) = self.deadline(step);
            if deadline <= Instant::now() {
                return Poll::Ready(reason);
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            if timer.deadline().into_std() > deadline {
                timer.as_mut().reset(deadline.into());
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset(deadline.into());
        }
    }

    /// The nearest deadline of `step`, and what it means when it has passed.
    fn deadline(&self, step: Step) -> (Instant, CloseReason) {
        let session = (self.session, CloseReason::SessionTimeout);
        let own = match step {
            Step::Opening => (self.opening, CloseReason::FirstByteTimeout),
            Step::Idle => (self.active + self.idle, CloseReason::IdleTimeout),
            Step::Rest(until) => (until.min(self.active + REST_PAUSE), CloseReason::PayloadLimit),
        };
        if own.0 <= session.0 { own } else { session }
    }
}

/// A client that pauses for this long has sent what it wanted to send in one go.
const REST_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

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

    fn watch() -> Watch {
        Watch::new(Registry::default().enter(), &timeouts(), Instant::now())
    }

    #[test]
    fn silence_ends_with_the_first_byte_deadline() {
        let ended = block_on(async { watch().run(Step::Opening, |_| Poll::<()>::Pending).await });
        assert_eq!(ended, Err(CloseReason::FirstByteTimeout));
    }

    #[test]
    fn idleness_runs_from_the_last_activity() {
        let ended = block_on(async {
            let mut watch = watch();
            watch.touch();
            watch.run(Step::Idle, |_| Poll::<()>::Pending).await
        });
        assert_eq!(ended, Err(CloseReason::IdleTimeout));
    }

    #[test]
    fn dripping_bytes_does_not_renew_the_session() {
        let ended = block_on(async {
            let mut watch = watch();
            let mut drips = 0;
            loop {
                let drip = std::pin::pin!(tokio::time::sleep(Duration::from_millis(5)));
                let mut drip = drip;
                match watch.run(Step::Idle, |context| drip.as_mut().poll(context)).await {
                    Ok(()) => watch.touch(),
                    Err(reason) => break (reason, drips),
                }
                drips += 1;
            }
        });
        assert_eq!(ended.0, CloseReason::SessionTimeout);
        assert!(ended.1 >= 3, "{} drips", ended.1);
    }

    #[test]
    fn what_is_ready_wins_over_a_deadline_that_has_passed() {
        let output = block_on(async {
            let mut watch = watch();
            std::thread::sleep(Duration::from_millis(70));
            watch.run(Step::Opening, |_| Poll::Ready(7)).await
        });
        assert_eq!(output, Ok(7));
    }
}
