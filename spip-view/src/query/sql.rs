//! Compiles a query into a condition on the sessions of one day, with bound parameters.
//!
//! Names in the condition: `s` is the view of sessions, `tries` and `marks` are of the same day, `facts` and `payloads` are of
//! the catalog. Every term is true or false, never NULL, so that `not` means the opposite.
//!
//! [`Condition::register`] brings two functions to a connection. `fits(number of the test, value)` compares a text. It is
//! applied once to the values of the catalog, whatever number of days and statements follow: `among(number of the set, id)`
//! then reports whether a value passed.

use std::net::IpAddr;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};

use super::eval;
use super::fields::{ANY_MARKS, ANY_TEXTS, Values};
use super::{Expr, Term, Test};
use crate::row::Kind;
use crate::store::key::{self, Salt};
use crate::store::schema::PROFILE;

/// A condition of SQL.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The text.
    pub sql: String,
    /// Values bound to its question marks, in order.
    pub parameters: Vec<Value>,
    tests: Arc<Vec<(Part, Test)>>,
    sets: Vec<Set>,
}

/// A set of numbers that is worked out before the condition is run.
#[derive(Clone, Debug)]
enum Set {
    /// What a statement returns.
    Of(String),
    /// Profiles of which a column is in an earlier set: what is asked of profiles is asked once each, and sessions need not
    /// be joined with them.
    Profiles(&'static str, usize),
}

/// Numbers of values, a bit each: they are given without gaps.
#[derive(Debug, Default)]
struct Ids(Vec<u64>);

impl Ids {
    fn insert(&mut self, id: i64) {
        let Ok(id) = usize::try_from(id) else {
            return;
        };
        if self.0.len() <= id / 64 {
            self.0.resize(id / 64 + 1, 0);
        }
        if let Some(word) = self.0.get_mut(id / 64) {
            *word |= 1 << (id % 64);
        }
    }

    fn contains(&self, id: i64) -> bool {
        usize::try_from(id).ok().and_then(|id| Some(self.0.get(id / 64)? >> (id % 64) & 1 == 1)).unwrap_or(false)
    }
}

/// The part of a value that a test examines.
#[derive(Clone, Copy, Debug)]
enum Part {
    Whole(Option<Kind>),
    Digits,
    Address,
    User,
    Secret,
}

impl Condition {
    /// Returns the condition that every session fulfils.
    #[must_use]
    pub fn all() -> Self {
        Self { sql: "1".to_owned(), parameters: Vec::new(), tests: Arc::default(), sets: Vec::new() }
    }

    /// Compiles `expr`.
    #[must_use]
    pub fn of(expr: &Expr, salt: Salt) -> Self {
        let mut compiler =
            Compiler { salt, sql: String::new(), parameters: Vec::new(), tests: Vec::new(), sets: Vec::new() };
        compiler.expr(expr);
        let Compiler { sql, parameters, tests, sets, .. } = compiler;
        Self { sql, parameters, tests: Arc::new(tests), sets }
    }

    /// Brings `fits` and `among` to the connection that is to run the condition, and applies the tests to the values of its
    /// catalog. A condition that uses neither leaves those of another condition in place: a page asks with its query and
    /// without it.
    ///
    /// # Errors
    /// SQLite refuses it, or there is no more time.
    pub fn register(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.tests.is_empty() && self.sets.is_empty() {
            return Ok(());
        }
        let tests = Arc::clone(&self.tests);
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        connection.create_scalar_function("fits", 2, flags, move |context| Ok(call(&tests, context)))?;
        let mut sets = Vec::with_capacity(self.sets.len());
        for set in &self.sets {
            let mut ids = Ids::default();
            let (sql, of): (_, Option<&Ids>) = match set {
                Set::Of(sql) => (sql.clone(), None),
                Set::Profiles(column, of) => {
                    (format!("SELECT id, {column} FROM profiles WHERE {column} IS NOT NULL"), sets.get(*of))
                }
            };
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if of.is_none_or(|of| row.get(1).is_ok_and(|value| of.contains(value))) {
                    ids.insert(row.get(0)?);
                }
            }
            sets.push(ids);
        }
        connection.create_scalar_function("among", 2, flags, move |context| {
            let (ValueRef::Integer(number), ValueRef::Integer(id)) = (context.get_raw(0), context.get_raw(1)) else {
                return Ok(false);
            };
            Ok(usize::try_from(number).ok().and_then(|number| sets.get(number)).is_some_and(|ids| ids.contains(id)))
        })
    }
}

