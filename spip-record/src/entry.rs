//! One record as it is written: every fact of a session, worked out once, in the form in which all formats tell it.
//!
//! Formats differ in names and nesting, never in what they know. So an [`Entry`] is made in two ways, from a session
//! that has ended and from a line of the flat format, and an encoder cannot tell which: converting a log gives the
//! bytes that logging in the other format would have given.
//!
//! Each encoder takes an entry apart without `..`: a new field does not compile until every format says where it goes.
//!
//! A line is bounded. What does not fit is left out in a fixed order, least loss first, and `shortened` names it:
//! 1. `long_facts`: what repeats the client's bytes at length is cut to its first [`FACT_BYTES`], long lists of facts go;
//! 2. `payload`, the text: `payload_hex` has the same bytes;
//! 3. `payload_hex`, from its end, as far as needed; `payload_truncated` is then true, unless the payload has a file;
//! 4. `client_hello`: its bytes and the long form of its fingerprint, and a client's certificate;
//! 5. `headers`: those of HTTP, and requests behind the first;
//! 6. `turns`, and what a proxy said;
//! 7. `facts`: all else that the payload and the ClientHello say, which can be read from the bytes again where they are kept.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use spip_common::Syn;
use spip_protocol::credentials::Credential;
use spip_protocol::http::Http;
use spip_protocol::value::Object;
use uuid::Uuid;

use crate::Transport;
use crate::enrichment::Enrichment;
use crate::flat;
use crate::object::Members;
use crate::read::Json;
use crate::turn::Turn;

/// Bytes of UTF-8 that a long fact keeps when its line is too long.
pub const FACT_BYTES: usize = 64;

/// Objects and lists of facts that take more than this in JSON count as long, in bytes.
const LONG_BYTES: usize = 1024;

/// Text that a session lends, that is the program's own, or that was read from a line.
pub type Text<'a> = Cow<'a, str>;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<'a> {
    /// The accept on the wall clock, microseconds since 1970.
    pub accepted_us: i64,
    /// From the accept to the first byte, monotonic, microseconds; absent when none came.
    pub first_byte_us: Option<u64>,
    /// From the accept to the end, monotonic, microseconds.
    pub duration_us: u64,
    /// The bytes that were kept.
    pub payload: Cow<'a, [u8]>,
    /// The client.
    pub source: SocketAddr,
    /// Destination that the client asked for.
    pub destination: SocketAddr,
    /// Names the connection.
    pub session_id: Uuid,
    /// The sensor.
    pub name: Text<'a>,
    /// The run of the agent that wrote the record; absent in a line of an agent that did not name its runs.
    pub run: Option<Text<'a>>,
    /// The transport protocol.
    pub transport: Transport,
    /// Payload bytes that came, kept or not.
    pub bytes_in: u64,
    /// Bytes that were sent.
    pub bytes_out: u64,
    /// Set when bytes came that are not kept.
    pub payload_truncated: bool,
    /// SHA-256 of the kept bytes, where there are any.
    pub payload_sha256: Option<[u8; 32]>,
    /// Set when the kept bytes are in a file of that name, and `payload` has only the first of them.
    pub payload_stored: bool,
    /// Parts left out so that the line stays within its bound.
    pub shortened: Vec<Text<'a>>,
    /// Reason why the connection ended.
    pub close_reason: Text<'a>,
    /// Limit that refused the connection, or cut its payload.
    pub limit: Option<Text<'a>>,
    /// Refused connections that the record stands for.
    pub repeated: Option<Repetition>,
    /// Names of the replies to the client.
    pub responses: Vec<Text<'a>>,
    /// Turns of both sides in order; empty when the sensor said nothing.
    pub turns: Cow<'a, [Turn]>,
    /// Source of the destination.
    pub destination_source: Text<'a>,
    /// Reason why the packet filter was not believed.
    pub destination_conflict: Option<Text<'a>>,
    /// The address of this machine to which a translation in front of it led; absent where there is none.
    pub destination_local_ip: Option<IpAddr>,
    /// Facts of the PROXY protocol header in front of the payload.
    pub proxy: Option<Details>,
    /// Challenge that the client's answer cannot be read without.
    pub challenge: Option<Cow<'a, [u8]>>,
    /// Ports that refused connections asked for, as ranges such as `80-90`; only of a record that stands for several.
    pub destination_ports: Vec<Text<'a>>,
    /// Number of different ports.
    pub destination_port_count: Option<u32>,
    /// Community ID v1.
    pub community_id: Text<'a>,
    /// Protocol that the client spoke.
    pub protocol: Option<Text<'a>>,
    /// Facts of HTTP.
    pub http: Option<Http<'a>>,
    /// Facts of SSH.
    pub ssh: Option<SshFacts>,
    /// Facts of another protocol, written under the protocol's name.
    pub details: Option<Details>,
    /// Names and secrets in clear.
    pub credentials: Vec<Credential>,
    /// The ClientHello and what became of it; absent where there was none (`is_tls`).
    pub tls: Option<TlsFacts<'a>>,
    /// The SYN.
    pub syn: Option<SynFacts<'a>>,
    /// Data that came with the SYN; the payload has none of it, unless the kernel took it or the client sent it again.
    pub syn_data: Option<SynDataFacts<'a>>,
    /// Findings that a reader of the log added; the sensor leaves it out.
    pub enrichment: Option<Box<Enrichment>>,
    /// Number of the record in its run; only in what was read. The log gives it to what is logged.
    pub seq: Option<u64>,
}

