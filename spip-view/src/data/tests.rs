//! Answers of the store against a slow evaluation over the same rows that is obviously right: any filter, any range.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use spip_record::enrichment::{Enrichment, Evidence, Indicator, IndicatorKind, Scanner, ScannerKind, Source, Tag};

use super::ask::{Ask, Scope};
use super::line;
use crate::filter::{Filter, RangeText, Without};
use crate::meaning::Class;
use crate::moment::{DAY, HOUR, Moment};
use crate::query::{Query, eval};
use crate::row::{Credential, Group, Kind, Row};
use crate::store::{Deadline, Keep, LogState, Reader, Store, Taken, Writer};

mod lists;

/// 2026-01-01.
const START: i64 = 1_767_225_600_000_000;

/// A store in a directory that vanishes with it.
pub(crate) struct Scratch {
    pub(crate) store: Store,
    pub(crate) directory: std::path::PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("spip-view-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        Self { store: Store::open(&directory, Keep::default()).unwrap(), directory }
    }

    pub(crate) fn reader(&self) -> Reader {
        self.store.reader(Deadline::within(Duration::from_secs(60))).unwrap()
    }

    /// Writes rows in batches of `batch`. Returns their keys as the pages name them.
    pub(crate) fn write(&self, rows: &[Row], batch: usize) -> Vec<String> {
        let mut writer = Writer::open(&self.store, true).unwrap();
        let mut log = writer.log("test.json").unwrap();
        let mut ids = Vec::new();
        for rows in rows.chunks(batch) {
            for row in rows {
                log.lines += 1;
                match writer.session(log.id, log.lines, row, b"{}").unwrap() {
                    Taken::Stored(day, id) => ids.push(line::session_id(day, id)),
                    other => panic!("{other:?}"),
                }
            }
            writer.commit(&[&log]).unwrap();
        }
        ids
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just("wget".to_owned()), Just("GET /a".to_owned()), Just("Ab*c".to_owned()), "[a-cA-C*\" ]{1,4}"]
}

