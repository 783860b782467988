//! Replies of the sensor, so that a client that waits for a server continues.
//!
//! Pure state machines on bytes: a [`Conversation`] is told what the client has said so far, or that it is silent, and
//! holds the bytes that are to be sent. It knows no socket and no clock. What it decides:
//!
//! - **Who spoke first is answered by what was said**, on any port. Only where that decides nothing, or nothing was
//!   said, does the port count ([`crate::config::Respond::ports`]).
//! - **A client of TLS or HTTP is never spoken to first**: what begins like a ClientHello has no conversation, and an
//!   unfinished line gets no greeting.
//! - **It says fixed texts and the persona's, nothing else.** Of the client's bytes only identifiers come back that a
//!   protocol demands: the tag of IMAP, the PING of HTTP/2, the packet identifier of MQTT. Nothing is stored, fetched,
//!   resolved, run or relayed.
//! - **It is bounded**: at most as many bytes as the client sent and [`ALLOWANCE_BYTES`] more, [`REFUSALS`] refusals,
//!   [`LISTED`] entries in the record. What would go beyond ends the conversation.
//!
//! A protocol is one file with a [`Service`], and a line in [`SERVICES`].

mod adb;
mod amqp;
mod ftp;
mod http;
mod http2;
mod imap;
mod lines;
mod mqtt;
mod mysql;
pub mod persona;
mod pop3;
mod postgresql;
mod rdp;
mod redis;
mod rtsp;
mod smb;
mod smtp;
mod socks;
mod ssh;
mod tds;
mod telnet;
#[cfg(test)]
mod tests;
mod upgrade;
mod vnc;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use spip_record::turn::{LISTED, Turn};

use crate::config::Greeting;
use crate::respond::persona::{Face, Persona};
use spip_protocol::{self as protocol, Protocol, Verdict};

/// Upper bound of bytes that the sensor sends beyond those that it received.
pub const ALLOWANCE_BYTES: u64 = 2 * 1024;
/// Refused commands after which a server hangs up.
const REFUSALS: u32 = 16;

/// A protocol that the sensor speaks.
struct Service {
    /// Names in [`spip_protocol`] whose clients it answers; the first is its own.
    protocols: &'static [&'static str],
    /// Set when servers of this protocol speak first.
    speaks_first: bool,
    begin: fn() -> Box<dyn Dialogue>,
}

static SERVICES: &[&Service] = &[
    &adb::SERVICE,
    &amqp::SERVICE,
    &ftp::SERVICE,
    &http::SERVICE,
    &http2::SERVICE,
    &imap::SERVICE,
    &mqtt::SERVICE,
    &mysql::SERVICE,
    &pop3::SERVICE,
    &postgresql::SERVICE,
    &rdp::SERVICE,
    &redis::SERVICE,
    &rtsp::SERVICE,
    &smb::SERVICE,
    &smtp::SERVICE,
    &socks::SERVICE,
    &ssh::SERVICE,
    &tds::SERVICE,
    &telnet::SERVICE,
    &vnc::SERVICE,
];

/// The protocols that the sensor speaks.
pub fn spoken() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().filter_map(|service| service.protocols.first().copied())
}

fn service_for(protocol: &str) -> Option<&'static Service> {
    SERVICES.iter().copied().find(|service| service.protocols.contains(&protocol))
}

/// The server's side of one protocol.
trait Dialogue: Send {
    /// Writes what a server sends before it has received anything.
    fn greet(&mut self, _: &Scene<'_>, _: &mut Reply<'_>) {}

    /// Takes the client's unanswered bytes, as far as it is whole; how many bytes that was. Called
    /// again with the rest until it is 0.
    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize;

    /// The client has completed a handshake that was agreed on; what it says from now on came inside TLS.
    fn is_in_tls(&mut self) {}

    /// Reports whether [`Dialogue::hear`] could take more than 0 of `heard` now, after it took 0 of the first `looked`
    /// bytes. Looks at the new bytes only, so that a client that sends single bytes does not cause a read from the
    /// beginning at each of them.
    fn is_worth_hearing(&mut self, _heard: &[u8], _looked: usize) -> bool {
        true
    }
}

/// Facts about the connection at the moment of a reply.
struct Scene<'a> {
    face: &'a Face,
    port: u16,
    now: SystemTime,
    seed: [u8; 16],
    /// Set while the sensor could complete a handshake and has not yet.
    offers_tls: bool,
}

impl Scene<'_> {
    /// Bytes that are the same within a session for the same purpose, and tell nothing about the seed.
    fn random<const N: usize>(&self, purpose: &str) -> [u8; N] {
        let digest = Sha256::new_with_prefix(self.seed).chain_update(purpose).finalize();
        let mut bytes = [0; N];
        for (byte, random) in bytes.iter_mut().zip(digest) {
            *byte = random;
        }
        bytes
    }
}

/// State that all conversations of the sensor share.
#[derive(Debug)]
pub struct Responder {
    /// Persona that the sensor plays.
    pub persona: Persona,
    /// Dialogue of each port where the client's bytes do not decide.
    pub ports: BTreeMap<u16, Greeting>,
    /// Silence of a client before it is greeted.
    pub banner_after: Duration,
}

impl Responder {
    /// Reports whether a silent client that asked for `port` will be greeted.
    #[must_use]
    pub fn greets(&self, port: u16) -> bool {
        self.service_of_port(port).is_some_and(|service| service.speaks_first)
    }

    fn service_of_port(&self, port: u16) -> Option<&'static Service> {
        self.ports.get(&port).and_then(|name| service_for(name.name()))
    }
}

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
    agreed_on_tls: bool,
    /// Number of bytes given to all calls of the dialogue.
    #[cfg(test)]
    given: usize,
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
            agreed_on_tls: false,
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
        self.agreed_on_tls = false;
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
        self.agreed_on_tls = false;
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

    fn is_listening(&self) -> bool {
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
        while !*reply.closing && !*reply.agreed_on_tls {
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

/// The reply of a dialogue at one moment.
struct Reply<'a> {
    pending: &'a mut Vec<u8>,
    said: &'a mut u64,
    limit: u64,
    refusals: &'a mut u32,
    understood: &'a mut bool,
    closing: &'a mut bool,
    agreed_on_tls: &'a mut bool,
    challenge: &'a mut Option<Box<[u8]>>,
    names: &'a mut Vec<&'static str>,
}

impl Reply<'_> {
    /// Says `bytes`, known as `name`. Where they are more than may be said, the conversation ends instead.
    fn say(&mut self, name: &'static str, bytes: &[u8]) {
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
    fn line(&mut self, name: &'static str, text: &str) {
        self.say(name, format!("{text}\r\n").as_bytes());
    }

    /// Says a line that refuses something.
    fn refuse(&mut self, name: &'static str, text: &str) {
        self.line(name, text);
        self.count_refusal();
    }

    /// After many refusals a server hangs up.
    fn count_refusal(&mut self) {
        *self.refusals += 1;
        if *self.refusals >= REFUSALS {
            self.close();
        }
    }

    /// Keeps what the client's next answer is computed from, for the record.
    fn challenge(&mut self, challenge: &[u8]) {
        *self.challenge = Some(challenge.into());
    }

    /// Returns the number of bytes that may still be sent.
    fn room(&self) -> usize {
        usize::try_from(self.limit.saturating_sub(*self.said)).unwrap_or(usize::MAX)
    }

    /// Records that the client's bytes make sense in this dialogue.
    fn understood(&mut self) {
        *self.understood = true;
    }

    /// The server hangs up when all is said.
    fn close(&mut self) {
        *self.closing = true;
    }
}
