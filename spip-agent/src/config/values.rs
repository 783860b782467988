//! Takes typed values out of a TOML table and remembers everything that is wrong with them.
//!
//! serde would stop at the first problem and knows neither the line nor what else is accepted. Each method here takes
//! one key, writes down a problem if there is one, and goes on with the default, so that one run shows them all. Bounds,
//! words and defaults are those of the table of keys.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Problem, Quoted};
use super::keys::{self, Kind, SECONDS, Words};

/// A table under examination.
pub(super) struct Values<'i> {
    text: &'i str,
    table: DeTable<'i>,
    known: Vec<&'static str>,
    lines: BTreeMap<&'static str, usize>,
    problems: Vec<Problem>,
}

/// A value with the place where it stands.
pub(super) struct Found<'i> {
    pub(super) key: &'static str,
    pub(super) value: Spanned<DeValue<'i>>,
}

impl<'i> Values<'i> {
    /// Reads TOML; every syntax error is a problem, and then nothing else is reported, because what the parser
    /// made of the rest would be guesswork.
    pub(super) fn new(text: &'i str) -> Result<Self, Vec<Problem>> {
        /// A file that is no TOML at all has an error in each line; the first few are enough.
        const MOST: usize = 5;
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let table = table.into_inner();
            return Ok(Self { text, table, known: Vec::new(), lines: BTreeMap::new(), problems: Vec::new() });
        }
        Err(errors.iter().take(MOST).map(|error| syntax_problem(text, error)).collect())
    }

    /// The value of `key`, which from now on is a key that exists.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Found<'i>> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        self.lines.insert(key, self.line(value.span().start));
        Some(Found { key, value })
    }

    /// Writes down that a value is not what the key takes.
    pub(super) fn refuse(&mut self, found: &Found<'_>, why: &str) {
        let text = format!("{} = {}: {why}", found.key, Quoted(self.source(&found.value)));
        self.problem(Some(found.value.span().start), text);
    }

    /// Writes down a problem at an offset of the text, or of the file as a whole.
    pub(super) fn problem(&mut self, at: Option<usize>, text: String) {
        let line = at.map(|at| self.line(at));
        self.problems.push(Problem { line, text });
    }

    /// Writes down a problem of a key that was taken before, in its line where the file has it.
    pub(super) fn problem_of(&mut self, key: &str, text: String) {
        let line = self.lines.get(key).copied();
        self.problems.push(Problem { line, text });
    }

    /// The line of an offset, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        line(self.text, at)
    }

    /// A value as it stands in the file.
    fn source(&self, value: &Spanned<DeValue<'_>>) -> &'i str {
        self.text.get(value.span()).unwrap_or_default().trim_end()
    }

    /// Returns what the table has of a key. One without a kind of that sort is a defect, which any file shows.
    fn kind<T>(&mut self, key: &'static str, of: fn(Kind) -> Option<T>) -> Option<T> {
        let kind = keys::of(key).and_then(|key| of(key.kind));
        if kind.is_none() {
            self.problem(None, format!("{key}: is not in the table of keys as it is read: a defect of spip-agent"));
        }
        kind
    }

    /// Returns the bounds of a whole number.
    fn bounds(&mut self, key: &'static str) -> (u64, u64) {
        let of = |kind| match kind {
            Kind::Integer(bounds, _) | Kind::Derived(bounds, _) => Some(bounds),
            _ => None,
        };
        self.kind(key, of).unwrap_or_default()
    }

    /// A number of anything.
    pub(super) fn integer(&mut self, key: &'static str) -> u64 {
        let default = |kind| if let Kind::Integer(_, default) = kind { Some(default) } else { None };
        let default = self.kind(key, default).unwrap_or_default();
        self.derived(key).map_or(default, |(number, _)| number)
    }

    /// A number of anything, as far as the file has one.
    pub(super) fn derived(&mut self, key: &'static str) -> Option<(u64, Found<'i>)> {
        let bounds = self.bounds(key);
        let found = self.take(key)?;
        let number = self.as_integer(&found, bounds, &accepted_integer(bounds))?;
        Some((number, found))
    }

    /// A number of anything that the file must have.
    pub(super) fn required(&mut self, key: &'static str, example: &str) -> Option<u64> {
        let known = self.problems.len();
        let given = self.derived(key);
        if given.is_none() && self.problems.len() == known {
            let accepted = accepted_integer(self.bounds(key));
            self.problem(None, format!("{key}: missing; {accepted}, for example {key} = {example}"));
        }
        given.map(|(number, _)| number)
    }

    /// The number in a value, if it is one within inclusive bounds.
    pub(super) fn as_integer(&mut self, found: &Found<'_>, bounds: (u64, u64), accepted: &str) -> Option<u64> {
        let number = whole(found.value.get_ref()).and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| (bounds.0..=bounds.1).contains(number));
        if number.is_none() {
            self.refuse_type(found, "integer", accepted);
        }
        number
    }

    /// A duration.
    pub(super) fn seconds(&mut self, key: &'static str) -> Duration {
        self.seconds_unless(key, |_, _, _| false)
    }

    /// A duration; the default where `is_none` says of the value that it means none.
    pub(super) fn seconds_unless(
        &mut self,
        key: &'static str,
        is_none: impl FnOnce(&Self, &Found<'i>, f64) -> bool,
    ) -> Duration {
        let default = |kind| if let Kind::Seconds(default) = kind { Some(default) } else { None };
        let default = self.kind(key, default).unwrap_or_default();
        let Some(found) = self.take(key).filter(|found| !is_none(self, found, default)) else {
            return Duration::from_secs_f64(default);
        };
        let seconds = number(found.value.get_ref()).filter(|s| (SECONDS.0..=SECONDS.1).contains(s));
        if seconds.is_none() {
            let (from, to) = SECONDS;
            self.refuse_type(&found, "number", &format!("must be a number of seconds from {from} to {to} (a day)"));
        }
        Duration::from_secs_f64(seconds.unwrap_or(default))
    }

    /// A number, whole or not; the default where `is_none` says of the value that it means none.
    pub(super) fn number_unless(
        &mut self,
        key: &'static str,
        is_none: impl FnOnce(&Self, &Found<'i>, f64) -> bool,
    ) -> f64 {
        let of = |kind| if let Kind::Number(bounds, default) = kind { Some((bounds, default)) } else { None };
        let (bounds, default) = self.kind(key, of).unwrap_or_default();
        let Some(found) = self.take(key).filter(|found| !is_none(self, found, default)) else { return default };
        let number = number(found.value.get_ref()).filter(|n| (bounds.0..=bounds.1).contains(n));
        if number.is_none() {
            self.refuse_type(&found, "number", &format!("must be a number from {} to {}", bounds.0, bounds.1));
        }
        number.unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn choice<T: Words>(&mut self, key: &'static str) -> T {
        let words = keys::words::<T>();
        let listed = |kind| if let Kind::Choice(words) = kind { Some(words()) } else { None };
        debug_assert_eq!(self.kind(key, listed).as_ref(), Some(&words), "{key} is of another type in the table");
        let place = self.word(key, &words);
        place.and_then(|place| T::WORDS.get(place)).map_or(T::DEFAULT, |(_, value)| *value)
    }

    /// On, by the word that the table has for it, or off.
    pub(super) fn switch(&mut self, key: &'static str) -> bool {
        let on = |kind| if let Kind::Switch(on) = kind { Some(on) } else { None };
        let on = self.kind(key, on).unwrap_or_default();
        self.word(key, &[on, "off"]) != Some(1)
    }

    /// The place of the given word among those that are accepted.
    fn word(&mut self, key: &'static str, words: &[&str]) -> Option<usize> {
        let found = self.take(key)?;
        let given = found.value.get_ref().as_str();
        let place = words.iter().position(|word| Some(*word) == given);
        if place.is_none() {
            let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            self.refuse_type(&found, "string", &format!("must be one of {}", words.join(", ")));
        }
        place
    }

    /// True or false.
    pub(super) fn boolean(&mut self, key: &'static str) -> bool {
        let default = |kind| if let Kind::Boolean(default) = kind { Some(default) } else { None };
        let default = self.kind(key, default).unwrap_or_default();
        let Some(found) = self.take(key) else {
            return default;
        };
        let value = found.value.get_ref().as_bool();
        if value.is_none() {
            self.refuse_type(&found, "boolean", "must be true or false");
        }
        value.unwrap_or(default)
    }

    /// A text; empty means that the key is not given, as it did for the predecessor.
    pub(super) fn string(&mut self, key: &'static str, accepted: &str) -> Option<(String, Found<'i>)> {
        let found = self.take(key)?;
        let Some(text) = found.value.get_ref().as_str().map(str::to_owned) else {
            self.refuse_type(&found, "string", accepted);
            return None;
        };
        if text.contains('\0') {
            self.refuse(&found, &format!("holds a zero byte; {accepted}"));
            return None;
        }
        (!text.is_empty()).then_some((text, found))
    }

    /// Refuses a value, and names its type if that is what is wrong.
    pub(super) fn refuse_type(&mut self, found: &Found<'_>, wanted: &str, accepted: &str) {
        let value = found.value.get_ref();
        let fits = match value {
            DeValue::Integer(_) => wanted == "integer" || wanted == "number",
            DeValue::Float(_) => wanted == "number",
            other => other.type_str() == wanted,
        };
        if fits {
            self.refuse(found, accepted);
        } else {
            let (is, article) = (value.type_str(), article(value.type_str()));
            self.refuse(found, &format!("is {article} {is}; {accepted}"));
        }
    }

    /// Reports whether a key was asked for.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.known.contains(&key)
    }

    /// Ends the reading: what is left is unknown. Returns every problem, in the order of the file, and the lines of the
    /// keys.
    pub(super) fn finish(mut self) -> (Vec<Problem>, BTreeMap<&'static str, usize>) {
        for (key, value) in std::mem::take(&mut self.table) {
            // The value is not shown: it may be a secret.
            let hint = match closest(key.get_ref(), &self.known) {
                Some(name) => format!("did you mean {name}?"),
                None => format!("the keys are {}", self.known.join(", ")),
            };
            let what = if value.get_ref().is_table() { "table" } else { "key" };
            let text = format!("{}: unknown {what}; {hint}", Quoted(key.get_ref()));
            self.problem(Some(key.span().start), text);
        }
        self.problems.sort_by_key(|problem| problem.line);
        (self.problems, self.lines)
    }
}

/// Returns the text on a number's bounds.
fn accepted_integer(bounds: (u64, u64)) -> String {
    format!("must be a whole number from {} to {}", bounds.0, bounds.1)
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['a', 'i']) { "an" } else { "a" }
}

