//! The fields of the query language: one table for the parser, the completion and the documentation.

use serde::Serialize;

use crate::row::Kind;

/// A field that can be asked for.
#[derive(Debug, PartialEq, Serialize)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Another name, as the record has it, or shorter.
    pub alias: &'static str,
    /// Kind of its values.
    pub values: Values,
    /// A value, for completion and documentation.
    pub example: &'static str,
    /// Meaning, as the page on the query language lists it.
    pub meaning: &'static str,
}

/// Kinds of values, each with its comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// A number, or a range `from-to`.
    Number,
    /// True or false.
    Boolean,
    /// An address or a prefix.
    Address,
    /// A text; the kind of fact that it is.
    Text(Kind),
    /// Label of a fact of this kind.
    Label(Kind),
    /// Something of which a session has any number, by its value or its label.
    Mark(Kind),
    /// `tcp` or `udp`.
    Transport,
    /// Bytes of the payload, the first 1,024 of them.
    Payload,
    /// Hexadecimal digits: the first ones suffice.
    Hex,
    /// The name in a credential.
    User,
    /// The secret in a credential.
    Secret,
    /// Any text: what a word without a field means.
    Any,
}

const fn field(
    name: &'static str,
    alias: &'static str,
    values: Values,
    example: &'static str,
    meaning: &'static str,
) -> Field {
    Field { name, alias, values, example, meaning }
}

/// All fields.
pub static FIELDS: &[Field] = &[
    field("source", "source_ip", Values::Address, "198.51.100.0/24", "address or prefix of the client"),
    field("port", "destination_port", Values::Number, "22", "port that the client asked for, or a range: 1-1024"),
    field("destination", "destination_ip", Values::Address, "192.0.2.7", "address that the client asked for"),
    field("source_port", "", Values::Number, "40000", "port of the client"),
    field("protocol", "", Values::Text(Kind::Protocol), "http", "what the client spoke"),
    field("payload", "", Values::Payload, "\"wget\"", "the first 1,024 bytes that the client sent"),
    field(
        "group",
        "",
        Values::Text(Kind::Group),
        "3f2a9c0d1b4e5f60",
        "group of payloads that differ in numbers, hosts and tokens only",
    ),
    field("path", "target", Values::Text(Kind::Path), "\"GET /.env\"", "method and target of the first HTTP request"),
    field("host", "", Values::Text(Kind::Host), "example.org", "host of the HTTP request"),
    field("user_agent", "agent", Values::Text(Kind::UserAgent), "curl/8*", "user agent of the HTTP request"),
    field("user", "", Values::User, "root", "name in a credential"),
    field("secret", "password", Values::Secret, "123456", "secret in a credential"),
    field("ja4", "tls_ja4", Values::Text(Kind::Ja4), "t13d1516h2_*", "JA4 of the ClientHello"),
    field("ja3", "tls_ja3", Values::Text(Kind::Ja3), "e7d705a3286e19ea42f587b344ee6865", "JA3 of the ClientHello"),
    field(
        "server_name",
        "tls_server_name",
        Values::Text(Kind::ServerName),
        "example.org",
        "server name of the ClientHello",
    ),
    field(
        "hassh",
        "ssh_hassh",
        Values::Text(Kind::Hassh),
        "ec7378c1a92f5a8dde7e8b7a1ddf33d1",
        "HASSH of the SSH client",
    ),
    field("ssh_client", "", Values::Text(Kind::SshClient), "SSH-2.0-Go", "identification of the SSH client"),
    field(
        "http_fingerprint",
        "",
        Values::Text(Kind::HttpFingerprint),
        "host,user-agent,accept",
        "header names in order, or the fingerprint of HTTP/2",
    ),
    field("syn", "muonfp", Values::Text(Kind::Syn), "64240:2-4-8-1-3:1460:7", "MuonFP of the SYN"),
    field("tool", "tools", Values::Text(Kind::Tool), "zmap", "a tool that gives itself away in the SYN"),
    field("tag", "", Values::Mark(Kind::Tag), "*log4j*", "a rule that matched, by its number or its name"),
    field("cve", "", Values::Mark(Kind::Cve), "CVE-2021-44228", "a vulnerability that the client tried"),
    field(
        "indicator",
        "",
        Values::Mark(Kind::Indicator),
        "\"http://*\"",
        "a URL, host or SHA-256 that the payload names",
    ),
    field("country", "", Values::Text(Kind::Country), "SE", "ISO 3166-1 code of the source's country"),
    field("asn", "", Values::Text(Kind::Network), "64500", "number of the source's autonomous system"),
    field("network", "", Values::Label(Kind::Network), "*example*", "number and name of the source's network"),
    field("scanner", "", Values::Text(Kind::Scanner), "Censys", "the known scanner that the source is or claims to be"),
    field("tls", "is_tls", Values::Boolean, "true", "whether the client spoke TLS"),
    field("transport", "", Values::Transport, "udp", "tcp or udp"),
    field("bytes_in", "", Values::Number, ">1000", "payload bytes received"),
    field("bytes_out", "", Values::Number, "0", "bytes sent to the client"),
    field("duration_ms", "", Values::Number, ">=1000", "from accept to end, milliseconds"),
    field("count", "", Values::Number, ">1", "connections that the record stands for"),
    field("close_reason", "close", Values::Text(Kind::CloseReason), "client_reset", "why the connection ended"),
    field("limit", "", Values::Text(Kind::Limit), "rate_limit", "the limit that refused it"),
    field("truncated", "payload_truncated", Values::Boolean, "true", "whether bytes came that are not kept"),
    field("sha256", "payload_sha256", Values::Hex, "9f86d081", "SHA-256 of the payload, or its beginning"),
    field("session", "session_id", Values::Hex, "8c5f2c9e", "UUID of the session, or its beginning"),
    field("sensor", "name", Values::Text(Kind::Sensor), "sensor-7", "name of the sensor"),
];

/// The field of a word without one.
pub static ANY: Field = field("any", "", Values::Any, "wget", "any text of the record");

impl Field {
    /// Returns the field of that name or alias.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = name.to_ascii_lowercase();
        FIELDS.iter().find(|field| field.name == name || (!field.alias.is_empty() && field.alias == name))
    }
}

/// Kinds of text that a word without a field is looked for in, beside payload and credentials.
pub const ANY_TEXTS: &[Kind] = &[
    Kind::Path,
    Kind::Host,
    Kind::UserAgent,
    Kind::ServerName,
    Kind::SshClient,
    Kind::Protocol,
    Kind::Ja4,
    Kind::Ja3,
    Kind::Hassh,
    Kind::Tool,
];

/// Kinds of marks that a word without a field is looked for in.
pub const ANY_MARKS: &[Kind] = &[Kind::Tag, Kind::Cve];
