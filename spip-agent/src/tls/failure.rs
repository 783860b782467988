//! Reasons why a client was not served. Each has a short text for the record, without a client's bytes.

use std::fmt;
use std::io;

use rustls::PeerIncompatible;

use spip_protocol::client_hello::{Detection, ParseError, Version};

/// Reasons why a handshake, or the TLS session after it, ended early. Displays as `tls_error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended inside the ClientHello.
    IncompleteHello,
    /// The hello is longer than the limit; the length is what it declares.
    OversizedHello(usize),
    /// The hello broke off into something else, or cannot be read.
    MalformedHello(String),
    /// An SSL 2.0 hello, with the version that it asks for.
    Ssl2Hello(Version),
    /// Nothing that the client offers is served; the version is its highest, where it offers any.
    NoCommonVersion(Option<Version>),
    /// No suite in common, or none for which there is a certificate.
    NoCommonCipherSuite,
    /// No group in common.
    NoCommonGroup,
    /// No signature algorithm in common.
    NoCommonSignatureAlgorithm,
    /// The client lacks something else that is needed.
    Incompatible(String),
    /// The client sent this alert (number in the IANA registry).
    Alert(u8),
    /// The client broke the protocol.
    Violation(String),
    /// The client closed the connection in the middle.
    Closed,
    /// The connection broke.
    Broken(io::ErrorKind),
    /// The deadline passed.
    TimedOut,
    /// The sensor ended the session: it stops, needs the place, or the session broke down.
    CutShort,
    /// The fault is ours.
    Internal(String),
}

impl Failure {
    /// All kinds.
    pub const KINDS: [&'static str; 16] = [
        "incomplete_hello",
        "oversized_hello",
        "malformed_hello",
        "ssl2_hello",
        "no_common_version",
        "no_common_cipher_suite",
        "no_common_group",
        "no_common_signature_algorithm",
        "incompatible",
        "alert",
        "violation",
        "closed",
        "broken",
        "timed_out",
        "cut_short",
        "internal",
    ];

    /// The kind, without what the client said: one of a few names.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::IncompleteHello => "incomplete_hello",
            Self::OversizedHello(_) => "oversized_hello",
            Self::MalformedHello(_) => "malformed_hello",
            Self::Ssl2Hello(_) => "ssl2_hello",
            Self::NoCommonVersion(_) => "no_common_version",
            Self::NoCommonCipherSuite => "no_common_cipher_suite",
            Self::NoCommonGroup => "no_common_group",
            Self::NoCommonSignatureAlgorithm => "no_common_signature_algorithm",
            Self::Incompatible(_) => "incompatible",
            Self::Alert(_) => "alert",
            Self::Violation(_) => "violation",
            Self::Closed => "closed",
            Self::Broken(_) => "broken",
            Self::TimedOut => "timed_out",
            Self::CutShort => "cut_short",
            Self::Internal(_) => "internal",
        }
    }

    /// The failure that a verdict on the first bytes amounts to, when the stream ends there; `None` for a whole
    /// hello, and for what is not TLS.
    #[must_use]
    pub fn of_detection(detection: Detection) -> Option<Self> {
        match detection {
            Detection::Undecided | Detection::NotTls | Detection::ClientHello { .. } => None,
            Detection::Partial => Some(Self::IncompleteHello),
            Detection::Sslv2 { version, .. } => Some(Self::Ssl2Hello(version)),
            Detection::Oversized { declared } => Some(Self::OversizedHello(declared)),
            Detection::Malformed(reason) => Some(Self::MalformedHello(reason.to_owned())),
        }
    }

    /// The reason behind an error of a TLS stream, in its handshake or later.
    #[must_use]
    pub fn of_stream(error: &io::Error) -> Self {
        #[cfg(feature = "legacy-tls")]
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<openssl::ssl::Error>()) {
            return Self::of_openssl(error);
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => Self::of_library(error),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Broken(error.kind()),
        }
    }

    fn of_library(error: &rustls::Error) -> Self {
        use rustls::Error;
        match error {
            Error::AlertReceived(alert) => Self::Alert((*alert).into()),
            Error::PeerIncompatible(reason) => Self::of_incompatible(reason),
            Error::PeerMisbehaved(reason) => Self::Violation(words(&format!("{reason:?}"))),
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Self::Violation(error.to_string()),
            // Ours is the client's own favourite: only a second hello can name others than the first.
            Error::NoApplicationProtocol => Self::Violation("second client hello with other protocols".to_owned()),
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => {
                Self::Violation(format!("client certificate: {error}"))
            }
            other => Self::Internal(other.to_string()),
        }
    }

    fn of_incompatible(reason: &PeerIncompatible) -> Self {
        match reason {
            PeerIncompatible::NoCipherSuitesInCommon => Self::NoCommonCipherSuite,
            PeerIncompatible::NoKxGroupsInCommon => Self::NoCommonGroup,
            PeerIncompatible::NoSignatureSchemesInCommon => Self::NoCommonSignatureAlgorithm,
            other => Self::Incompatible(words(&format!("{other:?}"))),
        }
    }
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Self::MalformedHello(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More than any message of the library needs.
        const MAX_CHARS: usize = 200;
        let served = super::served_versions();
        match self {
            Self::IncompleteHello => f.write_str("client hello incomplete"),
            Self::OversizedHello(declared) => {
                write!(f, "client hello of {declared} bytes is longer than the limit")
            }
            Self::MalformedHello(reason) => write!(f, "malformed client hello: {reason}"),
            Self::Ssl2Hello(version) => write!(f, "ssl 2.0 client hello: {version} offered"),
            Self::NoCommonVersion(Some(offered)) => write!(f, "{offered} offered, {served}"),
            Self::NoCommonVersion(None) => write!(f, "no version offered, {served}"),
            Self::NoCommonCipherSuite => f.write_str("no common cipher suite"),
            Self::NoCommonGroup => f.write_str("no common group"),
            Self::NoCommonSignatureAlgorithm => f.write_str("no common signature algorithm"),
            Self::Incompatible(reason) => write!(f, "incompatible client: {reason:.MAX_CHARS$}"),
            Self::Alert(number) => match alert_name(*number) {
                Some(name) => write!(f, "alert: {name}"),
                None => write!(f, "alert: {number}"),
            },
            Self::Violation(reason) => write!(f, "protocol violation: {reason:.MAX_CHARS$}"),
            Self::Closed => f.write_str("closed by the client"),
            Self::Broken(kind) => write!(f, "connection broken: {kind}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::CutShort => f.write_str("cut short by the sensor"),
            Self::Internal(reason) => write!(f, "internal error: {reason:.MAX_CHARS$}"),
        }
    }
}