pub(crate) fn rows() -> impl Strategy<Value = Row> {
    let address = prop_oneof![
        (0_u8..4).prop_map(|last| [198, 51, 100, last].into()),
        (250_u8..=255).prop_map(|last| [255, 255, 255, last].into()),
        (0_u16..3).prop_map(|last| [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()),
    ];
    let ends = (0_i64..3 * DAY, 0_u64..2 * HOUR as u64, any::<[u8; 16]>());
    let ports = (prop_oneof![Just(22_u16), Just(80), any::<u16>()], any::<u16>());
    let numbers = (0_u64..50, 0_u64..3, 1_u64..4, any::<(bool, bool, bool)>());
    let words = (
        prop::option::of(prop_oneof![Just("http".to_owned()), Just("ssh".to_owned())]),
        prop::sample::select(vec!["client_closed", "rejected"]),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(prop::sample::select(vec!["zmap", "masscan stateless"])),
        prop::sample::select(vec!["one", "two"]),
        (prop::option::of("[ab]"), prop::option::of("[ab]")),
    );
    let credentials = prop::collection::vec((prop::option::of(text()), prop::option::of(text())), 0..3);
    let tag =
        |id: u64| Tag { id, name: format!("Rule Ab*{id}"), cve: vec![format!("CVE-{}", id % 2)], ..Tag::default() };
    let evidence = prop::option::of(prop::sample::select(vec![Evidence::Listed, Evidence::Claimed]));
    let meaning = (
        prop::option::of(prop::sample::select(vec!["SE", "DE"])),
        prop::option::of(64_500_u32..64_503),
        evidence,
        prop::collection::btree_set(1_u64..4, 0..3),
        prop::option::of("[ab]{1,2}"),
    );
    let meaning = meaning.prop_map(move |(country, asn, evidence, tags, indicator)| Enrichment {
        source: Source {
            country: country.map(str::to_owned),
            asn,
            // A number has one name.
            network: asn.map(|asn| format!("Net {asn}")),
            scanner: evidence.map(|evidence| Scanner { name: "wget".into(), kind: ScannerKind::Search, evidence }),
            ..Source::default()
        },
        tags: tags.into_iter().map(tag).collect(),
        indicators: indicator.into_iter().map(|value| Indicator { kind: IndicatorKind::Host, value }).collect(),
        ..Enrichment::default()
    });
    let payload = prop::option::of(prop_oneof![Just(b"\x00\xffGET /".to_vec()), text().prop_map(String::into_bytes)]);
    (address, ends, ports, numbers, words, credentials, (payload, meaning)).prop_map(
        |(source, (time, duration_us, session_id), (port, source_port), numbers, words, credentials, last)| {
            let (payload, meaning) = last;
            let (bytes_in, bytes_out, count, (is_tls, is_udp, is_truncated)) = numbers;
            let (protocol, close_reason, path, agent, tool, sensor, (ja4, syn)) = words;
            let mut facts = Vec::new();
            facts.extend(path.map(|path| (Kind::Path, path)));
            facts.extend(agent.map(|agent| (Kind::UserAgent, agent)));
            facts.extend(tool.map(|tool| (Kind::Tool, tool.to_owned())));
            facts.extend(ja4.map(|ja4| (Kind::Ja4, ja4)));
            facts.extend(syn.map(|syn| (Kind::Syn, syn)));
            let places = crate::meaning::places(&meaning);
            facts.extend(places.into_iter().filter_map(|(kind, text)| Some((kind, text?))));
            let sha256 = payload.as_ref().map(|payload| <sha2::Sha256 as sha2::Digest>::digest(payload).into());
            let group = payload
                .as_ref()
                .map(|payload| Group { hash: format!("{:016x}", payload.len()), template: "template".to_owned() });
            let mut seen = BTreeSet::new();
            let credentials = credentials
                .into_iter()
                .map(|(user, secret)| Credential { user, secret })
                .filter(|credential| seen.insert(credential.clone()))
                .collect();
            Row {
                time: Moment(START + time),
                duration_us,
                source,
                source_port,
                destination: [192, 0, 2, (port % 3) as u8].into(),
                port,
                is_udp,
                session_id,
                sensor: sensor.to_owned(),
                run: None,
                seq: None,
                is_tls,
                bytes_in,
                bytes_out,
                is_truncated,
                close_reason: close_reason.to_owned(),
                limit: (close_reason == "rejected").then(|| "rate_limit".to_owned()),
                count,
                protocol,
                payload: payload.unwrap_or_default(),
                sha256,
                group,
                facts,
                credentials,
                meaning,
            }
        },
    )
}

fn queries() -> impl Strategy<Value = String> {
    let fields = vec![
        "path",
        "user_agent",
        "payload",
        "user",
        "secret",
        "protocol",
        "tool",
        "close_reason",
        "limit",
        "host",
        "sensor",
        "tag",
        "cve",
        "indicator",
        "network",
        "scanner",
    ];
    let term = prop_oneof![
        Just("port:22".to_owned()),
        Just("port:100-40000".to_owned()),
        Just("source:198.51.100.0/31".to_owned()),
        Just("source:255.255.255.254/31".to_owned()),
        Just("source:2001:db8::/64".to_owned()),
        Just("source:2001:db8::2".to_owned()),
        Just("destination:192.0.2.1".to_owned()),
        Just("destination:192.0.2.0/30".to_owned()),
        Just("tls:true".to_owned()),
        Just("transport:udp".to_owned()),
        Just("truncated:no".to_owned()),
        Just("bytes_in>25".to_owned()),
        Just("bytes_out<1".to_owned()),
        Just("count!=1".to_owned()),
        Just("duration_ms<=1000000".to_owned()),
        Just("sensor:one".to_owned()),
        Just("wget".to_owned()),
        Just("country:se".to_owned()),
        Just("asn:AS64501".to_owned()),
        Just("tag:2".to_owned()),
        Just("tag:*".to_owned()),
        Just("cve:cve-1".to_owned()),
        Just("group:0000000000000004".to_owned()),
        "session:[0-9a-f]{1,2}",
        "sha256:[0-9a-f]{1}",
        (prop::sample::select(fields.clone()), prop::sample::select(vec![":", "~", "!="]), text())
            .prop_map(|(field, operator, text)| format!("{field}{operator}{}", crate::query::quote(&text))),
        (prop::sample::select(fields.clone()), "[a-c]{0,1}\\*[a-c]{0,1}")
            .prop_map(|(field, pattern)| format!("{field}:\"{pattern}\"")),
        prop::sample::select(fields).prop_map(|field| format!("{field}:*")),
    ];
    term.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|list| format!("({})", list.join(" and "))),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|list| format!("({})", list.join(" or "))),
            inner.prop_map(|one| format!("not {one}")),
        ]
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    let range = prop_oneof![
        Just((i64::MIN, i64::MAX)),
        (0..3 * DAY, 0..3 * DAY).prop_map(|(a, b)| (START + a.min(b), START + a.max(b))),
        (0..3_i64, 0..6 * HOUR).prop_map(|(day, length)| (START + day * DAY - HOUR, START + day * DAY - HOUR + length)),
        (0..70_i64).prop_map(|hour| (START + hour * HOUR, START + (hour + 2) * HOUR)),
    ];
    let sensor = prop::option::of(prop::sample::select(vec!["one", "two", "three"]));
    let without = prop::sample::select(Without::ALL.map(|(without, _)| without).to_vec());
    (range, sensor, prop::option::of(queries()), without).prop_map(|((from, to), sensor, query, without)| Filter {
        from: Moment(from),
        to: Moment(to),
        range: RangeText::Between,
        without,
        sensor: sensor.map(str::to_owned),
        query: query.map(|text| Query::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"))),
        ..Filter::last_day(Moment(START))
    })
}

