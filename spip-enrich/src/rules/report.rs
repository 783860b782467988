//! Numbers of rules taken and skipped, with the reasons.

use std::collections::BTreeMap;
use std::fmt;

/// Upper bound of different reasons.
const REASONS: usize = 200;
/// Upper bound of examples of a reason.
const EXAMPLES: usize = 3;

/// The rules that were skipped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Number of rules.
    pub count: u64,
    /// The first of them: file, line and, where it has one, number.
    pub examples: Vec<String>,
}

/// Account of the rules of all files: taken, and skipped with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rules that can match.
    pub taken: u64,
    /// Reasons and the rules that were skipped for them.
    pub skipped: BTreeMap<String, Skipped>,
}

impl Report {
    /// Counts a rule that was skipped.
    pub(super) fn skip(&mut self, reason: &str, example: impl FnOnce() -> String) {
        let reason = if self.skipped.contains_key(reason) || self.skipped.len() < REASONS { reason } else { "other" };
        let skipped = self.skipped.entry(reason.to_owned()).or_default();
        skipped.count += 1;
        if skipped.examples.len() < EXAMPLES {
            skipped.examples.push(example());
        }
    }

    /// Returns how many rules were skipped.
    #[must_use]
    pub fn skipped_count(&self) -> u64 {
        self.skipped.values().map(|skipped| skipped.count).sum()
    }
}

impl fmt::Display for Report {
    /// Writes a line for the sum and one for each reason, the most frequent first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rules taken, {} skipped", self.taken, self.skipped_count())?;
        let mut reasons: Vec<_> = self.skipped.iter().collect();
        reasons.sort_by_key(|(reason, skipped)| (std::cmp::Reverse(skipped.count), reason.as_str()));
        for (reason, skipped) in reasons {
            write!(f, "\n{:>7} {reason} ({})", skipped.count, skipped.examples.join(", "))?;
        }
        Ok(())
    }
}
