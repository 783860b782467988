//! The filter of every page: time range, sensor, query, zone. Parsed once from the address of the page, and written
//! back into every link on it, so that an address can be kept and sent to a colleague.
//!
//! | parameter | value |
//! |---|---|
//! | `range` | a span up to now (`15m`, `24h`, `7d`), or `all`; 24h unless given |
//! | `from`, `to` | RFC 3339 or a date; instead of `range`, either may be left out |
//! | `sensor` | name of a sensor |
//! | `q` | a query |
//! | `zone` | `utc` or `local`: how the browser shows times |
//! | `without` | `listed`: leaves out sources that are in a list of known scanners; `claimed`: and clients that say they are one |
//! | `ports` | the ports of the map: `0-1023` |
//! | `limit`, `after` | rows of a list, and the place where it goes on |

use std::fmt::Write as _;

use crate::meaning::Class;
use crate::moment::{DAY, HOUR, Moment, parse_span};
use crate::query::{self, Query};

/// Rows of a list unless the address says another number.
pub const DEFAULT_LIMIT: usize = 50;

/// Most rows that one page shows; export has a bound of its own.
pub const MAX_LIMIT: usize = 1_000;

/// Range, sensor and query that a page is asked for.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The first moment of the range.
    pub from: Moment,
    /// The moment behind the last of the range.
    pub to: Moment,
    /// The range as it was asked for.
    pub range: RangeText,
    /// Name of the sensor; all when absent.
    pub sensor: Option<String>,
    /// The query; everything when absent.
    pub query: Option<Query>,
    /// Known scanners that are left out.
    pub without: Without,
    /// Set when the browser shows times in its own zone.
    pub is_local: bool,
    /// Rows of a list.
    pub limit: usize,
    /// Ports that a map shows, first and last.
    pub ports: Option<(u16, u16)>,
    /// Place where a list continues, as the previous page returned it.
    pub after: Option<String>,
}

/// Known scanners that are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Without {
    /// None.
    #[default]
    Nothing,
    /// Those whose address is in a list.
    Listed,
    /// Those, and clients that say that they are one. Anyone can: attackers may hide there.
    Claimed,
}

impl Without {
    /// All of them, with their names in addresses.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Nothing, ""), (Self::Listed, "listed"), (Self::Claimed, "claimed")];

    /// Returns the name in addresses.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(own, _)| *own == self).map_or("", |(_, name)| name)
    }

    /// Reports whether records of a class are left out.
    #[must_use]
    pub fn hides(self, class: Class) -> bool {
        match self {
            Self::Nothing => false,
            Self::Listed => class == Class::Listed,
            Self::Claimed => class != Class::Unknown,
        }
    }
}

/// A range as it was asked for, so that a link keeps meaning "the last 24 hours".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeText {
    /// A span up to now: `24h`.
    Span(String),
    /// Everything that is stored.
    All,
    /// From one moment to another.
    Between,
}

/// Reasons why an address is not understood.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A parameter has a value that it does not take.
    #[error("{name}={value}: {accepted}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// The value.
        value: String,
        /// Accepted values.
        accepted: &'static str,
    },
    /// The query cannot be read.
    #[error("q: {0}")]
    Query(#[from] query::Error),
}

impl Filter {
    /// Returns the last 24 hours before `now`, without query or sensor.
    #[must_use]
    pub fn last_day(now: Moment) -> Self {
        Self {
            from: Moment(now.0.saturating_sub(DAY)),
            to: now,
            range: RangeText::Span("24h".to_owned()),
            sensor: None,
            query: None,
            without: Without::Nothing,
            is_local: false,
            limit: DEFAULT_LIMIT,
            ports: None,
            after: None,
        }
    }

