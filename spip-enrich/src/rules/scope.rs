//! The header of a rule: which connections it is for.
//!
//! A sensor is every server at once, so variables of networks and ports mean any. A rule that watches the operator's own
//! clients, or servers of others, is for no connection of a sensor.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::file::Header;
use crate::facts::{Facts, Transport};

/// Upper bound of networks or ports of a list.
const LISTED: usize = 20_000;

/// Connections that a rule is for.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// `None` for both.
    pub(super) transport: Option<Transport>,
    /// The protocol of the application, by Suricata's name.
    pub(super) protocol: Option<String>,
    pub(super) sources: Networks,
    destinations: Networks,
    source_ports: Ports,
    destination_ports: Ports,
}

impl Scope {
    pub(super) fn parse(header: &Header<'_>) -> Result<Self, String> {
        let Header { action, protocol, mut source, mut source_port, direction, mut destination, mut destination_port } =
            *header;
        if !matches!(action, "alert" | "drop" | "reject" | "rejectsrc" | "rejectdst" | "rejectboth" | "log") {
            return Err(format!("action {action}"));
        }
        let (transport, protocol) = match protocol.to_ascii_lowercase().as_str() {
            "ip" => (None, None),
            "tcp" | "tcp-pkt" | "tcp-stream" => (Some(Transport::Tcp), None),
            "udp" => (Some(Transport::Udp), None),
            other if APPLICATIONS.contains(&other) => (None, Some(other.to_owned())),
            other => return Err(format!("protocol {other}")),
        };
        let own = |text: &str| text == "$HOME_NET" || text == "!$EXTERNAL_NET" || text.ends_with("_SERVERS");
        let foreign = |text: &str| text == "$EXTERNAL_NET" || text == "!$HOME_NET";
        match direction {
            "->" => {}
            "<>" => {
                if own(source) || foreign(destination) {
                    std::mem::swap(&mut source, &mut destination);
                    std::mem::swap(&mut source_port, &mut destination_port);
                }
            }
            other => return Err(format!("direction {other}")),
        }
        if own(source) || foreign(destination) {
            return Err("watches clients or servers of the own network".to_owned());
        }
        Ok(Self {
            transport,
            protocol,
            sources: Networks::parse(source)?,
            destinations: Networks::parse(destination)?,
            source_ports: Ports::parse(source_port)?,
            destination_ports: Ports::parse(destination_port)?,
        })
    }

    /// Reports whether a connection is one of these.
    pub(super) fn holds(&self, facts: &Facts<'_>, has_requests: bool) -> bool {
        self.transport.is_none_or(|transport| transport == facts.transport)
            && self.destination_ports.hold(facts.destination.port())
            && self.source_ports.hold(facts.source.port())
            && self.protocol.as_deref().is_none_or(|protocol| speaks(facts, has_requests, protocol))
            && self.destinations.hold(facts.destination.ip())
            && self.sources.hold(facts.source.ip())
    }
}

/// Application protocols that a header may name.
const APPLICATIONS: &[&str] = &[
    "http",
    "http1",
    "http2",
    "tls",
    "ssl",
    "ssh",
    "dns",
    "ftp",
    "smtp",
    "smb",
    "rdp",
    "imap",
    "pop3",
    "mqtt",
    "sip",
    "telnet",
    "rfb",
    "pgsql",
    "modbus",
    "ldap",
    "dcerpc",
    "dnp3",
    "enip",
    "nfs",
    "krb5",
    "snmp",
    "tftp",
    "ntp",
    "bittorrent-dht",
    "quic",
    "websocket",
    "redis",
    "mysql",
    "mongodb",
    "rtsp",
];

/// Reports whether a client spoke a protocol, by Suricata's name of it.
pub(super) fn speaks(facts: &Facts<'_>, has_requests: bool, protocol: &str) -> bool {
    let recorded = facts.protocol.unwrap_or("unknown");
    match protocol {
        "http" => has_requests || recorded == "http2",
        "http1" => has_requests && recorded != "http2",
        "tls" | "ssl" => facts.tls.is_some(),
        "rfb" => recorded == "vnc",
        "pgsql" => recorded == "postgresql",
        "failed" | "unknown" => recorded == "unknown" && facts.tls.is_none(),
        other => recorded == other,
    }
}

/// A list of networks, some of them excepted. Empty for any.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks {
    /// Those that are named.
    pub(super) some: Vec<IpNetwork>,
    /// Those that are excepted.
    except: Vec<IpNetwork>,
}

impl Networks {
    fn parse(text: &str) -> Result<Self, String> {
        let mut networks = Self::default();
        let mut any = false;
        items(text, false, &mut |item, negated| {
            if item == "any" || item.starts_with('$') {
                any |= !negated;
                return Ok(());
            }
            let network = item.parse().map_err(|_| "an address that is none".to_owned())?;
            let list = if negated { &mut networks.except } else { &mut networks.some };
            if list.len() == LISTED {
                return Err(format!("more than {LISTED} addresses"));
            }
            list.push(network);
            Ok(())
        })?;
        if any {
            networks.some.clear();
        }
        // Sorted by their start: see `hold`.
        networks.some.sort_unstable_by_key(|network| (network.network(), network.prefix()));
        Ok(networks)
    }

