//! A line of the flat format read back, so that it can be written in another one.
//!
//! A log may have been touched by anybody: a line is refused, with a reason, when it is of another schema, when a key
//! that every record has is missing or has another type, when a key comes without the one that it belongs to, when a
//! key comes twice, and when objects hold more than [`MAX_VALUES`] values. Lists
//! are read as far as the agent writes them, and what follows is passed over, so that no line takes much more memory
//! than its own length. Keys that are not known are passed over, too: the format may gain some. Strings are escaped
//! again when they are written.

mod identity;
mod json;
mod values;

pub use identity::{Identity, identity};
pub use json::{Json, MAX_VALUES, any};
pub(super) use values::{Capped, Lent};

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use super::enrichment::Enrichment;
use super::entry::{Details, Entry, HelloText, Repetition, SshFacts, SynDataFacts, SynFacts, TlsFacts, endpoint};
use super::scan::ScanEntry;
use super::time;
use super::{SCHEMA, Transport};
use crate::entry::PresentedCertificate;
use crate::turn::{LISTED, Turn};
use json::Bounded;
use spip_protocol as protocol;
use spip_protocol::credentials::{CREDENTIALS, Credential};
use spip_protocol::http::{HEADERS, Http, PIPELINED};
pub(crate) use values::Hex;

/// Names in `shortened`: more than there are.
const SHORTENED: usize = 16;

/// Ranges of ports: as many as the agent writes.
const PORT_RANGES: usize = 64;

/// Application protocols that are read of a ClientHello: as many as one can name, of a byte each.
const PROTOCOLS: usize = 32 * 1024;

/// Kinds of lines.
#[derive(Debug)]
pub enum Line<'a> {
    /// The record of a session.
    Session(Box<Entry<'a>>),
    /// The record of a scan.
    Scan(Box<ScanEntry<'a>>),
    /// A record of another type (`record_type`), such as a system message.
    Other(String),
}

/// Reads one line.
///
/// # Errors
/// It is no JSON object, of another schema, or lacks what every record has.
pub fn line(line: &[u8]) -> Result<Line<'_>, serde_json::Error> {
    let keys: Keys<'_> = serde_json::from_slice(line)?;
    match keys.record_type {
        Some(kind) if kind == "scan" => {
            known_schema(keys.schema)?;
            ScanEntry::read(line).map(|entry| Line::Scan(Box::new(entry)))
        }
        Some(kind) => Ok(Line::Other(kind)),
        None => keys.into_entry().map(|entry| Line::Session(Box::new(entry))),
    }
}

/// Refuses what may mean something else by the same names.
fn known_schema(schema: Option<Lent<'_>>) -> Result<(), serde_json::Error> {
    let schema = need(schema, "schema")?.0;
    if schema == SCHEMA { Ok(()) } else { Err(wrong(&format!("schema is {schema:?}, not {SCHEMA:?}"))) }
}

/// Lists the keys of a line once: what was read of each, and how it is taken. serde's derive would pass over the objects
/// under the names of protocols, and could not share one bound among them.
macro_rules! keys {
    (Keys<$line:lifetime> { $($key:ident: $kind:ty,)* } objects { $($object:ident,)* }) => {
        /// The keys of a line, as far as they are there.
        #[derive(Default)]
        struct Keys<$line> {
            $($key: Option<$kind>,)*
            $($object: Option<Json>,)*
            /// Objects under the names of protocols.
            details: Vec<(&'static str, Json)>,
        }

        impl<$line> Keys<$line> {
            /// Takes the value of one key. Objects share `budget`, the number of values that they may hold.
            fn take<'de: $line, A: MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
                budget: &mut usize,
            ) -> Result<(), A::Error> {
                match key {
                    $(stringify!($key) => once(&mut self.$key, key, map),)*
                    $(stringify!($object) if self.$object.is_some() => Err(twice(key)),
                    stringify!($object) => {
                        self.$object = Some(map.next_value_seed(Bounded(budget))?);
                        Ok(())
                    })*
                    other => self.take_details(other, map, budget),
                }
            }
        }
    };
}

