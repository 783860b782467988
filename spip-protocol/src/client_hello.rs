//! The first message of a TLS client, read from the bytes that it sent.
//!
//! [`Detector`] decides by content whether a stream starts with a ClientHello, [`handshake_message`] joins the records
//! that carry it, [`ClientHello::parse`] reads it. None of them belongs to a TLS library: what is recorded of a
//! client does not depend on what the library in use accepts.
//!
//! Reading is lenient where a hello is broken, because broken hellos are the interesting ones. The fixed part
//! (version, random, session, cipher suites, compression) has to be there. Past it, an extension that lies about its
//! length ends the list, a list inside an extension is read as far as it goes, and [`ClientHello::malformed`] names
//! the first thing that was wrong. Of two extensions with the same number the first one counts.
//!
//! Everything borrows from the message: a parsed hello owns no memory.

mod detect;
mod list;
mod unread;

pub use detect::{Detection, Detector, MAX_MESSAGE_BYTES, MAX_RAW_BYTES, detect, handshake_message};
pub use list::{Protocols, U16List};

use std::fmt;
use std::net::IpAddr;

use unread::Unread;

/// Extension numbers that are looked into (IANA registry of TLS ExtensionType values).
pub mod extension {
    /// RFC 6066, section 3.
    pub const SERVER_NAME: u16 = 0x0000;
    /// RFC 8422, section 5.1.1, and RFC 8446, section 4.2.7.
    pub const SUPPORTED_GROUPS: u16 = 0x000a;
    /// RFC 8422, section 5.1.2.
    pub const EC_POINT_FORMATS: u16 = 0x000b;
    /// RFC 8446, section 4.2.3.
    pub const SIGNATURE_ALGORITHMS: u16 = 0x000d;
    /// RFC 7301.
    pub const APPLICATION_LAYER_PROTOCOL_NEGOTIATION: u16 = 0x0010;
    /// RFC 8446, section 4.2.1.
    pub const SUPPORTED_VERSIONS: u16 = 0x002b;
}

/// Reports whether a value is one of the sixteen that RFC 8701 reserves to keep servers tolerant: both bytes alike and
/// ending in `a`.
#[must_use]
pub const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// A protocol version as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16);

impl Version {
    /// SSL 2.0.
    pub const SSL_2: Self = Self(0x0002);
    /// SSL 3.0 (RFC 6101).
    pub const SSL_3: Self = Self(0x0300);
    /// TLS 1.0 (RFC 2246).
    pub const TLS_1_0: Self = Self(0x0301);
    /// TLS 1.1 (RFC 4346).
    pub const TLS_1_1: Self = Self(0x0302);
    /// TLS 1.2 (RFC 5246).
    pub const TLS_1_2: Self = Self(0x0303);
    /// TLS 1.3 (RFC 8446).
    pub const TLS_1_3: Self = Self(0x0304);
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SSL_2 => f.write_str("ssl 2.0"),
            Self::SSL_3 => f.write_str("ssl 3.0"),
            Self::TLS_1_0 => f.write_str("tls 1.0"),
            Self::TLS_1_1 => f.write_str("tls 1.1"),
            Self::TLS_1_2 => f.write_str("tls 1.2"),
            Self::TLS_1_3 => f.write_str("tls 1.3"),
            Self(other) => write!(f, "version 0x{other:04x}"),
        }
    }
}

/// The server name that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerName<'a> {
    /// There is no such extension.
    Absent,
    /// A name of type `host_name`, as sent: neither its letters nor its encoding are checked.
    Name(&'a [u8]),
    /// The extension is there, but does not hold such a name; these are the bytes where it would be.
    Malformed(&'a [u8]),
}

impl<'a> ServerName<'a> {
    /// The bytes that were sent in place of a name, if any.
    #[must_use]
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Absent => None,
            Self::Name(bytes) | Self::Malformed(bytes) => Some(bytes),
        }
    }

    /// The name as text, invalid UTF-8 as U+FFFD; control characters are left to the writer of the record.
    #[must_use]
    pub fn text(self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The address, where a client sent one although RFC 6066 wants host names only.
    #[must_use]
    pub fn ip_literal(self) -> Option<IpAddr> {
        let Self::Name(bytes) = self else { return None };
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }
}

