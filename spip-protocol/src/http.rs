//! Facts of a request, for HTTP/1 and HTTP/2 alike: those that a record keeps under `http`.
//!
//! Headers stay an ordered array with duplicates, because order and repetition are what tells tools apart. Everything
//! is clipped: [`HEADERS`] headers, [`HEADERS_BYTES`] bytes of them in all, [`VALUE_BYTES`] a value.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

use super::credentials::Credentials;
use super::value::{TEXT_BYTES, clip};
use super::{docker, kubernetes, request_line};

/// Upper bound of headers per record.
pub const HEADERS: usize = 100;
/// Upper bound of bytes of header names and values per record.
pub const HEADERS_BYTES: usize = 16 * 1024;
/// The longest header name.
pub const NAME_BYTES: usize = 128;
/// The longest header value.
pub const VALUE_BYTES: usize = 2048;
/// The longest target.
pub const TARGET_BYTES: usize = 4096;
/// Upper bound of the later requests on the same connection that are named …
pub const PIPELINED: usize = 128;
/// … as long as their methods and targets have no more than so many bytes together.
pub const PIPELINED_BYTES: usize = 4 * 1024;

/// Base64 as clients write it: padded or not, with or without zero trailing bits.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The first request of a connection, and how many followed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http<'a> {
    /// As sent; for HTTP/2 the value of `:method`.
    pub method: Option<Cow<'a, str>>,
    /// As sent: a path, an absolute URI, `*`, or for CONNECT a host and port; for HTTP/2 the value of `:path`.
    pub target: Option<Cow<'a, str>>,
    /// `0.9`, `1.0`, `1.1`, `2`, or what the client wrote after `HTTP/`.
    pub version: Option<Cow<'a, str>>,
    /// The first Host header; for HTTP/2 the value of `:authority`.
    pub host: Option<Cow<'a, str>>,
    /// The first User-Agent header.
    pub user_agent: Option<Cow<'a, str>>,
    /// Names and values in the order of the wire, with duplicates.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The length of the body: what Content-Length announces, or what the chunks of a whole chunked body add up to.
    /// Absent where the client never says.
    pub body_bytes: Option<u64>,
    /// Bytes of that body in the kept payload, without the framing of chunks.
    pub body_kept: u64,
    /// Number of requests that begin in the kept payload.
    pub requests: u64,
    /// Method and target of those that follow the first, at most [`PIPELINED`].
    pub pipelined: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Bytes behind the requests that are none: a tunnel, an upgraded protocol, garbage.
    pub trailing_bytes: u64,
    /// `docker` or `kubernetes`, where the path belongs to that API.
    pub api: Option<Cow<'static, str>>,
    /// Set when something was too long or too many to keep.
    pub truncated: bool,
    /// Reason why the request is not wholly understood.
    pub error: Option<Cow<'static, str>>,
    /// Bytes of headers that were kept, to stop at the limit.
    headers_bytes: usize,
    /// Bytes of methods and targets that were kept of later requests.
    pipelined_bytes: usize,
}

impl<'a> Http<'a> {
    /// Keeps the method.
    pub(super) fn set_method(&mut self, method: impl Into<Cow<'a, [u8]>>) {
        let method = self.clip(method, NAME_BYTES);
        self.method = Some(method);
    }

    /// Keeps the target, and names the API that it belongs to.
    pub(super) fn set_target(&mut self, target: impl Into<Cow<'a, [u8]>>) {
        let target = target.into();
        self.api = if docker::resource(&target).is_some() {
            Some(Cow::Borrowed("docker"))
        } else if kubernetes::resource(&target).is_some() {
            Some(Cow::Borrowed("kubernetes"))
        } else {
            None
        };
        let target = self.clip(target, TARGET_BYTES);
        self.target = Some(target);
    }

    /// Keeps the version.
    pub(super) fn set_version(&mut self, version: impl Into<Cow<'a, [u8]>>) {
        let version = self.clip(version, 16);
        self.version = Some(version);
    }

    /// Keeps the host, unless one is known.
    pub(super) fn set_host(&mut self, host: impl Into<Cow<'a, [u8]>>) {
        if self.host.is_none() {
            let host = self.clip(host, VALUE_BYTES);
            self.host = Some(host);
        }
    }

    /// Keeps one header, and what it tells.
    pub(super) fn add_header(&mut self, name: impl Into<Cow<'a, [u8]>>, value: impl Into<Cow<'a, [u8]>>) {
        let (name, value) = (name.into(), value.into());
        if name.eq_ignore_ascii_case(b"host") {
            self.set_host(value.clone());
        } else if name.eq_ignore_ascii_case(b"user-agent") && self.user_agent.is_none() {
            let agent = self.clip(value.clone(), VALUE_BYTES);
            self.user_agent = Some(agent);
        }
        if self.headers.len() == HEADERS || self.headers_bytes > HEADERS_BYTES {
            self.truncated = true;
            return;
        }
        let name = self.clip(name, NAME_BYTES);
        let value = self.clip(value, VALUE_BYTES);
        self.headers_bytes += name.len() + value.len();
        self.headers.push((name, value));
    }

