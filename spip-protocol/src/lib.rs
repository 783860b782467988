//! Recognises the protocol of a client's bytes and extracts its facts.
//!
//! Pure functions on hostile bytes: bounded, linear in the input, without a panic. No function here
//! knows a socket.
//!
//! [`classify`] answers on a prefix, and its answers are final: more bytes can turn [`Verdict::NeedMore`] into an
//! answer, but no answer into another one. That holds by construction: each protocol reads from left to right and
//! decides from what it read, and where two could claim the same bytes the one that stands first in [`PROTOCOLS`]
//! must have declined before the other is heard: a verdict waits while bytes fit two protocols. What no rule decides
//! within [`CLASSIFY_BYTES`] is unknown, unless the client stopped where [`pause`] knows its message to be whole.
//!
//! A protocol is one file with a [`Protocol`], named here as a module and in the table. Its samples, real bytes of
//! real clients, are part of it: the tests below run every prefix of all of them through every protocol.

#![forbid(unsafe_code)]

mod adb;
mod amqp;
mod bittorrent;
mod bson;
mod carrier;
pub mod client_hello;
pub mod community_id;
pub mod credentials;
mod dns;
mod docker;
mod enterprise;
mod form;
mod ftp;
pub mod hpack;
pub mod http;
mod http1;
mod http2;
mod imap;
mod industrial;
mod irc;
mod iso_tsap;
pub mod ja3;
pub mod ja4;
mod json_rpc;
mod kafka;
mod kubernetes;
mod later_hello;
mod ldap;
mod memcached;
mod minecraft;
mod modbus;
mod mongodb;
mod mqtt;
mod mysql;
mod nntp;
mod ntlm;
mod openflow;
mod openings;
mod pause;
mod pop3;
mod postgresql;
pub mod proxy;
mod rdp;
mod reader;
mod redis;
mod request_line;
mod rtsp;
mod s7;
mod sasl;
mod sip;
mod smb;
mod smtp;
mod socks;
pub mod ssh;
pub mod syn;
mod tds;
mod telnet;
mod text_commands;
mod tpkt;
pub mod value;
mod vnc;
mod x11;
mod zookeeper;

pub use pause::pause;

use credentials::Credentials;
use http::Http;
use reader::{End, Reader};
use ssh::Ssh;
use value::Object;

/// Upper bound of the bytes that decide; a client that has sent them without being recognised stays unknown.
pub const CLASSIFY_BYTES: usize = 8 * 1024;

/// The name that a record gives to bytes that no protocol claims.
pub const UNKNOWN: &str = "unknown";

/// All protocols, in the order in which they are asked. One comes before another when its rule is the narrower one.
static PROTOCOLS: &[&Protocol] = &[
    &ssh::PROTOCOL,
    &openings::RSYNC,
    &openings::RMI,
    &openings::T3,
    &openings::JDWP,
    &openings::GIT,
    &openings::GIOP,
    &openings::ZABBIX,
    &openings::STOMP,
    &openings::NATS,
    &openings::PJL,
    &openings::XMPP,
    &openings::FIX,
    &openings::DISTCC,
    &openings::CVS,
    &openings::GPSD,
    &openings::NESSUS,
    &openings::NOMACHINE,
    &openings::MUNIN,
    &openings::ATG,
    &openings::BITCOIN,
    &openings::OPENWIRE,
    &openings::CLICKHOUSE,
    &openings::MQSERIES,
    &openings::MSMQ,
    &openings::NCP,
    &openings::EPPC,
    &openings::DB2_DAS,
    &openings::PPTP,
    &openings::RADMIN,
    &openings::CISCO_SMI,
    &openings::MIKROTIK_API,
    &openings::GEARMAN,
    &openings::NJE,
    &openings::TINC,
    &industrial::DNP3,
    &industrial::IEC104,
    &industrial::OPCUA,
    &industrial::SYNCHROPHASOR,
    &industrial::ENIP,
    &industrial::ADS,
    &industrial::HARTIP,
    &industrial::OMRON_FINS,
    &http2::PROTOCOL,
    &docker::PROTOCOL,
    &kubernetes::PROTOCOL,
    &http1::PROTOCOL,
    &rtsp::PROTOCOL,
    &sip::PROTOCOL,
    &openings::ICAP,
    &adb::PROTOCOL,
    &amqp::PROTOCOL,
    &bittorrent::PROTOCOL,
    &vnc::PROTOCOL,
    &telnet::PROTOCOL,
    &mqtt::PROTOCOL,
    &rdp::PROTOCOL,
    &s7::PROTOCOL,
    &iso_tsap::PROTOCOL,
    &carrier::H323,
    &smb::PROTOCOL,
    &kafka::PROTOCOL,
    &postgresql::PROTOCOL,
    &ldap::PROTOCOL,
    &x11::PROTOCOL,
    &enterprise::DCERPC,
    &enterprise::KRB5,
    &enterprise::SUNRPC,
    &tds::PROTOCOL,
    &enterprise::TNS,
    &enterprise::DRDA,
    &enterprise::AJP,
    &enterprise::CASSANDRA,
    &carrier::BGP,
    &carrier::DIAMETER,
    &enterprise::DICOM,
    &enterprise::ISCSI,
    &carrier::STUN,
    &carrier::SMPP,
    &carrier::OPENVPN,
    &enterprise::FASTCGI,
    &enterprise::FIREBIRD,
    &enterprise::INFORMIX,
    &carrier::RTMP,
    &enterprise::THRIFT,
    &enterprise::AFP,
    &carrier::LDP,
    &enterprise::AEROSPIKE,
    &enterprise::HISLIP,
    &redis::PROTOCOL,
    &memcached::PROTOCOL,
    &irc::PROTOCOL,
    &nntp::PROTOCOL,
    &smtp::PROTOCOL,
    &pop3::PROTOCOL,
    &ftp::PROTOCOL,
    &imap::PROTOCOL,
    &json_rpc::STRATUM,
    &json_rpc::PROTOCOL,
    &zookeeper::PROTOCOL,
    &openflow::PROTOCOL,
    &socks::PROTOCOL,
    &minecraft::PROTOCOL,
    &modbus::PROTOCOL,
    &dns::PROTOCOL,
    &mysql::PROTOCOL,
    &mongodb::PROTOCOL,
];

