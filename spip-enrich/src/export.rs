//! Collects indicators over many records and writes them for other programs: a STIX 2.1 bundle, or plain lists.
//!
//! An address that only appears as a source is exported where a rule calls its record an attack and the client completed
//! a handshake: the source of a half-open scan or of a UDP datagram may be forged, and a list to block would then block
//! whom the forger likes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;

use serde_json::json;
use sha1::{Digest, Sha1};
use spip_record::enrichment::{Enrichment, Indicator, IndicatorKind};
use uuid::Uuid;

/// Upper bound of different indicators: about 100 MB.
pub const COLLECTED: usize = 250_000;

/// The name space of the identifiers, so that the same indicator has the same one in every export.
const NAMESPACE: Uuid = Uuid::from_u128(0x7c5a_3f0e_2d4b_4c1a_9e67_51d0_8b2f_a913);

/// Upper bound of CVEs per indicator.
const CVES: usize = 16;

/// Facts of one indicator.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    first_us: i64,
    last_us: i64,
    count: u64,
    cves: Vec<String>,
}

/// Something to be exported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Named by a payload.
    Named(Indicator),
    /// The source of an attack.
    Source(IpAddr),
}

/// Indicators of many records.
#[derive(Clone, Debug, Default)]
pub struct Export {
    seen: BTreeMap<Key, Seen>,
    /// Indicators that found no room.
    dropped: u64,
}

/// Contents of a plain list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Addresses of downloads.
    Urls,
    /// Hosts that payloads name.
    Hosts,
    /// Hashes of stored payloads.
    Hashes,
    /// Sources of attacks.
    Sources,
}

impl List {
    /// All lists.
    pub const ALL: [Self; 4] = [Self::Urls, Self::Hosts, Self::Hashes, Self::Sources];

    /// The name of its file.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Urls => "urls.txt",
            Self::Hosts => "hosts.txt",
            Self::Hashes => "sha256.txt",
            Self::Sources => "sources.txt",
        }
    }
}

/// Form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A STIX 2.1 bundle.
    Stix,
    /// One value a line.
    List(List),
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 5] = [
        Self::Stix,
        Self::List(List::Urls),
        Self::List(List::Hosts),
        Self::List(List::Hashes),
        Self::List(List::Sources),
    ];

    /// Their names, for an error.
    pub const NAMES: &'static str = "stix, urls, hosts, hashes or sources";

    /// Returns the name that options and addresses use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stix => "stix",
            Self::List(List::Urls) => "urls",
            Self::List(List::Hosts) => "hosts",
            Self::List(List::Hashes) => "hashes",
            Self::List(List::Sources) => "sources",
        }
    }

    /// Returns the form of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }
}

impl Export {
    /// Adds a record. `verified`: whether its source completed a handshake.
    pub fn add(&mut self, source: IpAddr, verified: bool, at_us: i64, enrichment: &Enrichment) {
        let cves = enrichment.cves();
        for indicator in &enrichment.indicators {
            self.count(Key::Named(indicator.clone()), at_us, &cves);
        }
        // A scan is no attack, and a private address nothing to block.
        let attack = enrichment.tags.iter().any(|tag| is_attack(&tag.class));
        let source = source.to_canonical();
        if verified && attack && crate::special::special(source).is_none() {
            self.count(Key::Source(source), at_us, &cves);
        }
    }

    fn count(&mut self, key: Key, at_us: i64, cves: &[&str]) {
        if !self.seen.contains_key(&key) && self.seen.len() == COLLECTED {
            self.dropped += 1;
            return;
        }
        let seen = self.seen.entry(key).or_insert(Seen { first_us: at_us, last_us: at_us, count: 0, cves: Vec::new() });
        seen.first_us = seen.first_us.min(at_us);
        seen.last_us = seen.last_us.max(at_us);
        seen.count += 1;
        for cve in cves {
            if seen.cves.len() < CVES && !seen.cves.iter().any(|known| known == cve) {
                seen.cves.push((*cve).to_owned());
            }
        }
    }

