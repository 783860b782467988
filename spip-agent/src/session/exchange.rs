//! Reading and answering, on a plain stream and inside TLS alike.
//!
//! All that has come is read before anything is said, so that no answer stands between a byte and its record. Nothing
//! here waits for the client to read: what it does not take is kept in the conversation, which is bounded, until its
//! time is up. The reading goes on beside that.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{MsgFlags, send};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Guard, Raw};
use crate::process::clock;
use crate::respond::{Conversation, Heard};
use crate::session::capture::{self, End, Rest};
use crate::session::deadline::{Step, Timer};
use crate::tls::{Facts, Tls};
use spip_record::CloseReason;

/// Time for a client to close its side after the server has closed its own.
const LINGER: Duration = Duration::from_secs(2);

/// Result of sending a reply.
enum Said {
    /// Something was said, heard or closed: the deadlines are others now.
    Something,
    /// Nothing changed.
    Nothing,
    /// The client does not read.
    TimedOut,
}

impl Guard {
    /// Reads and answers until the session ends, or, before any of that, a ClientHello is whole.
    pub(super) fn poll_exchange<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        timer: &mut Timer,
        rest: &mut Option<Rest>,
        context: &mut Context<'_>,
    ) -> Poll<Raw> {
        #[cfg(test)]
        super::tests::panic_if_asked(&self.session.payload);
        loop {
            if self.session.payload.is_opening()
                && let Some(raw) = self.open()
            {
                return Poll::Ready(raw);
            }
            if let Some(limit) = self.refused {
                return Poll::Ready(Raw::Ended(CloseReason::Rejected(limit).into()));
            }
            if let Some(raw) = self.upgrade() {
                return Poll::Ready(raw);
            }
            let step = self.step(rest);
            let alarm = self.alarm(timer);
            let payload = &mut self.session.payload;
            let read = |context: &mut Context<'_>| capture::poll_read(stream, context, |bytes| payload.push(bytes));
            match timer.poll_until(step, alarm, context, read) {
                Poll::Ready(Ok(Ok(1..))) => {
                    timer.touch();
                    if let Some(meter) = &self.meter {
                        meter.reset();
                    }
                    if rest.is_some_and(|rest| rest.is_over(self.session.payload.received())) {
                        return Poll::Ready(Raw::Ended(CloseReason::PayloadLimit.into()));
                    }
                    continue;
                }
                // A client that sent exactly as much as is kept, and is done, has met no limit.
                Poll::Ready(_) if rest.is_some() && self.session.payload.truncated() => {
                    return Poll::Ready(Raw::Ended(CloseReason::PayloadLimit.into()));
                }
                Poll::Ready(ended) => {
                    let end = self.end_of(ended);
                    if end.reason == CloseReason::ClientClosed && self.session.payload.received() > 0 {
                        // It may have closed only its own half; what does not go out at once is not waited for.
                        let _ = self.say(stream, Some(clock::now()), context);
                    }
                    return Poll::Ready(Raw::Ended(end));
                }
                Poll::Pending => {}
            }
            match self.say(stream, alarm, context) {
                Said::Something => {}
                Said::Nothing => {
                    return match self.account(timer) {
                        Ok(()) => Poll::Pending,
                        Err(reason) => Poll::Ready(Raw::Ended(reason.into())),
                    };
                }
                Said::TimedOut => return Poll::Ready(Raw::Ended(CloseReason::WriteTimeout.into())),
            }
        }
    }

    fn end_of(&self, ended: Result<io::Result<usize>, CloseReason>) -> End {
        let hung_up = self.session.talk.as_ref().is_some_and(|talk| talk.hung_up_at().is_some());
        match ended {
            Err(reason @ (CloseReason::Shutdown | CloseReason::Rejected(_))) => reason.into(),
            _ if hung_up && self.session.tls.facts().is_some_and(Facts::has_failed) => CloseReason::TlsError.into(),
            _ if hung_up => CloseReason::ServerClosed.into(),
            Err(reason) => reason.into(),
            Ok(Ok(_)) => CloseReason::ClientClosed.into(),
            Ok(Err(error)) => End { reason: capture::reason_of(&error), error: Some(error) },
        }
    }

    /// Returns the event that the session waits for.
    fn step(&self, rest: &mut Option<Rest>) -> Step {
        let talk = self.session.talk.as_deref();
        if let Some(at) = talk.and_then(Conversation::hung_up_at) {
            return Step::Closing(self.session.accepted.steady + at + LINGER);
        }
        let payload = &self.session.payload;
        if payload.is_full() {
            // What a client goes on to send in one go is counted.
            return Step::Rest(rest.get_or_insert_with(|| Rest::after(payload.received())).until());
        }
        // Who was greeted has the time of an answer, not that of a first byte.
        if payload.is_opening() && talk.is_none_or(|talk| talk.bytes_out() == 0) { Step::Opening } else { Step::Idle }
    }

    /// Returns the time of the next event that the client does not cause.
    fn alarm(&self, timer: &Timer) -> Option<Instant> {
        let responder = self.engine.responder.as_ref()?;
        let payload = &self.session.payload;
        let silence = || Some(timer.active() + self.greets_after(responder.banner_after));
        match self.session.talk.as_deref() {
            None if payload.received() == 0 && responder.greets(self.port()) => silence(),
            // Part of a hello is no silence.
            Some(talk) if !payload.is_opening() && talk.awaits_silence(payload.received()) => silence(),
            Some(talk) => talk.blocked_since().map(|at| self.session.accepted.steady + at + self.engine.timeouts.write),
            None => None,
        }
    }

    /// Draws the silence before this client is greeted: up to a quarter longer than configured, another time in each
    /// session. Servers answer after times of their own, and one time on all ports would tell a sensor.
    pub(super) fn greets_after(&self, least: Duration) -> Duration {
        let [a, b, ..] = *self.session.id.as_bytes();
        least + least / 4 * u32::from(u16::from_be_bytes([a, b])) / u32::from(u16::MAX)
    }

    fn port(&self) -> u16 {
        self.session.origin.destination.port()
    }

    /// Hears what is new, notices silence, sends what is due, and hangs up when all is said.
    fn say<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        alarm: Option<Instant>,
        context: &mut Context<'_>,
    ) -> Said {
        let mut changed = self.hear(alarm.is_some_and(|alarm| alarm <= clock::now()));
        let Some(talk) = self.session.talk.as_deref_mut() else { return Said::Nothing };
        let elapsed = clock::since(self.session.accepted.steady);
        let mut stream = Pin::new(stream);
        while !talk.pending().is_empty() {
            match stream.as_mut().poll_write(context, talk.pending()) {
                Poll::Ready(Ok(count @ 1..)) => talk.sent(count, elapsed),
                // The client is gone; reading tells how.
                Poll::Ready(_) => talk.give_up(),
                Poll::Pending => break,
            }
            changed = true;
        }
        if talk.is_unflushed() && stream.as_mut().poll_flush(context).is_ready() {
            talk.flushed();
        }
        if talk.is_blocked() {
            changed |= talk.blocked_since().is_none();
            if elapsed.saturating_sub(talk.blocked(elapsed)) >= self.engine.timeouts.write {
                return Said::TimedOut;
            }
        } else if talk.is_over() && talk.hung_up_at().is_none() {
            // Whether the farewell goes out makes no difference: the client has its time, and then it is over.
            let _ = stream.as_mut().poll_shutdown(context);
            talk.hang_up(elapsed);
            changed = true;
        }
        if changed { Said::Something } else { Said::Nothing }
    }

    /// Tells the talk what is new; begins one where there is something to tell. Whether that was so.
    fn hear(&mut self, alarmed: bool) -> bool {
        let Some(responder) = &self.engine.responder else { return false };
        let session = &mut self.session;
        let received = session.payload.received();
        // What is not yet known not to be TLS is not answered.
        let is_known = received > 0 && !session.payload.is_opening();
        if !is_known && (received > 0 || !alarmed) {
            return false;
        }
        let port = session.origin.destination.port();
        let talk = session.talk.get_or_insert_with(|| Box::new(Conversation::new(port, *session.id.as_bytes())));
        if talk.agreed_on_tls() {
            // That is for the handshake, see `upgrade`.
            return false;
        }
        let (news, silence) = (talk.has_news(received), alarmed && talk.awaits_silence(received));
        if !news && !silence {
            return false;
        }
        let elapsed = clock::since(session.accepted.steady);
        let offers_tls = self.engine.tls.is_some() && matches!(session.tls, Tls::NotTls);
        let heard = Heard { kept: session.payload.kept(), received, elapsed, now: SystemTime::now(), offers_tls };
        if news {
            talk.hear(responder, &heard);
        }
        if alarmed && talk.awaits_silence(received) {
            talk.silence(responder, &heard);
        }
        true
    }

    /// Answers a client that has sent all it will send, on a socket that is not with the reactor: at once or not at all.
    pub(super) fn answer_now(&mut self, socket: &OwnedFd) {
        if self.engine.responder.is_none() || self.session.payload.received() == 0 {
            return;
        }
        if self.session.payload.is_opening() {
            let verdict = self.detect();
            if verdict.is_tls() {
                return;
            }
            self.settle(verdict);
        }
        self.hear(true);
        let elapsed = clock::since(self.session.accepted.steady);
        if let Some(talk) = self.session.talk.as_deref_mut()
            && !talk.pending().is_empty()
        {
            // The socket is closed as soon as the record is handed over: answer and FIN are one packet then.
            let more = MsgFlags::from_bits_retain(libc::MSG_MORE);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL | more;
            let sent = send(socket.as_raw_fd(), talk.pending(), flags).unwrap_or(0);
            talk.sent(sent, elapsed);
        }
    }
}
