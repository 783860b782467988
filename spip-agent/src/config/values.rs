//! Takes typed values out of a TOML table and remembers everything that is wrong with them.
//!
//! serde would stop at the first problem and knows neither the line nor what else is accepted. Each method here takes
//! one key, writes down a problem if there is one, and goes on with the default, so that one run shows them all. The
//! keys that were asked for are the keys that exist: there is no second list to forget.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Problem, Quoted};

/// Longest duration that any key takes, but for the age of a log file: a day.
pub(super) const DAY: f64 = 86_400.0;

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

    /// A number of anything, within inclusive bounds.
    pub(super) fn integer(&mut self, key: &'static str, bounds: (u64, u64), default: u64) -> u64 {
        let Some(found) = self.take(key) else {
            return default;
        };
        self.as_integer(&found, bounds, &accepted_integer(bounds)).unwrap_or(default)
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

    /// A duration in seconds, whole or not, above zero and up to a day.
    pub(super) fn seconds(&mut self, key: &'static str, default: f64) -> Duration {
        let found = self.take(key);
        self.as_seconds(found, default)
    }

    /// The duration in a value that was taken already.
    pub(super) fn as_seconds(&mut self, found: Option<Found<'_>>, default: f64) -> Duration {
        let Some(found) = found else {
            return Duration::from_secs_f64(default);
        };
        let seconds = number(found.value.get_ref()).filter(|s| (0.001..=DAY).contains(s));
        if seconds.is_none() {
            self.refuse_type(&found, "number", "must be a number of seconds from 0.001 to 86400 (a day)");
        }
        Duration::from_secs_f64(seconds.unwrap_or(default))
    }

    /// The number in a value, whole or not, within inclusive bounds.
    pub(super) fn as_number(&mut self, found: &Found<'_>, bounds: (f64, f64)) -> Option<f64> {
        let number = number(found.value.get_ref()).filter(|n| (bounds.0..=bounds.1).contains(n));
        if number.is_none() {
            self.refuse_type(found, "number", &format!("must be a number from {} to {}", bounds.0, bounds.1));
        }
        number
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)], default: T) -> T {
        let Some(found) = self.take(key) else {
            return default;
        };
        let word = found.value.get_ref().as_str();
        if let Some((_, value)) = choices.iter().find(|(name, _)| Some(*name) == word) {
            return *value;
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.refuse_type(&found, "string", &format!("must be one of {}", names.join(", ")));
        default
    }

    /// True or false.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
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
pub(super) fn accepted_integer(bounds: (u64, u64)) -> String {
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