/// Reasons why a message is no ClientHello at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It is another handshake message.
    #[error("handshake message {0} in place of a client hello")]
    NotAClientHello(u8),
    /// It ends inside the named part.
    #[error("client hello ends inside its {0}")]
    Truncated(&'static str),
}

/// A ClientHello (RFC 8446, section 4.1.2; RFC 6101, section 5.6.1.2, for the oldest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// The version in the message itself; TLS 1.3 says TLS 1.2 here.
    pub legacy_version: Version,
    /// Cipher suites, in the order of preference.
    pub cipher_suites: U16List<'a>,
    /// Compression methods.
    pub compression_methods: &'a [u8],
    /// The numbers of all extensions, in the order in which they were sent.
    pub extensions: Extensions<'a>,
    /// Extension 0.
    pub server_name: ServerName<'a>,
    /// Application protocols in the order of preference (extension 16).
    pub protocols: Protocols<'a>,
    /// Groups, once known as elliptic curves (extension 10).
    pub groups: U16List<'a>,
    /// Point formats (extension 11).
    pub point_formats: &'a [u8],
    /// Signature algorithms (extension 13).
    pub signature_algorithms: U16List<'a>,
    /// Versions that the client speaks (extension 43); empty where it does not say.
    pub supported_versions: U16List<'a>,
    /// The first thing after the fixed part that was not as it should be.
    pub malformed: Option<&'static str>,
}

impl<'a> ClientHello<'a> {
    /// Reads a handshake message, its four header bytes included (see [`handshake_message`]).
    ///
    /// # Errors
    /// When it is another message, or ends before the fixed part does.
    pub fn parse(message: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Unread::new(message);
        let kind = reader.u8().ok_or(ParseError::Truncated("header"))?;
        if kind != detect::CLIENT_HELLO {
            return Err(ParseError::NotAClientHello(kind));
        }
        let body = reader.u24().and_then(|length| reader.take(length));
        Self::parse_body(body.ok_or(ParseError::Truncated("header"))?)
    }

    fn parse_body(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Unread::new(body);
        let version = reader.u16().ok_or(ParseError::Truncated("version"))?;
        reader.take(32).ok_or(ParseError::Truncated("random"))?;
        reader.list8().ok_or(ParseError::Truncated("session id"))?;
        let suites = reader.list16().ok_or(ParseError::Truncated("cipher suites"))?;
        let compression_methods = reader.list8().ok_or(ParseError::Truncated("compression methods"))?;
        let mut hello = Self {
            legacy_version: Version(version),
            cipher_suites: U16List::new(suites),
            compression_methods,
            extensions: Extensions(&[]),
            server_name: ServerName::Absent,
            protocols: Protocols::default(),
            groups: U16List::default(),
            point_formats: &[],
            signature_algorithms: U16List::default(),
            supported_versions: U16List::default(),
            malformed: None,
        };
        hello.check(suites.len() % 2 == 0, "cipher suites of an odd length");
        // Before TLS 1.2 a hello may end here.
        if !reader.is_empty() {
            hello.read_extensions(reader);
        }
        Ok(hello)
    }

    /// Reports whether the client lists the versions that it offers: then the version in the message does not count
    /// (RFC 8446, section 4.2.1).
    #[must_use]
    pub fn lists_versions(&self) -> bool {
        self.extensions.contains(extension::SUPPORTED_VERSIONS)
    }

    /// The highest version that the client offers, GREASE left out, if any.
    #[must_use]
    pub fn highest_version(&self) -> Option<Version> {
        if self.lists_versions() {
            self.supported_versions.iter().filter(|version| !is_grease(*version)).max().map(Version)
        } else {
            Some(self.legacy_version)
        }
    }

    fn check(&mut self, holds: bool, otherwise: &'static str) {
        if !holds && self.malformed.is_none() {
            self.malformed = Some(otherwise);
        }
    }

    fn read_extensions(&mut self, mut reader: Unread<'a>) {
        let length = reader.u16().map(usize::from);
        self.check(length == Some(reader.remaining()), "extensions of another length than they say");
        let block = reader.take_up_to(length.unwrap_or(0));
        let mut seen = Seen::default();
        let mut rest = Unread::new(block);
        let mut whole = 0;
        while !rest.is_empty() {
            let Some((number, body)) = rest.extension() else {
                self.check(false, "an extension longer than the rest");
                break;
            };
            whole = block.len() - rest.remaining();
            if seen.first(number) {
                self.read_extension(number, body);
            }
        }
        self.extensions = Extensions(&block[..whole]);
    }

