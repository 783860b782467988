//! The conversation with one client: which dialogue it has, how far its bytes are answered, and the bytes that wait to be
//! sent.

mod upgrade;

use std::time::{Duration, SystemTime};

use spip_protocol::{self as protocol, Protocol, Verdict};
use spip_record::turn::{LISTED, Turn};

use crate::tls::Framing;

use super::{ALLOWANCE_BYTES, Dialogue, Reply, Responder, Scene, Service, http2, service_for};

/// State of the client's stream at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// All that the client said so far, as far as it was kept.
    pub kept: &'a [u8],
    /// Bytes received so far.
    pub received: u64,
    /// Since the accept.
    pub elapsed: Duration,
    /// On the wall clock.
    pub now: SystemTime,
    /// Set while the sensor could complete a TLS handshake and has not yet.
    pub offers_tls: bool,
}

/// The talk with one client.
pub struct Conversation {
    port: u16,
    seed: [u8; 16],
    state: State,
    /// Protocol of the client's bytes, once they decided.
    decided: Option<&'static Protocol>,
    /// Number of the client's bytes that were answered.
    answered: usize,
    /// Number of bytes behind those that the dialogue examined without taking any.
    looked: usize,
    /// Last challenge sent to the client.
    challenge: Option<Box<[u8]>>,
    /// Set while the dialogue has agreed on TLS and the client's ClientHello is next.
    agreed_on_tls: Option<Framing>,
    /// Number of bytes given to all calls of the dialogue.
    #[cfg(test)]
    pub(super) given: usize,
    client_bytes: u64,
    /// Bytes to send.
    pending: Vec<u8>,
    said: u64,
    sent: u64,
    refusals: u32,
    understood: bool,
    closing: bool,
    names: Vec<&'static str>,
    turns: Vec<Turn>,
    /// Since when the client does not take what is pending.
    blocked_since: Option<Duration>,
    /// Set when it speaks a protocol in which clients go first.
    goes_first: bool,
    /// Number of bytes received when the client last fell silent.
    silent_at: Option<u64>,
    /// Set while sent bytes may still be in a layer above the socket.
    unflushed: bool,
    hung_up_at: Option<Duration>,
}

enum State {
    /// Nothing decides yet.
    Listening,
    /// Nothing will be said.
    Mute,
    Talking(&'static Service, Box<dyn Dialogue>),
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation").field("port", &self.port).field("names", &self.names).finish_non_exhaustive()
    }
}

impl Conversation {
    /// With a client that asked for `port`. `seed` is random, and makes the challenges of this session.
    #[must_use]
    pub fn new(port: u16, seed: [u8; 16]) -> Self {
        Self {
            port,
            seed,
            state: State::Listening,
            decided: None,
            answered: 0,
            looked: 0,
            challenge: None,
            agreed_on_tls: None,
            #[cfg(test)]
            given: 0,
            client_bytes: 0,
            pending: Vec::new(),
            said: 0,
            sent: 0,
            refusals: 0,
            understood: false,
            closing: false,
            names: Vec::new(),
            turns: Vec::new(),
            blocked_since: None,
            goes_first: false,
            silent_at: None,
            unflushed: false,
            hung_up_at: None,
        }
    }

    /// Begins anew inside TLS, which the client spoke after all; what was said before stays in the account.
    pub fn start_over(&mut self) {
        self.state = State::Listening;
        self.decided = None;
        self.answered = 0;
        self.looked = 0;
        self.agreed_on_tls = None;
        self.client_bytes = 0;
        self.silent_at = None;
        self.understood = false;
        self.give_up();
        self.closing = false;
    }

    /// The client has agreed to a protocol in which it speaks first: its silence gets no greeting.
    pub fn wait_for_client(&mut self) {
        self.goes_first = true;
    }

    /// Says nothing more: the client speaks TLS that is not answered here.
    pub fn mute(&mut self) {
        self.agreed_on_tls = None;
        self.state = State::Mute;
    }

    /// Returns the bytes that wait to be sent, and about as many more in TLS and the dialogue.
    #[must_use]
    pub fn held(&self) -> usize {
        2 * self.pending.capacity()
    }

    /// Reports whether a reply depends on the client sending no more than the `received` bytes that it sent so far.
    #[must_use]
    pub fn awaits_silence(&self, received: u64) -> bool {
        self.is_listening() && self.silent_at != Some(received) && !(self.goes_first && received == 0)
    }

