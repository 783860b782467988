//! The buffers in which rules search: parts of what a client sent, under the names of Suricata's keywords.

use std::borrow::Cow;

use super::uri;
use crate::facts::Facts;
use crate::requests::Request;

/// Upper bound of transforms of one buffer.
const TRANSFORMS: usize = 4;

/// A part of what a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Buffer {
    Payload,
    Method,
    Uri,
    RawUri,
    Header,
    RawHeader,
    HeaderNames,
    UserAgent,
    Host,
    RawHost,
    Cookie,
    Referer,
    ContentType,
    ContentLength,
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    Connection,
    Version,
    RequestLine,
    Start,
    Body,
    ServerName,
    Ja3,
    Ja4,
    SshProtocol,
    SshSoftware,
    Hassh,
    HasshString,
    DnsQuery,
}

/// Keywords that choose the buffer of the options that follow.
const STICKY: &[(&str, Buffer)] = &[
    ("pkt_data", Buffer::Payload),
    ("http.method", Buffer::Method),
    ("http.uri", Buffer::Uri),
    ("http.uri.raw", Buffer::RawUri),
    ("http.header", Buffer::Header),
    ("http.request_header", Buffer::Header),
    ("http.header.raw", Buffer::RawHeader),
    ("http.header_names", Buffer::HeaderNames),
    ("http_header_names", Buffer::HeaderNames),
    ("http.user_agent", Buffer::UserAgent),
    ("http.host", Buffer::Host),
    ("http.host.raw", Buffer::RawHost),
    ("http.cookie", Buffer::Cookie),
    ("http.referer", Buffer::Referer),
    ("http_referer", Buffer::Referer),
    ("http.content_type", Buffer::ContentType),
    ("http_content_type", Buffer::ContentType),
    ("http.content_len", Buffer::ContentLength),
    ("http_content_len", Buffer::ContentLength),
    ("http.accept", Buffer::Accept),
    ("http_accept", Buffer::Accept),
    ("http.accept_enc", Buffer::AcceptEncoding),
    ("http_accept_enc", Buffer::AcceptEncoding),
    ("http.accept_lang", Buffer::AcceptLanguage),
    ("http_accept_lang", Buffer::AcceptLanguage),
    ("http.connection", Buffer::Connection),
    ("http_connection", Buffer::Connection),
    ("http.protocol", Buffer::Version),
    ("http_protocol", Buffer::Version),
    ("http.request_line", Buffer::RequestLine),
    ("http_request_line", Buffer::RequestLine),
    ("http.start", Buffer::Start),
    ("http_start", Buffer::Start),
    ("http.request_body", Buffer::Body),
    ("file.data", Buffer::Body),
    ("file_data", Buffer::Body),
    ("tls.sni", Buffer::ServerName),
    ("tls_sni", Buffer::ServerName),
    ("ja3.hash", Buffer::Ja3),
    ("ja3_hash", Buffer::Ja3),
    ("ja4.hash", Buffer::Ja4),
    ("ssh.proto", Buffer::SshProtocol),
    ("ssh_proto", Buffer::SshProtocol),
    ("ssh.software", Buffer::SshSoftware),
    ("ssh_software", Buffer::SshSoftware),
    ("ssh.hassh", Buffer::Hassh),
    ("ssh.hassh.string", Buffer::HasshString),
    ("dns.query", Buffer::DnsQuery),
    ("dns.query.name", Buffer::DnsQuery),
    ("dns_query", Buffer::DnsQuery),
];

/// Keywords that move the content before them into a buffer.
const MODIFIERS: &[(&str, Buffer)] = &[
    ("http_method", Buffer::Method),
    ("http_uri", Buffer::Uri),
    ("http_raw_uri", Buffer::RawUri),
    ("http_header", Buffer::Header),
    ("http_raw_header", Buffer::RawHeader),
    ("http_user_agent", Buffer::UserAgent),
    ("http_host", Buffer::Host),
    ("http_raw_host", Buffer::RawHost),
    ("http_cookie", Buffer::Cookie),
    ("http_client_body", Buffer::Body),
];

/// Flags of `pcre` that choose its buffer.
pub(super) const PCRE_FLAGS: &[(char, Buffer)] = &[
    ('U', Buffer::Uri),
    ('I', Buffer::RawUri),
    ('P', Buffer::Body),
    ('H', Buffer::Header),
    ('D', Buffer::RawHeader),
    ('M', Buffer::Method),
    ('C', Buffer::Cookie),
    ('V', Buffer::UserAgent),
    ('W', Buffer::Host),
    ('Z', Buffer::RawHost),
];