    /// Returns how many different indicators there are, and how many found no room.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.seen.len(), self.dropped)
    }

    /// Writes the indicators in a form; `author` is the identity of a bundle.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, form: Form, author: &str, out: &mut impl Write) -> io::Result<()> {
        match form {
            Form::Stix => self.stix(author, out),
            Form::List(list) => self.list(list, out),
        }
    }

    /// Writes a plain list, one value a line.
    ///
    /// # Errors
    /// `out` takes no more.
    pub fn list(&self, list: List, out: &mut impl Write) -> io::Result<()> {
        for key in self.seen.keys() {
            let value = match (list, key) {
                (List::Urls, Key::Named(Indicator { kind: IndicatorKind::Url, value }))
                | (List::Hosts, Key::Named(Indicator { kind: IndicatorKind::Host, value }))
                | (List::Hashes, Key::Named(Indicator { kind: IndicatorKind::Sha256, value })) => value,
                (List::Sources, Key::Source(ip)) => &ip.to_string(),
                _ => continue,
            };
            writeln!(out, "{value}")?;
        }
        Ok(())
    }

    /// Writes a STIX 2.1 bundle of all indicators; `author` is the name of the sensor or its operator.
    ///
    /// # Errors
    /// `out` takes no more.
    pub fn stix(&self, author: &str, out: &mut impl Write) -> io::Result<()> {
        let identity = format!("identity--{}", identifier("identity", author));
        let first = self.seen.values().map(|seen| seen.first_us).min().unwrap_or_default();
        let last = self.seen.values().map(|seen| seen.last_us).max().unwrap_or_default();
        let bundle = identifier("bundle", &format!("{author} {first} {last} {}", self.seen.len()));
        write!(out, "{{\"type\":\"bundle\",\"id\":\"bundle--{bundle}\",\"objects\":[")?;
        let about = json!({
            "type": "identity", "spec_version": "2.1", "id": identity,
            "created": time(0), "modified": time(0), "name": author, "identity_class": "system",
        });
        write!(out, "{about}")?;
        for (key, seen) in &self.seen {
            let (pattern, name) = pattern(key);
            let mut object = json!({
                "type": "indicator", "spec_version": "2.1",
                "id": format!("indicator--{}", identifier("indicator", &pattern)),
                "created_by_ref": identity,
                "created": time(seen.first_us), "modified": time(seen.last_us),
                "name": name,
                "description": format!("seen in {} records", seen.count),
                "indicator_types": ["malicious-activity"],
                "pattern": pattern, "pattern_type": "stix", "pattern_version": "2.1",
                "valid_from": time(seen.first_us),
            });
            if !seen.cves.is_empty() {
                let references: Vec<_> =
                    seen.cves.iter().map(|cve| json!({"source_name": "cve", "external_id": cve})).collect();
                object["external_references"] = references.into();
            }
            write!(out, ",{object}")?;
        }
        out.write_all(b"]}\n")
    }
}

/// Reports whether a class of rules means an attack, and not a scan or something merely notable.
#[must_use]
pub fn is_attack(class: &str) -> bool {
    !class.is_empty()
        && !matches!(
            class,
            "attempted-recon"
                | "network-scan"
                | "misc-activity"
                | "not-suspicious"
                | "unknown"
                | "string-detect"
                | "protocol-command-decode"
                | "policy-violation"
                | "web-application-activity"
                | "bad-unknown"
        )
}

/// Returns the STIX pattern of an indicator, and a name for it.
fn pattern(key: &Key) -> (String, String) {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let address = |ip: &IpAddr| {
        let kind = if ip.is_ipv4() { "ipv4-addr" } else { "ipv6-addr" };
        format!("[{kind}:value = '{ip}']")
    };
    match key {
        Key::Source(ip) => (address(ip), format!("source of attacks: {ip}")),
        Key::Named(Indicator { kind: IndicatorKind::Url, value }) => {
            (format!("[url:value = '{}']", quoted(value)), format!("address in a payload: {value}"))
        }
        Key::Named(Indicator { kind: IndicatorKind::Host, value }) => {
            let pattern = match value.parse::<IpAddr>() {
                Ok(ip) => address(&ip),
                Err(_) => format!("[domain-name:value = '{}']", quoted(value)),
            };
            (pattern, format!("host in a payload: {value}"))
        }
        Key::Named(Indicator { kind: IndicatorKind::Sha256, value }) => {
            (format!("[file:hashes.'SHA-256' = '{}']", quoted(value)), format!("payload {value}"))
        }
    }
}