/// Refused connections that one record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repetition {
    /// Number of connections.
    pub count: u64,
    /// The first, microseconds since 1970.
    pub first_us: i64,
    /// The last, microseconds since 1970.
    pub last_us: i64,
}

/// Facts that an SSH client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshFacts {
    /// Its identification.
    pub client: String,
    /// HASSH and the text of which it is the hash.
    pub hassh: Option<(String, String)>,
}

/// Facts of a protocol: as they were found, or as they were read.
#[derive(Clone, Debug)]
pub enum Details {
    /// Found in the bytes.
    Found(Object),
    /// Read from a line.
    Read(Json),
}

impl Details {
    /// The fact of that name, where it is a text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self {
            Self::Found(object) => object.get(key).and_then(spip_protocol::value::Value::as_text),
            Self::Read(value) => value.get(key).and_then(Json::as_text),
        }
    }

    /// The texts of the fact of that name, where it is a list.
    #[must_use]
    pub fn texts(&self, key: &str) -> Vec<&str> {
        match self {
            Self::Found(object) => match object.get(key) {
                Some(spip_protocol::value::Value::List(list)) => {
                    list.iter().filter_map(|item| item.as_text()).collect()
                }
                _ => Vec::new(),
            },
            Self::Read(value) => match value.get(key) {
                Some(Json::List(list)) => list.iter().filter_map(Json::as_text).collect(),
                _ => Vec::new(),
            },
        }
    }
}

impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Found(object) => object.serialize(serializer),
            Self::Read(value) => value.serialize(serializer),
        }
    }
}

impl PartialEq for Details {
    /// Equal is what is written equally.
    fn eq(&self, other: &Self) -> bool {
        let text = |details: &Self| serde_json::to_string(details).ok();
        text(self) == text(other)
    }
}

/// The SYN: as it was seen, or as it was read. Either is written as the same object in every format.
#[derive(Clone, Debug)]
pub enum SynFacts<'a> {
    /// Seen.
    Seen {
        /// The packet.
        syn: &'a Syn,
        /// Destination of the SYN, before any translation.
        destination: SocketAddr,
    },
    /// Read from a line.
    Read(Json),
}

impl PartialEq for SynFacts<'_> {
    /// Equal is what is written equally.
    fn eq(&self, other: &Self) -> bool {
        let bytes = |syn: &Self| {
            let mut out = Vec::new();
            syn.write(&mut out);
            out
        };
        bytes(self) == bytes(other)
    }
}

impl SynFacts<'_> {
    /// Appends the object.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Seen { syn, destination } => flat::encode_syn(syn, flat::tools(syn, *destination), out),
            Self::Read(value) => crate::json::value(out, value),
        }
    }
}

/// Data that came with a SYN, or with the SYNs of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SynDataFacts<'a> {
    /// Number of SYNs with data; only of a scan.
    pub count: Option<u64>,
    /// Bytes that came.
    pub length: u32,
    /// The first of them; empty where they are not known.
    pub bytes: Cow<'a, [u8]>,
}

