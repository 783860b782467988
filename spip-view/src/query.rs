//! The query language: `port:22 and source:198.51.100.0/24 and payload~"wget"`.
//!
//! A query is parsed once into an [`Expr`]. `sql` compiles it into a condition with bound parameters, `eval` decides about
//! one row in memory, for the live stream; both must agree on every row. Nothing of a query ever becomes SQL text.
//!
//! Bounds: 2,048 bytes, 64 terms, 32 parentheses deep.

pub mod eval;
pub mod fields;
mod lex;
mod parse;
pub mod sql;

use std::fmt;

use serde::Serialize;

pub use fields::{FIELDS, Field};

/// A query that was understood.
#[derive(Clone, Debug)]
pub struct Query {
    text: String,
    expr: Expr,
}

impl Query {
    /// Parses `text`.
    ///
    /// # Errors
    /// The text is no query; the error points at the place.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { text: text.to_owned(), expr: parse::parse(text)? })
    }

    /// Returns the query as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns what it says.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.expr
    }
}

/// A parsed query.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// All of them.
    And(Vec<Expr>),
    /// Any of them.
    Or(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// One comparison.
    Term(Term),
}

/// One comparison. A comparison with something that a record does not have is false.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Field that is compared.
    pub field: &'static Field,
    /// Comparison and its value.
    pub test: Test,
}

/// Comparisons of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// The record has a value (`field:*`).
    Exists,
    /// A number within inclusive bounds.
    Within(u64, u64),
    /// True or false.
    Is(bool),
    /// An address within inclusive bounds, both of one family.
    Network(std::net::IpAddr, std::net::IpAddr),
    /// A text that is equal, byte for byte.
    Equals(Vec<u8>),
    /// A text that fits a pattern with `*`, ignoring the case of ASCII.
    Like(Vec<Vec<u8>>),
    /// A text that contains this, ignoring the case of ASCII; in lower case.
    Contains(Vec<u8>),
    /// SHA-256 or UUID that begins with these half bytes, as hexadecimal digits.
    Prefix(String),
}

/// A mistake in a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Error {
    /// Start of the mistake, in characters.
    pub at: usize,
    /// Length of the mistake, in characters.
    pub length: usize,
    /// Message: what is wrong, and what is accepted.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at character {})", self.message, self.at + 1)
    }
}

/// Quotes a value so that it can stand behind an operator: `payload~` + `quote(…)`.
#[must_use]
pub fn quote(value: &str) -> String {
    let is_plain = !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-' | b'+' | b'@' | b'='))
        && !["and", "or", "not"].contains(&value.to_ascii_lowercase().as_str());
    if is_plain {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' | '*' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
