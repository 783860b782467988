//! Exclusions and their reasons as text: for the start message, for messages about changes, and for `spip-agent
//! status`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::kernel::listening::Listening;
use crate::kernel::sockets::Sockets;

/// Something that is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A port, or a range of ports, such as `22` or `8000-8100`.
    pub ports: String,
    /// The address on which it is left alone; absent when it is all of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    /// Reason.
    pub reason: String,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} on {address}: {}", self.ports, self.reason),
            None => write!(f, "{}: {}", self.ports, self.reason),
        }
    }
}

/// All reasons, those of the configuration first, services by port. `sockets` knows names of processes.
pub(super) fn reasons(
    configured: &[(u16, u16)],
    ssh: &BTreeSet<SocketAddr>,
    services: &[Listening],
    sockets: Option<&Sockets>,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (from, to) in configured {
        let ports = if from == to { from.to_string() } else { format!("{from}-{to}") };
        reasons.push(Reason { ports, address: None, reason: "exclude_ports".to_owned() });
    }
    for end in ssh {
        let reason = "the operator's SSH connection".to_owned();
        let address = Some(end.ip()).filter(|ip| !ip.is_unspecified());
        reasons.push(Reason { ports: end.port().to_string(), address, reason });
    }
    let mut last = None;
    for service in services {
        // One for each address, not for each socket of a group.
        if last.replace((service.port, service.ip)) != Some((service.port, service.ip)) {
            reasons.push(of_service(service, sockets));
        }
    }
    reasons
}

fn of_service(service: &Listening, sockets: Option<&Sockets>) -> Reason {
    let Listening { port, ip, .. } = service;
    let listeners = sockets.map(|sockets| sockets.listeners.as_slice()).unwrap_or_default();
    let owner = listeners.iter().find(|found| (found.port, found.ip) == (*port, *ip));
    let owner = owner.and_then(|found| found.owner.as_deref()).unwrap_or("a hidden process");
    let (address, reason) = match ip {
        ip if ip.is_unspecified() => (None, format!("{owner} listens on {ip}")),
        ip if ip.is_loopback() => (Some(*ip), format!("{owner} listens, for clients on this machine")),
        ip => (Some(*ip), format!("{owner} listens")),
    };
    Reason { ports: port.to_string(), address, reason }
}

/// As many as one message should have, in one line.
pub(super) fn line(reasons: &[Reason]) -> String {
    const MOST: usize = 100;
    let mut line: Vec<String> = reasons.iter().take(MOST).map(Reason::to_string).collect();
    if reasons.len() > MOST {
        line.push(format!("and {} more", reasons.len() - MOST));
    }
    line.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sockets::Listener;

    #[test]
    fn each_reason_names_ports_address_and_owner() {
        let service = |port, ip: &str| Listening { port, ip: ip.parse().expect("address"), inode: 1, user: 0 };
        let services = [service(22, "0.0.0.0"), service(22, "0.0.0.0"), service(80, "192.0.2.1"), service(81, "::1")];
        let listener = Listener { port: 22, ip: IpAddr::from([0, 0, 0, 0]), owner: Some("sshd".to_owned()) };
        let sockets = Sockets { listeners: vec![listener], ssh_sessions: vec![], complete: true };
        let ssh = SocketAddr::from(([192, 0, 2, 1], 2222));
        let reasons = reasons(&[(25, 25), (8000, 8100)], &[ssh].into(), &services, Some(&sockets));
        assert_eq!(
            line(&reasons),
            "25: exclude_ports; 8000-8100: exclude_ports; 2222 on 192.0.2.1: the operator's SSH connection; \
             22: sshd listens on 0.0.0.0; 80 on 192.0.2.1: a hidden process listens; \
             81 on ::1: a hidden process listens, for clients on this machine"
        );
    }

    #[test]
    fn a_long_list_ends_with_a_number() {
        let many: Vec<(u16, u16)> = (1..=150).map(|port| (port * 2, port * 2)).collect();
        assert!(line(&reasons(&many, &BTreeSet::new(), &[], None)).ends_with("; and 50 more"));
    }
}
