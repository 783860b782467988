//! Enrichment that readers of a log add to a record, by data and rules of the operator.
//!
//! The sensor never writes it. `spip-enrich` works it out; here stands only what it is and how each format writes it.
//! Every list and text is bounded, also when a line is read back.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

use crate::object::Members;
use crate::read::Capped;

/// Upper bound of tags per record.
pub const TAGS: usize = 32;
/// Upper bound of indicators per record.
pub const INDICATORS: usize = 64;
/// Upper bound of CVEs, techniques or references per tag.
pub const LISTED: usize = 16;

/// Meaning of a record, added by a reader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enrichment {
    /// Facts about the source's address.
    #[serde(skip_serializing_if = "Source::is_empty")]
    pub source: Source,
    /// Rules that match, the worst first.
    #[serde(deserialize_with = "capped::<_, _, TAGS>", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Set when the search for tags ended before every rule was decided.
    #[serde(skip_serializing_if = "is_false")]
    pub tags_incomplete: bool,
    /// Addresses, hosts and hashes that the payload names.
    #[serde(deserialize_with = "capped::<_, _, INDICATORS>", skip_serializing_if = "Vec::is_empty")]
    pub indicators: Vec<Indicator>,
}

impl Enrichment {
    /// Reports whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The CVEs of all tags, each once.
    #[must_use]
    pub fn cves(&self) -> Vec<&str> {
        distinct(self.tags.iter().flat_map(|tag| tag.cve.iter().map(String::as_str)))
    }
}

/// Facts about an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// ISO 3166-1 code of the country.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// City, in English.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// Number of the autonomous system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// Name of the autonomous system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Name of the special range of RFC 6890 that holds it, such as `private`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub special: Option<Cow<'static, str>>,
    /// The known scanner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanner: Option<Scanner>,
}

impl Source {
    /// Reports whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Purposes of a scanner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScannerKind {
    /// Universities and foundations that publish what they find.
    Research,
    /// Search engines for hosts and services.
    Search,
    /// Companies that sell what they find.
    Commercial,
    /// Not stated.
    #[default]
    #[serde(other)]
    Unknown,
}

impl ScannerKind {
    /// The name in records and lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Research => "research",
            Self::Search => "search",
            Self::Commercial => "commercial",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the kind of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Research, Self::Search, Self::Commercial, Self::Unknown].into_iter().find(|kind| kind.name() == name)
    }
}

/// Ways in which a scanner was identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Its address is in a list of the operator's.
    Listed,
    /// It says so itself, which anyone can.
    Claimed,
}

impl Evidence {
    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Claimed => "claimed",
        }
    }
}

/// A known scanner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanner {
    /// The project.
    pub name: Cow<'static, str>,
    /// Purpose of the scans.
    pub kind: ScannerKind,
    /// Way in which the scanner was identified.
    pub evidence: Evidence,
}

/// A rule that matched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tag {
    /// The rule's `sid`.
    pub id: u64,
    /// Its `rev`.
    #[serde(skip_serializing_if = "is_zero")]
    pub rev: u64,
    /// Its `msg`.
    pub name: String,
    /// The vulnerabilities, as `CVE-2021-44228`.
    #[serde(deserialize_with = "capped::<_, _, LISTED>", skip_serializing_if = "Vec::is_empty")]
    pub cve: Vec<String>,
    /// Its `classtype`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// 1 (worst) to 4.
    pub priority: u8,
    /// Techniques of MITRE ATT&CK, as `T1190`.
    #[serde(deserialize_with = "capped::<_, _, LISTED>", skip_serializing_if = "Vec::is_empty")]
    pub technique: Vec<String>,
    /// Pages that describe it.
    #[serde(deserialize_with = "capped::<_, _, LISTED>", skip_serializing_if = "Vec::is_empty")]
    pub reference: Vec<String>,
}

/// Kinds of indicators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndicatorKind {
    /// An address from which something was to be downloaded.
    Url,
    /// The host of one: a name or an IP address.
    Host,
    /// SHA-256 of a payload that is kept in a file.
    Sha256,
}

impl IndicatorKind {
    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Host => "host",
            Self::Sha256 => "sha256",
        }
    }
}

/// Something that a payload names and that can be looked for elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Indicator {
    /// Kind of the value.
    #[serde(rename = "type")]
    pub kind: IndicatorKind,
    /// As it was sent.
    pub value: String,
}

fn capped<'de, D, T, const N: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Capped::<T, N>::deserialize(deserializer).map(|list| list.0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Each text once, in the order of their first places.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut list: Vec<&str> = Vec::new();
    for text in texts {
        if !list.contains(&text) {
            list.push(text);
        }
    }
    list
}

