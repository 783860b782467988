//! Mistakes in a configuration file, each with its place and remedy: one line for each problem,
//! `file:line: key = value: what is accepted`, which editors and people both know how to follow.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Reason why there is no configuration. The process ends with status 2 before anything is bound.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read at all.
    #[error("cannot read the configuration {}: {cause}", path.display())]
    Unreadable {
        /// The file as it was named.
        path: PathBuf,
        /// Error of the system.
        cause: io::Error,
    },
    /// The file was read, and these are all the problems that were found in it, at least one.
    #[error("{}", lines(path, problems))]
    Invalid {
        /// The file as it was named.
        path: PathBuf,
        /// In the order of the file; those that belong to no line come first.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, counted from 1; absent for a key that is missing.
    pub line: Option<usize>,
    /// Key, value and what is accepted, in one line.
    pub text: String,
}

fn lines(path: &std::path::Path, problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&path.display().to_string());
        if let Some(line) = problem.line {
            text.push_str(&format!(":{line}"));
        }
        text.push_str(": ");
        text.push_str(&problem.text);
    }
    text
}

/// Text from a file, for a terminal: one line, bounded, control characters escaped.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Enough to recognise a value, too little to fill a screen.
        const LONGEST: usize = 80;
        for (n, c) in self.0.chars().enumerate() {
            if n == LONGEST {
                return f.write_str("…");
            }
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}