impl SynDataFacts<'_> {
    /// Writes the facts, by the same keys in every format.
    pub(crate) fn write(&self, record: &mut Members<'_>) {
        if let Some(count) = self.count {
            record.number("syn_data_count", count);
        }
        record.number("syn_data_length", self.length);
        if !self.bytes.is_empty() {
            record.lossy("syn_data", &self.bytes);
            record.hex("syn_data_hex", &self.bytes);
        }
    }

    /// Cuts the bytes to their first [`FACT_BYTES`]; reports whether there were more.
    pub(crate) fn shorten(&mut self) -> bool {
        let is_long = self.bytes.len() > FACT_BYTES;
        match &mut self.bytes {
            _ if !is_long => {}
            Cow::Borrowed(bytes) => *bytes = &bytes[..FACT_BYTES],
            Cow::Owned(bytes) => bytes.truncate(FACT_BYTES),
        }
        is_long
    }
}

/// Facts of TLS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsFacts<'a> {
    /// The hello as it came.
    pub client_hello: Cow<'a, [u8]>,
    /// Contents of the ClientHello, where it can be read.
    pub hello: Option<HelloText>,
    /// The first thing in it that is not as it should be, whatever became of the handshake.
    pub malformed: Option<Text<'a>>,
    /// Version of a completed handshake.
    pub version: Option<Text<'a>>,
    /// Cipher suite of a completed handshake.
    pub cipher_suite: Option<Text<'a>>,
    /// Application protocol of a completed handshake.
    pub alpn: Option<Text<'a>>,
    /// Contents of the client's certificate.
    pub client_certificate: Option<Cow<'a, PresentedCertificate>>,
    /// Reason why the handshake or the session failed.
    pub error: Option<String>,
}

/// Contents of a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloText {
    /// The server that it asks for.
    pub server_name: Option<String>,
    /// Application protocols, in its order.
    pub protocols: Vec<String>,
    /// Set when the client offers more protocols than are listed.
    pub protocols_truncated: bool,
    /// JA3; only a line that was read may lack a fingerprint.
    pub ja3: Option<String>,
    /// JA4.
    pub ja4: Option<String>,
    /// JA4, the raw form.
    pub ja4_r: Option<String>,
}

/// Claims of a client's certificate, unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedCertificate {
    /// The subject's name, such as `CN=client.example, O=Example`, at most 512 characters of it.
    pub subject: String,
    /// The issuer's name, in the same way.
    pub issuer: String,
    /// Start of validity, in Unix seconds; every certificate has one, a record that was read may lack it.
    pub not_before: Option<i64>,
    /// End of validity, in the same way.
    pub not_after: Option<i64>,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub sha256: String,
}

impl<'a> Entry<'a> {
    /// Reports whether the client spoke TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The end on the wall clock as it was at the accept: no step of the clock moves it.
    #[must_use]
    pub fn ended_us(&self) -> i64 {
        self.accepted_us.saturating_add(i64::try_from(self.duration_us).unwrap_or(i64::MAX))
    }

