//! Finds the rules that name sources and nothing else: lists of addresses, of which published sets have thousands.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Rules that name sources and nothing else, by the prefixes of those.
#[derive(Debug, Default)]
pub(super) struct Sources {
    prefixes: Vec<(bool, u8, HashMap<IpAddr, Vec<u32>>)>,
}

impl Sources {
    pub(super) fn add(&mut self, networks: &[IpNetwork], rule: u32) {
        for network in networks {
            let key = (network.is_ipv4(), network.prefix());
            let place = match self.prefixes.iter().position(|(v4, prefix, _)| (*v4, *prefix) == key) {
                Some(place) => place,
                None => {
                    self.prefixes.push((key.0, key.1, HashMap::new()));
                    self.prefixes.len() - 1
                }
            };
            let rules = self.prefixes[place].2.entry(network.network()).or_default();
            if rules.last() != Some(&rule) {
                rules.push(rule);
            }
        }
    }

    pub(super) fn find(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        let address = address.to_canonical();
        self.prefixes.iter().filter(move |(v4, ..)| *v4 == address.is_ipv4()).flat_map(move |(_, prefix, rules)| {
            let start = IpNetwork::new(address, *prefix).map_or(address, |network| network.network());
            rules.get(&start).into_iter().flatten().copied()
        })
    }
}
