//! `spip-view retag`: works out again what the stored records mean, after rules or data have become better.

use std::net::IpAddr;

use spip_enrich::Enricher;
use spip_record::enrichment::Enrichment;
use spip_record::read;

use crate::data::Records;
use crate::moment::Day;
use crate::store::{Error, Meanings, Reader, Result, Retagged, Store, Writer};

struct Lookup<'r> {
    records: Records<'r>,
    enricher: Enricher,
}

impl Meanings for Lookup<'_> {
    fn session(&mut self, day: Day, id: i64) -> Option<Enrichment> {
        let line = self.records.line(day, id).ok()?.ok()?;
        match read::line(&line) {
            Ok(read::Line::Session(entry)) => Some(self.enricher.record(&entry)),
            _ => None,
        }
    }

    fn scan(&mut self, source: IpAddr) -> Enrichment {
        Enrichment { source: self.enricher.source(source), ..Enrichment::default() }
    }
}

/// Tags everything in the store again, oldest day first. `progress` hears of each day: how many are done, of how many.
///
/// # Errors
/// The store cannot be written: another spip-view writes to it, for example.
pub fn run(
    store: &Store,
    reader: &Reader,
    enricher: &Enricher,
    progress: &mut dyn FnMut(Day, Retagged, usize, usize),
) -> Result<Retagged> {
    let mut writer = Writer::open(store, true).map_err(|error| match error {
        Error::Sqlite { source, .. } if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            Error::Busy
        }
        error => error,
    })?;
    writer.begin_retag()?;
    let days = store.days()?;
    let mut sum = Retagged::default();
    for (index, day) in days.iter().enumerate() {
        let mut lookup = Lookup { records: Records::new(reader), enricher: enricher.clone() };
        let done = writer.retag(*day, &mut lookup)?;
        sum.sessions += done.sessions;
        sum.unread += done.unread;
        progress(*day, done, index + 1, days.len());
    }
    writer.note(&format!("retagged {} sessions of {} days", sum.sessions, days.len()))?;
    Ok(sum)
}
