//! The record: everything that is known of one connection when it has ended. Encoders turn it into a line; nothing
//! in here depends on a format.

pub mod flat;
pub mod scan;

use std::time::{Duration, Instant, SystemTime};

use spip_common::Syn;
use uuid::Uuid;

use crate::addr::{ClientAddr, Destination};
use crate::limits::Limit;
use crate::payload::Payload;
use crate::respond::Conversation;
use crate::tls::Tls;

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
    /// Set where the payload has a file of its own.
    pub stored: Option<Box<Stored>>,
    /// What was said to the client, where there was a talk.
    pub talk: Option<Box<Conversation>>,
    /// Why it ended.
    pub close_reason: CloseReason,
    /// Set where the record stands for several refused connections.
    pub repeated: Option<Repeated>,
}

/// What is the same in every record of this sensor.
#[derive(Clone, Debug)]
pub struct Sensor {
    /// `name`.
    pub name: String,
    /// `community_id_seed`.
    pub community_id_seed: u16,
}