    /// Parses the parameters of an address. `now` ends spans; unknown parameters are ignored.
    ///
    /// # Errors
    /// A parameter has a value that it does not take, or the query cannot be read.
    pub fn parse(parameters: &[(String, String)], now: Moment) -> Result<Self, FilterError> {
        let value = |name: &str| {
            parameters.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
        };
        let mut filter = Self::last_day(now);
        match value("range") {
            None => {}
            Some("all") => filter.all(),
            Some(text) => {
                let span =
                    parse_span(text).ok_or_else(|| wrong("range", text, "a span such as 15m, 24h, 7d, or all"))?;
                filter.from = Moment(now.0.saturating_sub(span));
                filter.range = RangeText::Span(text.to_owned());
            }
        }
        let moment = |name: &'static str| match value(name) {
            None => Ok(None),
            Some(text) => Moment::parse(text)
                .map(Some)
                .ok_or_else(|| wrong(name, text, "a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z")),
        };
        let (from, to) = (moment("from")?, moment("to")?);
        if from.is_some() || to.is_some() {
            filter.range = RangeText::Between;
            filter.to = to.unwrap_or(now);
            filter.from = from.unwrap_or(Moment(filter.to.0.saturating_sub(DAY)));
            if filter.from > filter.to {
                return Err(wrong("from", value("from").unwrap_or_default(), "must not be later than `to`"));
            }
        }
        filter.sensor = value("sensor").map(str::to_owned);
        filter.query = value("q").map(Query::parse).transpose()?;
        if let Some(text) = value("without") {
            let found = Without::ALL.iter().find(|(_, name)| *name == text).map(|(without, _)| *without);
            filter.without = found.ok_or_else(|| wrong("without", text, "listed or claimed"))?;
        }
        filter.is_local = match value("zone") {
            None | Some("utc") => false,
            Some("local") => true,
            Some(text) => return Err(wrong("zone", text, "utc or local")),
        };
        if let Some(text) = value("limit") {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
            filter.limit = limit.ok_or_else(|| wrong("limit", text, "a number from 1 to 1000"))?;
        }
        if let Some(text) = value("ports") {
            let ends = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
            let ends = ends.filter(|(first, last)| first <= last);
            filter.ports = Some(ends.ok_or_else(|| wrong("ports", text, "a range of ports such as 0-1023"))?);
        }
        filter.after = value("after").map(str::to_owned);
        Ok(filter)
    }

    /// Widens the range to everything.
    pub fn all(&mut self) {
        (self.from, self.to, self.range) = (Moment(i64::MIN), Moment(i64::MAX), RangeText::All);
    }

    /// Returns the range before this one, of the same length, for comparison.
    #[must_use]
    pub fn before(&self) -> Self {
        let length = self.to.0.saturating_sub(self.from.0);
        let mut earlier = self.clone();
        earlier.to = self.from;
        earlier.from = Moment(self.from.0.saturating_sub(length));
        earlier.range = RangeText::Between;
        earlier
    }

    /// Reports whether neither query nor sensor narrow the range.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.query.is_none() && self.sensor.is_none()
    }

    /// Returns an address of this program that holds on to the filter: `link("/ports", &[])`. `changes` replace or add
    /// parameters; an empty value removes one. Where a list goes on (`after`) is never kept.
    #[must_use]
    pub fn link(&self, path: &str, changes: &[(&str, &str)]) -> String {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        match &self.range {
            RangeText::Span(text) if text == "24h" => {}
            RangeText::Span(text) => pairs.push(("range", text.clone())),
            RangeText::All => pairs.push(("range", "all".to_owned())),
            RangeText::Between => {
                pairs.push(("from", self.from.to_string()));
                pairs.push(("to", self.to.to_string()));
            }
        }
        if let Some(sensor) = &self.sensor {
            pairs.push(("sensor", sensor.clone()));
        }
        if let Some(query) = &self.query {
            pairs.push(("q", query.text().to_owned()));
        }
        if self.without != Without::Nothing {
            pairs.push(("without", self.without.name().to_owned()));
        }
        if self.is_local {
            pairs.push(("zone", "local".to_owned()));
        }
        if let Some((first, last)) = self.ports {
            pairs.push(("ports", format!("{first}-{last}")));
        }
        if self.limit != DEFAULT_LIMIT {
            pairs.push(("limit", self.limit.to_string()));
        }
        for (name, value) in changes {
            // A range of one kind replaces one of the other.
            pairs.retain(|(key, _)| match *name {
                "range" => !matches!(*key, "range" | "from" | "to"),
                "from" | "to" => *key != "range" && key != name,
                _ => key != name,
            });
            if !value.is_empty() {
                pairs.push((name, (*value).to_owned()));
            }
        }
        let mut link = path.to_owned();
        for (index, (key, value)) in pairs.iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            let _ = write!(link, "{separator}{key}={}", encode(value));
        }
        link
    }

    /// Returns the width of a column of a time chart, microseconds: at most 120 columns. Above six hours columns are whole
    /// hours, so that the store's roll-ups answer.
    #[must_use]
    pub fn step(from: Moment, to: Moment) -> i64 {
        const MINUTE: i64 = HOUR / 60;
        const SHORT: &[i64] = &[MINUTE, 2 * MINUTE, 3 * MINUTE];
        const LONG: &[i64] = &[HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 28 * DAY];
        let length = to.0.saturating_sub(from.0);
        let steps = if length <= 6 * HOUR { SHORT } else { LONG };
        // One column more where the range does not begin with one.
        steps.iter().copied().find(|step| length / step < 120).unwrap_or(365 * DAY)
    }
}