keys! {
    Keys<'a> {
        timestamp: i64,
        payload_hex: Hex,
        source_ip: IpAddr,
        source_port: u16,
        destination_ip: IpAddr,
        destination_port: u16,
        session_id: Uuid,
        is_tls: bool,
        schema: Lent<'a>,
        name: Lent<'a>,
        run: Lent<'a>,
        transport: Lent<'a>,
        time: time::Read,
        duration_us: u64,
        duration_ms: u64,
        first_byte_us: u64,
        bytes_in: u64,
        bytes_out: u64,
        payload_truncated: bool,
        payload_sha256: Hex,
        payload_stored: bool,
        shortened: Capped<String, SHORTENED>,
        close_reason: Lent<'a>,
        limit: Lent<'a>,
        count: u64,
        first_time: time::Read,
        last_time: time::Read,
        responses: Capped<String, LISTED>,
        turns: Capped<Turn, LISTED>,
        destination_source: Lent<'a>,
        destination_conflict: Lent<'a>,
        destination_local_ip: IpAddr,
        challenge_hex: Hex,
        destination_ports: Capped<String, PORT_RANGES>,
        destination_port_count: u32,
        community_id: Lent<'a>,
        protocol: Lent<'a>,
        http: Request,
        ssh_client: String,
        ssh_hassh: String,
        ssh_hassh_algorithms: String,
        credentials: Capped<Credential, CREDENTIALS>,
        tls_server_name: String,
        tls_supported_protocols: Capped<String, PROTOCOLS>,
        tls_supported_protocols_truncated: bool,
        tls_ja3: String,
        tls_ja4: String,
        tls_ja4_r: String,
        tls_client_hello_malformed: Lent<'a>,
        tls_client_hello_hex: Hex,
        tls_version: Lent<'a>,
        tls_cipher_suite: Lent<'a>,
        tls_alpn: Lent<'a>,
        tls_client_certificate: Certificate,
        tls_error: String,
        syn_data_length: u32,
        syn_data_hex: Hex,
        enrichment: Box<Enrichment>,
        seq: u64,
        record_type: String,
    }
    objects {
        proxy,
        syn,
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Keys<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Object<'a> {
            type Value = Keys<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys<'a>, A::Error> {
                let mut keys = Keys::default();
                let mut budget = MAX_VALUES;
                while let Some(key) = map.next_key::<Lent<'de>>()? {
                    keys.take(&key.0, &mut map, &mut budget)?;
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(Object(std::marker::PhantomData))
    }
}

/// Takes the value of a key that must not have one yet.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    key: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(twice(key));
    }
    let value = map.next_value().map_err(|error| A::Error::custom(format_args!("{key}: {error}")))?;
    *slot = Some(value);
    Ok(())
}

fn twice<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("{key} comes twice"))
}

