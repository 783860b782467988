//! What records mean, looked up when they arrive and again by `retag`.

use std::path::Path;
use std::process::Command;

use crate::support::{Scratch, View, append, lines, report};

/// Rules, lists and data on addresses of an operator.
fn enrichment(directory: &Path) {
    for name in ["geo", "scanners", "rules"] {
        std::fs::create_dir_all(directory.join(name)).unwrap();
    }
    std::fs::write(directory.join("geo/asn.csv"), "128.0.0.0,128.0.0.255,64500,Example Net\n").unwrap();
    std::fs::write(directory.join("geo/country.csv"), "128.0.0.0,128.0.0.255,SE\n").unwrap();
    std::fs::write(directory.join("scanners/survey.txt"), "# kind: research\n128.0.0.1\n").unwrap();
    let rule = "alert tcp any any -> any any (msg:\"Greeting with 7\"; content:\"hi \"; content:\"7\"; \
                reference:cve,2026-0007; classtype:attempted-admin; sid:1000007; rev:1;)\n";
    std::fs::write(directory.join("rules/own.rules"), rule).unwrap();
}

/// Lines of sources that are looked up: addresses of documentation have no owner.
fn public(from: u64, to: u64) -> String {
    lines(from, to, Some("a")).replace("198.51.100.", "128.0.0.")
}

#[test]
fn data_and_rules_are_looked_up_when_records_arrive_and_again_by_retag() {
    let scratch = Scratch::new("enrich");
    let (log, state, data) = (scratch.0.join("spip.json"), scratch.0.join("state"), scratch.0.join("data"));
    let with = |name: &str| data.join(name).to_str().unwrap().to_owned();
    append(&log, &public(1, 101));
    let plain = ["--log", log.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let view = View::start(&plain);
    view.wait_for(100);
    let countries = view.get("/api/v1/countries?range=all");
    assert_eq!((&countries["has_data"], &countries["unknown"]), (&false.into(), &100.into()));
    drop(view);

    enrichment(&data);
    let named = ["--geo", &with("geo"), "--scanners", &with("scanners"), "--rules", &with("rules")];
    let output = Command::new(env!("CARGO_BIN_EXE_spip-view"))
        .args(["retag", "--state-dir", state.to_str().unwrap()])
        .args(named)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("2026-01-01: 100 sessions, day 1 of 1"));

    // What came before is tagged by that, what comes now when it comes: both count alike.
    append(&log, &public(101, 201));
    let arguments: Vec<&str> = plain.iter().copied().chain(named).collect();
    let view = View::start(&arguments);
    view.wait_for(200);
    let total = |query: &str| {
        view.get(&format!("/api/v1/search?range=all&limit=1&q={query}"))["total"]["value"].as_u64().unwrap()
    };
    let sevens = (1..201_u64).filter(|seq| seq.to_string().contains('7')).count() as u64;
    for query in ["tag:1000007", "tag~greeting", "cve:CVE-2026-0007", "cve:cve-2026-0007", "greeting"] {
        assert_eq!(total(query), sevens, "{query}");
    }
    for query in ["country:SE", "country:se", "asn:64500", "asn:AS64500", "network~example"] {
        assert_eq!(total(query), 200, "{query}");
    }
    assert_eq!(total("scanner:survey"), 40);
    let tags = view.get("/api/v1/tags?range=all");
    assert_eq!(tags["tags"][0]["connections"], sevens);
    assert_eq!(tags["tags"][0]["cve"][0], "CVE-2026-0007");
    assert_eq!(tags["cves"]["items"][0]["count"], sevens);
    assert_eq!(view.get("/api/v1/countries?range=all")["countries"][0]["count"], 200);
    let networks = view.get("/api/v1/networks?range=all");
    assert_eq!(networks["networks"]["items"][0]["label"], "AS64500 Example Net");
    assert_eq!(networks["scanners"]["items"][0]["count"], 40);

    // One switch leaves the scanner out of every number.
    assert_eq!(view.get("/api/v1/search?range=all&without=listed")["total"]["value"], 160);
    assert_eq!(view.get("/api/v1/sources?range=all&without=listed")["total"]["value"], 4);
    let left = view.get("/api/v1/tags?range=all&without=listed")["tags"][0]["connections"].as_u64().unwrap();
    let listed = (1..201_u64).filter(|seq| seq.to_string().contains('7') && seq % 5 == 1).count() as u64;
    assert_eq!(left, sevens - listed);

    // New shows tags first.
    assert_eq!(view.get("/api/v1/new?range=all")["sections"][0]["kind"], "tag");
    drop(view);
    let report = report(&["--state-dir", state.to_str().unwrap()]);
    assert_eq!(report["top"]["tags"][0]["count"], sevens);
    assert_eq!(report["top"]["countries"][0]["value"], "SE");
}