    fn hold(&self, address: IpAddr) -> bool {
        if self.some.is_empty() && self.except.is_empty() {
            return true;
        }
        let address = address.to_canonical();
        (self.some.is_empty() || self.some.iter().any(|network| network.contains(address)))
            && !self.except.iter().any(|network| network.contains(address))
    }
}

/// A list of ports, some of them excepted. Empty for any.
#[derive(Clone, Debug, Default)]
struct Ports {
    some: Vec<(u16, u16)>,
    except: Vec<(u16, u16)>,
}

impl Ports {
    fn parse(text: &str) -> Result<Self, String> {
        let mut ports = Self::default();
        let mut any = false;
        items(text, false, &mut |item, negated| {
            if item == "any" || item.starts_with('$') {
                any |= !negated;
                return Ok(());
            }
            let number = |text: &str, default: u16| match text.trim() {
                "" => Ok(default),
                digits => digits.parse::<u16>().map_err(|_| "a port that is none".to_owned()),
            };
            let range = match item.split_once(':') {
                Some((low, high)) => (number(low, 0)?, number(high, u16::MAX)?),
                None => {
                    let port = item.parse().map_err(|_| "a port that is none".to_owned())?;
                    (port, port)
                }
            };
            let list = if negated { &mut ports.except } else { &mut ports.some };
            if list.len() == LISTED {
                return Err(format!("more than {LISTED} ports"));
            }
            list.push(range);
            Ok(())
        })?;
        if any {
            ports.some.clear();
        }
        Ok(ports)
    }

    fn hold(&self, port: u16) -> bool {
        let within = |list: &[(u16, u16)]| list.iter().any(|(low, high)| (*low..=*high).contains(&port));
        (self.some.is_empty() || within(&self.some)) && !within(&self.except)
    }
}

/// Calls `take` with each item of a list in brackets, nested or not, and with whether it is negated.
fn items(text: &str, negated: bool, take: &mut dyn FnMut(&str, bool) -> Result<(), String>) -> Result<(), String> {
    walk(text, negated, 0, take)
}

fn walk(
    text: &str,
    negated: bool,
    depth: usize,
    take: &mut dyn FnMut(&str, bool) -> Result<(), String>,
) -> Result<(), String> {
    // Deeper than anyone writes, and shallow enough for the stack.
    if depth > 8 {
        return Err("brackets that are nested too deep".to_owned());
    }
    let text = text.trim();
    let (text, negated) = match text.strip_prefix('!') {
        Some(rest) => (rest.trim_start(), !negated),
        None => (text, negated),
    };
    let Some(list) = text.strip_prefix('[') else { return take(text, negated) };
    let list = list.strip_suffix(']').ok_or("a bracket that is not closed")?;
    let (mut nested, mut start) = (0usize, 0);
    for (at, character) in list.char_indices().chain([(list.len(), ',')]) {
        match character {
            '[' => nested += 1,
            ']' => nested = nested.saturating_sub(1),
            ',' if nested == 0 || at == list.len() => {
                let item = list[start..at].trim();
                if !item.is_empty() {
                    walk(item, negated, depth + 1, take)?;
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(header: &str) -> Result<Scope, String> {
        Scope::parse(&super::super::file::split(&format!("{header} (sid:1;)")).unwrap().0)
    }

    fn from(source: &str, port: u16) -> Facts<'static> {
        Facts {
            source: format!("{source}:4000").parse().unwrap(),
            destination: format!("198.51.100.1:{port}").parse().unwrap(),
            ..Facts::default()
        }
    }

    #[test]
    fn ports_and_networks_are_lists_with_exceptions() {
        let scope = scope("alert tcp [192.0.2.0/24,!192.0.2.9] any -> $HOME_NET [80,[8000:8100,!8080]]").unwrap();
        for (source, port, expected) in [
            ("192.0.2.1", 80, true),
            ("192.0.2.9", 80, false),
            ("192.0.3.1", 80, false),
            ("192.0.2.1", 8000, true),
            ("192.0.2.1", 8080, false),
            ("192.0.2.1", 81, false),
        ] {
            assert_eq!(scope.holds(&from(source, port), false), expected, "{source} {port}");
        }
    }

    #[test]
    fn a_rule_for_other_connections_is_refused() {
        for (header, reason) in [
            ("alert tcp $HOME_NET any -> $EXTERNAL_NET any", "own network"),
            ("alert http $HTTP_SERVERS any -> any any", "own network"),
            ("pass tcp any any -> any any", "action pass"),
            ("alert icmp any any -> any any", "protocol icmp"),
            ("alert tcp any any <- any any", "direction"),
            ("alert tcp 192.0.2.0/33 any -> any any", "an address"),
            ("alert tcp any 70000 -> any any", "a port"),
        ] {
            assert!(scope(header).unwrap_err().contains(reason), "{header}");
        }
        assert!(scope("alert tcp $HOME_NET any <> $EXTERNAL_NET 80").is_ok());
        assert!(scope(&format!("alert tcp {}any{} any -> any any", "[".repeat(99), "]".repeat(99))).is_err());
    }

    #[test]
    fn protocols_are_those_of_the_record() {
        let facts = Facts { protocol: Some("vnc"), ..Facts::default() };
        assert!(speaks(&facts, false, "rfb"));
        assert!(!speaks(&facts, false, "http"));
        assert!(speaks(&facts, true, "http"));
    }
}
