//! Facts of TLS for the record: the ClientHello, and the result of the handshake. Where a
//! fact is missing, its place says why.

use rustls::{CipherSuite, ProtocolVersion};

use super::{ClientCertificate, Failure};
use spip_protocol::client_hello::{ClientHello, ParseError, handshake_message};
use spip_protocol::ja3::Ja3;
use spip_protocol::ja4::Ja4;

/// The most application protocols that are listed by name; the bytes of the hello hold the rest.
const MAX_PROTOCOLS: usize = 64;

/// TLS on one connection.
#[derive(Debug)]
pub enum Tls {
    /// The first bytes were no ClientHello, or the connection ended before that was certain.
    NotTls,
    /// A ClientHello was recognised.
    Recognised(Box<Facts>),
}

impl Tls {
    /// Reports whether a ClientHello was recognised (`is_tls`).
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Recognised(_))
    }

    /// The facts, where a ClientHello was recognised.
    #[must_use]
    pub fn facts(&self) -> Option<&Facts> {
        match self {
            Self::NotTls => None,
            Self::Recognised(facts) => Some(facts),
        }
    }

    /// The facts, to be completed.
    pub fn facts_mut(&mut self) -> Option<&mut Facts> {
        match self {
            Self::NotTls => None,
            Self::Recognised(facts) => Some(facts),
        }
    }
}

/// A ClientHello and what became of it. Fingerprints are made from the bytes when they are asked for: most of a
/// session's life they are not needed.
#[derive(Debug)]
pub struct Facts {
    /// The hello as it was sent, record headers included; as far as it came, when it is not whole
    /// (`tls_client_hello_hex`).
    pub client_hello: Box<[u8]>,
    /// Result of the handshake.
    pub handshake: Handshake,
    /// Reason why the session ended after a completed handshake, other than its ordinary end (`tls_error`).
    pub broken: Option<Failure>,
}

impl Facts {
    /// The hello in `raw`, as far as it came; what became of the handshake is said later.
    #[must_use]
    pub fn new(raw: &[u8], handshake: Handshake) -> Self {
        Self { client_hello: raw.into(), handshake, broken: None }
    }

    /// Reports whether no handshake was completed although the sensor answers TLS.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self.handshake, Handshake::Failed(_))
    }

    /// Returns the reason why the handshake, or the session after it, failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.handshake {
            Handshake::Failed(failure) => Some(failure),
            Handshake::Off | Handshake::Completed(_) => self.broken.as_ref(),
        }
    }

    /// Reads the hello again for the record.
    ///
    /// # Errors
    /// When it is not whole, or no hello that can be read (SSL 2.0, for one).
    pub fn hello(&self) -> Result<HelloFacts, ParseError> {
        let message = handshake_message(&self.client_hello);
        Ok(HelloFacts::new(&ClientHello::parse(&message)?))
    }
}

/// Result of a handshake.
#[derive(Debug)]
pub enum Handshake {
    /// TLS is turned off: the hello was recorded, nothing was answered.
    Off,
    /// It did not complete (`tls_error`).
    Failed(Failure),
    /// It completed.
    Completed(Session),
}

/// Facts of a hello, as they are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloFacts {
    /// `tls_server_name`: as sent, invalid UTF-8 as U+FFFD, control characters untouched.
    pub server_name: Option<String>,
    /// `tls_supported_protocols`: names of application protocols in the order of preference, text as above; at most
    /// 64 of them.
    pub protocols: Vec<String>,
    /// `tls_supported_protocols_truncated`: whether there are more.
    pub protocols_truncated: bool,
    /// `tls_ja3`: MD5 in lower-case hexadecimal.
    pub ja3: String,
    /// `tls_ja4`.
    pub ja4: String,
    /// `tls_ja4_r`: the raw form; ASCII, at most about three times as long as the hello.
    pub ja4_r: String,
    /// The first thing in it that was not as it should be.
    pub malformed: Option<&'static str>,
}

impl HelloFacts {
    /// Takes from a hello what is recorded of it.
    #[must_use]
    pub fn new(hello: &ClientHello<'_>) -> Self {
        let ja4 = Ja4::new(hello);
        Self {
            server_name: hello.server_name.text(),
            protocols: hello
                .protocols
                .iter()
                .take(MAX_PROTOCOLS)
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect(),
            protocols_truncated: hello.protocols.iter().nth(MAX_PROTOCOLS).is_some(),
            ja3: Ja3(hello).md5(),
            ja4: ja4.hashed(),
            ja4_r: ja4.raw().to_owned(),
            malformed: hello.malformed,
        }
    }
}

/// Parameters that a completed handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `tls_version`: `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// `tls_cipher_suite`: the name in the IANA registry.
    pub cipher_suite: String,
    /// `tls_alpn`: the application protocol, when one was asked for.
    pub protocol: Option<String>,
    /// The client's certificate, or why there is none.
    pub client_certificate: ClientCertificate,
}

pub(super) fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    }
}

/// The library marks the suites of TLS 1.3 in their names; the registry does not.
pub(super) fn iana_name(suite: CipherSuite) -> String {
    match suite.as_str() {
        Some(name) => name.replacen("TLS13_", "TLS_", 1),
        None => format!("0x{:04x}", u16::from(suite)),
    }
}