/// `NullCompressionRequired` as `null compression required`.
fn words(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 8);
    for character in name.chars() {
        if character.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(character.to_ascii_lowercase());
    }
    words
}

/// The names of the registry "TLS Alerts".
fn alert_name(number: u8) -> Option<&'static str> {
    Some(match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        60 => "export_restriction",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        111 => "certificate_unobtainable",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        114 => "bad_certificate_hash_value",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        121 => "ech_required",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short_sentences() {
        let served = if cfg!(feature = "legacy-tls") { "tls 1.0 to tls 1.3" } else { "tls 1.2 and tls 1.3" };
        let old = format!("ssl 3.0 offered, {served} served");
        let none = format!("no version offered, {served} served");
        for (failure, text) in [
            (Failure::Alert(48), "alert: unknown_ca"),
            (Failure::Alert(200), "alert: 200"),
            (Failure::NoCommonVersion(Some(Version::SSL_3)), old.as_str()),
            (Failure::NoCommonVersion(None), none.as_str()),
            (Failure::Ssl2Hello(Version::SSL_2), "ssl 2.0 client hello: ssl 2.0 offered"),
            (Failure::CutShort, "cut short by the sensor"),
            (
                Failure::of_incompatible(&PeerIncompatible::NullCompressionRequired),
                "incompatible client: null compression required",
            ),
        ] {
            assert_eq!(failure.to_string(), text);
        }
        let long = Failure::Violation("x".repeat(1000)).to_string();
        assert!(long.len() < 300);
    }
    #[test]
    fn every_kind_is_listed() {
        let failures = [
            Failure::IncompleteHello,
            Failure::OversizedHello(0),
            Failure::MalformedHello(String::new()),
            Failure::Ssl2Hello(Version::SSL_2),
            Failure::NoCommonVersion(None),
            Failure::NoCommonCipherSuite,
            Failure::NoCommonGroup,
            Failure::NoCommonSignatureAlgorithm,
            Failure::Incompatible(String::new()),
            Failure::Alert(0),
            Failure::Violation(String::new()),
            Failure::Closed,
            Failure::Broken(io::ErrorKind::Other),
            Failure::TimedOut,
            Failure::CutShort,
            Failure::Internal(String::new()),
        ];
        assert_eq!(failures.map(|failure| failure.kind()), Failure::KINDS);
    }
}
