//! A narrower set of sessions than the filter's: those with one value, found by the roll-up that has it.

use rusqlite::types::Value;

use crate::data::tally::Key;
use crate::row::Kind;
use crate::store::key;

/// A narrower set of sessions than the filter's.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// A condition on `s`.
    pub(crate) sql: String,
    pub(crate) parameters: Vec<Value>,
    /// The roll-up that says in which hours there are any, and counts them.
    pub(crate) index: Option<(Kind, Key)>,
    /// Number of hours that are looked at, the newest ones.
    pub(crate) hours: usize,
}

impl Scope {
    pub(crate) fn all() -> Self {
        Self { sql: "1".to_owned(), parameters: Vec::new(), index: None, hours: usize::MAX }
    }

    /// Sessions whose column has this key.
    pub(crate) fn of(kind: Kind, key: &Key) -> Self {
        let (sql, parameters) = match kind {
            Kind::Credential => {
                ("s.id IN (SELECT session FROM tries WHERE credential = ?)".to_owned(), vec![key.value()])
            }
            Kind::Port => match key {
                Key::Number(port) if *port >= key::UDP_PORTS => {
                    (format!("s.port = ? AND s.flags & {} <> 0", key::UDP), vec![Value::Integer(port - key::UDP_PORTS)])
                }
                _ => (format!("s.port = ? AND s.flags & {} = 0", key::UDP), vec![key.value()]),
            },
            kind if Kind::MARKS.contains(&kind) => (
                format!(
                    "EXISTS (SELECT 1 FROM marks m WHERE m.session = s.id AND m.kind = {} AND m.fact = ?)",
                    kind as u8
                ),
                vec![key.value()],
            ),
            kind => (format!("s.{} = ?", kind.column().unwrap_or("NULL")), vec![key.value()]),
        };
        Self { sql, parameters, index: Some((kind, *key)), hours: usize::MAX }
    }
}
