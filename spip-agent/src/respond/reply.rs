//! The reply of a dialogue, and what bounds it.

use crate::tls::Framing;
use spip_record::turn::LISTED;

/// Refused commands after which a server hangs up.
pub(super) const REFUSALS: u32 = 16;

/// The reply of a dialogue at one moment.
pub(super) struct Reply<'a> {
    pub(super) pending: &'a mut Vec<u8>,
    pub(super) said: &'a mut u64,
    pub(super) limit: u64,
    pub(super) refusals: &'a mut u32,
    pub(super) understood: &'a mut bool,
    pub(super) closing: &'a mut bool,
    pub(super) agreed_on_tls: &'a mut Option<Framing>,
    pub(super) challenge: &'a mut Option<Box<[u8]>>,
    pub(super) names: &'a mut Vec<&'static str>,
}

impl Reply<'_> {
    /// Says `bytes`, known as `name`. Where they are more than may be said, the conversation ends instead.
    pub(super) fn say(&mut self, name: &'static str, bytes: &[u8]) {
        if *self.closing || bytes.len() > self.room() {
            *self.closing = true;
            return;
        }
        *self.said += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.names.last() != Some(&name) && self.names.len() < LISTED {
            self.names.push(name);
        }
    }

    /// Says a line.
    pub(super) fn line(&mut self, name: &'static str, text: &str) {
        self.say(name, format!("{text}\r\n").as_bytes());
    }

    /// Says a line that refuses something.
    pub(super) fn refuse(&mut self, name: &'static str, text: &str) {
        self.line(name, text);
        self.count_refusal();
    }

    /// After many refusals a server hangs up.
    pub(super) fn count_refusal(&mut self) {
        *self.refusals += 1;
        if *self.refusals >= REFUSALS {
            self.close();
        }
    }

    /// Keeps what the client's next answer is computed from, for the record.
    pub(super) fn challenge(&mut self, challenge: &[u8]) {
        *self.challenge = Some(challenge.into());
    }

    /// Returns the number of bytes that may still be sent.
    pub(super) fn room(&self) -> usize {
        usize::try_from(self.limit.saturating_sub(*self.said)).unwrap_or(usize::MAX)
    }

    /// Records that the client's bytes make sense in this dialogue.
    pub(super) fn understood(&mut self) {
        *self.understood = true;
    }

    /// The server hangs up when all is said.
    pub(super) fn close(&mut self) {
        *self.closing = true;
    }
}
