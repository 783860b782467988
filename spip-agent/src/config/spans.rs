//! Lines of a file's keys, for mistakes that show only when the value of a key is used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem};

/// The lines of one file.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    path: PathBuf,
    lines: BTreeMap<&'static str, usize>,
}

impl Spans {
    pub(super) fn new(path: &Path, lines: BTreeMap<&'static str, usize>) -> Self {
        Self { path: path.to_owned(), lines }
    }

    /// Fails when there are mistakes; each is a key and its problem.
    ///
    /// # Errors
    /// All of them, each in its place where the file has the key.
    pub fn refuse(&self, mistakes: impl IntoIterator<Item = (&'static str, String)>) -> Result<(), ConfigError> {
        let problem = |(key, text)| Problem { line: self.lines.get(key).copied(), text };
        let mut problems: Vec<_> = mistakes.into_iter().map(problem).collect();
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by_key(|problem| problem.line);
        Err(ConfigError::Invalid { path: self.path.clone(), problems })
    }
}
