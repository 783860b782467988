//! Ordinary clients get no tag and no indicator: `fixtures/ordinary.jsonl` has sessions of every protocol from the test
//! captures of other projects, with addresses and names replaced.

use serde_json::Value;
use spip_enrich::facts::Facts;
use spip_enrich::{Config, Enricher};

#[test]
fn ordinary_clients_get_no_tag_and_no_indicator() {
    let mut enricher = Enricher::open(Config::default()).unwrap();
    let mut count = 0;
    for line in include_str!("../fixtures/ordinary.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let payload = hex::decode(case["payload_hex"].as_str().unwrap()).unwrap();
        let facts = Facts { payload: &payload, protocol: case["protocol"].as_str(), ..Facts::default() };
        let enrichment = enricher.facts(&facts);
        assert!(enrichment.tags.is_empty(), "{line}: {:?}", enrichment.tags);
        assert!(enrichment.indicators.is_empty(), "{line}: {:?}", enrichment.indicators);
        assert!(!enrichment.tags_incomplete);
        count += 1;
    }
    assert!(count > 50, "{count}");
}
