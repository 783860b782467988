//! Levels of the agent's own messages: one level for all, and others for some of their targets.

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

/// Accepted values of `log_level`, for messages.
pub(super) const ACCEPTED: &str = "must be off, error, warn, info, debug or trace, and can go on with levels for single \
                                   targets: \"warn, agent=info, steering=off\"";

/// Targets of the agent's messages: its own, then those of the kernel side, which has one for each of its programs, and of
/// the libraries that say something. Of a path such as `spip::steer` the first name is here.
const TARGETS: [&str; 17] = [
    "accept", "agent", "config", "deaf", "ebpf", "log", "origin", "payloads", "respond", "sandbox", "scans", "status",
    "steering", "spip", "aya", "aya_log", "aya_obj",
];

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
    /// Message: what is accepted.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || ACCEPTED.to_owned();
        let level = |word: &str| {
            let known = WORDS.iter().find(|(name, _)| *name == word.trim());
            known.map(|(_, level)| *level).ok_or_else(refused)
        };
        let mut levels = Self::default();
        for (position, part) in text.split(',').enumerate() {
            match part.split_once('=') {
                None if position == 0 => levels.all = level(part)?,
                None => return Err(refused()),
                Some((target, word)) => {
                    let target = target.trim();
                    let level = level(word)?;
                    if !TARGETS.contains(&target.split("::").next().unwrap_or_default()) {
                        return Err(format!("there is no target {target}; there are {}", TARGETS.join(", ")));
                    }
                    if levels.targets.iter().any(|(name, _)| name == target) {
                        return Err(format!("{target} has two levels; give it one"));
                    }
                    levels.targets.push((target.to_owned(), level));
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
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_longest_name_that_covers_a_target_decides() {
        let levels: Levels = "warn, spip=debug,spip::steer = off, ebpf=trace".parse().expect("valid");
        assert_eq!(levels.of("scans"), LevelFilter::Warn);
        assert_eq!(levels.of("spip::syn_observer"), LevelFilter::Debug);
        assert_eq!(levels.of("spip::steer"), LevelFilter::Off);
        assert_eq!(levels.of("spipp"), LevelFilter::Warn);
        assert_eq!(levels.most(), LevelFilter::Trace);
        assert_eq!(levels.to_string(), "warn, spip=debug, spip::steer=off, ebpf=trace");
        assert_eq!(levels.to_string().parse(), Ok(levels));
    }

    #[test]
    fn a_level_for_a_target_alone_leaves_the_others_as_they_are() {
        let levels: Levels = "scans=off".parse().expect("valid");
        assert_eq!((levels.of("scans"), levels.of("agent")), (LevelFilter::Off, LevelFilter::Info));
        assert_eq!(levels.most(), LevelFilter::Info);
        let quieter: Levels = "debug, scans=off, agent=warn".parse().expect("valid");
        assert_eq!(quieter.most(), LevelFilter::Debug);
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "loud", "info, debug", "info,", "scans=", "scans=loud", "INFO"] {
            assert_eq!(text.parse::<Levels>(), Err(ACCEPTED.to_owned()), "{text}");
        }
        let refused = |text: &str| text.parse::<Levels>().expect_err(text);
        assert_eq!(refused("scans=off, scans=info"), "scans has two levels; give it one");
        for target in ["tls", "", "a b", "scans:", "spip:steer"] {
            let start = format!("there is no target {target}; there are accept, agent, ");
            assert!(refused(&format!("info, {target}=debug")).starts_with(&start), "{target}");
        }
    }

    /// Every target in a folder of sources, tests left out.
    fn targets_in(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("sources").map(|entry| entry.expect("entry").path()) {
            if entry.is_dir() {
                targets_in(&entry, found);
            } else if entry.file_name().is_some_and(|name| name != "tests.rs")
                && !entry.iter().any(|part| part == "tests")
            {
                let text = fs::read_to_string(&entry).expect("text");
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let targets = code.split("target: \"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(targets.map(str::to_owned));
            }
        }
    }

    #[test]
    fn sources_and_documentation_have_the_targets_that_are_accepted_and_no_others() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut own = BTreeSet::new();
        targets_in(&root.join("src"), &mut own);
        // The kernel side and libraries come through other doors.
        let elsewhere = ["spip", "aya", "aya_log", "aya_obj"];
        own.extend(elsewhere.map(str::to_owned));
        assert_eq!(own, TARGETS.map(str::to_owned).into());
        let documented = fs::read_to_string(root.join("../docs/configuration.md")).expect("documentation");
        let list = TARGETS.map(|target| format!("`{target}`")).join(", ");
        assert!(documented.replace('\n', " ").contains(&list), "{list}");
    }
}
