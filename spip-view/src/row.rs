//! One record as the store takes it: what can be asked for, and nothing else. Filled by `ingest` from what `spip-record`
//! read; the record itself is kept beside it as it was logged.

use std::net::IpAddr;

use spip_record::enrichment::Enrichment;

use crate::moment::Moment;

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The accept.
    pub time: Moment,
    /// From the accept to the end, microseconds.
    pub duration_us: u64,
    /// The client; unspecified where the record stands for many.
    pub source: IpAddr,
    /// Its port.
    pub source_port: u16,
    /// The address that it asked for.
    pub destination: IpAddr,
    /// The port that it asked for.
    pub port: u16,
    /// Set when the client used UDP.
    pub is_udp: bool,
    /// The UUID of the session.
    pub session_id: [u8; 16],
    /// Name of the sensor.
    pub sensor: String,
    /// The run of the agent; absent in logs of older agents.
    pub run: Option<String>,
    /// Number of the record in its run.
    pub seq: Option<u64>,
    /// Set when a ClientHello was recognised.
    pub is_tls: bool,
    /// Payload bytes that came, kept or not.
    pub bytes_in: u64,
    /// Bytes that were sent.
    pub bytes_out: u64,
    /// Set when bytes came that are not kept.
    pub is_truncated: bool,
    /// Reason why the connection ended.
    pub close_reason: String,
    /// The limit that refused it, or cut its payload.
    pub limit: Option<String>,
    /// Connections that the record stands for.
    pub count: u64,
    /// Protocol that the client spoke; absent when it sent nothing.
    pub protocol: Option<String>,
    /// The kept bytes, or the first of them where the payload has a file.
    pub payload: Vec<u8>,
    /// SHA-256 of the kept bytes, where there are any.
    pub sha256: Option<[u8; 32]>,
    /// The group of the payload, where there is one.
    pub group: Option<Group>,
    /// Facts with a text: see [`Kind`]. At most one of a kind.
    pub facts: Vec<(Kind, String)>,
    /// Names and secrets in clear.
    pub credentials: Vec<Credential>,
    /// Enrichment: tags, indicators, place and class of the source.
    pub meaning: Enrichment,
}

impl Row {
    /// Returns the fact of that kind.
    #[must_use]
    pub fn fact(&self, kind: Kind) -> Option<&str> {
        self.facts.iter().find(|(own, _)| *own == kind).map(|(_, text)| text.as_str())
    }
}

/// The group of a payload and its variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// 16 hexadecimal digits of the hash of the template.
    pub hash: String,
    /// The begin of the payload with numbers, hosts and tokens replaced.
    pub template: String,
}

/// A name and a secret in clear; either may be missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Credential {
    /// The name.
    pub user: Option<String>,
    /// The secret.
    pub secret: Option<String>,
}

/// Half-open SYNs of one source in one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRow {
    /// Time of the first SYN.
    pub time: Moment,
    /// Time of the last SYN.
    pub last: Moment,
    /// The source; unspecified for the rest.
    pub source: IpAddr,
    /// Name of the sensor.
    pub sensor: String,
    /// The run of the agent; absent in logs of older agents.
    pub run: Option<String>,
    /// Number of the record in its run.
    pub seq: Option<u64>,
    /// Half-open SYNs.
    pub count: u64,
    /// SYNs of which it is not known whether they were completed.
    pub undecided: u64,
    /// Ports that were asked for, as inclusive ranges, ascending.
    pub ports: Vec<(u16, u16)>,
    /// Number of different ports, complete also when the list is not.
    pub port_count: u64,
    /// Addresses that were asked for, as inclusive ranges, ascending.
    pub destinations: Vec<(IpAddr, IpAddr)>,
    /// Number of different addresses.
    pub destination_count: u64,
    /// Tools that showed, separated by spaces.
    pub tools: Option<String>,
    /// MuonFP of the first SYN.
    pub syn: Option<String>,
    /// Place and class of the source.
    pub meaning: Enrichment,
}

/// A message of the agent about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// Time of the message.
    pub time: Moment,
    /// Its level: `error`, `warn`, `info`, `debug`, `trace`.
    pub level: String,
    /// The text.
    pub message: String,
    /// The part of the agent that says it.
    pub target: String,
}

