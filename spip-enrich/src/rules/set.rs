//! A set of rules that is ready to match, and the matching.

mod sources;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spip_record::enrichment::{TAGS, Tag};

use self::sources::Sources;
use super::buffer::{Value, View};
use super::file::{self, FILE_BYTES, RULE_BYTES};
use super::filter::{Filter, choose};
use super::options::{Part, Rule, reason};
use super::pcre::Cache;
use super::report::Report;
use super::scope::speaks;
use super::verify::{Budget, Run};
use crate::facts::Facts;
use crate::requests::Request;

/// Upper bound of rules of a set. The community rules are about 45,000.
const RULES: usize = 250_000;

/// Upper bound of different buffers, with their transforms, that the rules of a set may search.
const VIEWS: usize = 64;

/// Steps that one rule may take on one record. Rules that match take about ten.
pub const RULE_STEPS: u32 = 50_000;

/// Steps that all rules together may take on one record: about a millisecond.
pub const RECORD_STEPS: u32 = 400_000;

/// Reasons why a file of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        cause: std::io::Error,
    },
    /// It is larger than rules are.
    #[error("{} is larger than {FILE_BYTES} bytes; split it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// There are too many rules.
    #[error("there are more than {RULES} rules; leave some files out")]
    TooMany,
    /// The automaton cannot be built.
    #[error("{0}; leave some files out")]
    Automaton(String),
}

/// Collects rules.
#[derive(Debug, Default)]
pub struct Builder {
    rules: Vec<Rule>,
    /// Places of rules by their numbers.
    numbers: HashMap<u64, usize>,
    views: Vec<View>,
    report: Report,
}

impl Builder {
    /// Adds the rules of a file.
    ///
    /// # Errors
    /// It cannot be read, or there are too many.
    pub fn file(&mut self, path: &Path) -> Result<(), Error> {
        let read = |cause| Error::Read { path: path.to_owned(), cause };
        if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES {
            return Err(Error::TooLarge { path: path.to_owned() });
        }
        let text = std::fs::read(path).map_err(read)?;
        self.text(&path.display().to_string(), &String::from_utf8_lossy(&text))
    }

    /// Adds the rules of a text; `name` is named in the report.
    ///
    /// # Errors
    /// There are too many.
    pub fn text(&mut self, name: &str, text: &str) -> Result<(), Error> {
        for rule in file::rules(text) {
            let place = |id: Option<&str>| match id {
                Some(id) => format!("{name}:{} sid {id}", rule.line),
                None => format!("{name}:{}", rule.line),
            };
            if rule.text.len() > RULE_BYTES {
                self.report.skip("is too long", || place(None));
                continue;
            }
            match Rule::parse(&rule.text) {
                Ok(parsed) => {
                    let id = parsed.tag.id.to_string();
                    if let Err(reason) = self.add(parsed)? {
                        self.report.skip(&reason, || place(Some(&id)));
                    }
                }
                Err(error) => {
                    let (reason, id) = reason(&error);
                    self.report.skip(reason, || place(id));
                }
            }
        }
        Ok(())
    }

    /// Adds a rule. Of two with one number the later revision is kept.
    fn add(&mut self, rule: Rule) -> Result<Result<(), String>, Error> {
        for (view, _) in &rule.groups {
            if !self.views.contains(view) {
                if self.views.len() == VIEWS {
                    return Ok(Err(format!("more than {VIEWS} different buffers in all rules")));
                }
                self.views.push(view.clone());
            }
        }
        match self.numbers.get(&rule.tag.id) {
            Some(&place) => {
                if let Some(known) = self.rules.get_mut(place)
                    && known.tag.rev < rule.tag.rev
                {
                    *known = rule;
                }
                return Ok(Err("has the sid of another rule; the higher rev is kept".to_owned()));
            }
            None if self.rules.len() == RULES => return Err(Error::TooMany),
            None => {
                self.numbers.insert(rule.tag.id, self.rules.len());
                self.rules.push(rule);
            }
        }
        Ok(Ok(()))
    }

