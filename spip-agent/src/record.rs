//! The record: everything that is known of one connection when it has ended. Encoders turn it into a line; nothing
//! in here depends on a format.

pub mod ecs;
pub mod entry;
pub mod eve;
pub mod flat;
mod object;
mod own;
pub mod read;
pub mod scan;
pub(crate) mod system;
#[cfg(test)]
pub(crate) mod tests;
mod time;
mod url;
pub mod zeek;

use std::time::{Duration, Instant, SystemTime};

use spip_common::Syn;
use uuid::Uuid;

use entry::Entry;

use crate::addr::{ClientAddr, Destination};
use crate::limits::Limit;
use crate::payload::Payload;
use crate::respond::Conversation;
use crate::tls::Tls;
use spip_protocol::{Protocol, UNKNOWN, by_name};

/// Version of the flat format, and of the names under `spip` in the others. What may change without a new number is said
/// in `docs/records.md`.
pub const SCHEMA: &str = "spip/1";

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
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }
}

/// How the destination became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationSource {
    /// The packet filter saw the SYN before any translation.
    Ebpf,
    /// The kernel's connection tracking (`SO_ORIGINAL_DST`).
    Conntrack,
    /// The address of the accepted socket.
    Socket,
}

impl DestinationSource {
    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Conntrack => "conntrack",
            Self::Socket => "socket",
        }
    }
}

/// Why the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed its side.
    ClientClosed,
    /// The client reset the connection.
    ClientReset,
    /// No byte, or no complete TLS handshake, in time.
    FirstByteTimeout,
    /// Nothing more came for the idle time.
    IdleTimeout,
    /// The bound on the whole connection.
    SessionTimeout,
    /// As many bytes were kept as the configuration allows.
    PayloadLimit,
    /// The sensor hung up, as a server does at the end of its dialogue.
    ServerClosed,
    /// The client did not read what it was sent.
    WriteTimeout,
    /// The TLS handshake or the TLS stream failed.
    TlsError,
    /// A limit refused the connection, or took its place away.
    Rejected(Limit),
    /// The agent was stopped.
    Shutdown,
    /// The agent failed to see the connection to its end.
    Aborted,
}

impl CloseReason {
    /// All names.
    pub const NAMES: [&'static str; 12] = [
        "client_closed",
        "client_reset",
        "first_byte_timeout",
        "idle_timeout",
        "session_timeout",
        "payload_limit",
        "server_closed",
        "write_timeout",
        "tls_error",
        "rejected",
        "shutdown",
        "aborted",
    ];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientReset => "client_reset",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::SessionTimeout => "session_timeout",
            Self::PayloadLimit => "payload_limit",
            Self::ServerClosed => "server_closed",
            Self::WriteTimeout => "write_timeout",
            Self::TlsError => "tls_error",
            Self::Rejected(_) => "rejected",
            Self::Shutdown => "shutdown",
            Self::Aborted => "aborted",
        }
    }
}

/// Refused connections of one source that one record stands for.
#[derive(Clone, Copy, Debug)]
pub struct Repeated {
    /// How many, at least two.
    pub count: u64,
    /// The first, on the wall clock.
    pub first: SystemTime,
    /// The last, on the wall clock.
    pub last: SystemTime,
}

/// Who came, and what for: known at accept.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client, with the port that it used itself.
    pub client: ClientAddr,
    /// What it asked for.
    pub destination: Destination,
    /// How that became known.
    pub source: DestinationSource,
    /// The SYN that opened the connection, where it was seen.
    pub syn: Option<Syn>,
}

/// A payload that has a file of its own.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The file's name.
    pub sha256: [u8; 32],
    /// How many bytes of it the record shows.
    pub preview: usize,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    /// Names the connection everywhere.
    pub id: Uuid,
    /// When it was accepted.
    pub accepted: Moment,
    /// From accept to end.
    pub duration: Duration,
    /// Who, and what for.
    pub origin: Origin,
    /// What the client sent; inside TLS, what was decrypted.
    pub payload: Payload,
    /// Whether the client spoke TLS, and what became of it.
    pub tls: Tls,
    /// Bytes sent to the client.
    pub bytes_out: u64,
    /// Set where the payload has a file of its own.
    pub stored: Option<Box<Stored>>,
    /// What was said to the client, where there was a talk.
    pub talk: Option<Box<Conversation>>,
    /// Why it ended.
    pub close_reason: CloseReason,
    /// Set where the record stands for several refused connections.
    pub repeated: Option<Box<Repeated>>,
}