/// Makes an identifier from a text: a name-based UUID (RFC 9562, version 5).
fn identifier(kind: &str, text: &str) -> Uuid {
    let mut hash = Sha1::new();
    hash.update(NAMESPACE.as_bytes());
    hash.update(kind.as_bytes());
    hash.update([0]);
    hash.update(text.as_bytes());
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_sha1_bytes(bytes).into_uuid()
}

/// Writes microseconds since 1970 as STIX does: UTC, milliseconds.
fn time(us: i64) -> String {
    match jiff::Timestamp::from_microsecond(us) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => "1970-01-01T00:00:00.000Z".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use spip_record::enrichment::Tag;

    use super::*;

    fn enrichment(class: &str) -> Enrichment {
        let indicator = |kind, value: &str| Indicator { kind, value: value.into() };
        Enrichment {
            tags: vec![Tag { id: 1, class: class.into(), cve: vec!["CVE-2021-44228".into()], ..Tag::default() }],
            indicators: vec![
                indicator(IndicatorKind::Url, "http://a.example/it's\\"),
                indicator(IndicatorKind::Host, "a.example"),
                indicator(IndicatorKind::Sha256, &"0f".repeat(32)),
            ],
            ..Enrichment::default()
        }
    }

    fn list(export: &Export, list: List) -> String {
        let mut out = Vec::new();
        export.list(list, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_bundle_has_every_indicator_with_the_properties_that_stix_requires() {
        let mut export = Export::default();
        export.add("1.1.1.1".parse().unwrap(), true, 2_000_000, &enrichment("attempted-admin"));
        export.add("1.1.1.1".parse().unwrap(), true, 1_000_000, &enrichment("attempted-admin"));
        let mut out = Vec::new();
        export.stix("sensor", &mut out).unwrap();
        let bundle: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let objects = bundle["objects"].as_array().unwrap();
        assert_eq!(objects.len(), 5);
        for object in &objects[1..] {
            for key in ["id", "created", "modified", "pattern", "pattern_type", "valid_from", "created_by_ref"] {
                assert!(object[key].is_string(), "{key} of {object}");
            }
            assert_eq!(object["created"], "1970-01-01T00:00:01.000Z");
            assert_eq!(object["modified"], "1970-01-01T00:00:02.000Z");
            assert_eq!(object["external_references"][0]["external_id"], "CVE-2021-44228");
        }
        let patterns: Vec<_> = objects[1..].iter().map(|object| object["pattern"].as_str().unwrap()).collect();
        assert!(patterns.contains(&"[url:value = 'http://a.example/it\\'s\\\\']"), "{patterns:?}");
        assert!(patterns.contains(&"[ipv4-addr:value = '1.1.1.1']"), "{patterns:?}");
        let mut again = Vec::new();
        export.stix("sensor", &mut again).unwrap();
        assert_eq!(out, again);
    }

    #[test]
    fn sources_that_may_be_forged_or_only_scan_are_not_exported() {
        let mut export = Export::default();
        export.add("1.1.1.1".parse().unwrap(), false, 0, &enrichment("attempted-admin"));
        export.add("1.1.1.2".parse().unwrap(), true, 0, &enrichment("attempted-recon"));
        export.add("192.168.1.1".parse().unwrap(), true, 0, &enrichment("attempted-admin"));
        export.add("1.1.1.3".parse().unwrap(), true, 0, &enrichment("attempted-admin"));
        assert_eq!(list(&export, List::Sources), "1.1.1.3\n");
        assert_eq!(list(&export, List::Hosts), "a.example\n");
    }
}