/// One protocol: how it is recognised and what it tells.
pub struct Protocol {
    /// The value of `protocol` in the record, and the key of its facts: lower case, no spaces.
    name: &'static str,
    /// Reports whether these bytes are of this protocol. Must decide only from the bytes that it reads, see [`reader`].
    recognise: fn(&mut Reader<'_>) -> Result<bool, End>,
    /// Extracts facts from bytes that it has recognised. `End`: the client began something that is not whole.
    understand: for<'a> fn(&'a [u8], &mut Understanding<'a>) -> Result<(), End>,
    /// Bytes that real clients send, each to be recognised as this protocol.
    #[cfg(any(test, feature = "samples"))]
    samples: &'static [&'static [u8]],
}

impl Protocol {
    /// The name in the record.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Protocol {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Protocol {}

/// Verdict about a prefix of a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// More bytes may decide.
    NeedMore,
    /// This protocol, whatever follows.
    Is(&'static Protocol),
    /// No known protocol, whatever follows.
    Unknown,
}

/// Facts of a client's bytes, many of them borrowed. Absent facts are facts that the client did not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Understanding<'a> {
    /// The protocol's name; `None` when no rule decides, which a record writes as [`UNKNOWN`].
    pub protocol: Option<&'static str>,
    /// For HTTP of every version.
    pub http: Option<Http<'a>>,
    /// For SSH.
    pub ssh: Option<Ssh>,
    /// The facts of every other protocol, and what HTTP/2 has beside `http`, to be written under its name. `incomplete`
    /// is true where the client began a message that is not whole.
    pub details: Object,
    /// Names and secrets in clear.
    pub credentials: Credentials,
    /// Set when the payload limit cut the client's bytes.
    pub truncated: bool,
}

/// Says what a prefix of the client's bytes is. Reads at most [`CLASSIFY_BYTES`].
#[must_use]
pub fn classify(prefix: &[u8]) -> Verdict {
    let window = prefix.get(..CLASSIFY_BYTES).unwrap_or(prefix);
    for protocol in PROTOCOLS {
        match (protocol.recognise)(&mut Reader::new(window)) {
            Ok(true) => return Verdict::Is(protocol),
            Ok(false) => {}
            Err(End) if window.len() == CLASSIFY_BYTES => {}
            Err(End) => return Verdict::NeedMore,
        }
    }
    Verdict::Unknown
}

/// Says what all that the client sent means; `truncated` when the payload limit cut it.
#[must_use]
pub fn understand(client_bytes: &[u8], truncated: bool) -> Understanding<'_> {
    understand_in(None, client_bytes, truncated)
}

/// As [`understand`]; where the bytes decide nothing, the client answered in `dialogue`.
#[must_use]
pub fn understand_in<'a>(dialogue: Option<&Protocol>, client_bytes: &'a [u8], truncated: bool) -> Understanding<'a> {
    match (classify(client_bytes), dialogue) {
        (Verdict::Is(protocol), _) | (_, Some(protocol)) => understand_as(protocol, client_bytes, truncated),
        (Verdict::NeedMore, None) if let Some(protocol) = pause(client_bytes).filter(|_| !truncated) => {
            understand_as(protocol, client_bytes, truncated)
        }
        (Verdict::NeedMore | Verdict::Unknown, None) => {
            let mut understanding = Understanding { truncated, ..Understanding::default() };
            text_commands::undecided_login(client_bytes, &mut understanding.credentials);
            understanding
        }
    }
}

/// As [`understand`], where the protocol is known: by an earlier verdict, or because the client answered a greeting.
#[must_use]
pub fn understand_as<'a>(protocol: &Protocol, client_bytes: &'a [u8], truncated: bool) -> Understanding<'a> {
    let mut understanding = Understanding { protocol: Some(protocol.name), truncated, ..Understanding::default() };
    if (protocol.understand)(client_bytes, &mut understanding) == Err(End) {
        understanding.details.flag("incomplete", true);
    }
    understanding
}

/// Every protocol that is known here.
pub fn all() -> impl Iterator<Item = &'static Protocol> {
    PROTOCOLS.iter().copied()
}

/// The protocol of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Protocol> {
    PROTOCOLS.iter().copied().find(|protocol| protocol.name == name)
}

/// Returns bytes of real clients of all protocols, for tests elsewhere.
#[cfg(any(test, feature = "samples"))]
pub fn samples() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    PROTOCOLS.iter().flat_map(|protocol| protocol.samples.iter().map(|bytes| (protocol.name, *bytes)))
}

#[cfg(test)]
mod tests;
