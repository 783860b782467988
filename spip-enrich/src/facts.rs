//! Facts of a connection for look-ups and rules, borrowed from its record.
//!
//! The payload is what the client sent, after TLS where it spoke TLS. What can be read from those bytes is read from
//! them; other fields hold what they do not show.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use spip_record::Entry;

/// Bytes of a payload that are searched. Exploits stand at the start of a session; the default bound on a payload is 64
/// KiB.
pub const SEARCHED_BYTES: usize = 256 * 1024;

/// The transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The client.
    pub source: SocketAddr,
    /// Destination that the client asked for.
    pub destination: SocketAddr,
    /// The transport protocol.
    pub transport: Transport,
    /// Set when the client proved that the source address is its own: it completed a TCP handshake. False for half-open
    /// scans and for UDP.
    pub verified: bool,
    /// The bytes that it sent.
    pub payload: &'a [u8],
    /// The name that the record gives to what it spoke.
    pub protocol: Option<&'a str>,
    /// Its first request as the record has it: what HTTP/2 compresses stands here only.
    pub http: Option<Http<'a>>,
    /// Facts of its ClientHello; `None` when it spoke no TLS.
    pub tls: Option<Tls<'a>>,
    /// Facts that an SSH client sends.
    pub ssh: Option<Ssh<'a>>,
    /// Names that it asked a DNS server for.
    pub dns: Vec<&'a str>,
    /// SHA-256 of the payload, where that is kept in a file of its own.
    pub stored: Option<[u8; 32]>,
}

impl Default for Facts<'_> {
    fn default() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            source: nowhere,
            destination: nowhere,
            transport: Transport::Tcp,
            verified: true,
            payload: &[],
            protocol: None,
            http: None,
            tls: None,
            ssh: None,
            dns: Vec::new(),
            stored: None,
        }
    }
}

/// A request as the record has it.
#[derive(Clone, Debug, Default)]
pub struct Http<'a> {
    /// The method.
    pub method: Option<&'a str>,
    /// The target as sent.
    pub target: Option<&'a str>,
    /// `1.1`, `2`.
    pub version: Option<&'a str>,
    /// The host with its port.
    pub host: Option<&'a str>,
    /// The user agent.
    pub user_agent: Option<&'a str>,
    /// Names and values in their order.
    pub headers: Vec<(&'a str, &'a str)>,
}

/// A ClientHello.
#[derive(Clone, Debug, Default)]
pub struct Tls<'a> {
    /// The server name.
    pub server_name: Option<&'a str>,
    /// The JA3 hash.
    pub ja3: Option<&'a str>,
    /// The JA4 fingerprint.
    pub ja4: Option<&'a str>,
    /// The version of a completed handshake, such as `TLSv1.3`.
    pub version: Option<&'a str>,
}

/// An SSH client.
#[derive(Clone, Debug, Default)]
pub struct Ssh<'a> {
    /// Its identification, such as `SSH-2.0-Go`.
    pub identification: &'a str,
    /// HASSH.
    pub hassh: Option<&'a str>,
    /// The text of which HASSH is the hash.
    pub hassh_string: Option<&'a str>,
}

impl<'a> Facts<'a> {
    /// Takes what a record says.
    #[must_use]
    pub fn of(entry: &'a Entry<'_>) -> Self {
        let http = entry.http.as_ref().map(|http| Http {
            method: http.method.as_deref(),
            target: http.target.as_deref(),
            version: http.version.as_deref(),
            host: http.host.as_deref(),
            user_agent: http.user_agent.as_deref(),
            headers: http.headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect(),
        });
        let tls = entry.tls.as_ref().map(|tls| {
            let hello = tls.hello.as_ref();
            Tls {
                server_name: hello.and_then(|hello| hello.server_name.as_deref()),
                ja3: hello.and_then(|hello| hello.ja3.as_deref()),
                ja4: hello.and_then(|hello| hello.ja4.as_deref()),
                version: tls.version.as_deref(),
            }
        });
        let ssh = entry.ssh.as_ref().map(|ssh| Ssh {
            identification: &ssh.client,
            hassh: ssh.hassh.as_ref().map(|(hash, _)| hash.as_str()),
            hassh_string: ssh.hassh.as_ref().map(|(_, text)| text.as_str()),
        });
        let dns = match (entry.protocol.as_deref(), &entry.details) {
            (Some("dns"), Some(details)) => details.text("name").into_iter().collect(),
            _ => Vec::new(),
        };
        Self {
            source: entry.source,
            destination: entry.destination,
            transport: Transport::Tcp,
            // Only accepted connections have an entry: half-open scans have records of their own.
            verified: true,
            payload: &entry.payload,
            protocol: entry.protocol.as_deref(),
            http,
            tls,
            ssh,
            dns,
            stored: entry.payload_sha256.filter(|_| entry.payload_stored),
        }
    }
}

impl Facts<'_> {
    /// The part of the payload that is searched.
    #[must_use]
    pub fn searched(&self) -> &[u8] {
        self.payload.get(..SEARCHED_BYTES).unwrap_or(self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_256_kib_of_a_payload_are_searched() {
        let payload = vec![b'x'; 256 * 1024 + 1];
        let searched = |length: usize| Facts { payload: &payload[..length], ..Facts::default() }.searched().len();
        assert_eq!(searched(0), 0);
        assert_eq!(searched(256 * 1024), 256 * 1024);
        assert_eq!(searched(256 * 1024 + 1), 256 * 1024);
    }
}
