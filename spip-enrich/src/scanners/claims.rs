//! Names the projects that clients say they belong to: in a user agent, a server name, or a marker in the payload.
//!
//! One table. A claim proves nothing, and records say so (`claimed`). Tools that anyone can run (zmap, nmap, curl) are no
//! projects: rules name those.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};

use crate::facts::Facts;
use spip_record::enrichment::{Evidence, Scanner, ScannerKind as Kind};

/// Bytes of a payload that are searched: markers stand in the first request.
const SEARCHED_BYTES: usize = 4096;

/// Marker, project and kind. Case does not matter; the text is part of what the project sends.
const TABLE: &[(&str, &str, Kind)] = &[
    ("CensysInspect", "Censys", Kind::Search),
    ("about.censys.io", "Censys", Kind::Search),
    ("search.censys.io", "Censys", Kind::Search),
    ("InternetMeasurement/", "InternetMeasurement", Kind::Research),
    ("internet-measurement.com", "InternetMeasurement", Kind::Research),
    ("Expanse, a Palo Alto Networks company", "Palo Alto Networks Cortex Xpanse", Kind::Commercial),
    ("scaninfo@paloaltonetworks.com", "Palo Alto Networks Cortex Xpanse", Kind::Commercial),
    ("scaninfo@expanseinc.com", "Palo Alto Networks Cortex Xpanse", Kind::Commercial),
    ("NetSystemsResearch studies", "NetSystemsResearch", Kind::Commercial),
    ("netsystemsresearch.com", "NetSystemsResearch", Kind::Commercial),
    ("l9explore/", "LeakIX", Kind::Search),
    ("l9tcpid/", "LeakIX", Kind::Search),
    ("l9scan", "LeakIX", Kind::Search),
    ("leakix.net", "LeakIX", Kind::Search),
    ("shadowserver.org", "Shadowserver Foundation", Kind::Research),
    ("onyphe.io", "ONYPHE", Kind::Search),
    ("onyphe.net", "ONYPHE", Kind::Search),
    ("binaryedge.ninja", "BinaryEdge", Kind::Search),
    ("shodan.io", "Shodan", Kind::Search),
    ("zoomeye.org", "ZoomEye", Kind::Search),
    ("fofa.info", "FOFA", Kind::Search),
    ("netlas.io", "Netlas", Kind::Search),
    ("OdinBot", "ODIN", Kind::Search),
    ("getodin.com", "ODIN", Kind::Search),
    ("ModatScanner", "Modat", Kind::Search),
    ("modat.io", "Modat", Kind::Search),
    ("CyberOKInspect", "CyberOK", Kind::Commercial),
    ("visionheight.com/scan", "VisionHeight", Kind::Commercial),
    ("bitsighttech.com", "Bitsight", Kind::Commercial),
    ("bitsightbot", "Bitsight", Kind::Commercial),
    ("SecurityScorecard", "SecurityScorecard", Kind::Commercial),
    ("driftnet.io", "Driftnet", Kind::Search),
    ("intrinsec", "Intrinsec", Kind::Commercial),
    ("GenomeCrawlerd", "Nokia Deepfield Genome", Kind::Commercial),
    ("Nokia Deepfield", "Nokia Deepfield Genome", Kind::Commercial),
    ("researchscan.comsys.rwth-aachen.de", "RWTH Aachen COMSYS", Kind::Research),
    ("comsys.rwth-aachen.de", "RWTH Aachen COMSYS", Kind::Research),
    ("scan.rwth-aachen.de", "RWTH Aachen COMSYS", Kind::Research),
    ("research-scanner", "Research scanner", Kind::Research),
    ("researchscan", "Research scanner", Kind::Research),
    ("project25499", "Project 25499", Kind::Research),
    ("openportstats", "Open Port Statistics", Kind::Research),
    ("internettl.org", "InterneTTL", Kind::Research),
    ("alphastrike.io", "Alpha Strike Labs", Kind::Research),
    ("ipip.net", "IPIP.NET", Kind::Commercial),
    ("quake.360.cn", "360 Quake", Kind::Search),
    ("hunter.qianxin.com", "QiAnXin Hunter", Kind::Search),
    ("stretchoid.com", "Stretchoid", Kind::Commercial),
    ("criminalip.com", "Criminal IP", Kind::Search),
    ("criminalip.io", "Criminal IP", Kind::Search),
    ("rapid7.com", "Rapid7 Project Sonar", Kind::Research),
    ("opendata.rapid7", "Rapid7 Project Sonar", Kind::Research),
    ("cypex.ai", "Cypex", Kind::Commercial),
    ("recyber.net", "The Recyber Project", Kind::Research),
    ("dnsresearch.cymru.com", "Team Cymru", Kind::Research),
    ("openresolverproject.org", "Open Resolver Project", Kind::Research),
    ("Googlebot/", "Google", Kind::Search),
    ("bingbot/", "Bing", Kind::Search),
    ("YandexBot/", "Yandex", Kind::Search),
    ("Baiduspider", "Baidu", Kind::Search),
    ("AhrefsBot/", "Ahrefs", Kind::Commercial),
    ("SemrushBot", "Semrush", Kind::Commercial),
    ("GPTBot/", "OpenAI", Kind::Commercial),
];

static MARKERS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    AhoCorasickBuilder::new()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(TABLE.iter().map(|(marker, ..)| marker))
        .ok()
});

/// Returns the project that the client says it belongs to.
#[must_use]
pub fn claimed(facts: &Facts<'_>) -> Option<Scanner> {
    let markers = MARKERS.as_ref()?;
    let payload = facts.payload.get(..SEARCHED_BYTES).unwrap_or(facts.payload);
    let user_agent = facts.http.as_ref().and_then(|http| http.user_agent).unwrap_or_default();
    [user_agent.as_bytes(), payload].into_iter().find_map(|text| {
        let (_, name, kind) = TABLE.get(markers.find(text)?.pattern().as_usize())?;
        Some(Scanner { name: Cow::Borrowed(name), kind: *kind, evidence: Evidence::Claimed })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(payload: &str) -> Option<Cow<'static, str>> {
        claimed(&Facts { payload: payload.as_bytes(), ..Facts::default() }).map(|scanner| scanner.name)
    }

    #[test]
    fn a_user_agent_names_its_project() {
        let request = "GET / HTTP/1.1\r\nHost: 198.51.100.7\r\nUser-Agent: Mozilla/5.0 (compatible; censysinspect/1.1; +https://about.censys.io/)\r\n\r\n";
        assert_eq!(claim(request).as_deref(), Some("Censys"));
    }

    #[test]
    fn tools_and_browsers_are_no_projects() {
        for agent in
            ["Mozilla/5.0 zgrab/0.x", "masscan/1.3", "curl/8.5.0", "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0"]
        {
            assert_eq!(claim(&format!("GET / HTTP/1.1\r\nUser-Agent: {agent}\r\n\r\n")), None, "{agent}");
        }
    }

    #[test]
    fn a_marker_far_into_a_payload_is_no_claim() {
        assert_eq!(claim(&format!("{}shodan.io", "x".repeat(SEARCHED_BYTES))), None);
    }
}
