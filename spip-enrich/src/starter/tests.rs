//! Runs every case of `starter/cases.txt`.

use std::collections::BTreeMap;

use super::*;
use crate::facts::Facts;
use crate::requests::split;
use crate::rules::{Builder, Report, Rules, Scratch};

const CASES: &str = include_str!("../../starter/cases.txt");

struct Case {
    id: u64,
    matches: bool,
    line: usize,
    payload: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let (mut cases, mut id) = (Vec::new(), 0);
    for (index, line) in CASES.lines().enumerate() {
        if let Some(text) = line.strip_prefix("+ ") {
            cases.push(Case { id, matches: true, line: index + 1, payload: payload(text) });
        } else if let Some(text) = line.strip_prefix("- ") {
            cases.push(Case { id, matches: false, line: index + 1, payload: payload(text) });
        } else if !line.is_empty() && !line.starts_with('#') {
            id = line.split(' ').next().unwrap().parse().unwrap();
        }
    }
    cases
}

/// Writes the bytes of a case.
fn payload(text: &str) -> Vec<u8> {
    if let Some(raw) = text.strip_prefix("raw ") {
        return bytes(raw);
    }
    let (head, body) = text.split_once(" || ").map_or((text, Vec::new()), |(head, body)| (head, bytes(body)));
    let mut lines = head.split(" | ");
    let mut out = bytes(lines.next().unwrap().replace('\\', "\\\\").as_str());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let headers: Vec<_> = lines.collect();
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        out.extend_from_slice(b"Host: 198.51.100.7\r\n");
    }
    for header in &headers {
        out.extend(bytes(&header.replace('\\', "\\\\")));
        out.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() && !headers.iter().any(|header| header.starts_with("Transfer-Encoding")) {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend(body);
    out
}

/// Reads escapes and repetitions.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            '\\' => match after.chars().next().unwrap() {
                'r' => push(&mut out, b'\r', &after[1..]),
                'n' => push(&mut out, b'\n', &after[1..]),
                't' => push(&mut out, b'\t', &after[1..]),
                'x' => push(&mut out, u8::from_str_radix(&after[1..3], 16).unwrap(), &after[3..]),
                '\\' => push(&mut out, b'\\', &after[1..]),
                _ => push(&mut out, b'\\', after),
            },
            '{' => match repetition(after) {
                Some((byte, count, after)) => {
                    out.extend(std::iter::repeat_n(byte, count));
                    after
                }
                None => push(&mut out, b'{', after),
            },
            other => {
                out.extend_from_slice(other.to_string().as_bytes());
                after
            }
        };
    }
    out
}

fn push<'a>(out: &mut Vec<u8>, byte: u8, rest: &'a str) -> &'a str {
    out.push(byte);
    rest
}

fn repetition(text: &str) -> Option<(u8, usize, &str)> {
    let (inside, rest) = text.split_once('}')?;
    let (byte, count) = inside.split_once('*')?;
    Some((*byte.as_bytes().first().filter(|_| byte.len() == 1)?, count.parse().ok()?, rest))
}

fn starter() -> (Rules, Report) {
    let mut builder = Builder::default();
    builder.text(NAME, RULES).unwrap();
    builder.build().unwrap()
}

fn found(rules: &Rules, payload: &[u8]) -> Vec<u64> {
    let requests = split(payload);
    let found = rules.find(&Facts { payload, ..Facts::default() }, &requests, &mut Scratch::default());
    assert!(!found.incomplete);
    found.tags.iter().map(|tag| tag.id).collect()
}

#[test]
fn every_rule_is_taken_and_at_least_120_name_a_vulnerability() {
    let (rules, report) = starter();
    assert_eq!(report.skipped_count(), 0, "{report}");
    let with_cve = rules.tags().filter(|tag| !tag.cve.is_empty()).count();
    assert!(with_cve >= 120, "{with_cve}");
    assert!(rules.tags().all(|tag| !tag.class.is_empty() && !tag.technique.is_empty() && !tag.name.is_empty()));
}

#[test]
fn every_rule_has_a_case_of_each_kind() {
    let (rules, _) = starter();
    let mut kinds: BTreeMap<u64, [usize; 2]> = BTreeMap::new();
    for case in cases() {
        kinds.entry(case.id).or_default()[usize::from(case.matches)] += 1;
    }
    for tag in rules.tags() {
        let kinds = kinds.remove(&tag.id).unwrap_or_default();
        assert!(kinds[0] > 0 && kinds[1] > 0, "{} {} has {kinds:?} cases", tag.id, tag.name);
    }
    assert!(kinds.is_empty(), "cases of rules that are not there: {kinds:?}");
}

#[test]
fn every_case_is_decided_as_it_should_be() {
    let (rules, _) = starter();
    let mut wrong = Vec::new();
    for Case { id, matches, line, payload } in cases() {
        if found(&rules, &payload).contains(&id) != matches {
            let expected = if matches { "does not match" } else { "matches" };
            wrong.push(format!("line {line}: rule {id} {expected} {:?}", String::from_utf8_lossy(&payload)));
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_rule_matches_a_case_that_it_should_not_for_another_one() {
    // A case that must not match its own rule is no attack, so no rule of attacks may match it.
    let (rules, _) = starter();
    let mut wrong = Vec::new();
    for Case { line, matches, payload, .. } in cases() {
        let tags = found(&rules, &payload);
        if !matches && !tags.is_empty() {
            wrong.push(format!("line {line}: {tags:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