/// Writes the parts of ECS's `source`: `geo` and `as`.
pub(crate) fn ecs_source(source: &Source, side: &mut Members<'_>) {
    if source.country.is_some() || source.city.is_some() {
        let mut geo = side.nested("geo");
        geo.optional("country_iso_code", source.country.as_deref());
        geo.optional("city_name", source.city.as_deref());
        geo.close();
    }
    if source.asn.is_some() || source.network.is_some() {
        let mut system = side.nested("as");
        if let Some(number) = source.asn {
            system.number("number", number);
        }
        if let Some(name) = &source.network {
            let mut organization = system.nested("organization");
            organization.text("name", name);
            organization.close();
        }
        system.close();
    }
}

/// Writes ECS's `rule`, `vulnerability`, `tags` and `threat`, each where there is something for it. ECS has one rule and
/// one vulnerability a record: the worst; `tags` has all CVEs, and `spip.enrichment` everything.
pub(crate) fn ecs_findings(enrichment: &Enrichment, record: &mut Members<'_>) {
    let tags = &enrichment.tags;
    if let Some(worst) = tags.first() {
        let mut rule = record.nested("rule");
        rule.text("id", &worst.id.to_string());
        rule.text("name", &worst.name);
        rule.optional("category", Some(worst.class.as_str()).filter(|class| !class.is_empty()));
        rule.optional("reference", worst.reference.first().map(String::as_str));
        rule.close();
    }
    let cves = enrichment.cves();
    if let Some(worst) = cves.first() {
        let mut vulnerability = record.nested("vulnerability");
        vulnerability.text("id", worst);
        vulnerability.word("enumeration", "CVE");
        vulnerability.close();
        record.texts("tags", &cves);
    }
    let techniques = distinct(tags.iter().flat_map(|tag| tag.technique.iter().map(String::as_str)));
    if techniques.is_empty() && enrichment.indicators.is_empty() {
        return;
    }
    let mut threat = record.nested("threat");
    if !techniques.is_empty() {
        threat.word("framework", "MITRE ATT&CK");
        let mut technique = threat.nested("technique");
        technique.texts("id", &techniques);
        technique.close();
    }
    if !enrichment.indicators.is_empty() {
        threat.key("enrichments");
        crate::object::list(threat.out, &enrichment.indicators, |out, indicator| {
            let mut item = Members::open(out);
            let mut object = item.nested("indicator");
            match indicator.kind {
                IndicatorKind::Url => {
                    object.word("type", "url");
                    let mut url = object.nested("url");
                    url.text("full", &indicator.value);
                    url.close();
                }
                IndicatorKind::Host => host(&indicator.value, &mut object),
                IndicatorKind::Sha256 => {
                    object.word("type", "file");
                    let mut file = object.nested("file");
                    let mut hash = file.nested("hash");
                    hash.text("sha256", &indicator.value);
                    hash.close();
                    file.close();
                }
            }
            object.close();
            item.close();
        });
    }
    threat.close();
}

/// A host is an address or a name, which ECS keeps apart.
fn host(value: &str, object: &mut Members<'_>) {
    match value.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        Ok(ip) => {
            object.word("type", if ip.is_ipv4() { "ipv4-addr" } else { "ipv6-addr" });
            object.text("ip", &ip.to_string());
        }
        Err(_) => {
            object.word("type", "domain-name");
            let mut url = object.nested("url");
            url.text("domain", value);
            url.close();
        }
    }
}

