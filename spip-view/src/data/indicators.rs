//! What payloads name and where attacks came from, for other programs: STIX 2.1 or a plain list.
//!
//! `spip-enrich` decides what is in an export: sources are in it only where a rule calls their session an attack and the
//! client completed a handshake. Half-open scans are no sessions, and of UDP no source is verified: neither is ever in it.

use std::net::IpAddr;

use spip_enrich::export::{Export, Form};
use spip_record::enrichment::{Enrichment, Indicator, IndicatorKind, Tag};

use super::ask::{Ask, Scope};
use crate::filter::Filter;
use crate::row::Kind;
use crate::store::{Reader, Result, key};

/// Returns the type of a form's content.
#[must_use]
pub fn content_type(form: Form) -> &'static str {
    match form {
        Form::Stix => "application/stix+json;version=2.1",
        Form::List(_) => "text/plain; charset=utf-8",
    }
}

/// Returns a name for the file of a form.
#[must_use]
pub fn file_name(form: Form) -> &'static str {
    match form {
        Form::Stix => "spip-indicators.json",
        Form::List(list) => list.file(),
    }
}

/// The indicators of a filter.
#[derive(Debug)]
pub struct Indicators {
    export: Export,
    author: String,
}

/// Collects the indicators of the sessions of a filter.
///
/// # Errors
/// The store does not answer.
pub fn collect(reader: &Reader, filter: &Filter) -> Result<Indicators> {
    let ask = Ask::patient(reader, filter)?;
    let mut names = Names::default();
    let mut export = Export::default();
    let mut current: Option<(i64, IpAddr, bool, i64, Enrichment)> = None;
    let mut error = None;
    let tables = crate::store::rows::marked(&[Kind::Tag, Kind::Indicator]);
    let mut add = |session: Option<(i64, IpAddr, bool, i64, Enrichment)>| {
        if let Some((_, source, verified, at_us, enrichment)) = session {
            export.add(source, verified, at_us, &enrichment);
        }
    };
    let columns = "s.id, s.source, s.flags, m.kind, m.fact";
    ask.each_in(&tables, &Scope::all(), columns, "ORDER BY s.id", |day, row| {
        let id: i64 = row.get(0)?;
        let at = key::accepted(day, id).0;
        if current.as_ref().is_none_or(|(own, _, _, when, _)| (*own, *when) != (id, at)) {
            let verified = row.get::<_, i64>(2)? & key::UDP == 0;
            let next = (id, key::read_address(row.get_ref(1)?), verified, at, Enrichment::default());
            add(current.replace(next));
        }
        let found = names.of(reader, row.get(3)?, row.get(4)?);
        match (found, &mut current) {
            (Ok(Name::Tag(tag)), Some((.., enrichment))) => enrichment.tags.push(tag),
            (Ok(Name::Indicator(indicator)), Some((.., enrichment))) => enrichment.indicators.push(indicator),
            (Ok(_), _) => {}
            (Err(failure), _) => error = Some(failure),
        }
        Ok(error.is_none())
    })?;
    add(current);
    if let Some(error) = error {
        return Err(error);
    }
    if reader.deadline().is_over() {
        // A list that is not whole must not look as if it were.
        return Err(crate::store::Error::Deadline);
    }
    Ok(Indicators { export, author: filter.sensor.clone().unwrap_or_else(|| "spip".to_owned()) })
}

impl Indicators {
    /// Returns them in a form.
    #[must_use]
    pub fn written(&self, form: Form) -> Vec<u8> {
        let mut out = Vec::new();
        // Memory takes everything.
        let _ = self.export.write(form, &self.author, &mut out);
        out
    }
}

#[derive(Clone)]
enum Name {
    Tag(Tag),
    Indicator(Indicator),
    Unknown,
}

/// Marks that were looked up already.
#[derive(Default)]
struct Names {
    known: std::collections::HashMap<(u8, i64), Name>,
}

/// Marks that are remembered: about 30 MB.
const MAX_KNOWN: usize = 100_000;

impl Names {
    fn of(&mut self, reader: &Reader, kind: u8, fact: i64) -> Result<Name> {
        if let Some(known) = self.known.get(&(kind, fact)) {
            return Ok(known.clone());
        }
        let own = Kind::of_number(kind).unwrap_or(Kind::Tag);
        let (value, label) = super::names::name(reader, own, &super::tally::Key::Number(fact))?;
        let found = match own {
            Kind::Tag => super::tags::rule(reader, &value)?.map_or(Name::Unknown, Name::Tag),
            _ => {
                let kind = match label.as_deref().and_then(|label| label.split(' ').next()) {
                    Some("host") => IndicatorKind::Host,
                    Some("sha256") => IndicatorKind::Sha256,
                    _ => IndicatorKind::Url,
                };
                Name::Indicator(Indicator { kind, value })
            }
        };
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert((kind, fact), found.clone());
        Ok(found)
    }
}
