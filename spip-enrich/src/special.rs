//! Names addresses that belong to no network of the internet: private, shared, documentation, multicast.
//!
//! The table is that of RFC 6890 with the updates of its registries (RFC 8190): the IANA IPv4 and IPv6 Special-Purpose
//! Address Registries. Multicast (RFC 5771, RFC 4291) is added, because it, too, has no country.

use std::net::IpAddr;
use std::sync::LazyLock;

use ipnetwork::IpNetwork;

use crate::ranges::Ranges;

/// The ranges and the names that they get here.
const TABLE: &[(&str, &str)] = &[
    ("0.0.0.0/8", "this_network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link_local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "ietf_protocol"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4_relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("255.255.255.255/32", "broadcast"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("64:ff9b:1::/48", "translation"),
    ("100::/64", "discard_only"),
    ("2001::/23", "ietf_protocol"),
    ("2001::/32", "teredo"),
    ("2001:2::/48", "benchmarking"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("2002::/16", "6to4"),
    ("5f00::/16", "segment_routing"),
    ("fc00::/7", "unique_local"),
    ("fe80::/10", "link_local"),
    ("ff00::/8", "multicast"),
];

static SPECIAL: LazyLock<Ranges<&'static str>> =
    LazyLock::new(|| Ranges::new(TABLE.iter().filter_map(|(net, name)| Some((net.parse::<IpNetwork>().ok()?, *name)))));

/// Returns the name of the special range that holds `address`.
#[must_use]
pub fn special(address: IpAddr) -> Option<&'static str> {
    SPECIAL.find(address).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_of_the_table_is_a_network() {
        for (net, name) in TABLE {
            let net: IpNetwork = net.parse().unwrap();
            assert_eq!(net.ip(), net.network(), "{net}");
            assert!(special(net.ip()).is_some(), "{net} {name}");
        }
        assert_eq!(SPECIAL.len(), TABLE.len());
    }

    #[test]
    fn addresses_have_the_names_of_their_ranges() {
        for (address, expected) in [
            ("10.1.2.3", Some("private")),
            ("172.31.255.255", Some("private")),
            ("172.32.0.0", None),
            ("100.127.0.1", Some("shared")),
            ("198.51.100.7", Some("documentation")),
            ("255.255.255.255", Some("broadcast")),
            ("8.8.8.8", None),
            ("::1", Some("loopback")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("2001:0:1::", Some("teredo")),
            ("2001:4860:4860::8888", None),
            ("fd00::1", Some("unique_local")),
        ] {
            assert_eq!(special(address.parse().unwrap()), expected, "{address}");
        }
    }
}
