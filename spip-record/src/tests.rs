//! Invariants of every record in the corpus.

use std::borrow::Cow;

use spip_protocol::credentials::Credential;

use crate::enrichment::{Enrichment, Source};
use crate::entry::SynDataFacts;
use crate::read::{self, Line};
use crate::{Entry, Format, ScanEntry, Tail};

const FLAT: &str = include_str!("../fixtures/corpus/flat.jsonl");
const ECS: &str = include_str!("../fixtures/corpus/ecs.jsonl");
const EVE: &str = include_str!("../fixtures/corpus/eve.jsonl");

/// The sessions of the corpus.
pub(crate) fn sessions() -> impl Iterator<Item = Entry<'static>> {
    FLAT.lines().filter_map(|line| match read::line(line.as_bytes()) {
        Ok(Line::Session(entry)) => Some(*entry),
        Ok(Line::Scan(_)) => None,
        other => panic!("{other:?} of {line}"),
    })
}

#[test]
fn a_line_that_is_read_is_written_in_every_format_as_it_was_logged() {
    for (format, expected) in [(Format::Flat, FLAT), (Format::Ecs, ECS), (Format::Eve, EVE)] {
        assert_eq!(FLAT.lines().count(), expected.lines().count());
        for (flat, expected) in FLAT.lines().zip(expected.lines()) {
            let mut written = Vec::new();
            let seq = match read::line(flat.as_bytes()).expect("a line") {
                Line::Session(entry) => {
                    format.encode(&entry, &mut written);
                    entry.seq
                }
                Line::Scan(entry) => {
                    entry.encode(format, &mut written);
                    entry.seq
                }
                Line::Other(kind) => panic!("{kind} in the corpus"),
            };
            let end = format.tail().write(&mut [0; Tail::BYTES], seq.expect("a number")).to_vec();
            written.extend(end);
            assert_eq!(String::from_utf8_lossy(&written).trim_end(), expected);
        }
    }
}

#[test]
fn no_line_holds_the_escape_that_databases_refuse() {
    let mut zeroes = 0;
    for line in [FLAT, ECS, EVE].into_iter().flat_map(str::lines) {
        assert!(!line.contains("\\u0000"), "{line}");
        zeroes += usize::from(line.contains('␀'));
    }
    assert!(zeroes > 100, "only {zeroes} lines of the corpus had a zero byte");
}

#[test]
fn every_scan_is_shortened_to_one_port_and_one_address_and_no_further() {
    let mut shortened = 0;
    for line in FLAT.lines() {
        let Ok(Line::Scan(mut scan)) = read::line(line.as_bytes()) else { continue };
        let encoded = |scan: &ScanEntry<'_>| {
            let mut out = Vec::new();
            scan.encode(Format::Flat, &mut out);
            out.len()
        };
        let mut before = encoded(&scan);
        // A list of 1,024 is halved ten times; more would be no progress.
        for _ in 0..32 {
            if !scan.shorten() {
                break;
            }
            shortened += 1;
            let after = encoded(&scan);
            // The mark that something is missing may be longer than the last port.
            assert!(after < before + 40, "{before} and then {after} bytes: {line}");
            before = after;
        }
        assert!(!scan.shorten(), "{line}");
    }
    assert!(shortened > 10, "{shortened}");
}

#[test]
fn data_of_a_syn_is_cut_to_64_bytes_once_and_shorter_data_stays() {
    let cut = |bytes: Cow<'static, [u8]>| {
        let mut facts = SynDataFacts { count: None, length: 100, bytes };
        let was_long = facts.shorten();
        (was_long, facts.bytes.len(), facts.shorten())
    };
    for (length, expected) in [(0, (false, 0)), (1, (false, 1)), (64, (false, 64)), (65, (true, 64)), (512, (true, 64))]
    {
        let bytes: &[u8] = &[b'a'; 512][..length];
        for bytes in [Cow::Owned(bytes.to_vec()), Cow::Borrowed(&[b'a'; 512][..length])] {
            assert_eq!(cut(bytes), (expected.0, expected.1, false), "{length} bytes");
        }
    }
}