impl<'a> Keys<'a> {
    /// Objects are taken under the names of protocols only: no line makes a key of its own.
    fn take_details<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        budget: &mut usize,
    ) -> Result<(), A::Error> {
        let Some(protocol) = protocol::by_name(key) else {
            return map.next_value::<IgnoredAny>().map(|_| ());
        };
        if self.details.iter().any(|(name, _)| *name == protocol.name()) {
            return Err(twice(key));
        }
        self.details.push((protocol.name(), map.next_value_seed(Bounded(budget))?));
        Ok(())
    }

    fn into_entry(self) -> Result<Entry<'a>, serde_json::Error> {
        known_schema(self.schema)?;
        let accepted_us = match self.time {
            Some(time) => time.0,
            None => need(self.timestamp, "timestamp")?.saturating_mul(1_000_000),
        };
        let payload = need(self.payload_hex, "payload_hex")?.0;
        let repeated = match (self.count, self.first_time, self.last_time) {
            (None, None, None) => None,
            (count, first, last) => Some(Repetition {
                count: need(count, "count")?,
                first_us: need(first, "first_time")?.0,
                last_us: need(last, "last_time")?.0,
            }),
        };
        let hello = HelloText {
            server_name: self.tls_server_name,
            protocols: self.tls_supported_protocols.unwrap_or_default().0,
            protocols_truncated: self.tls_supported_protocols_truncated.unwrap_or_default(),
            ja3: self.tls_ja3,
            ja4: self.tls_ja4,
            ja4_r: self.tls_ja4_r,
        };
        let tls = TlsFacts {
            client_hello: Cow::Owned(self.tls_client_hello_hex.unwrap_or_default().0),
            hello: (hello != HelloText::default()).then_some(hello),
            malformed: self.tls_client_hello_malformed.map(|text| text.0),
            version: self.tls_version.map(|text| text.0),
            cipher_suite: self.tls_cipher_suite.map(|text| text.0),
            alpn: self.tls_alpn.map(|text| text.0),
            client_certificate: self.tls_client_certificate.map(|certificate| Cow::Owned(certificate.into())),
            error: self.tls_error,
        };
        let is_tls = need(self.is_tls, "is_tls")?;
        if !is_tls && tls != TlsFacts::default() {
            return Err(wrong("is_tls is false beside facts of TLS"));
        }
        let ssh = match (self.ssh_client, self.ssh_hassh, self.ssh_hassh_algorithms) {
            (None, None, None) => None,
            (client, hassh, algorithms) => Some(SshFacts {
                client: need(client, "ssh_client")?,
                hassh: match (hassh, algorithms) {
                    (None, None) => None,
                    (hassh, algorithms) => Some((need(hassh, "ssh_hassh")?, need(algorithms, "ssh_hassh_algorithms")?)),
                },
            }),
        };
        let protocol = self.protocol.map(|text| text.0);
        let mut details = self.details.into_iter();
        let details = details.find(|(name, _)| protocol.as_deref() == Some(name)).map(|(_, value)| value);
        let texts = |list: Vec<String>| list.into_iter().map(Cow::Owned).collect();
        Ok(Entry {
            accepted_us,
            first_byte_us: self.first_byte_us,
            duration_us: match (self.duration_us, self.duration_ms) {
                (Some(us), _) => us,
                (None, ms) => need(ms, "duration_us")?.saturating_mul(1000),
            },
            source: endpoint(need(self.source_ip, "source_ip")?, need(self.source_port, "source_port")?),
            destination: endpoint(
                need(self.destination_ip, "destination_ip")?,
                need(self.destination_port, "destination_port")?,
            ),
            session_id: need(self.session_id, "session_id")?,
            name: need(self.name, "name")?.0,
            run: self.run.map(|text| text.0),
            transport: transport(self.transport)?,
            bytes_in: need(self.bytes_in, "bytes_in")?,
            bytes_out: need(self.bytes_out, "bytes_out")?,
            payload_truncated: need(self.payload_truncated, "payload_truncated")?,
            payload_sha256: match self.payload_sha256 {
                Some(Hex(bytes)) => Some(bytes.try_into().map_err(|_| wrong("payload_sha256 has not 32 bytes"))?),
                None => None,
            },
            payload_stored: self.payload_stored.unwrap_or_default(),
            payload: Cow::Owned(payload),
            shortened: texts(self.shortened.unwrap_or_default().0),
            close_reason: need(self.close_reason, "close_reason")?.0,
            limit: self.limit.map(|text| text.0),
            repeated,
            responses: texts(self.responses.unwrap_or_default().0),
            turns: Cow::Owned(self.turns.unwrap_or_default().0),
            destination_source: need(self.destination_source, "destination_source")?.0,
            destination_conflict: self.destination_conflict.map(|text| text.0),
            destination_local_ip: self.destination_local_ip,
            proxy: self.proxy.map(Details::Read),
            challenge: self.challenge_hex.map(|Hex(bytes)| Cow::Owned(bytes)),
            destination_ports: texts(self.destination_ports.unwrap_or_default().0),
            destination_port_count: self.destination_port_count,
            community_id: need(self.community_id, "community_id")?.0,
            protocol,
            http: self.http.map(Http::from),
            ssh,
            details: details.map(Details::Read),
            credentials: self.credentials.unwrap_or_default().0,
            tls: is_tls.then_some(tls),
            syn: self.syn.map(SynFacts::Read),
            syn_data: syn_data(None, self.syn_data_length, self.syn_data_hex)?,
            enrichment: self.enrichment,
            seq: self.seq,
        })
    }
}