impl Session {
    /// From the accept to the first byte of the client, envelope included; `None` when none came.
    #[must_use]
    pub fn first_byte(&self) -> Option<Duration> {
        self.payload.first_byte().map(|at| at.saturating_duration_since(self.accepted.steady))
    }

    /// Notes the end: how long it took is read from the monotonic clock, whatever the wall's did meanwhile.
    pub fn end(&mut self, reason: CloseReason, now: Moment) {
        self.close_reason = reason;
        self.duration = now.steady.saturating_duration_since(self.accepted.steady);
    }
}

/// What is the same in every record of this sensor.
#[derive(Clone, Debug)]
pub struct Sensor {
    /// `name`.
    pub name: String,
    /// `community_id_seed`.
    pub community_id_seed: u16,
    /// `log_format`.
    pub format: Format,
    /// `max_line_bytes`.
    pub max_line_bytes: usize,
}

impl Sensor {
    /// Appends the record of `session` as the log takes it: without its end, which is [`Format::tail`]. With that it is
    /// at most `max_line_bytes` long. Returns what the client spoke, where it said anything.
    pub fn write(&self, session: &Session, out: &mut Vec<u8>) -> Option<&'static str> {
        let entry = Entry::of(session, self);
        let spoken = entry.protocol.as_deref().map(|name| by_name(name).map_or(UNKNOWN, Protocol::name));
        self.write_entry(entry, out);
        spoken
    }

    /// As [`Sensor::write`], without what the bytes of the client mean: for those that cannot be read.
    pub fn write_unread(&self, session: &Session, out: &mut Vec<u8>) {
        self.write_entry(Entry::unread(session, self), out);
    }

    fn write_entry(&self, mut entry: Entry<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        let limit = self.max_line_bytes.saturating_sub(Tail::BYTES);
        self.format.encode(&entry, out);
        while let Some(excess @ 1..) = (out.len() - start).checked_sub(limit) {
            if !entry.shorten(excess) {
                break;
            }
            out.truncate(start);
            self.format.encode(&entry, out);
        }
    }
}

/// The shape of records in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The project's own: flat keys.
    #[default]
    Flat,
    /// Elastic Common Schema.
    Ecs,
    /// Suricata's EVE.
    Eve,
}

impl Format {
    /// Appends a record, without its end.
    pub fn encode(self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Flat => flat::encode(entry, out),
            Self::Ecs => ecs::encode(entry, out),
            Self::Eve => eve::encode(entry, out),
        }
    }

    /// How a record ends.
    #[must_use]
    pub fn tail(self) -> Tail {
        match self {
            Self::Flat => flat::TAIL,
            Self::Ecs => ecs::TAIL,
            Self::Eve => eve::TAIL,
        }
    }
}

/// The end of a record: a member with its number, and as many braces as are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The key of the number.
    pub key: &'static str,
    /// What closes the object, without the line feed.
    pub end: &'static str,
}

impl Tail {
    /// More than any tail has: a comma, a quoted key, a colon, 20 digits, two braces and the line feed.
    pub const BYTES: usize = 40;

    /// Writes the tail for record number `seq`, and a line feed, to the end of `space`.
    #[must_use]
    pub fn write(self, space: &mut [u8; Self::BYTES], seq: u64) -> &[u8] {
        let mut at = Self::BYTES;
        let mut put = |text: &[u8]| {
            at -= text.len();
            space[at..at + text.len()].copy_from_slice(text);
        };
        put(b"\n");
        put(self.end.as_bytes());
        let mut rest = seq;
        loop {
            put(&[b'0' + (rest % 10) as u8]);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        put(b"\":");
        put(self.key.as_bytes());
        put(b",\"");
        &space[at..]
    }
}
