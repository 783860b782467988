//! Whether this machine is probably behind a translation of its address: then its records name a private address that no client
//! asked for, unless `public_addresses` says which. Nobody is asked over the network.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::PublicAddresses;

/// Interfaces of containers and virtual machines begin with these: their private addresses say nothing.
const VIRTUAL: [&str; 9] = ["docker", "br-", "veth", "virbr", "cni", "podman", "lxc", "lxd", "vmnet"];

/// Private IPv4 addresses that `public` does not name, of a machine that has no public one.
pub(super) fn private_addresses(
    addresses: impl Iterator<Item = (String, IpAddr)>,
    public: &PublicAddresses,
) -> Vec<Ipv4Addr> {
    let mut private = Vec::new();
    for (interface, ip) in addresses {
        let IpAddr::V4(ip) = ip else { continue };
        if ip.is_loopback() || ip.is_link_local() || VIRTUAL.iter().any(|name| interface.starts_with(name)) {
            continue;
        }
        if !is_private(ip) {
            return Vec::new();
        }
        if public.of(ip.into()).is_none() {
            private.push(ip);
        }
    }
    private
}

/// Private use (RFC 1918), or shared by the customers of a provider (RFC 6598).
fn is_private(ip: Ipv4Addr) -> bool {
    ip.is_private() || matches!(ip.octets(), [100, 64..=127, ..])
}

/// The line for the configuration, to be filled in.
pub(super) fn example(ip: Ipv4Addr) -> String {
    format!("public_addresses = {{ \"{ip}\" = \"PUBLIC ADDRESS\" }}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[(&str, &str)], public: &PublicAddresses) -> Vec<String> {
        let addresses = addresses.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().expect("an address")));
        private_addresses(addresses, public).iter().map(Ipv4Addr::to_string).collect()
    }

    #[test]
    fn a_machine_with_private_addresses_alone_may_be_behind_a_translation() {
        let none = PublicAddresses::default();
        let cloud = [("lo", "127.0.0.1"), ("ens5", "10.0.0.5"), ("docker0", "172.17.0.1"), ("ens5", "fe80::1")];
        assert_eq!(found(&cloud, &none), ["10.0.0.5"]);
        assert_eq!(found(&cloud, &PublicAddresses::new([("10.0.0.5", "203.0.113.9")])), [""; 0]);
        assert_eq!(found(&[("eth0", "100.64.1.2")], &none), ["100.64.1.2"]);
        assert_eq!(found(&[("eth0", "192.0.2.1"), ("eth1", "10.0.0.5")], &none), [""; 0], "it has a public one");
        assert_eq!(found(&[("lo", "127.0.0.1")], &none), [""; 0]);
    }
}