fn is_meant(filter: &Filter, row: &Row) -> bool {
    row.time >= filter.from
        && row.time < filter.to
        && filter.sensor.as_ref().is_none_or(|sensor| *sensor == row.sensor)
        && !filter.without.hides(Class::of(&row.meaning))
        && filter.query.as_ref().is_none_or(|query| eval::matches(query.expr(), row))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_filter_over_any_range_finds_what_a_slow_evaluation_finds(
        rows in prop::collection::vec(rows(), 1..60),
        filters in prop::collection::vec(filters(), 12),
        batch in 1_usize..40,
    ) {
        let scratch = Scratch::new();
        let ids = scratch.write(&rows, batch);
        let reader = scratch.reader();
        for filter in &filters {
            let wanted: Vec<(&Row, &String)> =
                rows.iter().zip(&ids).filter(|(row, _)| is_meant(filter, row)).collect();
            let ask = Ask::new(&reader, filter).unwrap();

            let (found, _) = line::latest(&ask, &Scope::all(), 1_000).unwrap();
            let mut names: Vec<&String> = wanted.iter().map(|(_, id)| *id).collect();
            let mut found_names: Vec<&String> = found.iter().map(|line| &line.id).collect();
            names.sort();
            found_names.sort();
            prop_assert_eq!(found_names, names, "{:?}", filter.query.as_ref().map(Query::text));

            let totals = ask.totals().unwrap();
            prop_assert_eq!(totals.sessions, wanted.len() as u64);
            prop_assert_eq!(totals.connections, wanted.iter().map(|(row, _)| row.count).sum::<u64>());
            prop_assert_eq!(totals.bytes_in, wanted.iter().map(|(row, _)| row.bytes_in).sum::<u64>());
            let rejected = wanted.iter().filter(|(row, _)| row.close_reason == "rejected");
            prop_assert_eq!(totals.rejected, rejected.map(|(row, _)| row.count).sum::<u64>());

            let series = if ask.has_query() {
                ask.series_of(&Scope::all(), "s.n").unwrap().0
            } else {
                ask.series(Kind::Connections, None).unwrap()
            };
            let mut points = vec![0; series.points.len()];
            for (row, _) in &wanted {
                points[usize::try_from((row.time.0 - series.start.0) / series.step_us).unwrap()] += row.count;
            }
            prop_assert_eq!(&series.points, &points);

            let now = super::now::page(&reader, filter).unwrap();
            let counted = |totals: super::Totals| (totals.sessions, totals.connections, totals.rejected, totals.bytes_in);
            prop_assert_eq!(counted(now.totals), counted(totals));
            prop_assert_eq!(&now.connections.points, &points);
            let earlier = filter.before();
            let earlier: Vec<&Row> = rows.iter().filter(|row| is_meant(&earlier, row)).collect();
            let sums = (now.before.sessions, now.before.connections);
            prop_assert_eq!(sums, (earlier.len() as u64, earlier.iter().map(|row| row.count).sum::<u64>()));
            prop_assert_eq!(now.latest.len(), wanted.len().min(filter.limit));

            let kinds = [Kind::Source, Kind::Port, Kind::Path, Kind::Tool, Kind::Credential, Kind::Destination, Kind::Group,
                Kind::Tag, Kind::Cve, Kind::Indicator, Kind::Country, Kind::Network, Kind::Scanner];
            for list in ask.tops(&kinds, 1_000).unwrap() {
                let kind = list.kind;
                let found: BTreeMap<String, u64> = list.items.into_iter().map(|top| (top.value, top.count)).collect();
                let mut counted: BTreeMap<String, u64> = BTreeMap::new();
                for (row, _) in &wanted {
                    for value in values(kind, row) {
                        *counted.entry(value).or_default() += row.count;
                    }
                }
                prop_assert_eq!(list.distinct.value, counted.len() as u64);
                prop_assert_eq!(found, counted, "{:?}", kind);
            }
        }
    }

    #[test]
    fn campaigns_are_what_a_slow_evaluation_finds(
        rows in prop::collection::vec(rows(), 1..80),
        filters in prop::collection::vec(filters(), 8),
        batch in 1_usize..60,
    ) {
        type Shared = (String, Option<String>, Option<String>);
        let scratch = Scratch::new();
        scratch.write(&rows, batch);
        let reader = scratch.reader();
        for filter in &filters {
            let mut wanted: BTreeMap<Shared, (BTreeSet<std::net::IpAddr>, u64, Moment, Moment)> = BTreeMap::new();
            for row in rows.iter().filter(|row| is_meant(filter, row)) {
                let text = |kind| row.fact(kind).map(str::to_owned);
                let Some(group) = &row.group else { continue };
                let shared = (group.hash.clone(), text(Kind::Ja4), text(Kind::Syn));
                if shared.1.is_none() && shared.2.is_none() {
                    continue;
                }
                let found = wanted.entry(shared).or_insert((BTreeSet::new(), 0, row.time, row.time));
                found.0.insert(row.source);
                found.1 += row.count;
                found.2 = found.2.min(row.time);
                found.3 = found.3.max(row.time);
            }
            wanted.retain(|_, found| found.0.len() >= 3);
            let page = super::campaigns::page(&reader, filter).unwrap();
            prop_assert!(page.is_exact);
            let mut found = BTreeMap::new();
            for campaign in page.campaigns {
                let of = |kind| campaign.shared.iter().find(|fact| fact.kind == kind).map(|fact| fact.value.clone());
                let shared = (of(Kind::Group).unwrap_or_default(), of(Kind::Ja4), of(Kind::Syn));
                prop_assert_eq!(campaign.series.points.iter().sum::<u64>(), campaign.connections);
                prop_assert_eq!(campaign.ports.iter().map(|port| port.count).sum::<u64>().min(campaign.connections),
                    if campaign.ports.len() < 8 { campaign.connections } else { campaign.ports.iter().map(|port| port.count).sum() });
                let sources: BTreeSet<_> = campaign.examples.into_iter().collect();
                prop_assert_eq!(sources.len() as u64, campaign.sources.min(8));
                found.insert(shared, (campaign.sources, campaign.connections, campaign.first, campaign.last));
            }
            let wanted: BTreeMap<_, _> =
                wanted.into_iter().map(|(shared, (sources, n, first, last))| (shared, (sources.len() as u64, n, first, last))).collect();
            prop_assert_eq!(found, wanted, "{:?}", filter);
        }
    }

    #[test]
    fn pages_of_a_list_follow_each_other_without_gap_or_repetition(
        rows in prop::collection::vec(rows(), 1..40),
        limit in 1_usize..7,
    ) {
        let scratch = Scratch::new();
        let mut ids = scratch.write(&rows, 16);
        let reader = scratch.reader();
        let mut filter = Filter::last_day(Moment(START));
        filter.all();
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut ask = Ask::new(&reader, &filter).unwrap();
            if let Some(after) = &after {
                let (day, id) = line::read_session_id(after).unwrap();
                ask = ask.before(day, id);
            }
            let (lines, next) = line::latest(&ask, &Scope::all(), limit).unwrap();
            found.extend(lines.into_iter().map(|line| line.id));
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        ids.sort();
        found.sort();
        prop_assert_eq!(found, ids);
    }
}