/// A kind of fact: what can be counted by hour, appear for the first time, and be shared by sources. The number is what
/// the store writes: numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// All connections; its only key is 0.
    Connections = 0,
    /// Name of a sensor.
    Sensor = 1,
    /// Protocol that the client spoke.
    Protocol = 2,
    /// SHA-256 of a payload.
    Payload = 3,
    /// A group of payloads that differ in numbers, hosts and tokens only.
    Group = 4,
    /// Method and target of the first HTTP request.
    Path = 5,
    /// User agent of HTTP.
    UserAgent = 6,
    /// JA4 of the ClientHello.
    Ja4 = 7,
    /// JA3 of the ClientHello.
    Ja3 = 8,
    /// HASSH.
    Hassh = 9,
    /// Identification of an SSH client.
    SshClient = 10,
    /// Names of the HTTP headers in their order, or the fingerprint of HTTP/2.
    HttpFingerprint = 11,
    /// MuonFP of the SYN.
    Syn = 12,
    /// Tools that give themselves away in the SYN, separated by spaces.
    Tool = 13,
    /// Host of the HTTP request.
    Host = 14,
    /// Server name of the ClientHello.
    ServerName = 15,
    /// Protocol, user and secret.
    Credential = 16,
    /// Reason why the connection ended.
    CloseReason = 17,
    /// The limit that refused it.
    Limit = 18,
    /// An address that was asked for.
    Destination = 19,
    /// A rule that matched, by its number; the label is its name.
    Tag = 20,
    /// A vulnerability that was tried: `CVE-2021-44228`.
    Cve = 21,
    /// ISO 3166-1 code of the source's country.
    Country = 22,
    /// Number of the source's autonomous system, or the name of the special range of RFC 6890 that it is in.
    Network = 23,
    /// A known scanner.
    Scanner = 24,
    /// A URL, host or hash that a payload names; the label says which.
    Indicator = 25,
    /// What sources of one campaign share: see [`Kind::SHARED`].
    Campaign = 26,
    /// All session records; its only key is 0.
    Sessions = 31,
    /// A source of sessions.
    Source = 32,
    /// A port of sessions; UDP is 65,536 and up.
    Port = 33,
    /// Half-open SYNs; its only key is 0.
    HalfOpen = 34,
    /// Records of scans; its only key is 0.
    Scans = 35,
    /// A source of half-open SYNs.
    ScanSource = 36,
    /// A port that scans asked for: scans of at most 1,024 ports.
    ScanPort = 37,
    /// 256 neighbouring ports that scans asked for.
    ScanBlock = 38,
    /// Connections that a limit refused; its only key is 0.
    Rejected = 39,
    /// Bytes received; its only key is 0.
    BytesIn = 40,
    /// A campaign and a source of it.
    CampaignSource = 41,
    /// A campaign and a port of it.
    CampaignPort = 42,
}

impl Kind {
    /// Kinds that are texts in the table of facts, with the names that addresses and queries use.
    pub const NAMED: &'static [(Self, &'static str)] = &[
        (Self::Sensor, "sensor"),
        (Self::Protocol, "protocol"),
        (Self::Payload, "payload"),
        (Self::Group, "group"),
        (Self::Path, "path"),
        (Self::UserAgent, "user_agent"),
        (Self::Ja4, "ja4"),
        (Self::Ja3, "ja3"),
        (Self::Hassh, "hassh"),
        (Self::SshClient, "ssh_client"),
        (Self::HttpFingerprint, "http_fingerprint"),
        (Self::Syn, "syn"),
        (Self::Tool, "tool"),
        (Self::Host, "host"),
        (Self::ServerName, "server_name"),
        (Self::Credential, "credential"),
        (Self::CloseReason, "close_reason"),
        (Self::Limit, "limit"),
        (Self::Destination, "destination"),
        (Self::Tag, "tag"),
        (Self::Cve, "cve"),
        (Self::Country, "country"),
        (Self::Network, "network"),
        (Self::Scanner, "scanner"),
        (Self::Indicator, "indicator"),
        (Self::Campaign, "campaign"),
    ];

    /// What sources of one campaign share: the group of the payload, and fingerprints.
    pub const SHARED: [Self; 5] = [Self::Group, Self::Ja4, Self::Hassh, Self::HttpFingerprint, Self::Syn];

    /// Kinds that are counted and are no text.
    pub const COUNTED: &'static [Self] = &[
        Self::Connections,
        Self::Sessions,
        Self::Rejected,
        Self::BytesIn,
        Self::Source,
        Self::Port,
        Self::Scans,
        Self::HalfOpen,
        Self::ScanSource,
        Self::CampaignSource,
        Self::CampaignPort,
    ];

    /// Kinds of which a session has any number.
    pub const MARKS: &'static [Self] = &[Self::Tag, Self::Cve, Self::Indicator];

    /// Kinds that say where a source is and what it is known for.
    pub const PLACES: &'static [Self] = &[Self::Country, Self::Network, Self::Scanner];

    /// Kinds that are looked up in data and rules, and change with them.
    pub const LOOKED_UP: &'static [Self] =
        &[Self::Tag, Self::Cve, Self::Country, Self::Network, Self::Scanner, Self::Indicator];

    /// Kinds that say what kind of client it is.
    pub const FINGERPRINTS: &'static [Self] = &[
        Self::Ja4,
        Self::Ja3,
        Self::Hassh,
        Self::SshClient,
        Self::HttpFingerprint,
        Self::Syn,
        Self::UserAgent,
        Self::Tool,
    ];

    /// Returns the name in addresses and queries.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(kind, _)| *kind == self).map_or(
            match self {
                Self::Source => "source",
                Self::Port => "port",
                Self::ScanSource => "scan_source",
                Self::ScanPort => "scan_port",
                _ => "",
            },
            |(_, name)| *name,
        )
    }

    /// Returns the kind with that number, of those that are texts in the table of facts or ports.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        let named = Self::NAMED.iter().map(|(kind, _)| *kind).find(|kind| *kind as u8 == number);
        named.or_else(|| (number == Self::Port as u8).then_some(Self::Port))
    }

    /// Returns the kind of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(_, own)| *own == name).map(|(kind, _)| *kind)
    }

    /// Returns the column of sessions that holds the fact's number; absent for kinds that sessions do not have once.
    #[must_use]
    pub fn column(self) -> Option<&'static str> {
        match self {
            Self::Credential | Self::Tag | Self::Cve | Self::Indicator => None,
            Self::Group => Some("payload_group"),
            // `limit` is a word of SQL.
            Self::Limit => Some("refused_by"),
            Self::Port | Self::Source => Some(self.name()),
            kind if Self::NAMED.iter().any(|(own, _)| *own == kind) => Some(kind.name()),
            _ => None,
        }
    }
}

impl serde::Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