fn call(tests: &[(Part, Test)], context: &Context<'_>) -> bool {
    let number = match context.get_raw(0) {
        ValueRef::Integer(number) => usize::try_from(number).ok(),
        _ => None,
    };
    let (ValueRef::Text(value) | ValueRef::Blob(value)) = context.get_raw(1) else {
        return false;
    };
    let Some((part, test)) = number.and_then(|number| tests.get(number)) else {
        return false;
    };
    match part {
        Part::Whole(Some(Kind::Tool)) => value.split(|byte| *byte == b' ').any(|tool| eval::text(test, tool)),
        Part::Whole(_) => eval::text(test, value),
        Part::Digits => eval::prefix(test, value),
        Part::Address => {
            let address = std::str::from_utf8(value).ok().and_then(|text| text.parse::<IpAddr>().ok());
            address.is_some_and(|address| eval::address(test, address))
        }
        Part::User | Part::Secret => {
            let Some((_, credential)) = key::read_credential(value) else {
                return false;
            };
            let text = if matches!(part, Part::User) { credential.user } else { credential.secret };
            text.is_some_and(|text| eval::text(test, text.as_bytes()))
        }
    }
}

struct Compiler {
    salt: Salt,
    sql: String,
    parameters: Vec<Value>,
    tests: Vec<(Part, Test)>,
    sets: Vec<Set>,
}