#[test]
fn a_range_begins_with_its_first_moment_and_ends_before_its_last() {
    use proptest::strategy::ValueTree as _;

    let scratch = Scratch::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let row = rows().new_tree(&mut runner).unwrap().current();
    // Ends within an hour, at an hour, and at a day.
    let ends = [5 * HOUR + 1_234, 9 * HOUR, DAY].map(|time| START + time);
    let times = ends.iter().flat_map(|end| [end - 1, *end, end + 1]);
    let rows: Vec<Row> = times.map(|time| Row { time: Moment(time), count: 1, ..row.clone() }).collect();
    scratch.write(&rows, 100);
    let reader = scratch.reader();
    for query in [None, Some("port:0-65535")] {
        let found = |from: i64, to: i64| {
            let query = query.map(|text| Query::parse(text).unwrap());
            let (from, to) = (Moment(from), Moment(to));
            let filter = Filter { from, to, range: RangeText::Between, query, ..Filter::last_day(Moment(START)) };
            let ask = Ask::new(&reader, &filter).unwrap();
            let times = line::latest(&ask, &Scope::all(), 100).unwrap().0.into_iter().map(|line| line.time.0);
            let mut times: Vec<i64> = times.collect();
            times.sort_unstable();
            assert_eq!(ask.totals().unwrap().sessions, times.len() as u64, "{query:?}", query = filter.query);
            times
        };
        for end in ends {
            assert_eq!(found(end - 1, end), [end - 1], "{query:?}");
            assert_eq!(found(end, end + 1), [end], "{query:?}");
            assert_eq!(found(end - 1, end + 2), [end - 1, end, end + 1], "{query:?}");
            assert_eq!(found(end, end), Vec::<i64>::new(), "{query:?}");
        }
        assert_eq!(found(START, START + DAY).len(), 7, "{query:?}");
        assert_eq!(found(START + DAY, START + 2 * DAY), [START + DAY, START + DAY + 1], "{query:?}");
    }
}