impl Buffer {
    /// Returns the buffer that a keyword chooses.
    pub(super) fn sticky(keyword: &str) -> Option<Self> {
        STICKY.iter().find(|(name, _)| *name == keyword).map(|(_, buffer)| *buffer)
    }

    /// Returns the buffer that a modifier of a content means.
    pub(super) fn modifier(keyword: &str) -> Option<Self> {
        MODIFIERS.iter().find(|(name, _)| *name == keyword).map(|(_, buffer)| *buffer)
    }

    /// Reports whether each request has a buffer of its own.
    pub(super) fn is_of_request(self) -> bool {
        !matches!(
            self,
            Self::Payload
                | Self::ServerName
                | Self::Ja3
                | Self::Ja4
                | Self::SshProtocol
                | Self::SshSoftware
                | Self::Hassh
                | Self::HasshString
                | Self::DnsQuery
        )
    }

    /// Reports whether its values are alike in most requests, so that a search should not begin there.
    pub(super) fn is_common(self) -> bool {
        matches!(
            self,
            Self::Method
                | Self::Version
                | Self::HeaderNames
                | Self::Connection
                | Self::ContentLength
                | Self::AcceptEncoding
                | Self::AcceptLanguage
                | Self::SshProtocol
        )
    }

    /// Returns its value; `None` where the client sent none.
    fn value<'f>(self, facts: &'f Facts<'_>, request: Option<&'f Request<'_>>) -> Option<Cow<'f, [u8]>> {
        let text = |text: Option<&'f str>| text.map(|text| Cow::Borrowed(text.as_bytes()));
        let header = |name| request?.header(name).map(Cow::Borrowed);
        Some(match self {
            Self::Payload => Cow::Borrowed(facts.searched()),
            Self::Method => Cow::Borrowed(request?.method),
            Self::Uri => uri::normalise(&request?.target),
            Self::RawUri => Cow::Borrowed(&request?.target),
            Self::Header => Cow::Owned(headers(request?)),
            Self::RawHeader => Cow::Borrowed(request?.head.get(request?.headers_at..)?),
            Self::HeaderNames => Cow::Owned(names(request?)),
            Self::UserAgent => header("user-agent")?,
            Self::Host => {
                let host = header("host")?.to_ascii_lowercase();
                let end = host.iter().rposition(|byte| *byte == b':').filter(|end| !host[*end..].contains(&b']'));
                Cow::Owned(host[..end.unwrap_or(host.len())].to_vec())
            }
            Self::RawHost => header("host")?,
            Self::Cookie => header("cookie")?,
            Self::Referer => header("referer")?,
            Self::ContentType => header("content-type")?,
            Self::ContentLength => header("content-length")?,
            Self::Accept => header("accept")?,
            Self::AcceptEncoding => header("accept-encoding")?,
            Self::AcceptLanguage => header("accept-language")?,
            Self::Connection => header("connection")?,
            Self::Version => Cow::Borrowed(request?.version),
            Self::RequestLine => Cow::Borrowed(&request?.line),
            Self::Start => Cow::Borrowed(&request?.head),
            Self::Body => {
                let body = &request?.body;
                (!body.is_empty()).then(|| Cow::Borrowed(body.as_ref()))?
            }
            Self::ServerName => text(facts.tls.as_ref()?.server_name)?,
            Self::Ja3 => text(facts.tls.as_ref()?.ja3)?,
            Self::Ja4 => text(facts.tls.as_ref()?.ja4)?,
            Self::SshProtocol => text(facts.ssh.as_ref()?.identification.split('-').nth(1))?,
            Self::SshSoftware => text(facts.ssh.as_ref()?.identification.splitn(3, '-').nth(2))?,
            Self::Hassh => text(facts.ssh.as_ref()?.hassh)?,
            Self::HasshString => text(facts.ssh.as_ref()?.hassh_string)?,
            Self::DnsQuery => text(facts.dns.first().copied())?,
        })
    }
}

