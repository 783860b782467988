//! The URL of a request, put together from its target and Host as a server does (RFC 9112, section 3.2): the parts
//! of a URL for the formats that have fields for them. Nothing is decoded. And what of the hosts that clients name is
//! one.

use std::net::IpAddr;

use spip_protocol::http::Http;

/// The target of a request, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Url<'t> {
    pub(super) original: Option<&'t str>,
    pub(super) scheme: Option<&'t str>,
    pub(super) username: Option<&'t str>,
    pub(super) password: Option<&'t str>,
    pub(super) domain: Option<&'t str>,
    pub(super) port: Option<u16>,
    pub(super) path: Option<&'t str>,
    pub(super) query: Option<&'t str>,
    pub(super) fragment: Option<&'t str>,
    /// Value of Host when the target names a host of its own, which takes precedence.
    pub(super) other_host: Option<&'t str>,
}

impl<'t> Url<'t> {
    /// Puts target and Host together as a server does (RFC 9112, section 3.2): what a target says of scheme and host
    /// holds, and Host where it says nothing.
    pub(super) fn of(facts: &'t Http<'_>, is_tls: bool) -> Self {
        let target = facts.target.as_deref();
        let host = facts.host.as_deref().unwrap_or_default();
        let mut url = Self { original: target, scheme: Some(if is_tls { "https" } else { "http" }), ..Self::default() };
        let is_connect = facts.method.as_deref() == Some("CONNECT");
        match target {
            Some(target) if is_connect && !target.starts_with('/') => {
                // A tunnel has no scheme, whatever goes through it.
                url.scheme = None;
                url.set_authority(target);
                url.other_host = Some(host_and_port(host).0);
            }
            Some(target) if target.starts_with('/') => {
                url.set_authority(host);
                url.set_path(target);
            }
            Some(target) => match absolute(target) {
                Some((scheme, authority, rest)) => {
                    url.scheme = Some(scheme);
                    url.set_authority(authority);
                    url.other_host = Some(host_and_port(host).0);
                    url.set_path(rest);
                }
                // `*` and what is no target have no path.
                None => url.set_authority(host),
            },
            None => url.set_authority(host),
        }
        if url.original.is_none() && url.domain.is_none() { Self::default() } else { url }
    }

    fn set_authority(&mut self, authority: &'t str) {
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if let Some(user) = user {
            let (name, password) = user.split_once(':').map_or((user, None), |(name, secret)| (name, Some(secret)));
            (self.username, self.password) = (Some(name), password);
        }
        let (domain, port) = host_and_port(host);
        (self.domain, self.port) = (Some(domain).filter(|domain| !domain.is_empty()), port);
    }

    fn set_path(&mut self, text: &'t str) {
        let (before, fragment) = text.split_once('#').map_or((text, None), |(before, rest)| (before, Some(rest)));
        let (path, query) = before.split_once('?').map_or((before, None), |(path, rest)| (path, Some(rest)));
        (self.path, self.query, self.fragment) = (Some(path).filter(|path| !path.is_empty()), query, fragment);
    }
}

/// Scheme, authority and what follows of a target that names all of them.
fn absolute(target: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    is_scheme.then(|| (scheme, &rest[..end], &rest[end..]))
}