/// Percent-encodes a value of an address or a part of a path.
#[must_use]
pub fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn wrong(name: &'static str, value: &str, accepted: &'static str) -> FilterError {
    FilterError::Parameter { name, value: value.chars().take(80).collect(), accepted }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_767_225_600_000_000);

    fn parse(pairs: &[(&str, &str)]) -> Result<Filter, FilterError> {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Filter::parse(&pairs, NOW)
    }

    #[test]
    fn without_parameters_it_is_the_last_day() {
        let filter = parse(&[]).unwrap();
        assert_eq!((filter.from, filter.to), (Moment(NOW.0 - DAY), NOW));
        assert_eq!(filter.link("/", &[]), "/");
    }

    #[test]
    fn a_link_holds_on_to_what_was_asked_for() {
        let filter = parse(&[("range", "7d"), ("sensor", "a b"), ("q", "port:22"), ("zone", "local")]).unwrap();
        assert_eq!(filter.link("/ports", &[]), "/ports?range=7d&sensor=a%20b&q=port%3A22&zone=local");
        assert_eq!(parse(&[("without", "listed")]).unwrap().link("/new", &[]), "/new?without=listed");
        assert_eq!(filter.link("/ports", &[("range", "1h"), ("q", "")]), "/ports?sensor=a%20b&zone=local&range=1h");
        let between = parse(&[("from", "2026-01-01"), ("to", "2026-01-02")]).unwrap();
        assert!(between.link("/", &[]).starts_with("/?from=2026-01-01T00%3A00%3A00.000000Z&to="));
        assert_eq!(between.link("/", &[("range", "1h")]), "/?range=1h");
        // And the other way round; each end replaces its own.
        let span = parse(&[("range", "7d")]).unwrap();
        assert_eq!(span.link("/", &[("from", "a"), ("to", "b")]), "/?from=a&to=b");
        assert!(
            between.link("/", &[("from", "a")]).ends_with("&from=a")
                && !between.link("/", &[("from", "a")]).contains("from=2026")
        );
    }

    #[test]
    fn a_mistake_names_the_parameter_and_what_it_takes() {
        for (name, value) in
            [("range", "soon"), ("from", "x"), ("zone", "mars"), ("without", "x"), ("limit", "0"), ("limit", "1001")]
        {
            let error = parse(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}={value}: ")), "{error}");
        }
        assert!(parse(&[("from", "2026-01-02"), ("to", "2026-01-01")]).is_err());
        // The form of an empty page is sent as it is.
        assert!(parse(&[("from", "2026-01-01"), ("to", "2026-01-01")]).is_ok());
    }

    #[test]
    fn the_range_before_has_the_same_length() {
        let filter = parse(&[("range", "1h")]).unwrap();
        let before = filter.before();
        assert_eq!((before.from, before.to), (Moment(NOW.0 - 2 * HOUR), Moment(NOW.0 - HOUR)));
    }

    #[test]
    fn a_chart_has_at_most_120_columns() {
        for hours in [1, 5, 6, 7, 24, 24 * 7, 24 * 30, 24 * 365] {
            let step = Filter::step(Moment(NOW.0 - hours * HOUR), NOW);
            assert!(hours * HOUR / step <= 120, "{hours}");
        }
    }
}
