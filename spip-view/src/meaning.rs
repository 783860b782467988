//! What a record means, as `spip-enrich` works it out, in the shapes that the store and the query language use.

use spip_record::enrichment::{Enrichment, Evidence, IndicatorKind};

use crate::row::Kind;

/// Indicators of one session that are kept.
const INDICATORS: usize = 16;

/// Classes of sources. Numbers can leave out the second and the third.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Nothing.
    #[default]
    Unknown = 0,
    /// Its address is in a list of known scanners.
    Listed = 1,
    /// The client says of itself that it is a known scanner, which anyone can.
    Claimed = 2,
}

impl Class {
    /// Returns the class of a record's source.
    #[must_use]
    pub fn of(meaning: &Enrichment) -> Self {
        match meaning.source.scanner.as_ref().map(|scanner| scanner.evidence) {
            None => Self::Unknown,
            Some(Evidence::Listed) => Self::Listed,
            Some(Evidence::Claimed) => Self::Claimed,
        }
    }
}

/// Something of which a session has any number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// A tag, a vulnerability or an indicator.
    pub kind: Kind,
    /// Its value.
    pub value: String,
    /// Text to show when it differs from the value.
    pub label: Option<String>,
}

/// Returns the tags, vulnerabilities and indicators of a record, each once.
#[must_use]
pub fn marks(meaning: &Enrichment) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for tag in &meaning.tags {
        marks.push(Mark { kind: Kind::Tag, value: tag.id.to_string(), label: Some(tag.name.clone()) });
    }
    marks.extend(meaning.cves().into_iter().map(|cve| Mark { kind: Kind::Cve, value: cve.to_owned(), label: None }));
    for indicator in meaning.indicators.iter().take(INDICATORS) {
        let label =
            (indicator.kind != IndicatorKind::Url).then(|| format!("{} {}", indicator.kind.name(), indicator.value));
        // A host may be named as a URL, too.
        if !marks.iter().any(|mark| mark.kind == Kind::Indicator && mark.value == indicator.value) {
            marks.push(Mark { kind: Kind::Indicator, value: indicator.value.clone(), label });
        }
    }
    marks
}

/// Returns country, network and scanner of a record's source, in the order of [`Kind::PLACES`].
#[must_use]
pub fn places(meaning: &Enrichment) -> [(Kind, Option<String>); 3] {
    let source = &meaning.source;
    let network = source.asn.map(|asn| asn.to_string());
    let special = || source.special.as_deref().map(str::to_owned);
    [
        (Kind::Country, source.country.clone()),
        (Kind::Network, network.or_else(special)),
        (Kind::Scanner, source.scanner.as_ref().map(|scanner| scanner.name.to_string())),
    ]
}

/// Returns what to show of a fact, where that is another text than its value.
#[must_use]
pub fn label(kind: Kind, meaning: &Enrichment) -> Option<String> {
    let source = &meaning.source;
    match kind {
        Kind::Network => {
            let asn = source.asn?;
            Some(source.network.as_ref().map_or_else(|| format!("AS{asn}"), |name| format!("AS{asn} {name}")))
        }
        Kind::Scanner => source.scanner.as_ref().map(|scanner| format!("{} ({})", scanner.name, scanner.kind.name())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use spip_record::enrichment::{Indicator, Scanner, ScannerKind, Source, Tag};

    use super::*;

    #[test]
    fn everything_of_a_record_has_a_place() {
        let scanner =
            Scanner { name: "Example Survey".into(), kind: ScannerKind::Research, evidence: Evidence::Claimed };
        let indicator = |kind, value: &str| Indicator { kind, value: value.to_owned() };
        let tag = |id, cve: &str| Tag { id, name: format!("rule {id}"), cve: vec![cve.to_owned()], ..Tag::default() };
        let meaning = Enrichment {
            source: Source {
                asn: Some(64500),
                network: Some("Example Net".to_owned()),
                scanner: Some(scanner),
                ..Source::default()
            },
            tags: vec![tag(1, "CVE-1"), tag(2, "CVE-1")],
            indicators: vec![indicator(IndicatorKind::Host, "a"), indicator(IndicatorKind::Url, "a")],
            ..Enrichment::default()
        };
        let found: Vec<_> = marks(&meaning).into_iter().map(|mark| (mark.kind, mark.value, mark.label)).collect();
        let wanted = |kind, value: &str, label: Option<&str>| (kind, value.to_owned(), label.map(str::to_owned));
        assert_eq!(
            found,
            [
                wanted(Kind::Tag, "1", Some("rule 1")),
                wanted(Kind::Tag, "2", Some("rule 2")),
                wanted(Kind::Cve, "CVE-1", None),
                wanted(Kind::Indicator, "a", Some("host a")),
            ]
        );
        assert_eq!(places(&meaning).map(|(_, text)| text), [None, Some("64500".into()), Some("Example Survey".into())]);
        assert_eq!(label(Kind::Network, &meaning).as_deref(), Some("AS64500 Example Net"));
        assert_eq!(label(Kind::Scanner, &meaning).as_deref(), Some("Example Survey (research)"));
        assert_eq!(Class::of(&meaning), Class::Claimed);
    }
}