/// A syntax error as a problem of the file `text`.
pub(crate) fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let span = error.span();
    // For this one the parser points at the key; of others at more, or at nothing that says more.
    let key = span.clone().filter(|_| error.message() == "duplicate key").and_then(|span| text.get(span));
    let key = key.map(|key| format!(" {}", Quoted(key))).unwrap_or_default();
    let text_of_error = format!("not valid TOML: {}{key}", Quoted(error.message()));
    Problem { line: span.map(|span| line(text, span.start)), text: text_of_error }
}

/// The line of an offset, counted from 1.
pub(crate) fn line(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

fn whole(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

#[allow(clippy::cast_precision_loss)] // every bound lies far below 2^53, and what is above is refused anyway
fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => whole(value).map(|whole| whole as f64),
    }
}

/// The known key that an unknown one was probably meant to be.
fn closest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    /// Below this two names have no more in common than any two names here.
    const ALIKE: f64 = 0.6;
    /// The comparison is quadratic, and no key is half as long.
    const LONGEST: usize = 64;
    if key.len() > LONGEST {
        return None;
    }
    let key = key.to_lowercase().replace('-', "_");
    let alike = |name: &&'static str| (strsim::normalized_damerau_levenshtein(&key, name), *name);
    let best = known.iter().map(alike).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(alike, _)| *alike >= ALIKE).map(|(_, name)| name)
}
