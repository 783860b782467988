//! The addresses of this machine's interfaces, and of the gateways that its default routes lead to.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;

/// Each address, with the name of its interface; none where the kernel does not tell.
pub fn addresses() -> impl Iterator<Item = (String, IpAddr)> {
    getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let ipv4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        let ip = ipv4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))?;
        Some((interface.interface_name, ip))
    })
}

/// `RTF_GATEWAY` of linux/route.h.
const RTF_GATEWAY: u32 = 2;

/// Each gateway of a default route in this network namespace; none where the kernel does not tell.
pub fn gateways() -> impl Iterator<Item = IpAddr> {
    let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let (ipv4, ipv6) = (read("route"), read("ipv6_route"));
    let found: Vec<IpAddr> = ipv4_gateways(&ipv4).chain(ipv6_gateways(&ipv6)).collect();
    found.into_iter()
}

/// Reads routes as `/proc/net/route` has them: interface, destination, gateway, flags, of which addresses are the number
/// that memory holds.
fn ipv4_gateways(routes: &str) -> impl Iterator<Item = IpAddr> {
    routes.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let [destination, gateway, flags] = [fields.next()?, fields.next()?, fields.next()?];
        let number = |hex| u32::from_str_radix(hex, 16).ok();
        let is_default = number(destination)? == 0 && number(flags)? & RTF_GATEWAY != 0;
        is_default.then_some(Ipv4Addr::from(number(gateway)?.to_ne_bytes()).into())
    })
}

/// Reads routes as `/proc/net/ipv6_route` has them: destination and length first, the gateway fifth, flags ninth.
fn ipv6_gateways(routes: &str) -> impl Iterator<Item = IpAddr> {
    routes.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, length, _, _, gateway, _, _, _, flags, ..] = fields[..] else { return None };
        let is_default = length == "00" && u32::from_str_radix(flags, 16).ok()? & RTF_GATEWAY != 0;
        is_default.then_some(Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?).into())
    })
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
        assert_eq!(ipv4_gateways(&ipv4).collect::<Vec<_>>(), ["172.17.0.1".parse::<IpAddr>().expect("an address")]);
        let zero = "0".repeat(32);
        let gateway = "fe80000000000000000000000000000a";
        let ipv6 = format!(
            "{zero} 00 {zero} 00 {gateway} 00000400 00000001 00000000 00000003     eth0\n\
             fd000000000000000000000000000000 40 {zero} 00 {gateway} 00000400 00000001 00000000 00000003     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
             torn 00\n"
        );
        assert_eq!(ipv6_gateways(&ipv6).collect::<Vec<_>>(), ["fe80::a".parse::<IpAddr>().expect("an address")]);
    }
}
