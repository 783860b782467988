//! Which of the agent's own messages are said: one level for all, and others for some of their targets.

use std::fmt;
use std::str::FromStr;

use log::LevelFilter;

/// Words for the levels, from silence to everything.
const WORDS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// What `log_level` takes, for messages.
pub(super) const ACCEPTED: &str = "must be off, error, warn, info, debug or trace, and can go on with levels for single \
                                   targets: \"warn, scans=debug, tls=off\"";

/// The levels; as text, what the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    all: LevelFilter,
    targets: Vec<(String, LevelFilter)>,
}

impl Default for Levels {
    fn default() -> Self {
        Self { all: LevelFilter::Info, targets: Vec::new() }
    }
}

impl Levels {
    /// The level of a target: that of the longest name that is the target or the beginning of its path (`a` of `a::b`).
    #[must_use]
    pub fn of(&self, target: &str) -> LevelFilter {
        let covers =
            |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        let named = self.targets.iter().filter(|(name, _)| covers(name));
        named.max_by_key(|(name, _)| name.len()).map_or(self.all, |(_, level)| *level)
    }

    /// The most that is said of anything.
    #[must_use]
    pub fn most(&self) -> LevelFilter {
        self.targets.iter().map(|(_, level)| *level).max().unwrap_or(LevelFilter::Off).max(self.all)
    }

    /// The same with another level for a target, unless the target has one.
    #[must_use]
    pub fn with(mut self, target: &str, level: LevelFilter) -> Self {
        if self.targets.iter().all(|(name, _)| name != target) {
            self.targets.push((target.to_owned(), level));
        }
        self
    }
}

impl FromStr for Levels {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let level = |word: &str| WORDS.iter().find(|(name, _)| *name == word.trim()).map(|(_, level)| *level).ok_or(());
        let mut levels = Self::default();
        for (position, part) in text.split(',').enumerate() {
            match part.split_once('=') {
                None if position == 0 => levels.all = level(part)?,
                None => return Err(()),
                Some((target, word)) => {
                    let target = target.trim();
                    let is_name = |c: char| c.is_ascii_alphanumeric() || "_:-".contains(c);
                    let known = levels.targets.iter().any(|(name, _)| name == target);
                    if target.is_empty() || !target.chars().all(is_name) || known {
                        return Err(());
                    }
                    levels.targets.push((target.to_owned(), level(word)?));
                }
            }
        }
        Ok(levels)
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word =
            |level: LevelFilter| WORDS.iter().find(|(_, other)| *other == level).map_or("info", |(word, _)| *word);
        f.write_str(word(self.all))?;
        self.targets.iter().try_for_each(|(target, level)| write!(f, ", {target}={}", word(*level)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_that_covers_a_target_decides() {
        let levels: Levels = "warn, spip=debug,spip::steer = off, tls=trace".parse().expect("valid");
        assert_eq!(levels.of("scans"), LevelFilter::Warn);
        assert_eq!(levels.of("spip::syn_observer"), LevelFilter::Debug);
        assert_eq!(levels.of("spip::steer"), LevelFilter::Off);
        assert_eq!(levels.of("spipp"), LevelFilter::Warn);
        assert_eq!(levels.most(), LevelFilter::Trace);
        assert_eq!(levels.to_string(), "warn, spip=debug, spip::steer=off, tls=trace");
        assert_eq!(levels.to_string().parse(), Ok(levels));
    }

    #[test]
    fn a_level_for_a_target_alone_leaves_the_others_as_they_are() {
        let levels: Levels = "scans=off".parse().expect("valid");
        assert_eq!((levels.of("scans"), levels.of("agent")), (LevelFilter::Off, LevelFilter::Info));
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "loud", "info, debug", "info,", "=debug", "a b=info", "tls=", "tls=off, tls=info", "INFO"] {
            assert_eq!(text.parse::<Levels>(), Err(()), "{text}");
        }
    }
}