fn values(kind: Kind, row: &Row) -> Vec<String> {
    match kind {
        Kind::Source => vec![row.source.to_string()],
        Kind::Port if row.is_udp => vec![format!("{}/udp", row.port)],
        Kind::Port => vec![row.port.to_string()],
        Kind::Destination => vec![row.destination.to_string()],
        Kind::Credential => {
            let protocol = row.protocol.as_deref().unwrap_or_default();
            row.credentials.iter().map(|credential| crate::store::key::credential(protocol, credential)).collect()
        }
        Kind::Group => row.group.iter().map(|group| group.hash.clone()).collect(),
        kind if Kind::MARKS.contains(&kind) => {
            let marks = crate::meaning::marks(&row.meaning);
            marks.into_iter().filter(|mark| mark.kind == kind).map(|mark| mark.value).collect()
        }
        kind => row.fact(kind).map(str::to_owned).into_iter().collect(),
    }
}

#[test]
fn a_batch_that_was_interrupted_is_not_counted_twice() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    let scratch = Scratch::new();
    let mut runner = TestRunner::deterministic();
    let rows = prop::collection::vec(rows(), 50).new_tree(&mut runner).unwrap().current();
    let write = |rows: &[Row], log: &mut LogState, writer: &mut Writer| {
        for row in rows {
            log.lines += 1;
            writer.session(log.id, log.lines, row, b"{}").unwrap();
        }
    };
    let mut writer = Writer::open(&scratch.store, true).unwrap();
    let mut log = writer.log("test.json").unwrap();
    write(&rows[..20], &mut log, &mut writer);
    writer.commit(&[&log]).unwrap();
    let committed = log.clone();

    // Days are committed, the catalog is not, as when the process dies between the two.
    write(&rows[20..40], &mut log, &mut writer);
    writer.commit_days().unwrap();
    drop(writer);

    let mut writer = Writer::open(&scratch.store, true).unwrap();
    let mut log = writer.log("test.json").unwrap();
    assert_eq!(log.lines, committed.lines);
    write(&rows[20..], &mut log, &mut writer);
    writer.commit(&[&log]).unwrap();

    let reader = scratch.reader();
    let mut filter = Filter::last_day(Moment(START));
    filter.all();
    let ask = Ask::new(&reader, &filter).unwrap();
    assert_eq!(ask.totals().unwrap().sessions, 50);
    assert_eq!(line::latest(&ask, &Scope::all(), 100).unwrap().0.len(), 50);
    let counted: i64 = reader.catalog().query_row("SELECT sum(n) FROM sources", [], |row| row.get(0)).unwrap();
    assert_eq!(counted as u64, rows.iter().map(|row| row.count).sum::<u64>());
    let facts: i64 =
        reader.catalog().query_row("SELECT sum(n) FROM facts WHERE kind = 19", [], |row| row.get(0)).unwrap();
    assert_eq!(facts as u64, rows.iter().map(|row| row.count).sum::<u64>());
}
