//! Finds which rules can match at all: for each buffer, one automaton with the rarest text of every rule.

use std::collections::HashMap;
use std::fmt;

use daachorse::DoubleArrayAhoCorasick;

use super::options::{Part, Rule};

/// Bytes of a text that the automaton searches: more hardly narrows the rules further and costs memory.
const PATTERN_BYTES: usize = 24;

/// Texts that most requests have. A search that begins with one finds nothing rare.
const COMMON: &[&[u8]] = &[
    b"user-agent",
    b"mozilla/",
    b"http/1.",
    b"content-type",
    b"content-length",
    b"application/x-www-form-urlencoded",
    b"accept",
    b"connection",
    b"host:",
    b"host|3a|",
    b"post /",
    b"get /",
    b"windows nt",
    b"text/html",
];

/// The automaton of one buffer.
pub(super) struct Filter {
    automaton: DoubleArrayAhoCorasick<u32>,
    /// For each pattern the rules that need it.
    rules: Vec<Box<[u32]>>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Filter").field("patterns", &self.rules.len()).finish_non_exhaustive()
    }
}

impl Filter {
    /// Builds the automaton of patterns in lower case, each with the rules that need it.
    pub(super) fn new(patterns: HashMap<Vec<u8>, Vec<u32>>) -> Result<Self, String> {
        let mut patterns: Vec<_> = patterns.into_iter().collect();
        patterns.sort_unstable();
        let automaton = DoubleArrayAhoCorasick::new(patterns.iter().map(|(pattern, _)| pattern))
            .map_err(|error| format!("the rules have too many patterns: {error}"))?;
        Ok(Self { automaton, rules: patterns.into_iter().map(|(_, rules)| rules.into_boxed_slice()).collect() })
    }

    /// Calls `candidate` with each rule whose text occurs, as often as it does, until it returns false; `lower`
    /// is in lower case.
    pub(super) fn find(&self, lower: &[u8], mut candidate: impl FnMut(u32) -> bool) {
        for found in self.automaton.find_overlapping_iter(lower) {
            let Some(rules) = self.rules.get(found.value() as usize) else { continue };
            if !rules.iter().all(|rule| candidate(*rule)) {
                return;
            }
        }
    }

    /// The bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        self.automaton.heap_bytes() + self.rules.iter().map(|rules| rules.len() * 4 + 16).sum::<usize>()
    }
}

/// Chooses the text of a rule that is searched first: the group and the pattern; `None` where it has none.
pub(super) fn choose(rule: &Rule) -> Option<(usize, Vec<u8>)> {
    let mut best: Option<(u32, usize, &[u8])> = None;
    for (group, (view, parts)) in rule.groups.iter().enumerate() {
        for part in parts {
            let (pattern, named) = match part {
                Part::Content(content) if !content.negated => (content.pattern.as_slice(), content.fast),
                Part::Pcre(pcre) if !pcre.negated && pcre.literal.len() >= 3 => (pcre.literal.as_slice(), false),
                _ => continue,
            };
            let mut score = strength(pattern);
            if view.buffer.is_common() {
                score = 1;
            }
            if named {
                score += 1 << 20;
            }
            if best.is_none_or(|(known, ..)| score > known) {
                best = Some((score, group, pattern));
            }
        }
    }
    let (_, group, pattern) = best?;
    let pattern = pattern.get(..PATTERN_BYTES).unwrap_or(pattern);
    Some((group, pattern.to_ascii_lowercase()))
}

/// Estimates how rare a text is: the more different bytes the rarer, letters less so than others.
fn strength(pattern: &[u8]) -> u32 {
    let mut seen = [false; 256];
    let mut score = 0;
    for byte in pattern {
        let known = std::mem::replace(&mut seen[usize::from(*byte)], true);
        score += match byte {
            _ if known => 1,
            byte if byte.is_ascii_alphabetic() => 3,
            0x00 | 0x01 | 0xff | 0x20..=0x7e => 4,
            _ => 6,
        };
    }
    let lower = pattern.to_ascii_lowercase();
    let common = COMMON.iter().any(|common| lower.starts_with(common) || common.starts_with(&lower));
    if common { score / 8 } else { score }
}
