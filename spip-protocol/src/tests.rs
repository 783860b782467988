//! Invariants of every protocol in the table, on every prefix of every sample and on arbitrary bytes.

use proptest::prelude::*;

use super::*;

fn samples() -> impl Iterator<Item = (&'static Protocol, &'static [u8])> {
    PROTOCOLS.iter().flat_map(|protocol| protocol.samples.iter().map(|sample| (*protocol, *sample)))
}

/// Runs everything on every prefix that `lengths` names, and fails where an answer changes.
fn assert_stable(bytes: &[u8], lengths: impl Iterator<Item = usize>) {
    let mut settled = Verdict::NeedMore;
    let mut claims: Vec<Result<bool, End>> = vec![Err(End); PROTOCOLS.len()];
    for length in lengths {
        let prefix = &bytes[..length];
        let verdict = classify(prefix);
        if settled != Verdict::NeedMore {
            assert_eq!(verdict, settled, "the verdict changes at byte {length} of {bytes:02x?}");
        }
        settled = verdict;
        for (protocol, claim) in PROTOCOLS.iter().zip(&mut claims) {
            let now = (protocol.recognise)(&mut Reader::new(prefix));
            assert!(claim.is_err() || now == *claim, "{protocol:?} changes its mind at byte {length} of {bytes:02x?}");
            *claim = now;
            // Also what it did not recognise: a greeting may have told the sensor what to expect.
            let _understanding = understand_as(protocol, prefix, length % 2 == 0);
        }
    }
}

#[test]
fn every_sample_is_recognised_as_its_protocol() {
    for (protocol, sample) in samples() {
        // Some are whole in no other protocol, and their clients wait; what follows could still contradict.
        let verdict = match classify(sample) {
            Verdict::NeedMore => pause(sample).map_or(Verdict::NeedMore, Verdict::Is),
            verdict => verdict,
        };
        assert_eq!(verdict, Verdict::Is(protocol), "{:?}", String::from_utf8_lossy(sample));
        assert_eq!(understand(sample, false).protocol, Some(protocol.name()));
    }
}

#[test]
fn every_protocol_has_samples_and_a_name_of_its_own() {
    for (index, protocol) in PROTOCOLS.iter().enumerate() {
        assert!(!protocol.samples.is_empty(), "{protocol:?}");
        assert!(PROTOCOLS[..index].iter().all(|earlier| earlier.name() != protocol.name()), "{protocol:?}");
        assert!(protocol.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
        assert_eq!(by_name(protocol.name()), Some(*protocol));
    }
}

#[test]
fn every_protocol_stands_in_the_documentation() {
    let table = include_str!("../../docs/protocols.md");
    for protocol in PROTOCOLS {
        assert!(table.contains(&format!("| `{}` |", protocol.name())), "{protocol:?}");
    }
}

#[test]
fn every_protocol_stands_in_the_schema() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/schema/flat.schema.json")).expect("the schema is JSON");
    let mut listed: Vec<_> = schema["properties"]["protocol"]["enum"]
        .as_array()
        .expect("the schema lists protocols")
        .iter()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect();
    let mut known: Vec<_> = all().map(|protocol| protocol.name().to_owned()).chain([UNKNOWN.to_owned()]).collect();
    listed.sort();
    known.sort();
    assert_eq!(listed, known);
}

#[test]
fn no_prefix_of_a_sample_gets_a_verdict_that_a_longer_one_contradicts() {
    for (_, sample) in samples() {
        assert_stable(sample, 0..=sample.len());
    }
}

#[test]
fn nothing_is_undecided_after_the_bytes_that_decide_at_most() {
    for byte in 0..=u8::MAX {
        assert_ne!(classify(&vec![byte; CLASSIFY_BYTES]), Verdict::NeedMore, "{byte:#x}");
    }
}

#[test]
fn nothing_is_known_of_no_bytes() {
    assert_eq!(classify(b""), Verdict::NeedMore);
    assert_eq!(understand(b"", false), Understanding::default());
}

#[test]
fn what_no_rule_decides_stays_unknown() {
    let strangers: &[(&str, &[u8])] = &[
        (
            "IPMI over TCP (RMCP)",
            b"\x06\x00\xff\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x20\x18\xc8\x81\x00\x38\x8e\x04\xb5",
        ),
        (
            "a TLS ClientHello",
            b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x00\x00\x02\x13\x01\x00\x00",
        ),
        (
            "SSL 2",
            b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80\x03\x00\x80\x04\x00\x80\x05\x00",
        ),
        ("line ends", b"\r\n\r\n"),
        ("HELP", b"HELP\r\n"),
        ("text", b"hello\r\n"),
        ("zeros", &[0; 64]),
        ("a verb that FTP and POP3 share", b"USER root\r\nPASS root\r\n"),
        ("a Redis or memcached read", b"get key\r\n"),
    ];
    for (name, bytes) in strangers {
        assert_eq!(understand(bytes, false).protocol, None, "{name}");
        assert_stable(bytes, 0..=bytes.len());
    }
}

#[test]
fn a_payload_of_the_greatest_size_costs_time_in_proportion() {
    // Not a measurement: a quadratic step over 64 KiB in any protocol would keep this test busy for minutes.
    for (protocol, sample) in samples() {
        let mut bytes = sample.to_vec();
        let last = sample.last().copied().unwrap_or_default();
        bytes.resize(64 * 1024, last);
        let _understanding = understand_as(protocol, &bytes, true);
        let repeated: Vec<u8> = sample.iter().copied().cycle().take(64 * 1024).collect();
        let _understanding = understand_as(protocol, &repeated, true);
    }
}

#[test]
fn facts_are_bounded_whatever_the_payload() {
    for (protocol, sample) in samples() {
        let repeated: Vec<u8> = sample.iter().copied().cycle().take(64 * 1024).collect();
        let understanding = understand_as(protocol, &repeated, true);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let http = format!("{:?}", understanding.http);
        assert!(details.len() + http.len() < 100 * 1024, "{protocol:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_get_no_panic_and_a_stable_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        assert_stable(&bytes, 0..=bytes.len());
    }

    #[test]
    fn damaged_samples_get_no_panic_and_a_stable_verdict(
        pick in any::<proptest::sample::Index>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let all: Vec<_> = samples().collect();
        let mut bytes = pick.get(&all).1.to_vec();
        bytes.truncate(600);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend_from_slice(&tail);
        assert_stable(&bytes, 0..=bytes.len());
    }

    #[test]
    fn spliced_samples_get_no_panic_and_a_stable_verdict(
        first in any::<proptest::sample::Index>(),
        second in any::<proptest::sample::Index>(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let all: Vec<_> = samples().collect();
        let first = first.get(&all).1;
        let mut bytes = first[..cut.index(first.len())].to_vec();
        bytes.extend_from_slice(second.get(&all).1);
        bytes.truncate(600);
        assert_stable(&bytes, 0..=bytes.len());
    }
}

mod damaged;
mod names;

#[test]
fn a_limit_that_cut_the_payload_is_known_whatever_the_bytes_are() {
    for bytes in [&b""[..], b"\x01\x02", b"USER a", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03"] {
        for truncated in [false, true] {
            assert_eq!(understand(bytes, truncated).truncated, truncated, "{bytes:?}");
        }
    }
}
