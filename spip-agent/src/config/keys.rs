//! Every key of the configuration, once: what it takes and defaults to, what it means, and when a change of it takes
//! effect. The parser takes bounds, words and defaults from here, `init` writes its commented file from this, a reload asks
//! it what can change, the rows of `docs/configuration.md` are written from it, and a test holds `--check` against it.

mod kind;
mod table;

pub(in crate::config) use kind::SECONDS;
pub use kind::{Kind, Words, words};

use std::borrow::Cow;

use table::KEYS;

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// Accepted values and default.
    pub kind: Kind,
    /// Meaning of the key.
    pub meaning: &'static str,
    /// A value of it, as TOML.
    pub example: &'static str,
    /// Time at which a change takes effect.
    pub effect: Effect,
}

impl Key {
    /// Returns its default: TOML in backquotes, or words.
    #[must_use]
    pub fn default(&self) -> Cow<'static, str> {
        self.kind.default()
    }

    /// Returns the values that it takes, in words.
    #[must_use]
    pub fn accepted(&self) -> Cow<'static, str> {
        self.kind.accepted(self.name.ends_with("_bytes"))
    }
}

/// Times at which a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At a reload.
    Live,
    /// At the next start.
    Restart,
}

/// Returns all keys, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Key> {
    KEYS.iter()
}

/// Returns the key of that name.
#[must_use]
pub fn of(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

    /// The row of a key in the documentation, with its pages as links.
    fn row(key: &Key) -> String {
        let Key { name, meaning, .. } = key;
        format!("| `{name}` | {} | {} | {} |", linked(&key.default()), linked(&key.accepted()), linked(meaning))
    }

    /// Makes links of the pages that a text names.
    fn linked(text: &str) -> String {
        let words = text.split_inclusive(' ').map(|word| {
            let (before, rest) = word.split_at(word.find(|c| c != '(').unwrap_or(0));
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-.#".contains(c)).unwrap_or(rest.len());
            let (target, after) = rest.split_at(end);
            let (target, stop) = target.strip_suffix('.').map_or((target, ""), |target| (target, "."));
            match target.split('#').next() {
                Some(page) if page.ends_with(".md") => format!("{before}[{page}]({target}){stop}{after}"),
                _ => word.to_owned(),
            }
        });
        words.collect()
    }

    /// `SPIP_WRITE_DOCS=1 cargo test -p spip-agent --lib config::keys` writes the rows anew.
    #[test]
    fn the_documentation_has_the_rows_of_the_table_in_its_order() {
        let page = fs::read_to_string(PAGE).expect("the page");
        let of_line = |line: &str| {
            of(line.strip_prefix("| `")?.split_once("` | ")?.0).filter(|_| line.matches(" | ").count() == 3)
        };
        if std::env::var_os("SPIP_WRITE_DOCS").is_some() {
            let lines = page.split('\n').map(|line| of_line(line).map_or_else(|| line.to_owned(), row));
            fs::write(PAGE, lines.collect::<Vec<_>>().join("\n")).expect("the page");
        }
        let page = fs::read_to_string(PAGE).expect("the page");
        let found: Vec<&str> = page.lines().filter(|line| of_line(line).is_some()).collect();
        let expected: Vec<String> = all().map(row).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_full_file_of_the_documentation_has_the_examples() {
        let page = fs::read_to_string(PAGE).expect("the page");
        let (_, section) = page.split_once("\n## A full file\n").expect("a section");
        let file = section.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).expect("a file").0;
        let file: toml::Table = file.parse().expect("TOML");
        assert_eq!(file.len(), all().count());
        for key in all() {
            let example: toml::Table = format!("{} = {}", key.name, key.example).parse().expect("TOML");
            assert_eq!(file.get(key.name), example.get(key.name), "{}", key.name);
        }
    }

    #[test]
    fn a_key_stands_in_the_table_once() {
        for key in all() {
            assert_eq!(all().filter(|other| other.name == key.name).count(), 1, "{}", key.name);
        }
        assert!(of("no_such_key").is_none());
    }

    #[test]
    fn a_page_becomes_a_link_and_nothing_else_does() {
        assert_eq!(
            linked("see scans.md, (security.md#the-log). Not a.txt or `x.md`"),
            "see [scans.md](scans.md), ([security.md](security.md#the-log)). Not a.txt or `x.md`"
        );
    }
}