    pub(super) fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening)
    }

    /// Reports whether the client has sent something since the last call.
    #[must_use]
    pub fn has_news(&self, received: u64) -> bool {
        received > self.client_bytes
    }

    /// The client has been silent for [`Responder::banner_after`].
    pub fn silence(&mut self, responder: &Responder, heard: &Heard<'_>) {
        self.silent_at = Some(heard.received);
        if !self.is_listening() {
            return;
        }
        match responder.service_of_port(self.port) {
            Some(service) if heard.kept.is_empty() && service.speaks_first => self.begin(service),
            // Part of a line may yet become anything, and so may part of HTTP/2's first lines.
            Some(service) if heard.kept.ends_with(b"\n") && !http2::PREFACE.starts_with(heard.kept) => {
                self.begin(service);
            }
            _ => return,
        }
        self.go_on(responder, heard);
    }

    /// The client has said more.
    pub fn hear(&mut self, responder: &Responder, heard: &Heard<'_>) {
        self.note_client(heard);
        if self.is_listening() {
            match protocol::classify(heard.kept) {
                // What follows could still contradict, so the dialogue begins and nothing is decided.
                Verdict::NeedMore => {
                    match protocol::pause(heard.kept).and_then(|protocol| service_for(protocol.name())) {
                        Some(service) => self.begin(service),
                        None => return,
                    }
                }
                Verdict::Is(protocol) => {
                    self.decided = Some(protocol);
                    match service_for(protocol.name()) {
                        Some(service) => self.begin(service),
                        None => self.state = State::Mute,
                    }
                }
                Verdict::Unknown => match responder.service_of_port(self.port) {
                    Some(service) => self.begin(service),
                    None => self.state = State::Mute,
                },
            }
        }
        self.go_on(responder, heard);
    }

    fn begin(&mut self, service: &'static Service) {
        self.state = State::Talking(service, (service.begin)());
    }

    fn go_on(&mut self, responder: &Responder, heard: &Heard<'_>) {
        let State::Talking(service, dialogue) = &mut self.state else { return };
        let face = responder.persona.face(self.port);
        let scene = Scene { face, port: self.port, now: heard.now, seed: self.seed, offers_tls: heard.offers_tls };
        let mut reply = Reply {
            pending: &mut self.pending,
            said: &mut self.said,
            limit: heard.received + ALLOWANCE_BYTES,
            refusals: &mut self.refusals,
            understood: &mut self.understood,
            closing: &mut self.closing,
            agreed_on_tls: &mut self.agreed_on_tls,
            challenge: &mut self.challenge,
            names: &mut self.names,
        };
        if service.speaks_first && *reply.said == 0 {
            dialogue.greet(&scene, &mut reply);
        }
        while !*reply.closing && reply.agreed_on_tls.is_none() {
            let rest = heard.kept.get(self.answered..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            // Asked in any case: it keeps in mind what it has seen.
            let is_worth_hearing = dialogue.is_worth_hearing(rest, self.looked);
            if self.looked > 0 && !is_worth_hearing {
                self.looked = rest.len();
                break;
            }
            #[cfg(test)]
            {
                self.given += rest.len();
            }
            let used = dialogue.hear(rest, &scene, &mut reply);
            if used == 0 {
                self.looked = rest.len();
                break;
            }
            self.answered += used;
            self.looked = 0;
        }
        if heard.received > heard.kept.len() as u64 {
            // What was not kept cannot be answered.
            self.state = State::Mute;
        }
    }

    /// Returns the challenge, without which the client's answer cannot be read.
    #[must_use]
    pub fn challenge(&self) -> Option<&[u8]> {
        self.challenge.as_deref()
    }

    /// Returns the bytes to send; empty when there are none.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// The client's side took `count` bytes of what is pending.
    pub fn sent(&mut self, count: usize, elapsed: Duration) {
        let count = count.min(self.pending.len());
        if count == 0 {
            return;
        }
        self.blocked_since = None;
        self.unflushed = true;
        self.note(false, count as u64, elapsed);
        self.sent += count as u64;
        self.pending.drain(..count);
        if self.pending.is_empty() {
            // A session that waits owns no buffer.
            self.pending = Vec::new();
        }
    }

    /// Reports whether sent bytes may still be in a layer above the socket.
    #[must_use]
    pub fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    /// All that was sent is with the socket.
    pub fn flushed(&mut self) {
        self.unflushed = false;
        if self.pending.is_empty() {
            self.blocked_since = None;
        }
    }

    /// Reports whether bytes wait for the client to read.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.unflushed || !self.pending.is_empty()
    }

    /// The client's side takes nothing now; since when it has not, from the accept on.
    pub fn blocked(&mut self, elapsed: Duration) -> Duration {
        *self.blocked_since.get_or_insert(elapsed)
    }

    /// Since when the client's side has taken nothing.
    #[must_use]
    pub fn blocked_since(&self) -> Option<Duration> {
        self.blocked_since
    }

    /// Nothing can be sent any more.
    pub fn give_up(&mut self) {
        self.pending = Vec::new();
        self.unflushed = false;
        self.blocked_since = None;
        self.closing = true;
    }

    /// The server's side of the connection was closed.
    pub fn hang_up(&mut self, elapsed: Duration) {
        self.hung_up_at = Some(elapsed);
    }

    /// Returns the time from the accept at which the server's side was closed.
    #[must_use]
    pub fn hung_up_at(&self) -> Option<Duration> {
        self.hung_up_at
    }

    /// Reports whether the dialogue is over: the server's side of the connection ends once everything is sent.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.closing && self.pending.is_empty()
    }

    /// Bytes that were sent.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.sent
    }

    /// Returns the names of the replies in order; immediate repeats are named once.
    #[must_use]
    pub fn responses(&self) -> &[&'static str] {
        &self.names
    }

    /// Returns the first [`LISTED`] turns of both sides.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Returns the protocol of the client's bytes, if they decided before the first reply; no later byte changes that.
    #[must_use]
    pub fn decided(&self) -> Option<&'static Protocol> {
        self.decided
    }

    /// The protocol in which the client answered where its bytes alone do not decide: that of the dialogue, if the
    /// client's answer made sense in it.
    #[must_use]
    pub fn protocol(&self) -> Option<&'static Protocol> {
        match &self.state {
            State::Talking(service, _) if self.understood => {
                service.protocols.first().copied().and_then(protocol::by_name)
            }
            _ => None,
        }
    }

    fn note_client(&mut self, heard: &Heard<'_>) {
        let new = heard.received.saturating_sub(self.client_bytes);
        if new > 0 {
            self.note(true, new, heard.elapsed);
            self.client_bytes = heard.received;
        }
    }

    fn note(&mut self, is_client: bool, length: u64, elapsed: Duration) {
        if let Some(last) = self.turns.last_mut()
            && last.is_client == is_client
        {
            last.length += length;
            return;
        }
        if self.turns.len() < LISTED {
            let offset = if is_client { self.client_bytes } else { self.sent };
            let at_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            self.turns.push(Turn { is_client, offset, length, at_ms });
        }
    }
}

#[cfg(test)]
mod tests;