    /// Builds the set, and reports what was taken.
    ///
    /// # Errors
    /// The automaton cannot be built.
    pub fn build(mut self) -> Result<(Rules, Report), Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.report.taken = self.rules.len() as u64;
        let mut patterns: Vec<HashMap<Vec<u8>, Vec<u32>>> = vec![HashMap::new(); self.views.len()];
        let (mut rules, mut unfiltered, mut sources) =
            (Vec::with_capacity(self.rules.len()), Vec::new(), Sources::default());
        let mut pcres = 0u32;
        for (index, rule) in self.rules.into_iter().enumerate() {
            let number = u32::try_from(index).map_err(|_| Error::TooMany)?;
            let view_of = |view: &View| self.views.iter().position(|known| known == view).unwrap_or_default();
            match choose(&rule) {
                Some((group, pattern)) => {
                    if let Some(patterns) = patterns.get_mut(view_of(&rule.groups[group].0)) {
                        patterns.entry(pattern).or_default().push(number);
                    }
                }
                None if !rule.scope.sources.some.is_empty() => sources.add(&rule.scope.sources.some, number),
                None => unfiltered.push(number),
            }
            let groups = rule
                .groups
                .into_iter()
                .map(|(view, parts)| {
                    let first_pcre = pcres;
                    pcres += u32::try_from(parts.iter().filter(|part| matches!(part, Part::Pcre(_))).count())
                        .unwrap_or_default();
                    Group { view: view_of(&view), parts: parts.into_boxed_slice(), first_pcre }
                })
                .collect::<Box<[_]>>();
            let of_request = groups.iter().any(|group| self.views[group.view].buffer.is_of_request());
            rules.push(Compiled {
                tag: Arc::new(rule.tag),
                scope: rule.scope,
                applications: rule.applications.into_boxed_slice(),
                sizes: rule.sizes.into_boxed_slice(),
                groups,
                of_request,
            });
        }
        let filters = patterns
            .into_iter()
            .map(|patterns| if patterns.is_empty() { Ok(None) } else { Filter::new(patterns).map(Some) })
            .collect::<Result<_, _>>()
            .map_err(Error::Automaton)?;
        let rules = Rules {
            identity: NEXT.fetch_add(1, Ordering::Relaxed),
            rules,
            views: self.views,
            filters,
            unfiltered,
            sources,
        };
        Ok((rules, self.report))
    }
}

/// Conditions on one buffer.
#[derive(Debug)]
struct Group {
    /// The place of the buffer in `views`.
    view: usize,
    parts: Box<[Part]>,
    first_pcre: u32,
}

#[derive(Debug)]
struct Compiled {
    tag: Arc<Tag>,
    scope: super::scope::Scope,
    applications: Box<[(bool, String)]>,
    sizes: Box<[super::bytes::Bound]>,
    groups: Box<[Group]>,
    /// Set when a condition is on a part of a request, so that each request is tried.
    of_request: bool,
}

/// A set of rules.
#[derive(Debug)]
pub struct Rules {
    /// Tells a scratch that it was used with another set.
    identity: u64,
    rules: Vec<Compiled>,
    views: Vec<View>,
    /// For each view its automaton.
    filters: Vec<Option<Filter>>,
    /// Rules without a text that can be searched.
    unfiltered: Vec<u32>,
    sources: Sources,
}

/// Memory that a thread reuses between records; it never changes an answer.
#[derive(Debug, Default)]
pub struct Scratch {
    identity: u64,
    cache: Cache,
    /// For each rule the round in which it was tried last.
    tried: Vec<u64>,
    round: u64,
}

/// The rules that matched.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The worst first, at most [`TAGS`].
    pub tags: Vec<Arc<Tag>>,
    /// Set when the budget ended before every rule was decided.
    pub incomplete: bool,
}

/// The values of buffers of one record, each worked out once.
struct Values<'f> {
    facts: &'f Facts<'f>,
    requests: &'f [Request<'f>],
    views: &'f [View],
    slots: Vec<std::cell::OnceCell<Option<Value<'f>>>>,
}

impl<'f> Values<'f> {
    fn new(facts: &'f Facts<'f>, requests: &'f [Request<'f>], views: &'f [View]) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(views.len() * requests.len().max(1), Default::default);
        Self { facts, requests, views, slots }
    }

    fn find(&self, view: usize, request: usize) -> Option<&Value<'f>> {
        let known = self.views.get(view)?;
        let request = if known.buffer.is_of_request() { request } else { 0 };
        let slot = self.slots.get(request * self.views.len() + view)?;
        slot.get_or_init(|| known.value(self.facts, self.requests.get(request))).as_ref()
    }
}

