//! Addresses that cannot be swapped by mistake: who came, where we listen, and what the client asked for.
//!
//! All of them are canonical: an IPv4 address that a dual-stack socket shows as `::ffff:a.b.c.d` is IPv4 here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Writes a v4-mapped IPv6 address as the IPv4 address that it is; flow label and scope are dropped.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns an address in the form of the maps: IPv4 as `::ffff:a.b.c.d`.
pub(crate) fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(SocketAddr);

        impl $name {
            /// The address, made canonical.
            #[must_use]
            pub fn new(address: SocketAddr) -> Self {
                Self(canonical(address))
            }

            /// The IP address, never a v4-mapped one.
            #[must_use]
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// The port.
            #[must_use]
            pub fn port(self) -> u16 {
                self.0.port()
            }

            /// Both, for a system call or a display.
            #[must_use]
            pub fn socket(self) -> SocketAddr {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

address! {
    /// The remote end: the address and port that the client itself used.
    ClientAddr
}
address! {
    /// Destination that the client asked for, before any address translation on this machine.
    Destination
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_written_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().expect("address");
        assert_eq!(ClientAddr::new(mapped).to_string(), "192.0.2.1:80");
    }

    #[test]
    fn an_ipv6_address_stays_what_it_is() {
        let address: SocketAddr = "[2001:db8::1]:443".parse().expect("address");
        assert_eq!(Destination::new(address).to_string(), "[2001:db8::1]:443");
    }
}
