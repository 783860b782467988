//! Middleboxes between the sensor and its clients: load balancers that speak the PROXY protocol, and translations of
//! addresses in front of the machine.

use std::net::IpAddr;

use toml::de::DeValue;

use super::load::Loading;
use super::steering::Prefix;

/// Most prefixes of balancers, and most public addresses: more than any network has.
const MOST: usize = 1024;

/// Load balancers and address translation in front of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// `proxy_protocol_from`: peers whose PROXY protocol is believed; none when empty.
    pub proxies: Vec<Prefix>,
    /// `public_addresses`: what clients ask for when they reach a local address.
    pub public: PublicAddresses,
}

/// Local prefixes, and the public ones of the same length in front of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicAddresses(Vec<(Prefix, Prefix)>);

impl PublicAddresses {
    /// Returns the address that a client asks for to reach `local`, where it is another one. The longest prefix
    /// decides.
    #[must_use]
    pub fn of(&self, local: IpAddr) -> Option<IpAddr> {
        let fits = self.0.iter().filter(|(own, _)| own.contains(local));
        let (_, public) = fits.max_by_key(|(own, _)| own.length())?;
        Some(public.with_rest_of(local)).filter(|public| *public != local)
    }

    /// The pairs of these texts, for tests.
    #[cfg(test)]
    pub(crate) fn new<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        let prefix = |text| Prefix::parse(text).expect("a prefix");
        Self(pairs.map(|(local, public)| (prefix(local), prefix(public))).into())
    }

    /// The pairs, sorted.
    #[must_use]
    pub fn pairs(&self) -> &[(Prefix, Prefix)] {
        &self.0
    }
}

impl Loading<'_> {
    /// The keys of what stands in front of the machine.
    pub(super) fn network(&mut self) -> Network {
        const ACCEPTED: &str = "must be an array of prefixes such as [\"10.0.0.0/8\", \"192.0.2.1\"]";
        let mut proxies: Vec<Prefix> = self.texts("proxy_protocol_from", ACCEPTED, Prefix::parse);
        proxies.sort_unstable();
        proxies.dedup();
        self.at_most("proxy_protocol_from", proxies.len(), MOST);
        Network { proxies, public: self.public_addresses() }
    }

    fn public_addresses(&mut self) -> PublicAddresses {
        const ACCEPTED: &str = "must be a table of local and public addresses or prefixes of one length: \
                                { \"10.0.0.5\" = \"203.0.113.9\", \"10.1.0.0/24\" = \"198.51.100.0/24\" }";
        let Some(found) = self.read.take("public_addresses") else { return PublicAddresses::default() };
        let DeValue::Table(table) = found.value.get_ref() else {
            self.read.refuse_type(&found, "table", ACCEPTED);
            return PublicAddresses::default();
        };
        let mut pairs = Vec::new();
        for (local, public) in table {
            let at = Some(local.span().start);
            let name = super::error::Quoted(local.get_ref());
            let parsed = public.get_ref().as_str().ok_or_else(|| ACCEPTED.to_owned()).and_then(|public| {
                let (local, public) = (Prefix::parse(local.get_ref())?, Prefix::parse(public)?);
                let alike =
                    local.length() == public.length() && local.address().is_ipv4() == public.address().is_ipv4();
                if alike { Ok((local, public)) } else { Err(ACCEPTED.to_owned()) }
            });
            match parsed {
                Ok(pair) => pairs.push(pair),
                Err(why) => self.read.problem(at, format!("public_addresses.{name}: {why}")),
            }
        }
        pairs.sort_unstable();
        self.at_most("public_addresses", pairs.len(), MOST);
        PublicAddresses(pairs)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn load(text: &str) -> Result<Network, String> {
        let text = format!("ip = \"0.0.0.0\"\nport = 1\n{text}\n");
        let loaded = Config::from_str(&text, Path::new("/etc/spip.toml"));
        loaded.map(|loaded| loaded.config.network).map_err(|error| error.to_string())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_local_address_is_known_by_its_public_one() {
        let text = "public_addresses = { \"10.0.0.5\" = \"203.0.113.9\", \"10.0.0.0/24\" = \"198.51.100.0/24\", \
                    \"fd00::/64\" = \"2001:db8::/64\" }";
        let public = load(text).expect("valid").public;
        assert_eq!(public.of(ip("10.0.0.5")), Some(ip("203.0.113.9")), "the longest prefix decides");
        assert_eq!(public.of(ip("10.0.0.7")), Some(ip("198.51.100.7")));
        assert_eq!(public.of(ip("fd00::1:2")), Some(ip("2001:db8::1:2")));
        assert_eq!(public.of(ip("10.0.1.1")), None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_key() {
        for value in [
            "{ \"10.0.0.5\" = \"203.0.113.0/24\" }",
            "{ \"10.0.0.5\" = \"2001:db8::1\" }",
            "{ \"10.0.0.5\" = 5 }",
            "{ \"host\" = \"203.0.113.9\" }",
            "[\"10.0.0.5\"]",
        ] {
            let error = load(&format!("public_addresses = {value}")).expect_err(value);
            assert!(error.contains("public_addresses"), "{error}");
        }
        assert!(load("proxy_protocol_from = [\"10.0.0.1/8\"]").expect_err("bits").contains("did you mean"));
    }

    #[test]
    fn it_is_shown_as_it_is_read() {
        let text = "proxy_protocol_from = [\"10.0.0.0/8\", \"192.0.2.1\"]\npublic_addresses = { \"10.0.0.5\" = \"203.0.113.9\" }";
        let text = format!("ip = \"0.0.0.0\"\nport = 1\n{text}\n");
        let config = Config::from_str(&text, Path::new("/etc/spip.toml")).expect("valid").config;
        let again = Config::from_str(&config.to_toml(), Path::new("/etc/spip.toml")).expect("what is shown is valid");
        assert_eq!(again.config.network, config.network);
        assert_eq!(config.network.proxies.len(), 2);
    }
}