    fn read_extension(&mut self, number: u16, body: &'a [u8]) {
        let mut reader = Unread::new(body);
        match number {
            extension::SERVER_NAME => {
                let (name, exact) = server_name(body);
                self.server_name = name;
                self.check(exact, "a server name of another shape");
            }
            extension::SUPPORTED_GROUPS => {
                let (list, exact) = reader.lenient16();
                self.groups = U16List::new(list);
                self.check(exact && list.len() % 2 == 0, "groups of another length");
            }
            extension::EC_POINT_FORMATS => {
                let (list, exact) = reader.lenient8();
                self.point_formats = list;
                self.check(exact, "point formats of another length");
            }
            extension::SIGNATURE_ALGORITHMS => {
                let (list, exact) = reader.lenient16();
                self.signature_algorithms = U16List::new(list);
                self.check(exact && list.len() % 2 == 0, "signature algorithms of another length");
            }
            extension::APPLICATION_LAYER_PROTOCOL_NEGOTIATION => {
                let (list, exact) = reader.lenient16();
                self.protocols = Protocols::new(list);
                self.check(exact && self.protocols.is_exact(), "protocols of another length");
            }
            extension::SUPPORTED_VERSIONS => {
                let (list, exact) = reader.lenient8();
                self.supported_versions = U16List::new(list);
                self.check(exact && list.len() % 2 == 0, "versions of another length");
            }
            _ => {}
        }
    }
}

/// The extensions in a handshake message, header bytes included: where the number of each stands, and the number.
pub fn extension_offsets(message: &[u8]) -> impl Iterator<Item = (usize, u16)> + '_ {
    let mut reader = Unread::new(message);
    let extensions = {
        // Header, version and random; then what a hello has before its extensions.
        let mut skip = || {
            reader.take(4 + 2 + 32)?;
            reader.list8()?;
            reader.list16()?;
            reader.list8()?;
            reader.u16()
        };
        skip().map(|_| reader)
    };
    let mut extensions = extensions.unwrap_or(Unread::new(&[]));
    std::iter::from_fn(move || {
        let at = message.len() - extensions.remaining();
        extensions.extension().map(|(number, _)| (at, number))
    })
}

/// The name in the body of extension 0, and whether the body has exactly the shape that RFC 6066 gives it.
fn server_name(body: &[u8]) -> (ServerName<'_>, bool) {
    const HOST_NAME: u8 = 0;
    let mut reader = Unread::new(body);
    let Some(list_length) = reader.u16() else {
        return (ServerName::Malformed(body), false);
    };
    let exact_list = usize::from(list_length) == reader.remaining();
    let entry = reader;
    if reader.u8() != Some(HOST_NAME) {
        return (ServerName::Malformed(entry.rest()), false);
    }
    let (name, exact_name) = reader.lenient16();
    if name.is_empty() {
        return (ServerName::Malformed(entry.rest()), false);
    }
    // A name that is followed by more is whole; one that was cut off is not.
    if !exact_name && reader.is_empty() {
        return (ServerName::Malformed(name), false);
    }
    (ServerName::Name(name), exact_list && exact_name)
}

/// The extensions read so far: a client may send thousands with the same number.
#[derive(Default)]
struct Seen(u64);

impl Seen {
    /// Reports whether this is the first extension of its number, and remembers it. Asked only about those below 64,
    /// which cover all that are read.
    fn first(&mut self, number: u16) -> bool {
        let Some(bit) = 1u64.checked_shl(u32::from(number)) else {
            return true;
        };
        let first = self.0 & bit == 0;
        self.0 |= bit;
        first
    }
}

/// The extensions of a hello, whole ones only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions<'a>(&'a [u8]);

impl<'a> Extensions<'a> {
    /// Their numbers, in the order in which they were sent.
    pub fn numbers(self) -> impl Iterator<Item = u16> + 'a {
        let mut reader = Unread::new(self.0);
        std::iter::from_fn(move || reader.extension().map(|(number, _)| number))
    }

    /// Reports whether one with this number is among them.
    #[must_use]
    pub fn contains(self, number: u16) -> bool {
        self.numbers().any(|other| other == number)
    }
}

#[cfg(any(test, feature = "samples"))]
pub mod sample;
#[cfg(test)]
mod tests;