    /// The bytes that are told as text, too.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        if self.shortened.iter().any(|name| name == "payload") { &[] } else { &self.payload }
    }

    /// Cuts facts that repeat the client's bytes at length; reports whether there were any.
    fn cut_long_facts(&mut self) -> bool {
        let mut any = false;
        for credential in &mut self.credentials {
            for text in [&mut credential.user, &mut credential.secret].into_iter().flatten() {
                let end = text.floor_char_boundary(FACT_BYTES);
                any |= end < text.len();
                text.truncate(end);
            }
        }
        if let Some(http) = &mut self.http {
            // A target is looked for more than any header.
            let target = http.target.iter_mut().map(|text| (text, 4 * FACT_BYTES));
            let others = [&mut http.method, &mut http.version, &mut http.host, &mut http.user_agent];
            let others = others.into_iter().flatten().map(|text| (text, 2 * FACT_BYTES));
            let pairs = http.headers.iter_mut().chain(&mut http.pipelined);
            let pairs = pairs.flat_map(|(name, value)| [(name, FACT_BYTES), (value, FACT_BYTES)]);
            for (text, most) in target.chain(others).chain(pairs) {
                any |= cut(text, most);
            }
            http.truncated |= any;
        }
        any |= drop_long(&mut self.details);
        any |= self.syn_data.as_mut().is_some_and(SynDataFacts::shorten);
        if let Some(hello) = self.tls.as_mut().and_then(|tls| tls.hello.as_mut()) {
            let mut room = LONG_BYTES;
            let fits = hello.protocols.iter().take_while(|name| {
                let fits = name.len() <= room;
                room = room.saturating_sub(name.len());
                fits
            });
            let fits = fits.count();
            if fits < hello.protocols.len() {
                hello.protocols.truncate(fits);
                hello.protocols_truncated = true;
                any = true;
            }
        }
        any
    }

    /// Drops the bytes of the ClientHello and what repeats them; its names and fingerprints stay. Reports whether there were
    /// any.
    fn drop_client_hello(&mut self) -> bool {
        let Some(tls) = &mut self.tls else { return false };
        let any = !tls.client_hello.is_empty();
        tls.client_hello = Cow::Borrowed(&[]);
        tls.client_certificate = None;
        if let Some(hello) = &mut tls.hello {
            hello.ja4_r = None;
        }
        any
    }

    /// Drops headers and what follows the first request; method, target, host and program stay. Reports whether there were
    /// any.
    fn drop_headers(&mut self) -> bool {
        let Some(http) = &mut self.http else { return false };
        let any = !http.headers.is_empty() || !http.pipelined.is_empty();
        http.headers.clear();
        http.pipelined.clear();
        http.truncated |= any;
        any
    }

    /// Leaves out the next thing so that a line that is `excess` bytes too long becomes shorter; false when there is
    /// nothing left that could be left out.
    pub fn shorten(&mut self, excess: usize) -> bool {
        let done = |entry: &Self, name: &str| entry.shortened.iter().any(|shortened| shortened == name);
        if !done(self, "long_facts") && self.cut_long_facts() {
            self.shortened.push(Cow::Borrowed("long_facts"));
        } else if !self.payload.is_empty() && !done(self, "payload") {
            self.shortened.push(Cow::Borrowed("payload"));
        } else if !self.payload.is_empty() {
            if !done(self, "payload_hex") {
                self.shortened.push(Cow::Borrowed("payload_hex"));
            }
            // Two digits a byte, and some more for the names that `shortened` gains.
            let cut = (excess / 2 + 32).min(self.payload.len());
            let left = self.payload.len() - cut;
            match &mut self.payload {
                Cow::Borrowed(bytes) => *bytes = bytes.get(..left).unwrap_or_default(),
                Cow::Owned(bytes) => bytes.truncate(left),
            }
            // Where the payload has a file, nothing is lost.
            self.payload_truncated |= !self.payload_stored;
        } else if !done(self, "client_hello") && self.drop_client_hello() {
            self.shortened.push(Cow::Borrowed("client_hello"));
        } else if !done(self, "headers") && self.drop_headers() {
            self.shortened.push(Cow::Borrowed("headers"));
        } else if !done(self, "turns") && (!self.turns.is_empty() || self.proxy.is_some()) {
            self.shortened.push(Cow::Borrowed("turns"));
            self.turns = Cow::Borrowed(&[]);
            self.proxy = None;
        } else if !done(self, "facts") {
            self.shortened.push(Cow::Borrowed("facts"));
            (self.http, self.ssh, self.details) = (None, None, None);
            self.credentials.clear();
            if let Some(tls) = &mut self.tls {
                tls.client_hello = Cow::Borrowed(&[]);
                (tls.hello, tls.malformed, tls.client_certificate) = (None, None, None);
            }
        } else {
            return false;
        }
        true
    }
}

/// Cuts `text` to `most` bytes of UTF-8; reports whether it was longer.
fn cut(text: &mut Text<'_>, most: usize) -> bool {
    let end = text.floor_char_boundary(most);
    let is_long = end < text.len();
    if is_long {
        match text {
            Cow::Borrowed(text) => *text = &text[..end],
            Cow::Owned(text) => text.truncate(end),
        }
    }
    is_long
}

/// Drops facts that take more than [`LONG_BYTES`] in JSON; reports whether they did.
fn drop_long<T: Serialize>(facts: &mut Option<T>) -> bool {
    let is_long = facts.as_ref().is_some_and(|facts| {
        let mut json = Vec::new();
        crate::json::value(&mut json, facts);
        json.len() > LONG_BYTES
    });
    if is_long {
        *facts = None;
    }
    is_long
}