/// Writes EVE's object `alert` for one tag.
pub(crate) fn eve_alert(tag: &Tag, event: &mut Members<'_>) {
    let mut alert = event.nested("alert");
    alert.word("action", "allowed");
    alert.number("gid", 1);
    alert.number("signature_id", tag.id);
    alert.number("rev", tag.rev);
    alert.text("signature", &tag.name);
    alert.text("category", &tag.class);
    alert.number("severity", tag.priority);
    if !tag.cve.is_empty() || !tag.technique.is_empty() || !tag.reference.is_empty() {
        let mut metadata = alert.nested("metadata");
        metadata.texts("cve", &tag.cve);
        metadata.texts("mitre_technique_id", &tag.technique);
        metadata.texts("reference", &tag.reference);
        metadata.close();
    }
    alert.close();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(write: impl FnOnce(&mut Members<'_>)) -> Value {
        let mut out = Vec::new();
        let mut members = Members::open(&mut out);
        write(&mut members);
        members.close();
        serde_json::from_slice(&out).expect("JSON")
    }

    fn tag(id: u64, cve: &[&str], technique: &[&str]) -> Tag {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Tag {
            id,
            rev: 2,
            name: format!("rule {id}"),
            class: "attempted-admin".to_owned(),
            priority: 1,
            cve: texts(cve),
            technique: texts(technique),
            reference: vec![format!("https://example.org/{id}"), "second".to_owned()],
        }
    }

    #[test]
    fn ecs_has_the_worst_rule_and_everything_else_once() {
        let nothing = Enrichment::default();
        assert!(nothing.is_empty() && nothing.cves().is_empty());
        assert_eq!(written(|record| ecs_findings(&nothing, record)), json!({}));

        let tags = vec![tag(7, &["CVE-1", "CVE-2"], &["T1190"]), tag(8, &["CVE-2", "CVE-3"], &["T1190", "T1110"])];
        let found = Enrichment { tags, ..Enrichment::default() };
        assert_eq!(found.cves(), ["CVE-1", "CVE-2", "CVE-3"]);
        assert!(!found.is_empty());
        assert_eq!(
            written(|record| ecs_findings(&found, record)),
            json!({
                "rule": {"id": "7", "name": "rule 7", "category": "attempted-admin", "reference": "https://example.org/7"},
                "vulnerability": {"id": "CVE-1", "enumeration": "CVE"},
                "tags": ["CVE-1", "CVE-2", "CVE-3"],
                "threat": {"framework": "MITRE ATT&CK", "technique": {"id": ["T1190", "T1110"]}},
            })
        );
        let plain = Tag { class: String::new(), reference: Vec::new(), ..tag(9, &[], &[]) };
        let plain = Enrichment { tags: vec![plain], ..Enrichment::default() };
        assert_eq!(written(|record| ecs_findings(&plain, record)), json!({"rule": {"id": "9", "name": "rule 9"}}));
    }

    #[test]
    fn ecs_keeps_addresses_names_and_files_apart() {
        let indicator = |kind, value: &str| Indicator { kind, value: value.to_owned() };
        let indicators = vec![
            indicator(IndicatorKind::Url, "http://m.example/a"),
            indicator(IndicatorKind::Host, "192.0.2.7"),
            indicator(IndicatorKind::Host, "[2001:db8::7]"),
            indicator(IndicatorKind::Host, "m.example"),
            indicator(IndicatorKind::Sha256, "00ff"),
        ];
        let found = Enrichment { indicators, ..Enrichment::default() };
        let enrichments = json!([
            {"indicator": {"type": "url", "url": {"full": "http://m.example/a"}}},
            {"indicator": {"type": "ipv4-addr", "ip": "192.0.2.7"}},
            {"indicator": {"type": "ipv6-addr", "ip": "2001:db8::7"}},
            {"indicator": {"type": "domain-name", "url": {"domain": "m.example"}}},
            {"indicator": {"type": "file", "file": {"hash": {"sha256": "00ff"}}}},
        ]);
        assert_eq!(written(|record| ecs_findings(&found, record)), json!({"threat": {"enrichments": enrichments}}));
    }

    #[test]
    fn an_alert_of_eve_has_metadata_where_there_is_any() {
        let alert = written(|event| eve_alert(&tag(7, &["CVE-1"], &[]), event));
        let expected = json!({"alert": {
            "action": "allowed", "gid": 1, "signature_id": 7, "rev": 2, "signature": "rule 7",
            "category": "attempted-admin", "severity": 1,
            "metadata": {"cve": ["CVE-1"], "reference": ["https://example.org/7", "second"]},
        }});
        assert_eq!(alert, expected);
        for (cve, technique, has_metadata) in [(&["CVE-1"][..], &[][..], true), (&[], &["T1"], true), (&[], &[], false)]
        {
            let tag = Tag { reference: Vec::new(), ..tag(7, cve, technique) };
            let alert = written(|event| eve_alert(&tag, event));
            assert_eq!(alert["alert"].get("metadata").is_some(), has_metadata, "{alert}");
        }
    }

    #[test]
    fn each_kind_of_scanner_is_read_back_by_its_name() {
        for kind in [ScannerKind::Research, ScannerKind::Search, ScannerKind::Commercial, ScannerKind::Unknown] {
            assert_eq!(ScannerKind::of(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.name());
        }
        assert_eq!(ScannerKind::of("other"), None);
        for evidence in [Evidence::Listed, Evidence::Claimed] {
            assert_eq!(serde_json::to_value(evidence).expect("JSON"), evidence.name());
        }
    }
}