#[test]
fn an_enrichment_has_a_source_where_something_is_known_of_it() {
    let nothing = serde_json::to_string(&Enrichment::default()).expect("JSON");
    assert_eq!(nothing, "{}");
    let source = Source { city: Some("Oslo".to_owned()), ..Source::default() };
    let known = serde_json::to_string(&Enrichment { source, ..Enrichment::default() }).expect("JSON");
    assert_eq!(known, r#"{"source":{"city":"Oslo"}}"#);
}

#[test]
fn a_duration_is_read_in_microseconds_and_where_they_are_missing_in_milliseconds() {
    let line = |pairs: &[(&str, u64)]| {
        let mut line: serde_json::Map<String, serde_json::Value> =
            FLAT.lines().find_map(|line| serde_json::from_str(line).ok()).expect("a line of the corpus");
        line.retain(|key, _| !key.starts_with("duration_"));
        line.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())));
        match read::line(serde_json::to_string(&line).expect("JSON").as_bytes()) {
            Ok(Line::Session(entry)) => Ok(entry.duration_us),
            other => Err(format!("{other:?}")),
        }
    };
    assert_eq!(line(&[("duration_us", 1_234_567), ("duration_ms", 1_234)]), Ok(1_234_567));
    assert_eq!(line(&[("duration_us", 1_234_567)]), Ok(1_234_567));
    // As earlier versions wrote it.
    assert_eq!(line(&[("duration_ms", 1_234)]), Ok(1_234_000));
    assert_eq!(line(&[("duration_ms", u64::MAX)]), Ok(u64::MAX), "no line makes it overflow");
    assert!(line(&[]).is_err_and(|error| error.contains("duration_us")));
}

#[test]
fn what_is_left_out_of_a_line_that_is_too_long_goes_in_the_documented_order() {
    let long = "x".repeat(4_000);
    let credential = Credential { user: Some("root".to_owned()), secret: Some(long.clone()) };
    let entry = || {
        let mut entry = sessions().next().expect("a session");
        entry.payload = Cow::Owned(vec![b'x'; 4_000]);
        entry.credentials = vec![credential.clone()];
        entry.shortened.clear();
        entry
    };
    let whole = {
        let mut line = Vec::new();
        Format::Flat.encode(&entry(), &mut line);
        line.len() + Tail::BYTES
    };
    // Each bound is a little shorter than what was left before.
    let mut seen = Vec::new();
    for most in (600..=whole + 1).rev().step_by(50) {
        let mut shortened = entry();
        loop {
            let mut line = Vec::new();
            Format::Flat.encode(&shortened, &mut line);
            let Some(excess @ 1..) = (line.len() + Tail::BYTES).checked_sub(most) else { break };
            if !shortened.shorten(excess) {
                break;
            }
        }
        let names: Vec<_> = shortened.shortened.iter().map(ToString::to_string).collect();
        assert!(names.starts_with(&seen), "{names:?} after {seen:?}: nothing that was left out comes back");
        let secret = shortened.credentials.first().and_then(|credential| credential.secret.as_deref());
        let user = shortened.credentials.first().and_then(|credential| credential.user.as_deref());
        match names.last().map(String::as_str) {
            None => assert_eq!((user, secret), (Some("root"), Some(long.as_str()))),
            // The secret is cut first of all, and stays until nothing else can go.
            Some("facts") => assert_eq!((user, secret), (None, None)),
            Some(_) => assert_eq!((user, secret), (Some("root"), Some(&long[..64]))),
        }
        seen = names;
    }
    assert_eq!(seen.first().map(String::as_str), Some("long_facts"));
    assert_eq!(seen.last().map(String::as_str), Some("facts"));
}

#[test]
fn a_line_is_within_its_bound_in_every_format_and_as_it_was_where_it_fits() {
    const BOUND: usize = 16 * 1024;
    for format in [Format::Flat, Format::Ecs, Format::Eve] {
        for mut entry in sessions() {
            let (mut whole, mut within) = (Vec::new(), b"before".to_vec());
            format.encode(&entry, &mut whole);
            if whole.len() + Tail::BYTES <= BOUND {
                format.encode_within(BOUND, entry.clone(), &mut within);
                assert_eq!(within, [b"before", whole.as_slice()].concat());
            }
            entry.payload = Cow::Owned(vec![0xff; 20_000]);
            within.truncate(b"before".len());
            format.encode_within(BOUND, entry, &mut within);
            let line = within.strip_prefix(b"before").expect("what was there");
            assert!(line.len() + Tail::BYTES <= BOUND && line.len() > BOUND / 2, "{format:?}: {}", line.len());
        }
    }
}