impl Rules {
    /// Returns the number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Reports whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns what the rules say of themselves.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.rules.iter().map(|rule| rule.tag.as_ref())
    }

    /// Returns about how many bytes the automata take.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.filters.iter().flatten().map(Filter::memory).sum()
    }

    /// Returns the rules that match a connection; `requests` are those of its payload.
    #[must_use]
    pub fn find(&self, facts: &Facts<'_>, requests: &[Request<'_>], scratch: &mut Scratch) -> Found {
        scratch.prepare(self);
        let values = Values::new(facts, requests, &self.views);
        let mut search = Search {
            rules: self,
            values,
            scratch,
            budget: Budget { record: RECORD_STEPS, rule: RULE_STEPS, exhausted: false },
            found: Vec::new(),
            candidates: Vec::new(),
        };
        search.run();
        let (mut found, incomplete) = (search.found, search.budget.exhausted);
        found.sort_unstable();
        found.dedup();
        let mut tags: Vec<Arc<Tag>> =
            found.iter().filter_map(|rule| self.rules.get(*rule as usize)).map(|rule| Arc::clone(&rule.tag)).collect();
        tags.sort_by_key(|tag| (tag.priority, tag.id));
        tags.truncate(TAGS);
        Found { tags, incomplete }
    }
}

impl Scratch {
    fn prepare(&mut self, rules: &Rules) {
        if self.identity != rules.identity {
            self.identity = rules.identity;
            self.cache.clear();
            self.round = 0;
            self.tried = vec![0; rules.rules.len()];
        }
        self.cache.begin();
    }
}

struct Search<'f, 's> {
    rules: &'f Rules,
    values: Values<'f>,
    scratch: &'s mut Scratch,
    budget: Budget,
    found: Vec<u32>,
    candidates: Vec<u32>,
}

impl Search<'_, '_> {
    fn run(&mut self) {
        // What all requests share.
        self.scratch.round += 1;
        self.candidates.extend(self.rules.unfiltered.iter().copied());
        self.candidates.extend(self.rules.sources.find(self.values.facts.source.ip()));
        self.collect(false, 0);
        let requests = self.values.requests.len();
        for rule in std::mem::take(&mut self.candidates) {
            let Some(compiled) = self.rules.rules.get(rule as usize) else { continue };
            let holds = if compiled.of_request {
                (0..requests).any(|request| self.holds(compiled, request))
            } else {
                self.holds(compiled, 0)
            };
            if holds {
                self.found.push(rule);
            }
        }
        for request in 0..requests {
            self.scratch.round += 1;
            self.collect(true, request);
            for rule in std::mem::take(&mut self.candidates) {
                let Some(compiled) = self.rules.rules.get(rule as usize) else { continue };
                if self.holds(compiled, request) {
                    self.found.push(rule);
                }
            }
        }
    }

    /// Collects the rules whose text occurs in a buffer, each once.
    fn collect(&mut self, of_request: bool, request: usize) {
        let rules = self.rules;
        for (view, filter) in rules.filters.iter().enumerate() {
            let Some(filter) = filter else { continue };
            if rules.views.get(view).is_none_or(|view| view.buffer.is_of_request() != of_request) {
                continue;
            }
            let Some(value) = self.values.find(view, request) else { continue };
            let (scratch, candidates, budget) = (&mut *self.scratch, &mut self.candidates, &mut self.budget);
            if !budget.count(1, value.bytes.len()) {
                return;
            }
            filter.find(value.lower(), |rule| {
                if let Some(tried) = scratch.tried.get_mut(rule as usize)
                    && *tried != scratch.round
                {
                    *tried = scratch.round;
                    candidates.push(rule);
                }
                budget.count(1, 0)
            });
        }
    }

    /// Reports whether a rule matches, with its conditions on requests met by one request.
    fn holds(&mut self, rule: &Compiled, request: usize) -> bool {
        let facts = self.values.facts;
        let has_requests = !self.values.requests.is_empty();
        self.budget.rule = RULE_STEPS;
        if !self.budget.count(1, 0)
            || !rule.scope.holds(facts, has_requests)
            || !rule.sizes.iter().all(|bound| bound.holds(facts.payload.len()))
            || rule.applications.iter().any(|(negated, name)| speaks(facts, has_requests, name) == *negated)
        {
            return false;
        }
        rule.groups.iter().all(|group| {
            let Some(value) = self.values.find(group.view, request) else { return false };
            Run {
                parts: &group.parts,
                first_pcre: group.first_pcre,
                value,
                budget: &mut self.budget,
                cache: &mut self.scratch.cache,
            }
            .holds()
        })
    }
}

#[cfg(test)]
mod tests;
