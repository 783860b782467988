//! Excluded ports and addresses, with their reasons: a pure function of what was found and what was asked for.
//!
//! A service on all addresses keeps its port on all of them; one on a single address keeps it there, and the port of
//! every other address is steered: a telescope has sshd's port on each of its addresses if sshd is bound to its own,
//! also while a user is logged in. What listens
//! on loopback only is unreachable from outside, and is left alone for clients on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use spip_common::steer::{Endpoint, Exclusion, MAX_ENDPOINTS};

use crate::kernel::addr::mapped;
use crate::kernel::listening::Listening;

/// Services on single addresses that are told apart: half of what the map holds, because new ones enter before old ones
/// leave. Beyond it a service keeps its port on every address.
const MOST_ENDPOINTS: usize = MAX_ENDPOINTS as usize / 2;

/// Everything that is to be left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Ports that are not as all others.
    pub(super) ports: BTreeMap<u16, Exclusion>,
    /// Exclusions of single addresses, each with its reason.
    pub(super) endpoints: BTreeMap<Endpoint, u8>,
}

/// The agent's own listeners, which are no other service.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    /// Its sockets.
    pub(super) inodes: Vec<u32>,
    /// Their address, which an agent that is being relieved has, too.
    pub(super) address: Option<SocketAddr>,
}

impl Own {
    pub(super) fn is(&self, found: &Listening) -> bool {
        let address = SocketAddr::new(found.ip, found.port);
        found.inode != 0 && self.inodes.contains(&found.inode) || self.address == Some(address)
    }
}

impl Table {
    /// Of `exclude_ports`, the ends of the operator's SSH connections, and the services that were found.
    pub(super) fn new(configured: &[(u16, u16)], ssh: &BTreeSet<SocketAddr>, services: &[Listening]) -> Self {
        let mut table = Self::default();
        for (from, to) in configured {
            for port in *from..=*to {
                table.exclude(port, Exclusion::CONFIGURED).everywhere = 1;
            }
        }
        for end in ssh {
            table.exclude_at(end.ip(), end.port(), Exclusion::SSH);
        }
        for Listening { port, ip, .. } in services {
            table.exclude_at(*ip, *port, Exclusion::SERVICE);
        }
        table
    }

    fn exclude_at(&mut self, ip: IpAddr, port: u16, reason: u8) {
        let many = self.endpoints.len() >= MOST_ENDPOINTS;
        let exclusion = self.exclude(port, reason);
        if ip.is_unspecified() || many && !ip.is_loopback() {
            exclusion.everywhere = 1;
        } else if ip.is_loopback() {
            exclusion.loopback = 1;
        } else {
            exclusion.endpoints = 1;
            let endpoint = Endpoint { address: mapped(ip), port: port.into() };
            self.endpoints.entry(endpoint).or_insert(reason);
        }
    }

    /// The first reason for a port stays.
    fn exclude(&mut self, port: u16, reason: u8) -> &mut Exclusion {
        self.ports.entry(port).or_insert(Exclusion { reason, ..Exclusion::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(port: u16, ip: &str) -> Listening {
        Listening { port, ip: ip.parse().expect("address"), inode: 7, user: 0 }
    }

    #[test]
    fn a_service_on_all_addresses_keeps_its_port_and_one_on_a_single_address_keeps_that() {
        let services = [
            listening(22, "0.0.0.0"),
            listening(80, "192.0.2.1"),
            listening(80, "127.0.0.1"),
            listening(443, "::"),
            listening(5432, "::1"),
        ];
        let table = Table::new(&[], &BTreeSet::new(), &services);
        let service = Exclusion { reason: Exclusion::SERVICE, ..Exclusion::default() };
        assert_eq!(table.ports[&22], Exclusion { everywhere: 1, ..service });
        assert_eq!(table.ports[&80], Exclusion { endpoints: 1, loopback: 1, ..service });
        assert_eq!(table.ports[&443], Exclusion { everywhere: 1, ..service });
        assert_eq!(table.ports[&5432], Exclusion { loopback: 1, ..service });
        assert_eq!(table.ports.len(), 4);
        let endpoints: Vec<_> = table.endpoints.keys().map(|endpoint| (endpoint.address[15], endpoint.port)).collect();
        assert_eq!(endpoints, [(1, 80)]);
    }

    #[test]
    fn more_services_than_fit_into_the_map_keep_their_ports_everywhere() {
        let services: Vec<_> = (1..=3_000).map(|port| listening(port, "192.0.2.1")).collect();
        let table = Table::new(&[], &BTreeSet::new(), &services);
        assert_eq!(table.endpoints.len(), MOST_ENDPOINTS);
        assert_eq!(table.ports.len(), 3_000);
        assert_eq!(table.ports.values().filter(|port| port.everywhere == 1).count(), 3_000 - MOST_ENDPOINTS);
    }

    #[test]
    fn services_on_loopback_open_their_port_nowhere_else_however_many_there_are() {
        let single = (1..=2_100).map(|port| listening(port, "192.0.2.1"));
        let loopback = (2_101..=5_000).map(|port| listening(port, if port % 2 == 0 { "127.0.0.1" } else { "::1" }));
        let services: Vec<_> = single.chain(loopback).collect();
        let table = Table::new(&[], &BTreeSet::new(), &services);
        assert_eq!(table.endpoints.len(), MOST_ENDPOINTS, "the map of single addresses is full");
        let expected = Exclusion { reason: Exclusion::SERVICE, loopback: 1, ..Exclusion::default() };
        assert!((2_101..=5_000).all(|port| table.ports[&port] == expected));
    }

    #[test]
    fn ranges_and_ssh_are_excluded_with_their_own_reasons() {
        let ssh = ["192.0.2.1:22", "192.0.2.1:2222", "[::]:2022"].map(|end| end.parse().expect("address"));
        let table = Table::new(&[(65_534, 65_535)], &ssh.into(), &[listening(22, "0.0.0.0")]);
        let reasons: Vec<_> = table.ports.iter().map(|(port, found)| (*port, found.everywhere, found.reason)).collect();
        // What sshd listens on is its own everywhere; a connection to it keeps its own address alone.
        let expected = [
            (22, 1, Exclusion::SSH),
            (2022, 1, Exclusion::SSH),
            (2222, 0, Exclusion::SSH),
            (65_534, 1, Exclusion::CONFIGURED),
            (65_535, 1, Exclusion::CONFIGURED),
        ];
        assert_eq!(reasons, expected);
        let endpoints: Vec<_> = table.endpoints.iter().map(|(endpoint, reason)| (endpoint.port, *reason)).collect();
        assert_eq!(endpoints, [(22, Exclusion::SSH), (2222, Exclusion::SSH)]);
    }

    #[test]
    fn the_agents_own_listeners_are_no_service_whichever_agent_has_them() {
        let own = Own { inodes: vec![7], address: Some("127.0.0.1:12345".parse().expect("address")) };
        assert!(own.is(&listening(1, "0.0.0.0")));
        assert!(own.is(&Listening { inode: 9, ..listening(12_345, "127.0.0.1") }));
        assert!(!own.is(&Listening { inode: 9, ..listening(12_345, "0.0.0.0") }));
        assert!(!Own::default().is(&Listening { inode: 0, ..listening(1, "0.0.0.0") }));
    }
}
