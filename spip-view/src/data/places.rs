//! *Countries* and *Networks*: where sources are, and which of them are known scanners, by the data of the operator.

use rusqlite::OptionalExtension as _;
use serde::Serialize;

use super::ask::Ask;
use super::{Count, Top, TopList};
use crate::filter::Filter;
use crate::row::Kind;
use crate::store::{Reader, Result};

/// Connections by country.
#[derive(Clone, Debug, Serialize)]
pub struct CountriesPage {
    /// Set when the store has any country: without data on addresses it has none.
    pub has_data: bool,
    /// Number of countries.
    pub total: Count,
    /// All of them, most connections first.
    pub countries: Vec<Top>,
    /// Connections whose country is not known.
    pub unknown: u64,
}

/// Connections by network and by known scanner.
#[derive(Clone, Debug, Serialize)]
pub struct NetworksPage {
    /// Set when the store has any autonomous system: without data on addresses it has none.
    pub has_data: bool,
    /// Autonomous systems and special ranges, most connections first.
    pub networks: TopList,
    /// Known scanners, listed or claimed, most connections first.
    pub scanners: TopList,
}

/// More than there are countries.
const COUNTRIES: usize = 300;

/// Scanners that are listed.
const SCANNERS: usize = 50;

/// Returns connections by country.
///
/// # Errors
/// The store does not answer.
pub fn countries(reader: &Reader, filter: &Filter) -> Result<CountriesPage> {
    let ask = Ask::new(reader, filter)?;
    let list = ask.top(Kind::Country, COUNTRIES)?;
    let known: u64 = list.items.iter().map(|country| country.count).sum();
    Ok(CountriesPage {
        has_data: has_any(reader, Kind::Country, "")?,
        total: list.distinct,
        unknown: ask.totals()?.connections.saturating_sub(known),
        countries: list.items,
    })
}

/// Returns connections by network and by known scanner.
///
/// # Errors
/// The store does not answer.
pub fn networks(reader: &Reader, filter: &Filter) -> Result<NetworksPage> {
    let ask = Ask::new(reader, filter)?;
    Ok(NetworksPage {
        // Special ranges have no label and need no data.
        has_data: has_any(reader, Kind::Network, "AND label IS NOT NULL")?,
        networks: ask.top(Kind::Network, filter.limit)?,
        scanners: ask.top(Kind::Scanner, SCANNERS)?,
    })
}

fn has_any(reader: &Reader, kind: Kind, condition: &str) -> Result<bool> {
    let sql = format!("SELECT 1 FROM facts WHERE kind = {} {condition} LIMIT 1", kind as u8);
    let found = reader.catalog().query_row(&sql, [], |_| Ok(())).optional();
    found.map(|found| found.is_some()).map_err(|source| reader.failed(source))
}