/// Writes the headers with one space after each colon. Cookies have a buffer of their own.
fn headers(request: &Request<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(request.head.len());
    for (name, value) in &request.headers {
        if name.eq_ignore_ascii_case(b"cookie") {
            continue;
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Writes the names of the headers, each on a line, with an empty line before and after.
fn names(request: &Request<'_>) -> Vec<u8> {
    let mut out = b"\r\n".to_vec();
    for (name, _) in &request.headers {
        out.extend_from_slice(name);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Transforms of a buffer before it is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Transform {
    UrlDecode,
    ToLowercase,
    CompressWhitespace,
    StripWhitespace,
}

impl Transform {
    pub(super) fn of(keyword: &str) -> Option<Self> {
        Some(match keyword {
            "url_decode" => Self::UrlDecode,
            "to_lowercase" => Self::ToLowercase,
            "compress_whitespace" => Self::CompressWhitespace,
            "strip_whitespace" => Self::StripWhitespace,
            _ => return None,
        })
    }

    pub(super) fn apply(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::UrlDecode => {
                // A form writes a space as a plus.
                let mut spaced = bytes.to_vec();
                for byte in &mut spaced {
                    if *byte == b'+' {
                        *byte = b' ';
                    }
                }
                uri::decode(&spaced).into_owned()
            }
            Self::ToLowercase => bytes.to_ascii_lowercase(),
            Self::StripWhitespace => bytes.iter().copied().filter(|byte| !is_space(*byte)).collect(),
            Self::CompressWhitespace => {
                let mut out = bytes.to_vec();
                out.dedup_by(|next, before| is_space(*next) && is_space(*before));
                out
            }
        }
    }
}

/// White space of C's `isspace`.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// A buffer as a rule sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct View {
    pub(super) buffer: Buffer,
    pub(super) transforms: Vec<Transform>,
}

impl View {
    pub(super) fn plain(buffer: Buffer) -> Self {
        Self { buffer, transforms: Vec::new() }
    }

    /// Adds a transform.
    pub(super) fn transform(&mut self, transform: Transform) -> Result<(), String> {
        if self.transforms.len() == TRANSFORMS {
            return Err(format!("more than {TRANSFORMS} transforms"));
        }
        self.transforms.push(transform);
        Ok(())
    }

    /// Returns the value to be searched.
    pub(super) fn value<'f>(&self, facts: &'f Facts<'_>, request: Option<&'f Request<'_>>) -> Option<Value<'f>> {
        let mut bytes = self.buffer.value(facts, request)?;
        for transform in &self.transforms {
            bytes = Cow::Owned(transform.apply(&bytes));
        }
        Some(Value { bytes, lower: std::cell::OnceCell::new() })
    }
}

/// The bytes of a view.
#[derive(Debug)]
pub(super) struct Value<'f> {
    pub(super) bytes: Cow<'f, [u8]>,
    lower: std::cell::OnceCell<Vec<u8>>,
}

impl Value<'_> {
    /// The bytes in lower case, worked out once.
    pub(super) fn lower(&self) -> &[u8] {
        self.lower.get_or_init(|| self.bytes.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::split;

    #[test]
    fn every_buffer_of_a_request_has_its_part() {
        let payload = b"POST http://h/a%20b?c=%41 HTTP/1.1\r\nHost:  Example.COM:8080\r\nCookie: k=v\r\nUser-Agent: x\r\n\r\nbody";
        let requests = split(payload);
        let facts = Facts { payload, ..Facts::default() };
        for (name, expected) in [
            ("http.method", "POST"),
            ("http.uri", "/a b?c=A"),
            ("http.uri.raw", "http://h/a%20b?c=%41"),
            ("http.header", "Host: Example.COM:8080\r\nUser-Agent: x\r\n"),
            ("http.header_names", "\r\nHost\r\nCookie\r\nUser-Agent\r\n\r\n"),
            ("http.host", "example.com"),
            ("http.host.raw", "Example.COM:8080"),
            ("http.cookie", "k=v"),
            ("http.user_agent", "x"),
            ("http.protocol", "HTTP/1.1"),
            ("http.request_line", "POST http://h/a%20b?c=%41 HTTP/1.1"),
            ("http.request_body", "body"),
        ] {
            let view = View::plain(Buffer::sticky(name).unwrap());
            let value = view.value(&facts, requests.first()).unwrap();
            assert_eq!(String::from_utf8_lossy(&value.bytes), expected, "{name}");
        }
        assert!(View::plain(Buffer::Referer).value(&facts, requests.first()).is_none());
    }

    #[test]
    fn transforms_are_applied_in_their_order() {
        let facts = Facts { payload: b"A+%42  \tc", ..Facts::default() };
        let view = View {
            buffer: Buffer::Payload,
            transforms: vec![Transform::UrlDecode, Transform::CompressWhitespace, Transform::ToLowercase],
        };
        assert_eq!(view.value(&facts, None).unwrap().bytes.as_ref(), b"a b c");
    }
}