/// A host without its port, and the port where it is a number.
pub(super) fn host_and_port(host: &str) -> (&str, Option<u16>) {
    // In `[2001:db8::1]:80` a colon outside the brackets separates the port; in `2001:db8::1` none does.
    let end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    match host.get(end..).and_then(|rest| rest.split_once(':')) {
        Some((before, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (host.get(..end + before.len()).unwrap_or(host), Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

/// A host that a client names: by a name that DNS could have, or by an address. Anything else is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host<'t> {
    /// As it was sent.
    Name(&'t str),
    /// Without brackets.
    Address(IpAddr),
}

impl<'t> Host<'t> {
    pub(super) fn of(text: &'t str) -> Option<Self> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(address) => Some(Self::Address(address.to_canonical())),
            Err(_) => is_name(text).then_some(Self::Name(text)),
        }
    }

    pub(super) fn name(self) -> Option<&'t str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }

    pub(super) fn address(self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::Address(address) => Some(address),
        }
    }
}

/// Reports whether DNS could have this name: labels of letters, digits, hyphens and, as in use, underscores, within the
/// lengths of RFC 1035, section 2.3.4, and the last label no number, because it would be part of an address (RFC 3696,
/// section 2).
fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_that_dns_could_have_or_an_address() {
        let label = "a".repeat(63);
        let long = [label.as_str(); 4].join(".");
        for name in ["example.org", "example.org.", "h", "_sip.a-b.example", "xn--p1ai", "1.2.3.4a", &label, &long[2..]]
        {
            assert_eq!(Host::of(name), Some(Host::Name(name)), "{name}");
        }
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            let address = Host::Address(address.parse().expect("an address"));
            assert_eq!(Host::of(text), Some(address), "{text}");
        }
        let none =
            ["", ".", "a..b", ".a", "a b", "a\0b", "\u{fffd}", "é.example", "1.2.3", "999.1.1.1", "a:80", "[::1"];
        for text in none.into_iter().chain([&*format!("a{label}"), &*long]) {
            assert_eq!(Host::of(text), None, "{text}");
        }
    }

    #[test]
    fn a_host_is_told_from_its_port() {
        for (host, expected) in [
            ("example.org", ("example.org", None)),
            ("example.org:8080", ("example.org", Some(8080))),
            ("[2001:db8::1]:443", ("[2001:db8::1]", Some(443))),
            ("[2001:db8::1]", ("[2001:db8::1]", None)),
            ("2001:db8::1", ("2001:db8::1", None)),
            ("a:99999", ("a:99999", None)),
            ("", ("", None)),
            (":", (":", None)),
            (":80", ("", Some(80))),
        ] {
            assert_eq!(host_and_port(host), expected, "{host}");
        }
    }

    fn url<'t>(http: &'t Http<'_>) -> Url<'t> {
        Url { original: None, ..Url::of(http, false) }
    }

    fn request<'t>(method: &'t str, target: &'t str, host: Option<&'t str>) -> Http<'t> {
        let mut http = Http::default();
        (http.method, http.target, http.host) = (Some(method.into()), Some(target.into()), host.map(Into::into));
        http
    }

    #[test]
    fn every_form_of_target_has_its_parts() {
        let http = Url { scheme: Some("http"), domain: Some("h"), ..Url::default() };
        let path = |path, query, fragment| Url { path, query, fragment, ..Url { ..http } };
        for (target, expected) in [
            ("/a/b?c=d#e", path(Some("/a/b"), Some("c=d"), Some("e"))),
            ("/", path(Some("/"), None, None)),
            ("/?u=http://x/", path(Some("/"), Some("u=http://x/"), None)),
            ("/http://x/", path(Some("/http://x/"), None, None)),
            ("*", path(None, None, None)),
        ] {
            assert_eq!(url(&request("GET", target, Some("h"))), expected, "{target}");
        }
    }

    #[test]
    fn an_absolute_target_names_scheme_and_host_whatever_the_host_header_says() {
        let asked = request("GET", "https://u:p@x.example:8443?q", Some("sensor"));
        let expected = Url {
            scheme: Some("https"),
            username: Some("u"),
            password: Some("p"),
            domain: Some("x.example"),
            port: Some(8443),
            query: Some("q"),
            other_host: Some("sensor"),
            ..Url::default()
        };
        assert_eq!(url(&asked), expected);
        let tunnel = request("CONNECT", "[2001:db8::1]:443", Some("sensor"));
        let expected =
            Url { domain: Some("[2001:db8::1]"), port: Some(443), other_host: Some("sensor"), ..Url::default() };
        assert_eq!(url(&tunnel), expected);
    }

    #[test]
    fn an_empty_host_is_none() {
        assert_eq!(url(&request("GET", "/", Some(""))).domain, None);
        assert_eq!(
            url(&request("GET", "/", Some(":80"))),
            Url { scheme: Some("http"), port: Some(80), path: Some("/"), ..Url::default() }
        );
        let mut nothing = Http::default();
        nothing.host = Some("".into());
        assert_eq!(Url::of(&nothing, false), Url::default());
    }
}
