//! Compiled expressions of one thread: the last used ones, as many as fit into [`KEPT_BYTES`].
//!
//! Compiling takes ten times as long as a search, and 40,000 rules have thousands of expressions, most of them small: so
//! the bound is on memory, not on their number. What is kept never changes an answer: a record pays for each expression
//! that it uses as if that had to be compiled.

use std::ops::Range;

use lru::LruCache;
use regex_automata::Input;
use regex_automata::meta::{Builder, Cache as Memory, Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;

use super::{COMPILED_BYTES, Pcre};

/// Upper bound of the memory of the expressions that a thread keeps, with what they use while they match.
const KEPT_BYTES: usize = 64 << 20;
/// Upper bound of the memory of the lazily built automaton of one expression.
const AUTOMATON_BYTES: usize = 256 << 10;

/// A compiled expression with the memory that it uses while it matches.
#[derive(Debug)]
struct Compiled {
    regex: Regex,
    memory: Memory,
    /// Memory of both after the last search.
    bytes: usize,
}

impl Compiled {
    fn new(pcre: &Pcre) -> Option<Self> {
        // Neither of the automata that are left out finds anything that the others do not, and both take long to build.
        let config = Config::new()
            .utf8_empty(false)
            .which_captures(WhichCaptures::Implicit)
            .nfa_size_limit(Some(COMPILED_BYTES))
            .hybrid_cache_capacity(AUTOMATON_BYTES)
            .dfa(false)
            .onepass(false);
        let mut builder = Builder::new();
        builder.configure(config);
        let regex = builder.build_from_hir(&pcre.hir(pcre.nocase).ok()?).ok()?;
        let memory = regex.create_cache();
        let bytes = regex.memory_usage() + memory.memory_usage();
        Some(Self { regex, memory, bytes })
    }
}

/// The compiled expressions of one thread.
#[derive(Debug)]
pub(in crate::rules) struct Cache {
    /// By their numbers; `None` for one that cannot be compiled.
    kept: LruCache<u32, Option<Compiled>>,
    /// Memory of all of them.
    bytes: usize,
    /// Numbers of the expressions that the record at hand has used.
    used: Vec<u32>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { kept: LruCache::unbounded(), bytes: 0, used: Vec::new() }
    }
}

impl Cache {
    /// Starts with another record.
    pub(in crate::rules) fn begin(&mut self) {
        self.used.clear();
    }

    /// Drops everything: numbers are those of another rule set.
    pub(in crate::rules) fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }

    /// Reports whether the record uses an expression for the first time, so that it pays for compiling it.
    pub(in crate::rules) fn is_new(&mut self, number: u32) -> bool {
        // Few: the budget of a record pays for a hundred.
        let is_new = !self.used.contains(&number);
        if is_new {
            self.used.push(number);
        }
        is_new
    }

    /// Returns the first match that starts at `at` or behind it.
    pub(in crate::rules) fn find(
        &mut self,
        number: u32,
        pcre: &Pcre,
        haystack: &[u8],
        at: usize,
    ) -> Option<Range<usize>> {
        self.with(number, pcre, |compiled| {
            let input = Input::new(haystack).range(at..);
            compiled.regex.search_with(&mut compiled.memory, &input).map(|found| found.range())
        })?
    }

    /// Reports whether there is a match, which is faster than to find where.
    pub(in crate::rules) fn matches(&mut self, number: u32, pcre: &Pcre, haystack: &[u8]) -> Option<bool> {
        self.with(number, pcre, |compiled| {
            let input = Input::new(haystack).earliest(true);
            compiled.regex.search_half_with(&mut compiled.memory, &input).is_some()
        })
    }

    /// Compiles an expression where it is not kept, and uses it. Returns `None` for one that cannot be compiled.
    fn with<T>(&mut self, number: u32, pcre: &Pcre, search: impl FnOnce(&mut Compiled) -> T) -> Option<T> {
        let kept = self.kept.get_or_insert_mut(number, || {
            let compiled = Compiled::new(pcre);
            self.bytes += compiled.as_ref().map_or(0, |compiled| compiled.bytes);
            compiled
        });
        let compiled = kept.as_mut()?;
        let found = search(compiled);
        let bytes = compiled.regex.memory_usage() + compiled.memory.memory_usage();
        self.bytes = self.bytes - compiled.bytes + bytes;
        compiled.bytes = bytes;
        while self.bytes > KEPT_BYTES && self.kept.len() > 1 {
            let oldest = self.kept.pop_lru().and_then(|(_, compiled)| compiled);
            self.bytes -= oldest.map_or(0, |compiled| compiled.bytes);
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_kept_expressions_is_bounded() {
        // As large as an expression may be: its program and its automaton take megabytes.
        let large = Pcre::parse(r#""/(?:[a-f]x[0-9]){2000}/""#).unwrap();
        let mut cache = Cache::default();
        for number in 0..200 {
            assert_eq!(cache.matches(number, &large, b"ax0"), Some(false));
            let sum: usize = cache.kept.iter().filter_map(|(_, kept)| Some(kept.as_ref()?.bytes)).sum();
            assert_eq!(cache.bytes, sum);
            assert!(sum <= KEPT_BYTES);
        }
        assert!(cache.kept.len() < 200);

        let small = Pcre::parse(r#""/\/a[0-9]+\.php$/i""#).unwrap();
        for number in 1000..1500 {
            assert_eq!(cache.find(number, &small, b"GET /A17.php", 0), Some(4..12));
        }
        assert!((1000..1500).all(|number| cache.kept.contains(&number)));
    }

    #[test]
    fn each_record_pays_for_an_expression_once() {
        let mut cache = Cache::default();
        assert!(cache.is_new(7) && !cache.is_new(7) && cache.is_new(8));
        cache.begin();
        assert!(cache.is_new(7));
    }
}
