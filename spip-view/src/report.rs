//! The report: what a range comes to, in numbers with documented keys, as text for a terminal, and as one HTML page.
//!
//! | key | number of |
//! |---|---|
//! | `sessions` | records of sessions |
//! | `connections` | connections: a record with `count` N stands for N |
//! | `scans` | records of half-open scans |
//! | `half_open` | half-open SYNs, the sum of their `count` |
//! | `sources` | different addresses that connected; 0.0.0.0, which stands for many, is none |
//! | `ports` | different ports that were connected to |
//! | `payloads` | different payloads, by SHA-256 |
//! | `credentials` | different pairs of user and secret |
//! | `gaps` | records that are missing by their numbers (`seq`), in runs that touch the range |

pub mod html;
pub mod text;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::data::ask::Ask;
use crate::data::new::{self, NewSection};
use crate::data::tally::Key;
use crate::data::{Series, Top, health};
use crate::filter::{Filter, RangeText};
use crate::moment::Moment;
use crate::row::{Credential, Kind};
use crate::store::{Reader, Result, key};

/// Lines of each list.
const TOP: usize = 10;

/// A report on a range.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of these keys: `spip-report/1`.
    pub schema: &'static str,
    /// Time at which the report was made.
    pub generated: Moment,
    /// The first moment of the range; of everything, that of the first day.
    pub from: Moment,
    /// The moment behind the range.
    pub to: Moment,
    /// The numbers.
    #[serde(flatten)]
    pub numbers: Numbers,
    /// The numbers of the range before, of the same length; absent when the range is everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Numbers>,
    /// The most frequent values.
    pub top: Tops,
    /// Values that appeared for the first time.
    pub new: Vec<NewSection>,
    /// Connections over time.
    pub series: Series,
}

/// The numbers of a range; the keys are documented above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "documented in the table above")]
pub struct Numbers {
    pub sessions: u64,
    pub connections: u64,
    pub scans: u64,
    pub half_open: u64,
    pub sources: u64,
    pub ports: u64,
    pub payloads: u64,
    pub credentials: u64,
    pub gaps: u64,
}

/// The most frequent values of a range, by connections.
#[derive(Clone, Debug, Serialize)]
pub struct Tops {
    /// Rules that matched.
    pub tags: Vec<Top>,
    /// Vulnerabilities that were tried.
    pub cves: Vec<Top>,
    /// Sources.
    pub sources: Vec<Top>,
    /// Ports.
    pub ports: Vec<Top>,
    /// Protocols.
    pub protocols: Vec<Top>,
    /// Groups of payloads.
    pub payloads: Vec<Top>,
    /// Credentials: protocol, user and secret as a JSON array.
    pub credentials: Vec<Top>,
    /// User agents.
    pub user_agents: Vec<Top>,
    /// JA4 fingerprints.
    pub ja4: Vec<Top>,
    /// Sources of half-open SYNs.
    pub scanners: Vec<Top>,
    /// Countries of sources.
    pub countries: Vec<Top>,
    /// Networks of sources.
    pub networks: Vec<Top>,
    /// Known scanners, listed or claimed.
    pub known_scanners: Vec<Top>,
}

/// Makes the report of the filter's range.
///
/// # Errors
/// The store does not answer.
pub fn report(reader: &Reader, filter: &Filter) -> Result<Report> {
    let ask = Ask::new(reader, filter)?;
    let top = |kind| ask.top(kind, TOP).map(|list| list.items);
    let before = match filter.range {
        RangeText::All => None,
        _ => Some(numbers(reader, &Ask::new(reader, &filter.before())?)?),
    };
    Ok(Report {
        schema: "spip-report/1",
        generated: Moment::now(),
        from: ask.from,
        to: ask.to,
        numbers: numbers(reader, &ask)?,
        before,
        top: Tops {
            tags: top(Kind::Tag)?,
            cves: top(Kind::Cve)?,
            sources: top(Kind::Source)?,
            ports: top(Kind::Port)?,
            protocols: top(Kind::Protocol)?,
            payloads: top(Kind::Group)?,
            credentials: top(Kind::Credential)?,
            user_agents: top(Kind::UserAgent)?,
            ja4: top(Kind::Ja4)?,
            scanners: top(Kind::ScanSource)?,
            countries: top(Kind::Country)?,
            networks: top(Kind::Network)?,
            known_scanners: top(Kind::Scanner)?,
        },
        new: if filter.range == RangeText::All { Vec::new() } else { new::sections(reader, filter, TOP)? },
        series: ask.series(Kind::Connections, None)?,
    })
}

fn numbers(reader: &Reader, ask: &Ask<'_>) -> Result<Numbers> {
    let totals = ask.totals()?;
    let mut ports = BTreeSet::new();
    ask.tally(Kind::Port)?.each(|key, _| {
        if let Key::Number(port) = key {
            ports.insert(port % key::UDP_PORTS);
        }
    });
    Ok(Numbers {
        sessions: totals.sessions,
        connections: totals.connections,
        scans: totals.scans,
        half_open: totals.half_open,
        sources: ask.tally(Kind::Source)?.distinct().value,
        ports: ports.len() as u64,
        payloads: ask.tally(Kind::Payload)?.distinct().value,
        credentials: credentials(ask)?,
        gaps: health::missing(reader, ask.from, ask.to)?,
    })
}

/// Different pairs, whatever the protocol.
fn credentials(ask: &Ask<'_>) -> Result<u64> {
    let mut pairs: BTreeSet<Credential> = BTreeSet::new();
    let mut keys = Vec::new();
    ask.tally(Kind::Credential)?.each(|key, _| keys.push(key));
    for key in keys {
        let (text, _) = crate::data::names::name(ask.reader, Kind::Credential, &key)?;
        pairs.extend(key::read_credential(text.as_bytes()).map(|(_, credential)| credential));
    }
    Ok(pairs.len() as u64)
}