impl Compiler {
    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::And(list) => self.joined(list, " AND "),
            Expr::Or(list) => self.joined(list, " OR "),
            Expr::Not(inner) => {
                self.sql.push_str("NOT ");
                self.expr(inner);
            }
            Expr::Term(term) => {
                self.sql.push('(');
                self.term(term);
                self.sql.push(')');
            }
        }
    }

    fn joined(&mut self, list: &[Expr], by: &str) {
        self.sql.push('(');
        for (index, expr) in list.iter().enumerate() {
            if index > 0 {
                self.sql.push_str(by);
            }
            self.expr(expr);
        }
        self.sql.push(')');
    }

    fn term(&mut self, term: &Term) {
        let test = &term.test;
        match term.field.values {
            Values::Address if term.field.name == "source" => match test {
                Test::Network(first, last) => self.within("s.source", key::address(*first), key::address(*last)),
                _ => self.constant(true),
            },
            Values::Address => self.facts("destination", Kind::Destination, Part::Address, test),
            Values::Number => {
                let column = match term.field.name {
                    "port" => "s.port",
                    "source_port" => "s.source_port",
                    "bytes_in" => "s.bytes_in",
                    "bytes_out" => "s.bytes_out",
                    "duration_ms" => "(s.duration_us / 1000)",
                    _ => "s.n",
                };
                match test {
                    Test::Within(from, to) => self.within(column, number(*from), number(*to)),
                    _ => self.constant(true),
                }
            }
            Values::Boolean if term.field.name == "tls" => self.flag(key::TLS, test),
            Values::Boolean => self.flag(key::TRUNCATED, test),
            Values::Transport => self.flag(key::UDP, test),
            Values::Text(kind) => self.text(kind, test),
            Values::Label(kind) => self.label(kind, test),
            Values::Mark(kind) => self.mark(kind, test),
            Values::Payload => self.payload(test),
            Values::User => self.credential(Part::User, test),
            Values::Secret => self.credential(Part::Secret, test),
            Values::Hex if term.field.name == "sha256" => self.facts("payload", Kind::Payload, Part::Digits, test),
            Values::Hex => match test {
                Test::Prefix(digits) => {
                    let (first, last) = key::uuid_bounds(digits);
                    self.within("s.uuid", Value::Integer(first), Value::Integer(last));
                }
                _ => self.constant(true),
            },
            Values::Any => {
                self.payload(test);
                for kind in ANY_TEXTS {
                    self.sql.push_str(" OR ");
                    self.text(*kind, test);
                }
                for kind in ANY_MARKS {
                    self.sql.push_str(" OR ");
                    self.mark(*kind, test);
                }
                for part in [Part::User, Part::Secret] {
                    self.sql.push_str(" OR ");
                    self.credential(part, test);
                }
            }
        }
    }

    fn constant(&mut self, is: bool) {
        self.sql.push(if is { '1' } else { '0' });
    }

    fn within(&mut self, column: &str, first: Value, last: Value) {
        self.sql.push_str(column);
        self.sql.push_str(" BETWEEN ? AND ?");
        self.parameters.extend([first, last]);
    }

    fn flag(&mut self, bit: i64, test: &Test) {
        match test {
            Test::Is(is) => {
                let sign = if *is { "<>" } else { "=" };
                self.sql.push_str(&format!("(s.flags & {bit}) {sign} 0"));
            }
            _ => self.constant(true),
        }
    }

    fn text(&mut self, kind: Kind, test: &Test) {
        let column = kind.column().unwrap_or("NULL");
        match test {
            Test::Equals(value) if kind != Kind::Tool => {
                let kind_number = kind as u8;
                let hash = self.salt.hash(kind, value);
                let id = format!("SELECT id FROM facts WHERE kind = {kind_number} AND hash = {hash}");
                if is_of_profile(column) {
                    return self.among(column, id);
                }
                self.sql.push_str(&format!("(s.{column} IS NOT NULL AND s.{column} IS ({id}))"));
            }
            test => self.facts(column, kind, Part::Whole(Some(kind)), test),
        }
    }

    /// A column whose fact passes the test.
    fn facts(&mut self, column: &'static str, kind: Kind, part: Part, test: &Test) {
        if *test == Test::Exists {
            self.sql.push_str(&format!("s.{column} IS NOT NULL"));
            return;
        }
        let (kind, number) = (kind as u8, self.number(part, test));
        self.among(column, format!("SELECT id FROM facts WHERE kind = {kind} AND fits({number}, value)"));
    }

    /// A column whose fact is shown as a text that passes the test.
    fn label(&mut self, kind: Kind, test: &Test) {
        let column = kind.column().unwrap_or("NULL");
        if *test == Test::Exists {
            self.sql.push_str(&format!("s.{column} IS NOT NULL"));
            return;
        }
        let (kind, number) = (kind as u8, self.number(Part::Whole(None), test));
        self.among(
            column,
            format!("SELECT id FROM facts WHERE kind = {kind} AND fits({number}, coalesce(label, value))"),
        );
    }

    /// Any of the marks of a kind, by value or by label.
    fn mark(&mut self, kind: Kind, test: &Test) {
        let kind = kind as u8;
        self.sql.push_str(&format!("EXISTS (SELECT 1 FROM marks m WHERE m.session = s.id AND m.kind = {kind}"));
        if *test != Test::Exists {
            let number = self.number(Part::Whole(None), test);
            let set = self.set(format!(
                "SELECT id FROM facts WHERE kind = {kind} AND (fits({number}, value) OR fits({number}, label))"
            ));
            self.sql.push_str(&format!(" AND among({set}, m.fact)"));
        }
        self.sql.push(')');
    }

    fn payload(&mut self, test: &Test) {
        if *test == Test::Exists {
            self.sql.push_str("s.payload IS NOT NULL");
            return;
        }
        let number = self.number(Part::Whole(None), test);
        self.among("payload", format!("SELECT id FROM payloads WHERE fits({number}, head)"));
    }

    fn credential(&mut self, part: Part, test: &Test) {
        let (kind, number) = (Kind::Credential as u8, self.number(part, test));
        let set = self.set(format!("SELECT id FROM facts WHERE kind = {kind} AND fits({number}, value)"));
        self.sql.push_str(&format!("s.id IN (SELECT session FROM tries WHERE among({set}, credential))"));
    }

    fn number(&mut self, part: Part, test: &Test) -> usize {
        self.tests.push((part, test.clone()));
        self.tests.len() - 1
    }

    /// Adds the values that a statement returns as a set. Returns its number.
    fn set(&mut self, sql: String) -> usize {
        self.sets.push(Set::Of(sql));
        self.sets.len() - 1
    }

    /// A column whose number is among those that a statement returns.
    fn among(&mut self, column: &'static str, sql: String) {
        let set = self.set(sql);
        if is_of_profile(column) {
            self.sets.push(Set::Profiles(column, set));
            let profiles = self.sets.len() - 1;
            self.sql.push_str(&format!("among({profiles}, s.profile)"));
        } else {
            self.sql.push_str(&format!("among({set}, s.{column})"));
        }
    }
}

fn is_of_profile(column: &str) -> bool {
    PROFILE.iter().any(|kind| kind.column() == Some(column))
}

fn number(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}
