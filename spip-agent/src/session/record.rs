//! The outcome of a session, and its way into a line of the log.

pub mod entry;
#[cfg(test)]
pub(crate) mod tests;

use std::time::{Duration, Instant, SystemTime};

use spip_protocol::value::Object;
use spip_protocol::{Protocol, UNKNOWN, by_name};
use spip_record::CloseReason;
use uuid::Uuid;

use crate::kernel::origin::Origin;
use crate::log::sensor::Sensor;
use crate::process::clock;
use crate::process::counters::Counted;
use crate::process::ports::Ports;
use crate::respond::Conversation;
use crate::session::payload::Payload;
use crate::tls::{Handshake, Tls};

/// An instant on both clocks: the wall's, for people, and the monotonic one, for durations.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The wall clock, which may jump.
    pub wall: SystemTime,
    /// The monotonic clock.
    pub steady: Instant,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), steady: clock::now() }
    }
}

/// Refused connections of one source that one record stands for.
#[derive(Clone, Debug)]
pub struct Repeated {
    /// Number of connections, at least two.
    pub count: u64,
    /// The first, on the wall clock.
    pub first: SystemTime,
    /// The last, on the wall clock.
    pub last: SystemTime,
    /// Ports that they asked for.
    pub ports: Ports,
}

/// A payload that has a file of its own.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The file's name.
    pub sha256: [u8; 32],
    /// Number of its bytes that the record shows.
    pub preview: usize,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    /// Names the connection everywhere.
    pub id: Uuid,
    /// Time of the accept.
    pub accepted: Moment,
    /// From accept to end.
    pub duration: Duration,
    /// Source and destination.
    pub origin: Origin,
    /// Bytes of the client; inside TLS, those decrypted.
    pub payload: Payload,
    /// Result of TLS.
    pub tls: Tls,
    /// Bytes sent to the client.
    pub bytes_out: u64,
    /// Set where the payload has a file of its own.
    pub stored: Option<Box<Stored>>,
    /// Conversation with the client, if there was one.
    pub talk: Option<Box<Conversation>>,
    /// Reason why it ended.
    pub close_reason: CloseReason,
    /// Set where the record stands for several refused connections.
    pub repeated: Option<Box<Repeated>>,
    /// Facts of the PROXY protocol header.
    pub proxy: Option<Box<Object>>,
}

impl Session {
    /// From the accept to the first byte of the client, envelope included; `None` when none came.
    #[must_use]
    pub fn first_byte(&self) -> Option<Duration> {
        self.payload.first_byte().map(|at| at.saturating_duration_since(self.accepted.steady))
    }

    /// Returns what is counted of it; `protocol` where the client sent something.
    #[must_use]
    pub fn counted(&self, protocol: Option<&'static str>) -> Counted {
        Counted {
            close_reason: self.close_reason,
            protocol,
            destination_source: self.origin.source,
            conflict: self.origin.conflict,
            tls: match self.tls.facts().map(|facts| &facts.handshake) {
                None => "none",
                Some(Handshake::Off) => "off",
                Some(Handshake::Completed(_)) => "completed",
                Some(Handshake::Failed(failure)) => failure.kind(),
            },
            bytes_in: self.payload.received(),
            bytes_out: self.bytes_out,
            is_truncated: self.payload.truncated(),
        }
    }

    /// Notes the end: how long it took is read from the monotonic clock, whatever the wall's did meanwhile.
    pub fn end(&mut self, reason: CloseReason, now: Moment) {
        self.close_reason = reason;
        self.duration = now.steady.saturating_duration_since(self.accepted.steady);
    }
}

impl Sensor {
    /// Appends the record of `session` as the log takes it: without its end, which is [`Format::tail`]. With that it is
    /// at most `max_line_bytes` long, and at most `most`. Returns what the client spoke, where it said anything.
    pub fn write(&self, session: &Session, most: usize, out: &mut Vec<u8>) -> Option<&'static str> {
        let entry = entry::of(session, self);
        let spoken = entry.protocol.as_deref().map(|name| by_name(name).map_or(UNKNOWN, Protocol::name));
        self.format.encode_within(self.max_line_bytes.min(most), entry, out);
        spoken
    }

    /// As [`Sensor::write`], without what the bytes of the client mean: for those that cannot be read.
    pub fn write_unread(&self, session: &Session, most: usize, out: &mut Vec<u8>) {
        self.format.encode_within(self.max_line_bytes.min(most), entry::unread(session, self), out);
    }
}
