//! The routes of this network namespace, as `/proc` lists them.
//!
//! A line that is not one of the table is passed over, and a table that cannot be read has no routes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RTF_GATEWAY` of linux/route.h.
const GATEWAY: u32 = 2;
/// `RTF_LOCAL` of linux/ipv6_route.h.
const LOCAL: u32 = 0x8000_0000;

/// A route of `/proc/net/route`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Route {
    /// First address of the network.
    pub network: Ipv4Addr,
    /// Mask of the network, 0 of a default route.
    pub mask: u32,
    /// Gateway, where there is one.
    pub gateway: Option<Ipv4Addr>,
}

/// A route of `/proc/net/ipv6_route`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Route {
    /// First address of the network.
    pub network: Ipv6Addr,
    /// Length of the network's prefix in bits, 0 of a default route.
    pub length: u8,
    /// Gateway, where there is one.
    pub gateway: Option<Ipv6Addr>,
    /// Set when the network is this machine.
    pub is_local: bool,
}

/// Returns the IPv4 routes.
#[must_use]
pub fn ipv4() -> Vec<Ipv4Route> {
    parse_ipv4(&table("route"))
}

/// Returns the IPv6 routes.
#[must_use]
pub fn ipv6() -> Vec<Ipv6Route> {
    parse_ipv6(&table("ipv6_route"))
}

/// Returns the gateways of default routes.
#[must_use]
pub fn gateways() -> Vec<IpAddr> {
    gateways_of(&ipv4(), &ipv6())
}

fn gateways_of(ipv4: &[Ipv4Route], ipv6: &[Ipv6Route]) -> Vec<IpAddr> {
    let ipv4 = ipv4.iter().filter(|route| route.mask == 0).filter_map(|route| route.gateway.map(IpAddr::from));
    let ipv6 = ipv6.iter().filter(|route| route.length == 0).filter_map(|route| route.gateway.map(IpAddr::from));
    ipv4.chain(ipv6).collect()
}

fn table(name: &str) -> String {
    fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
}

/// Reads interface, network, gateway, flags, and mask in the eighth place; addresses are the numbers that memory holds.
pub(crate) fn parse_ipv4(table: &str) -> Vec<Ipv4Route> {
    let route = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut number = |skipped| fields.nth(skipped).and_then(|text| u32::from_str_radix(text, 16).ok());
        let [network, gateway, flags, mask] = [number(0)?, number(0)?, number(0)?, number(3)?];
        Some(Ipv4Route {
            network: network.to_ne_bytes().into(),
            mask: u32::from_be_bytes(mask.to_ne_bytes()),
            gateway: (flags & GATEWAY != 0).then(|| gateway.to_ne_bytes().into()),
        })
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// Reads network and length first, the gateway in the fifth place, and flags before the interface.
pub(crate) fn parse_ipv6(table: &str) -> Vec<Ipv6Route> {
    let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from_bits);
    let route = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [network, length, _, _, gateway, .., flags, _] = fields.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        Some(Ipv6Route {
            network: address(network)?,
            length: u8::from_str_radix(length, 16).ok()?,
            gateway: if flags & GATEWAY != 0 { address(gateway) } else { None },
            is_local: flags & LOCAL != 0,
        })
    };
    table.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_with_a_gateway_name_one() {
        let gateway = u32::from_ne_bytes([172, 17, 0, 1]);
        let ipv4 = format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t{gateway:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t0000A8C0\t0101A8C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
             torn\t0000\n"
        );
        let zero = "0".repeat(32);
        let gateway = "fe80000000000000000000000000000a";
        let ipv6 = format!(
            "{zero} 00 {zero} 00 {gateway} 00000400 00000001 00000000 00000003     eth0\n\
             fd000000000000000000000000000000 40 {zero} 00 {gateway} 00000400 00000001 00000000 00000003     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             torn 00\n"
        );
        let (ipv4, ipv6) = (parse_ipv4(&ipv4), parse_ipv6(&ipv6));
        assert_eq!((ipv4.len(), ipv6.len()), (3, 3));
        let expected: Vec<IpAddr> = ["172.17.0.1", "fe80::a"].map(|ip| ip.parse().expect("an address")).into();
        assert_eq!(gateways_of(&ipv4, &ipv6), expected);
    }
}
