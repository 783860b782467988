//! Replies of the sensor, so that a client that waits for a server continues.
//!
//! Pure state machines on bytes: a [`Conversation`] is told what the client has said so far, or that it is silent, and
//! holds the bytes that are to be sent. It knows no socket and no clock. What is decided:
//!
//! - **Who spoke first is answered by what was said**, on any port. Only where that decides nothing, or nothing was
//!   said, does the port count ([`crate::config::Respond::ports`]).
//! - **A client of TLS or HTTP is never spoken to first**: what begins like a ClientHello has no conversation, and an
//!   unfinished line gets no greeting.
//! - **It says fixed texts and the persona's, nothing else.** Of the client's bytes only identifiers come back that a
//!   protocol demands: the tag of IMAP, the PING of HTTP/2, the packet identifier of MQTT. Nothing is stored, fetched,
//!   resolved, run or relayed.
//! - **It is bounded**: at most as many bytes as the client sent and [`ALLOWANCE_BYTES`] more, [`reply::REFUSALS`] refusals,
//!   [`spip_record::turn::LISTED`] entries in the record. What would go beyond ends the conversation.
//!
//! A protocol is one file with a [`Service`], and a line in [`SERVICES`].

mod adb;
mod amqp;
mod conversation;
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
mod reply;
mod rtsp;
mod smb;
mod smtp;
mod socks;
mod ssh;
mod tds;
mod telnet;
#[cfg(test)]
mod tests;
mod vnc;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::config::Greeting;
use crate::respond::persona::{Face, Persona};
pub use conversation::{Conversation, Heard};
use reply::Reply;

/// Upper bound of bytes that the sensor sends beyond those that it received.
pub const ALLOWANCE_BYTES: u64 = 2 * 1024;

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
