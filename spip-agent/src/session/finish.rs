//! The end of a connection: what only the end can tell, and the one record, as long as its client's bytes are due.
//!
//! The record is written at once where the log has room. Otherwise the session waits for room and makes the line again,
//! because the line is several times as long as the payload. A guard that is dropped before it was recorded records here.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

use sha2::{Digest, Sha256};

use super::Guard;
use crate::kernel::origin;
use crate::log::writer::Log;
use crate::process::clock;
use crate::process::counters::TALLY;
use crate::session::deadline::Timer;
use crate::session::ledger::Share;
use crate::session::record::{Moment, Session, Stored};
use crate::tls::{Failure, Handshake};
use spip_record::{CloseReason, Limit};

/// A line buffer that grew beyond this for one large payload is not kept.
const LINE_KEPT_BYTES: usize = 64 * 1024;

/// Size that a line may always have: the keys, and facts that repeat little.
const LINE_BYTES: usize = 2560;
/// The first bytes of a client may cost eight times as many in the log, which is what control characters take as text
/// and digits; later ones four times, which is printable text, its digits, and some facts.
const FIRST_BYTES: usize = 256;

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A record that found no room in the log.
pub struct Unwritten {
    /// Length of its line in bytes.
    bytes: usize,
}

impl Guard {
    /// Writes the record when the log has room for it.
    ///
    /// # Errors
    /// It has none, and [`Guard::finish_later`] has to wait.
    pub fn try_finish(&mut self, reason: CloseReason) -> Result<(), Unwritten> {
        self.end(reason);
        if self.summarised() {
            return Ok(());
        }
        let (written, bytes) = self.with_line(|log, line| (log.try_record(line), line.len()));
        self.recorded = written;
        if written { Ok(()) } else { Err(Unwritten { bytes }) }
    }

    /// Writes the record, waiting for the log where it is full. What is left of the session by then is no candidate for
    /// making room: ending it would give nothing back.
    pub(super) fn finish(mut self: Box<Self>, reason: CloseReason, timer: Timer) -> impl Future<Output = ()> + Send {
        drop(timer);
        async move {
            if let Err(unwritten) = self.try_finish(reason) {
                Box::pin(self.finish_later(unwritten)).await;
            }
        }
    }

    /// Writes the record once the log has room for it. The line is made again then: it is several times as long as the
    /// payload, which is all that a session that waits holds.
    pub async fn finish_later(mut self: Box<Self>, unwritten: Unwritten) {
        let log = self.engine.log.clone();
        if let Some(room) = log.room(unwritten.bytes).await {
            self.with_line(|_, line| room.record(line));
        }
        self.recorded = true;
    }

    /// Writes the record of a handshake that failed.
    pub(super) fn fail(
        mut self: Box<Self>,
        failure: Failure,
        reason: CloseReason,
        timer: Timer,
    ) -> impl Future<Output = ()> + Send {
        if let Some(facts) = self.session.tls.facts_mut() {
            facts.handshake = Handshake::Failed(failure);
        }
        self.finish(reason, timer)
    }

    /// Completes the outcome with the facts known only at the end.
    fn end(&mut self, reason: CloseReason) {
        if self.session.payload.is_opening() {
            let verdict = self.detect();
            self.settle(verdict);
        }
        self.store_payload();
        let session = &mut self.session;
        session.bytes_out = session.talk.as_ref().map_or(0, |talk| talk.bytes_out());
        session.end(reason, Moment::now());
        if let (Some(origins), Some(cookie)) = (&self.engine.origins, self.cookie) {
            origin::retry(&mut session.origin, cookie.get(), origins);
            origins.forget(cookie.get());
            self.cookie = None;
        }
        self.engine.first_sources.note(session.origin.client.ip());
        self.ended = true;
    }

    /// Hands the payload over to the store, where there is one and the payload is long enough.
    fn store_payload(&mut self) {
        let kept = self.session.payload.kept();
        let Some(store) = self.engine.payloads.as_ref().filter(|store| store.keeps(kept.len())) else { return };
        let sha256 = Sha256::digest(kept).into();
        if store.store(sha256, kept) {
            self.session.stored = Some(Box::new(Stored { sha256, preview: store.preview(kept).len() }));
        }
    }

