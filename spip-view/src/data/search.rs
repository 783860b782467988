//! *Search*: sessions that a query means, newest first.

use serde::Serialize;

use super::ask::{Ask, Scope};
use super::{Count, Series, SessionLine, line};
use crate::filter::Filter;
use crate::query::{self, FIELDS};
use crate::row::Kind;
use crate::store::{Reader, Result};

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct SearchPage {
    /// Number of sessions; a lower bound when there was no time to examine all.
    pub total: Count,
    /// Newest first.
    pub sessions: Vec<SessionLine>,
    /// The value of `after` for the next page.
    pub next: Option<String>,
    /// Sessions over time.
    pub histogram: Series,
    /// The fields, for completion.
    pub fields: &'static [query::Field],
}

/// Returns the data of the page.
///
/// # Errors
/// The store does not answer.
pub fn page(reader: &Reader, filter: &Filter) -> Result<SearchPage> {
    let ask = Ask::new(reader, filter)?;
    let everything = Scope::all();
    let mut below = Ask::new(reader, filter)?;
    if let Some(after) = &filter.after {
        let (day, id) = line::read_session_id(after)?;
        below = below.before(day, id);
    }
    let (sessions, next) = line::latest(&below, &everything, filter.limit)?;
    let ((histogram, is_exact), total) = if ask.has_query() {
        let (histogram, is_exact) = ask.series_of(&everything, "1")?;
        let total = histogram.points.iter().sum();
        ((histogram, is_exact), total)
    } else {
        ((ask.series(Kind::Sessions, None)?, true), ask.sum(Kind::Sessions, None)?)
    };
    Ok(SearchPage { total: Count { value: total, is_exact }, sessions, next, histogram, fields: FIELDS })
}
