//! The addresses of this machine's interfaces.

use std::net::IpAddr;

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

/// Each address but those of loopback.
pub fn outside() -> impl Iterator<Item = IpAddr> {
    addresses().map(|(_, ip)| ip).filter(|ip| !ip.is_loopback())
}
