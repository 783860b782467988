//! Origin and end of a connection, in the words of a record.

/// The transport protocol of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// One connection.
    #[default]
    Tcp,
    /// Datagrams between two endpoints until neither side says more.
    Udp,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Returns the name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Ways in which the destination became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationSource {
    /// The packet filter saw the SYN before any translation.
    Ebpf,
    /// The kernel's connection tracking (`SO_ORIGINAL_DST`).
    Conntrack,
    /// The address of the accepted socket.
    Socket,
    /// The PROXY protocol, of a peer that the operator believes.
    Proxy,
}

impl DestinationSource {
    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Conntrack => "conntrack",
            Self::Socket => "socket",
            Self::Proxy => "proxy",
        }
    }
}

/// Reasons why the SYN that the packet filter saw was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Another SYN has the same source and sequence number, or one that cannot be read may have.
    Ambiguous,
    /// It went elsewhere than connection tracking, or the socket, has it.
    Destination,
    /// It is not the SYN that the kernel accepted.
    Syn,
}

impl Conflict {
    /// All names.
    pub const NAMES: [&'static str; 3] = ["ambiguous", "destination", "syn"];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ambiguous => "ambiguous",
            Self::Destination => "destination",
            Self::Syn => "syn",
        }
    }
}

/// Reasons why a connection ended.
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

/// The limit that a refused connection would have exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `max_sessions`.
    Sessions,
    /// `max_sessions_per_source`.
    SessionsPerSource,
    /// `rate_limit_per_second` and `rate_limit_burst`.
    Rate,
    /// The descriptors of the process or the machine; the session that was idle for longest made room.
    Descriptors,
    /// `payload_memory_bytes`: the session was the largest of the source that held most.
    Memory,
    /// The part of the log that its source may take.
    LogBudget,
    /// `net.core.somaxconn`: the client completed the handshake, and the kernel had no room for the connection in the queue
    /// of those that wait for accept.
    AcceptQueue,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Sessions,
        Self::SessionsPerSource,
        Self::Rate,
        Self::Descriptors,
        Self::Memory,
        Self::LogBudget,
        Self::AcceptQueue,
    ];

    /// The name in records, metrics and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sessions => "max_sessions",
            Self::SessionsPerSource => "max_sessions_per_source",
            Self::Rate => "rate_limit",
            Self::Descriptors => "descriptors",
            Self::Memory => "payload_memory_bytes",
            Self::LogBudget => "log_budget",
            Self::AcceptQueue => "accept_queue",
        }
    }
}
