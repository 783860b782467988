//! The keys that say how connections to other ports reach the agent, and which of them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use toml::Spanned;
use toml::de::DeValue;

use super::load::Loading;
use super::values::Found;
use super::{EbpfMode, Steering, SteeringMode};

/// Longest name of an interface (`IFNAMSIZ` of linux/if.h, which counts a final zero).
const INTERFACE_BYTES: usize = 15;

/// Longest name of a user (`LOGIN_NAME_MAX` of Linux' limits.h).
const USER_BYTES: usize = 256;
/// Most users whose services are exempt.
const MOST_USERS: usize = 256;

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// Reads `198.51.100.0/24`, `2001:db8::/32`, or one address.
    ///
    /// # Errors
    /// In words for the operator: what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const ACCEPTED: &str = "must be an address or a prefix such as \"198.51.100.0/24\" or \"2001:db8::/32\"";
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ACCEPTED.to_owned())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().ok().filter(|length| *length <= most).ok_or_else(|| ACCEPTED.to_owned())?
            }
            Some(_) => return Err(ACCEPTED.to_owned()),
            None => most,
        };
        let prefix = Self { address: masked(address, length), length };
        if prefix.address == address {
            Ok(prefix)
        } else {
            Err(format!("has bits beyond the prefix; did you mean \"{prefix}\"?"))
        }
    }

    /// Its first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Returns the number of bits that count.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// The address that begins as this prefix does and goes on as `other`, of the same family.
    #[must_use]
    pub fn with_rest_of(self, other: IpAddr) -> IpAddr {
        match (self.address, other, masked(other, self.length)) {
            (IpAddr::V4(own), IpAddr::V4(other), IpAddr::V4(begin)) => {
                IpAddr::V4((own.to_bits() | other.to_bits() ^ begin.to_bits()).into())
            }
            (IpAddr::V6(own), IpAddr::V6(other), IpAddr::V6(begin)) => {
                IpAddr::V6((own.to_bits() | other.to_bits() ^ begin.to_bits()).into())
            }
            _ => other,
        }
    }

    /// Reports whether an address begins as this does.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }

    /// The address as IPv6 writes it, and how many bits of it count.
    #[must_use]
    pub fn mapped(self) -> (Ipv6Addr, u32) {
        match self.address {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), u32::from(self.length) + 96),
            IpAddr::V6(address) => (address, u32::from(self.length)),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl Loading<'_> {
    /// All keys of steering; `ebpf` is what the file says of eBPF, without which there is no `sk_lookup`.
    pub(super) fn steering(&mut self, ebpf: EbpfMode) -> Steering {
        let mode: SteeringMode = self.read.choice("steering");
        if mode == SteeringMode::SkLookup && ebpf == EbpfMode::Off {
            let why =
                "steering = \"sk_lookup\": is done by eBPF; remove ebpf = \"off\", or set steering = \"redirect\"";
            self.read.problem_of("steering", why.to_owned());
        }
        let steering = Steering {
            mode,
            loopback: self.read.boolean("steer_loopback"),
            prefixes: self.prefixes(),
            interfaces: self.interfaces(),
            exempt_services_of: self.exempt_services_of(),
            pin_links: self.read.boolean("pin_links"),
        };
        if mode == SteeringMode::Redirect {
            let unused = [
                ("steer_loopback", steering.loopback),
                ("steer_prefixes", !steering.prefixes.is_empty()),
                ("steer_interfaces", !steering.interfaces.is_empty()),
                ("exempt_services_of", !steering.exempt_services_of.is_empty()),
                ("pin_links", steering.pin_links),
            ];
            for (key, _) in unused.iter().filter(|(_, given)| *given) {
                self.warn(None, &format!("{key} is not used, because steering = \"redirect\""));
            }
        }
        steering
    }

    fn prefixes(&mut self) -> Vec<Prefix> {
        const MOST: usize = spip_common::steer::MAX_PREFIXES as usize;
        let mut prefixes: Vec<Prefix> =
            self.texts("steer_prefixes", "must be an array of prefixes such as [\"198.51.100.0/24\"]", Prefix::parse);
        prefixes.sort_unstable();
        prefixes.dedup();
        self.at_most("steer_prefixes", prefixes.len(), MOST);
        prefixes
    }

    fn interfaces(&mut self) -> Vec<String> {
        const MOST: usize = spip_common::steer::MAX_LINKS as usize;
        const ACCEPTED: &str = "must be an array of names of interfaces such as [\"eth0\"]";
        let mut names = self.texts("steer_interfaces", ACCEPTED, |text| {
            let valid = (1..=INTERFACE_BYTES).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            if valid { Ok(text.to_owned()) } else { Err("is no name of an interface".to_owned()) }
        });
        names.sort_unstable();
        names.dedup();
        self.at_most("steer_interfaces", names.len(), MOST);
        names
    }

    /// Reads the list; the start looks the users up.
    fn exempt_services_of(&mut self) -> Vec<String> {
        const ACCEPTED: &str = "must be an array of users such as [\"root\", \"postgres\"]";
        let mut users = self.texts("exempt_services_of", ACCEPTED, |text| {
            let valid = (1..=USER_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
            if valid { Ok(text.to_owned()) } else { Err("is no name or number of a user".to_owned()) }
        });
        users.sort_unstable();
        users.dedup();
        self.at_most("exempt_services_of", users.len(), MOST_USERS);
        users
    }

    /// An array of texts, each read by `read`.
    pub(super) fn texts<T>(
        &mut self,
        key: &'static str,
        accepted: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(Found { key, value }) = self.read.take(key) else {
            return Vec::new();
        };
        let span = value.span();
        let elements = match value.into_inner() {
            DeValue::Array(elements) => elements,
            other => {
                self.read.refuse_type(&Found { key, value: Spanned::new(span, other) }, "array", accepted);
                return Vec::new();
            }
        };
        let mut values = Vec::new();
        for value in elements {
            let element = Found { key, value };
            match element.value.get_ref().as_str().map(&read) {
                Some(Ok(value)) => values.push(value),
                Some(Err(why)) => self.read.refuse(&element, &why),
                None => self.read.refuse_type(&element, "string", accepted),
            }
        }
        values
    }

    pub(super) fn at_most(&mut self, key: &str, count: usize, most: usize) {
        if count > most {
            self.read.problem_of(key, format!("{key}: has {count} entries; at most {most} are accepted"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_and_written_alike() {
        for text in ["198.51.100.0/24", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32", "::/0", "::1/128"] {
            assert_eq!(Prefix::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Prefix::parse("192.0.2.1").expect("address").to_string(), "192.0.2.1/32");
    }

    #[test]
    fn bits_beyond_the_prefix_are_refused_with_the_prefix_that_was_meant() {
        let error = Prefix::parse("198.51.100.7/24").expect_err("bits");
        assert!(error.contains("did you mean \"198.51.100.0/24\"?"), "{error}");
        for text in ["198.51.100.0/33", "2001:db8::/129", "198.51.100/24", "x", "198.51.100.0/+8", ""] {
            assert!(Prefix::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_contains_what_begins_as_it_does_and_no_other_family() {
        let prefix = Prefix::parse("198.51.100.0/24").expect("prefix");
        let contains = |text: &str| prefix.contains(text.parse().expect("address"));
        assert!(contains("198.51.100.255") && !contains("198.51.101.0") && !contains("::ffff:198.51.100.1"));
        assert!(Prefix::parse("::/0").expect("prefix").contains("2001:db8::1".parse().expect("address")));
    }

    #[test]
    fn an_ipv4_prefix_counts_the_bits_before_it() {
        let (address, bits) = Prefix::parse("198.51.100.0/24").expect("prefix").mapped();
        assert_eq!((address.to_string().as_str(), bits), ("::ffff:198.51.100.0", 120));
    }
}