/// A canonical endpoint: an IPv4 address in IPv6 form is IPv4.
#[must_use]
pub(super) fn endpoint(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// Microseconds since 1970, negative before.
#[must_use]
pub fn unix_micros(time: SystemTime) -> i64 {
    let signed = |value: u128| i64::try_from(value).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => signed(since.as_micros()),
        // Rounded down, as after 1970.
        Err(before) => -signed(before.duration().as_nanos().div_ceil(1000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sessions;

    fn text(bytes: usize) -> Text<'static> {
        Cow::Owned("x".repeat(bytes))
    }

    #[test]
    fn each_fact_that_repeats_the_client_is_cut_at_its_own_length() {
        let entry = || sessions().find(|entry| entry.http.is_some()).expect("a client of HTTP");
        let of = |more: usize| {
            let mut entry = entry();
            entry.credentials.clear();
            (entry.details, entry.tls, entry.syn_data) = (None, None, None);
            let http = entry.http.as_mut().expect("HTTP");
            http.truncated = false;
            http.target = Some(text(4 * FACT_BYTES + more));
            (http.method, http.version) = (Some(text(3)), Some(text(3)));
            http.host = Some(text(2 * FACT_BYTES + more));
            http.user_agent = Some(text(2 * FACT_BYTES + more));
            http.headers = vec![(text(FACT_BYTES + more), text(FACT_BYTES + more))];
            http.pipelined = vec![(text(FACT_BYTES + more), text(1))];
            entry
        };
        for more in [0, 1, 500] {
            let mut entry = of(more);
            assert_eq!(entry.cut_long_facts(), more > 0);
            let (mut http, expected) = (entry.http.expect("HTTP"), of(0).http.expect("HTTP"));
            assert_eq!(std::mem::take(&mut http.truncated), more > 0);
            assert_eq!(http, expected);
        }
        let mut entry = of(0);
        entry.http.as_mut().expect("HTTP").pipelined[0].1 = text(FACT_BYTES + 1);
        assert!(entry.shorten(1) && entry.shortened == ["long_facts"], "one is enough");
    }

    #[test]
    fn names_of_alpn_are_cut_where_their_room_ends() {
        let with = |names: &[usize]| {
            let has_hello = |entry: &Entry<'_>| entry.tls.as_ref().is_some_and(|tls| tls.hello.is_some());
            let mut entry = sessions().find(has_hello).expect("a ClientHello");
            (entry.http, entry.details, entry.syn_data) = (None, None, None);
            entry.credentials.clear();
            let hello = entry.tls.as_mut().and_then(|tls| tls.hello.as_mut()).expect("a ClientHello");
            hello.protocols = names.iter().map(|bytes| "x".repeat(*bytes)).collect();
            hello.protocols_truncated = false;
            let any = entry.cut_long_facts();
            let hello = entry.tls.and_then(|tls| tls.hello).expect("a ClientHello");
            (any, hello.protocols.len(), hello.protocols_truncated)
        };
        assert_eq!(with(&[]), (false, 0, false));
        assert_eq!(with(&[2, 8]), (false, 2, false));
        assert_eq!(with(&[LONG_BYTES - 8, 8]), (false, 2, false));
        assert_eq!(with(&[LONG_BYTES - 8, 9, 1]), (true, 1, true));
    }

    #[test]
    fn a_payload_is_cut_by_what_the_line_is_too_long_and_room_for_names() {
        let mut entry = sessions().find(|entry| entry.http.is_none() && entry.tls.is_none()).expect("a session");
        entry.credentials.clear();
        (entry.details, entry.syn_data, entry.payload_truncated, entry.payload_stored) = (None, None, false, false);
        entry.payload = Cow::Owned(vec![b'x'; 1_000]);
        assert!(entry.shorten(100));
        assert_eq!((entry.shortened.as_slice(), entry.payload.len()), (&[Cow::Borrowed("payload")][..], 1_000));
        assert!(entry.text().is_empty() && !entry.payload_truncated, "the digits have all of it");
        // Two digits a byte.
        assert!(entry.shorten(100) && entry.payload_truncated);
        assert_eq!(entry.payload.len(), 1_000 - 100 / 2 - 32);
        assert!(entry.shorten(1_000_000) && entry.payload.is_empty());
        assert_eq!(entry.shortened, ["payload", "payload_hex"]);
        let mut stored = sessions().next().expect("a session");
        (stored.payload, stored.payload_stored, stored.payload_truncated) = (Cow::Owned(vec![0; 100]), true, false);
        while !stored.payload.is_empty() {
            assert!(stored.shorten(50));
        }
        assert!(!stored.payload_truncated, "its file has all of it");
    }
}
