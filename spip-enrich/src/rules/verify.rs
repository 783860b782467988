//! Verifies one rule on one record: every condition, in the order of the rule, within a budget of steps.
//!
//! Relative conditions are tried at every place where the one before them matches, as Suricata does. That can take
//! exponential time on bytes made for it, so steps are counted; a rule that uses its share up does not match, and the
//! record says that it was not searched to the end.

use memchr::memmem;

use super::buffer::Value;
use super::content::Content;
use super::options::Part;
use super::pcre::{Cache, Pcre};

/// Steps that compiling an expression counts for, so that the bytes of one record make at most 100 be compiled.
const COMPILING: u32 = 4000;

/// Steps that are left.
#[derive(Debug)]
pub(super) struct Budget {
    /// For the record.
    pub(super) record: u32,
    /// For the rule at hand.
    pub(super) rule: u32,
    /// Set when any rule was given up.
    pub(super) exhausted: bool,
}

impl Budget {
    /// Takes a step and as many as searching `bytes` costs. Returns false when none are left.
    fn take(&mut self, steps: u32, bytes: usize) -> bool {
        // A step is what a search of 64 bytes takes.
        let steps = steps.saturating_add(u32::try_from(bytes / 64).unwrap_or(u32::MAX));
        self.record = self.record.saturating_sub(steps);
        self.rule = self.rule.saturating_sub(steps);
        let left = self.record > 0 && self.rule > 0;
        self.exhausted |= !left;
        left
    }

    /// Counts something that was done in any case.
    pub(super) fn count(&mut self, steps: u32, bytes: usize) -> bool {
        let rule = self.rule;
        self.rule = u32::MAX;
        let left = self.take(steps, bytes);
        self.rule = rule;
        left
    }
}

/// The conditions of a rule on one buffer, and the buffer.
pub(super) struct Run<'r> {
    pub(super) parts: &'r [Part],
    /// The number of the first regular expression in `parts`.
    pub(super) first_pcre: u32,
    pub(super) value: &'r Value<'r>,
    pub(super) budget: &'r mut Budget,
    pub(super) cache: &'r mut Cache,
}

impl Run<'_> {
    /// Reports whether all conditions hold.
    pub(super) fn holds(&mut self) -> bool {
        self.from(0, 0)
    }

    /// Reports whether the conditions from `index` on hold, when the one before matched up to `position`.
    fn from(&mut self, index: usize, position: usize) -> bool {
        let parts = self.parts;
        let Some(part) = parts.get(index) else { return true };
        let bytes = &self.value.bytes;
        match part {
            Part::Content(content) => self.content(content, index, position),
            Part::Pcre(pcre) => self.pcre(pcre, index, position),
            Part::DataAt(at) => at.holds(bytes.len(), position) && self.from(index + 1, position),
            Part::ByteTest(test) => test.holds(bytes, position) && self.from(index + 1, position),
            Part::ByteJump(jump) => match jump.target(bytes, position) {
                Some(target) => self.from(index + 1, target),
                None => false,
            },
            Part::Size(bound) => bound.holds(bytes.len()) && self.from(index + 1, position),
        }
    }

    /// Reports whether conditions behind `index` may hold at another place of its match.
    fn depends(&self, index: usize) -> bool {
        self.parts.get(index + 1).is_some_and(Part::is_relative)
    }

    fn content(&mut self, content: &Content, index: usize, position: usize) -> bool {
        let value = self.value;
        let bytes: &[u8] = if content.nocase { value.lower() } else { &value.bytes };
        let window = window(content, bytes.len(), position);
        let haystack = window.clone().and_then(|window| bytes.get(window)).unwrap_or_default();
        let start = window.map_or(0, |window| window.start);
        let pattern = content.pattern.as_slice();
        if content.negated {
            return self.budget.take(1, haystack.len())
                && memmem::find(haystack, pattern).is_none()
                && self.from(index + 1, position);
        }
        let mut at = 0;
        loop {
            let rest = haystack.get(at..).unwrap_or_default();
            let found = memmem::find(rest, pattern);
            if !self.budget.take(1, found.unwrap_or(rest.len())) {
                return false;
            }
            let Some(found) = found else { return false };
            let end = start + at + found + pattern.len();
            if self.from(index + 1, end) {
                return true;
            }
            if !self.depends(index) {
                return false;
            }
            at += found + 1;
        }
    }

    fn pcre(&mut self, pcre: &Pcre, index: usize, position: usize) -> bool {
        let before = self.parts.iter().take(index).filter(|part| matches!(part, Part::Pcre(_))).count();
        let number = self.first_pcre + u32::try_from(before).unwrap_or_default();
        if self.cache.is_new(number) && !self.budget.take(COMPILING, 0) {
            return false;
        }
        let value = self.value;
        let start = if pcre.relative { position } else { 0 };
        let Some(haystack) = value.bytes.get(start..) else { return false };
        // Where no later condition is relative, it does not matter where the expression matches.
        let is_placed = self.parts.iter().skip(index + 1).any(Part::is_relative);
        if pcre.negated || !is_placed {
            return self.budget.take(4, haystack.len().saturating_mul(8))
                && self.cache.matches(number, pcre, haystack).is_some_and(|matches| matches != pcre.negated)
                && self.from(index + 1, position);
        }
        let mut at = 0;
        loop {
            // An automaton takes a byte at a time: 8 bytes a step.
            if !self.budget.take(4, (haystack.len() - at).saturating_mul(8)) {
                return false;
            }
            let Some(found) = self.cache.find(number, pcre, haystack, at) else { return false };
            if self.from(index + 1, start + found.end) {
                return true;
            }
            if !self.depends(index) || found.start >= haystack.len() {
                return false;
            }
            at = found.start + 1;
        }
    }
}

/// Returns the range in which a content may lie; `None` when there is none.
fn window(content: &Content, length: usize, position: usize) -> Option<std::ops::Range<usize>> {
    let pattern = content.pattern.len();
    let mut start = content.offset.unwrap_or(0);
    let mut end = length;
    if content.is_relative() {
        let distance = content.distance.unwrap_or(0);
        let from = i64::try_from(position).ok()?.checked_add(distance)?.max(0);
        let from = usize::try_from(from).ok()?;
        start = start.max(from);
        if let Some(within) = content.within {
            end = end.min(from.saturating_add(within));
        }
    }
    if let Some(depth) = content.depth {
        end = end.min(content.offset.unwrap_or(0).saturating_add(depth));
    }
    if content.starts {
        end = end.min(pattern);
    }
    if content.ends {
        start = start.max(length.checked_sub(pattern)?);
        if end < length {
            return None;
        }
    }
    (start <= end && end - start >= pattern).then_some(start..end)
}
