//! Names that may stand in a certificate.

use spip_protocol::client_hello::ServerName;

/// The longest host name (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// A host name or an address, in lower case and without a final dot: what differs only in these shares a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CertificateName(Box<str>);

impl CertificateName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name to mint for; `None` where none was sent, or something that no certificate can carry.
pub(crate) fn certificate_name(name: ServerName<'_>) -> Option<CertificateName> {
    if let Some(address) = name.ip_literal() {
        return Some(CertificateName(address.to_string().into()));
    }
    let ServerName::Name(bytes) = name else {
        return None;
    };
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let whole = text.split('.').all(|label| !label.is_empty());
    (plain && whole && text.len() <= MAX_NAME_BYTES).then(|| CertificateName(text.to_ascii_lowercase().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> Option<String> {
        certificate_name(ServerName::Name(bytes)).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn names_that_mean_the_same_are_the_same() {
        assert_eq!(name(b"Example.COM.").as_deref(), Some("example.com"));
        assert_eq!(name(b"_sip.a-b.example").as_deref(), Some("_sip.a-b.example"));
        assert_eq!(name(b"192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(name(b"2001:DB8::1").as_deref(), Some("2001:db8::1"));
    }

    #[test]
    fn what_no_certificate_can_carry_is_no_name() {
        for bytes in [&b""[..], b".", b"a..b", b"a b", b"a\0b", b"\xff", "é.example".as_bytes(), &[b'a'; 254]] {
            assert_eq!(name(bytes), None, "{}", bytes.escape_ascii());
        }
        assert_eq!(certificate_name(ServerName::Absent), None);
        assert_eq!(certificate_name(ServerName::Malformed(b"a")), None);
    }
}