    /// Keeps method and target of a request that follows the first, if there is room.
    pub(super) fn add_pipelined(&mut self, method: impl Into<Cow<'a, [u8]>>, target: impl Into<Cow<'a, [u8]>>) {
        let method = self.clip(method, NAME_BYTES);
        let target = self.clip(target, TEXT_BYTES);
        let bytes = self.pipelined_bytes + method.len() + target.len();
        if self.pipelined.len() == PIPELINED || bytes > PIPELINED_BYTES {
            self.truncated = true;
            return;
        }
        self.pipelined_bytes = bytes;
        self.pipelined.push((method, target));
    }

    /// Keeps the first reason why something was not understood.
    pub(super) fn set_error(&mut self, error: &'static str) {
        self.error.get_or_insert(Cow::Borrowed(error));
    }

    /// The first header of that name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        header.map(|(_, value)| value.as_ref())
    }

    pub(super) fn clip(&mut self, bytes: impl Into<Cow<'a, [u8]>>, limit: usize) -> Cow<'a, str> {
        let (text, truncated) = match bytes.into() {
            Cow::Borrowed(bytes) => clip(bytes, limit),
            Cow::Owned(bytes) => {
                let (text, truncated) = clip(&bytes, limit);
                (Cow::Owned(text.into_owned()), truncated)
            }
        };
        self.truncated |= truncated;
        text
    }
}

/// Adds what an `Authorization` or `Proxy-Authorization` header says: user and password of the scheme Basic (RFC 7617), the
/// user of Digest (RFC 7616).
pub(super) fn header_credentials(name: &[u8], value: &[u8], credentials: &mut Credentials) {
    if !name.eq_ignore_ascii_case(b"authorization") && !name.eq_ignore_ascii_case(b"proxy-authorization") {
        return;
    }
    let Some((scheme, token)) = value.split_at_checked(6) else {
        return;
    };
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        credentials.add(request_line::digest_user(value), None);
        return;
    }
    let Ok(decoded) = BASE64.decode(token.trim_ascii()) else {
        return;
    };
    match decoded.iter().position(|byte| *byte == b':') {
        Some(colon) => credentials.add(decoded.get(..colon), decoded.get(colon + 1..)),
        None => credentials.add(Some(&decoded), None),
    }
}

/// The path of a target, without scheme, authority and query.
pub(super) fn path(target: &[u8]) -> &[u8] {
    let target = match target.windows(3).position(|window| window == b"://") {
        Some(at) if at < 8 => {
            let rest = target.get(at + 3..).unwrap_or_default();
            let slash = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            rest.get(slash..).unwrap_or_default()
        }
        _ => target,
    };
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    target.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_credentials_are_read_with_and_without_padding() {
        for token in ["YWRtaW46czpjcmV0", "Basic", "YTo=", "YTo"] {
            let mut credentials = Credentials::default();
            header_credentials(b"AUTHORIZATION", format!("basic {token}").as_bytes(), &mut credentials);
            let found = credentials.list.first().map(|c| (c.user.as_deref(), c.secret.as_deref()));
            match token {
                "YWRtaW46czpjcmV0" => assert_eq!(found, Some((Some("admin"), Some("s:cret")))),
                "Basic" => assert_eq!(found, None),
                _ => assert_eq!(found, Some((Some("a"), Some("")))),
            }
        }
    }

    #[test]
    fn a_path_is_found_in_every_form_of_target() {
        assert_eq!(path(b"/a/b?c=http://x/"), b"/a/b");
        assert_eq!(path(b"http://host:80/a?b"), b"/a");
        assert_eq!(path(b"http://host"), b"");
    }

    #[test]
    fn later_requests_are_named_up_to_4_kib_of_methods_and_targets() {
        let mut facts = Http::default();
        let target = [b'x'; 253];
        for _ in 0..20 {
            facts.add_pipelined(b"GET".as_slice(), target.as_slice());
        }
        assert_eq!((facts.pipelined.len(), facts.truncated), (16, true));
        let mut facts = Http::default();
        for _ in 0..PIPELINED {
            facts.add_pipelined(b"GET".as_slice(), b"/".as_slice());
        }
        assert_eq!((facts.pipelined.len(), facts.truncated), (PIPELINED, false));
        facts.add_pipelined(b"GET".as_slice(), b"/".as_slice());
        assert_eq!((facts.pipelined.len(), facts.truncated), (PIPELINED, true));
    }
}