/// Reads the data of a SYN, where there was some.
pub(crate) fn syn_data(
    count: Option<u64>,
    length: Option<u32>,
    bytes: Option<Hex>,
) -> Result<Option<SynDataFacts<'static>>, serde_json::Error> {
    if count.is_none() && length.is_none() && bytes.is_none() {
        return Ok(None);
    }
    let length = need(length, "syn_data_length")?;
    Ok(Some(SynDataFacts { count, length, bytes: Cow::Owned(bytes.map(|Hex(bytes)| bytes).unwrap_or_default()) }))
}

/// Reads the transport protocol; a line without one is older than other transports.
fn transport(name: Option<Lent<'_>>) -> Result<Transport, serde_json::Error> {
    let Some(Lent(name)) = name else { return Ok(Transport::Tcp) };
    let known = Transport::ALL.into_iter().find(|transport| transport.name() == name);
    known.ok_or_else(|| wrong(&format!("transport is {name:?}, neither tcp nor udp")))
}

pub(super) fn need<T>(value: Option<T>, key: &str) -> Result<T, serde_json::Error> {
    value.ok_or_else(|| wrong(&format!("{key} is missing: not a record of {SCHEMA}")))
}

pub(super) fn wrong(text: &str) -> serde_json::Error {
    serde_json::Error::custom(text)
}

/// The first request as the flat format has it.
#[derive(Deserialize)]
struct Request {
    method: Option<String>,
    target: Option<String>,
    version: Option<String>,
    host: Option<String>,
    user_agent: Option<String>,
    headers: Capped<(String, String), HEADERS>,
    body_bytes: Option<u64>,
    body_kept: u64,
    requests: u64,
    #[serde(default)]
    pipelined: Capped<(String, String), PIPELINED>,
    #[serde(default)]
    trailing_bytes: u64,
    api: Option<String>,
    #[serde(default)]
    truncated: bool,
    error: Option<String>,
}

impl From<Request> for Http<'_> {
    fn from(request: Request) -> Self {
        let pairs = |pairs: Vec<(String, String)>| pairs.into_iter().map(|(a, b)| (a.into(), b.into())).collect();
        let mut http = Self::default();
        http.method = request.method.map(Cow::Owned);
        http.target = request.target.map(Cow::Owned);
        http.version = request.version.map(Cow::Owned);
        http.host = request.host.map(Cow::Owned);
        http.user_agent = request.user_agent.map(Cow::Owned);
        http.headers = pairs(request.headers.0);
        http.body_bytes = request.body_bytes;
        http.body_kept = request.body_kept;
        http.requests = request.requests;
        http.pipelined = pairs(request.pipelined.0);
        http.trailing_bytes = request.trailing_bytes;
        http.api = request.api.map(Cow::Owned);
        http.truncated = request.truncated;
        http.error = request.error.map(Cow::Owned);
        http
    }
}

/// A client's certificate as the flat format has it.
#[derive(Deserialize)]
struct Certificate {
    subject: String,
    issuer: String,
    #[serde(default)]
    not_before: Option<time::Read>,
    #[serde(default)]
    not_after: Option<time::Read>,
    sha256: String,
}

impl From<Certificate> for PresentedCertificate {
    fn from(certificate: Certificate) -> Self {
        Self {
            not_before: certificate.not_before.map(time::Read::second),
            not_after: certificate.not_after.map(time::Read::second),
            subject: certificate.subject,
            issuer: certificate.issuer,
            sha256: certificate.sha256,
        }
    }
}