    /// Counts the session in a summary where its source has taken its part of the log; reports whether it did.
    fn summarised(&mut self) -> bool {
        let source = self.permit.source();
        if self.engine.ledger.share(source, clock::now()) != Share::Summary {
            return false;
        }
        let Session { origin, accepted, .. } = &self.session;
        let port = || origin.destination.port();
        self.engine.rejections.note(origin.client.socket(), Limit::LogBudget, *accepted, || origin.clone(), port);
        TALLY.rejected(Limit::LogBudget);
        self.recorded = true;
        true
    }

    fn with_line<T>(&mut self, write: impl FnOnce(&Log, &[u8]) -> T) -> T {
        LINE.with_borrow_mut(|line| {
            line.clear();
            let (source, now) = (self.permit.source(), clock::now());
            let wire = wire_bytes(&self.session);
            let most = line_bytes_due(&self.session).min(self.engine.ledger.line_bytes(source, wire, now));
            let sensor = &self.engine.sensor;
            let session = &mut self.session;
            let understood = panic::catch_unwind(AssertUnwindSafe(|| sensor.write(session, most, line)));
            let protocol = understood.unwrap_or_else(|_| {
                // The same bytes would do it again. They are recorded all the same, and not read.
                line.clear();
                session.close_reason = CloseReason::Aborted;
                sensor.write_unread(session, most, line);
                None
            });
            // A line that waits for room in the log is made again, and is the same line.
            if !self.counted {
                TALLY.session(&self.session.counted(protocol));
                self.engine.ledger.charge(source, line.len(), wire, now);
                self.counted = true;
            }
            let written = write(&self.engine.log, line);
            line.shrink_to(LINE_KEPT_BYTES);
            written
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.recorded {
            let reason = self.session.close_reason;
            // What made the session panic may do it again here.
            if !self.ended && panic::catch_unwind(AssertUnwindSafe(|| self.end(reason))).is_err() {
                self.session.end(CloseReason::Aborted, Moment::now());
            }
            if self.summarised() {
                return;
            }
            self.with_line(|log, line| log.record_now(line));
        }
    }
}

/// Reckons how many bytes were on the wire for a session, in both directions and with headers, as those of ordinary
/// clients: seven packets that open and close it, two more for what it sent, one for each 1,460 bytes, and the
/// certificate where a handshake was completed.
fn wire_bytes(session: &Session) -> usize {
    /// Of IPv4, and of TCP with time stamps (RFC 7323), as nearly all clients send them.
    const HEADERS: usize = 52;
    const CERTIFICATE: usize = 512;
    let facts = session.tls.facts();
    let hello = facts.map_or(0, |facts| facts.client_hello.len());
    let is_complete = facts.is_some_and(|facts| matches!(facts.handshake, Handshake::Completed(_)));
    let shown = if is_complete { CERTIFICATE } else { 0 };
    let sent = session.payload.received().saturating_add(session.bytes_out);
    let bytes = usize::try_from(sent).unwrap_or(usize::MAX).saturating_add(hello + shown);
    let packets = if bytes == 0 { 7 } else { 9 + bytes / 1460 };
    bytes.saturating_add(HEADERS * packets)
}

/// Returns how long a line may be for what its client sent: so that a byte on the wire costs a bounded number in the
/// log.
fn line_bytes_due(session: &Session) -> usize {
    let hello = session.tls.facts().map_or(0, |facts| facts.client_hello.len());
    let with_syn = session.origin.syn_data.as_deref().map_or(0, <[u8]>::len);
    let received = session.payload.kept().len() + hello + with_syn;
    LINE_BYTES + 8 * received.min(FIRST_BYTES) + 4 * received.saturating_sub(FIRST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::Bench;

    #[test]
    fn bytes_on_the_wire_are_those_of_all_packets_with_their_headers() {
        let bench = Bench::new("wire-bytes");
        let (_client, mut guard, _socket) = bench.connect(b"");
        assert_eq!(wire_bytes(&guard.session), 7 * 52);
        guard.session.payload.count(1);
        assert_eq!(wire_bytes(&guard.session), 1 + 9 * 52);
        // Both directions, and a packet more for each 1,460 bytes.
        guard.session.payload.count(9_999);
        guard.session.bytes_out = 4_600;
        assert_eq!(wire_bytes(&guard.session), 14_600 + 19 * 52);
        drop(guard);
        assert_eq!(bench.records().len(), 1);
    }
}
