//! Lists that are bounded, and the order of what stands in them.

use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;
use crate::row::ScanRow;

fn everything() -> Filter {
    let mut filter = Filter::last_day(Moment(START));
    filter.all();
    filter
}

/// Returns a session of nothing that the other tests draw.
fn plain() -> Row {
    let mut row = rows().new_tree(&mut TestRunner::deterministic()).unwrap().current();
    (row.credentials, row.count, row.is_udp) = (Vec::new(), 1, false);
    row
}

#[test]
fn attempts_stand_in_the_order_in_which_they_came_within_a_session_too() {
    let scratch = Scratch::new();
    let attempt = |secret: &str| Credential { user: Some("root".to_owned()), secret: Some(secret.to_owned()) };
    let session = |minute: i64, secrets: &[&str]| Row {
        time: Moment(START + minute * HOUR / 60),
        protocol: Some("ssh".to_owned()),
        credentials: secrets.iter().map(|secret| attempt(secret)).collect(),
        ..plain()
    };
    scratch.write(&[session(1, &["a", "b", "c"]), session(2, &["d", "e"])], 9);
    let page = super::super::credentials::page(&scratch.reader(), &everything()).unwrap();
    let tried: Vec<_> = page.sequences[0].attempts.iter().filter_map(|attempt| attempt.secret.as_deref()).collect();
    assert_eq!((page.sequences.len(), page.sequences[0].count), (1, 5));
    assert_eq!(tried, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_sweep_has_eight_addresses() {
    let scratch = Scratch::new();
    let mut writer = Writer::open(&scratch.store, true).unwrap();
    let mut log = writer.log("test.json").unwrap();
    for destination_count in [7, 8, 9] {
        log.lines += 1;
        let scan = ScanRow {
            time: Moment(START + destination_count as i64),
            last: Moment(START + 10),
            source: [198, 51, 100, 7].into(),
            sensor: "one".to_owned(),
            run: None,
            seq: None,
            count: 20,
            undecided: 0,
            ports: vec![(22, 22)],
            port_count: 1,
            destinations: vec![([192, 0, 2, 1].into(), [192, 0, 2, 9].into())],
            destination_count,
            tools: None,
            syn: None,
            meaning: Enrichment::default(),
        };
        writer.scan(log.id, log.lines, &scan).unwrap();
    }
    writer.commit(&[&log]).unwrap();
    drop(writer);
    let page = super::super::scans::page(&scratch.reader(), &everything()).unwrap();
    let counts =
        |lines: &[super::super::scans::ScanLine]| lines.iter().map(|line| line.destination_count).collect::<Vec<_>>();
    assert_eq!(counts(&page.latest), [9, 8, 7], "the newest first");
    assert_eq!(counts(&page.sweeps), [9, 8]);
}

#[test]
fn a_campaign_shows_eight_of_its_sources_and_ports() {
    let scratch = Scratch::new();
    let member = |number: u8| Row {
        time: Moment(START + i64::from(number)),
        source: [198, 51, 100, number].into(),
        port: u16::from(number),
        group: Some(Group { hash: "0000000000000001".to_owned(), template: "template".to_owned() }),
        payload: b"same".to_vec(),
        sha256: Some([1; 32]),
        facts: vec![(Kind::Ja4, "fingerprint".to_owned())],
        meaning: Enrichment::default(),
        ..plain()
    };
    // Later ones first: what is shown does not depend on the order in which they came.
    scratch.write(&(1..=12).rev().map(member).collect::<Vec<_>>(), 9);
    let page = super::super::campaigns::page(&scratch.reader(), &everything()).unwrap();
    let campaign = &page.campaigns[0];
    assert_eq!((page.campaigns.len(), campaign.sources, campaign.connections), (1, 12, 12));
    let least: Vec<std::net::IpAddr> = (1..=8).map(|number| [198, 51, 100, number].into()).collect();
    assert_eq!(campaign.examples, least);
    assert_eq!(campaign.ports.len(), 8);
}
