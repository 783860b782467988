//! The one writer of the store.
//!
//! A batch of lines becomes, in this order: new facts in the catalog, rows in the files of their days, and what was
//! counted together with the position in the log, in the catalog. Each is a transaction that is on the disk before the
//! next one begins. Whatever is interrupted is done again from the position, and days pass over lines that they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;
use spip_record::enrichment::Enrichment;

use super::dayfile::DayFile;
use super::facts::{Appearance, FactValue, Facts};
use super::insert::Numbers;
use super::journal::LogState;
use super::profiles::{Profiles, campaign};
use super::rules::Rules;
use super::runs::{Runs, Seen};
use super::sources::Sources;
use super::{Error, Result, Store, insert, key, prepare, schema};
use crate::meaning::{self, Class};
use crate::moment::{Day, Moment};
use crate::query::eval::SEARCHED_BYTES;
use crate::row::{Kind, Row, ScanRow};

/// Days that are open at once: lines come in the order of time but for days that several logs share.
const OPEN_DAYS: usize = 4;

/// Result of storing a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the store; the day and key of a session.
    Stored(Day, i64),
    /// It is there already.
    Duplicate,
    /// It is older than what is kept.
    Expired,
}

/// Place where a record is kept.
pub(super) enum Kept<'a> {
    /// In the store.
    Here(&'a [u8]),
    /// In the log: a place, and lines from there.
    In(Arc<str>, i64),
    Nowhere,
}

/// Writes to the store.
pub struct Writer {
    pub(super) store: Store,
    pub(super) catalog: Connection,
    pub(super) days: BTreeMap<Day, DayFile>,
    pub(super) facts: Facts,
    pub(super) profiles: Profiles,
    pub(super) runs: Runs,
    rules: Rules,
    sources: Sources,
    keeps_records: bool,
    /// Place of the next record in its log: the point from which it is found again, and its line from there.
    place: Option<(Arc<str>, i64)>,
    /// Days before this one are not kept.
    pub(super) oldest: Option<Day>,
    /// There is no room: records are read and not kept.
    pub(super) is_full: bool,
}

impl Writer {
    /// Opens the store for writing. `keeps_records`: whether the records themselves are kept, too.
    ///
    /// # Errors
    /// The catalog cannot be opened, or another program writes to it.
    pub fn open(store: &Store, keeps_records: bool) -> Result<Self> {
        let path = store.catalog();
        let failed = |source| Error::Sqlite { path: path.clone(), source };
        let catalog = Connection::open(&path).map_err(failed)?;
        prepare(&catalog, schema::CATALOG).map_err(failed)?;
        catalog.execute_batch("PRAGMA cache_size = -16384;").map_err(failed)?;
        catalog.set_prepared_statement_cache_capacity(64);
        let mut writer = Self {
            store: store.clone(),
            catalog,
            days: BTreeMap::new(),
            facts: Facts::new(store.salt),
            profiles: Profiles::default(),
            runs: Runs::default(),
            rules: Rules::default(),
            sources: Sources::default(),
            keeps_records,
            place: None,
            oldest: None,
            is_full: false,
        };
        writer.begin()?;
        Ok(writer)
    }

    pub(super) fn failed(&self, source: rusqlite::Error) -> Error {
        Error::Sqlite { path: self.store.catalog(), source }
    }

    fn begin(&mut self) -> Result<()> {
        self.catalog.execute_batch("BEGIN IMMEDIATE").map_err(|source| self.failed(source))
    }

    /// Returns the greatest line of a log that any day has: what a day passes over.
    ///
    /// # Errors
    /// A day cannot be opened.
    pub fn absorbed(&mut self, log: i64) -> Result<u64> {
        let mut most = 0;
        for day in self.store.days()? {
            most = most.max(self.day(day)?.map_or(0, |file| file.absorbed(log)));
        }
        Ok(most)
    }

    /// Returns the file of a day; nothing when it is older than what is kept.
    fn day(&mut self, day: Day) -> Result<Option<&mut DayFile>> {
        if self.is_full {
            return Ok(None);
        }
        if !self.days.contains_key(&day) {
            if self.oldest.is_some_and(|oldest| day < oldest) {
                return Ok(None);
            }
            if self.days.len() >= OPEN_DAYS {
                self.close_a_day()?;
            }
            let path = self.store.day(day);
            let file = match DayFile::open(&path) {
                Ok(file) => file,
                Err(source) if super::is_damaged(&source) => {
                    self.move_aside(day, &source)?;
                    DayFile::open(&path).map_err(|source| Error::Sqlite { path: path.clone(), source })?
                }
                Err(source) => return Err(Error::Sqlite { path, source }),
            };
            self.days.insert(day, file);
        }
        Ok(self.days.get_mut(&day))
    }

    /// Commits and closes the oldest open day. New facts that its rows name are committed first.
    fn close_a_day(&mut self) -> Result<()> {
        self.catalog.execute_batch("COMMIT; BEGIN IMMEDIATE").map_err(|source| self.failed(source))?;
        if let Some((day, mut file)) = self.days.pop_first() {
            let path = self.store.day(day);
            file.commit().and_then(|()| file.close()).map_err(|source| Error::Sqlite { path, source })?;
        }
        Ok(())
    }

    fn move_aside(&mut self, day: Day, why: &rusqlite::Error) -> Result<()> {
        let path = self.store.day(day);
        let aside = super::move_aside(&path)?;
        self.event(&format!(
            "the file of {day} cannot be used ({why}); it is now {}, and the day begins anew. To build it again, stop \
             spip-view, remove its state directory and start it: it reads the logs from their beginning",
            aside.display()
        ))
    }

    /// Takes a session, which is line `line` of `log`, counted over all of its files.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn session(&mut self, log: i64, line: u64, row: &Row, record: &[u8]) -> Result<Taken> {
        let source = key::address(row.source);
        let id = key::of_line(row.time, line);
        let class = Class::of(&row.meaning);
        let seen = Appearance { time: row.time, source: &source, session: id, port: row.port, class };
        let sensor = self.fact(Kind::Sensor, &row.sensor, 0, &seen)?;
        let ended = Moment(row.time.0.saturating_add(i64::try_from(row.duration_us).unwrap_or(i64::MAX)));
        let run = self.runs.take(&self.catalog, sensor, row.run.as_deref(), row.seq, ended);
        if run.map_err(|source| self.failed(source))? == Seen::Duplicate {
            return Ok(Taken::Duplicate);
        }
        let day = row.time.day();
        match self.day(day)? {
            None => return Ok(Taken::Expired),
            Some(file) => {
                if file.has_absorbed(log, line).map_err(|source| Error::Sqlite { path: "day".into(), source })? {
                    self.count_facts(row, &seen)?;
                    self.sources.count(&source, row.source, row.time, row.count, 0);
                    return Ok(Taken::Stored(day, id));
                }
            }
        }
        let facts = self.count_facts(row, &seen)?;
        self.sources.count(&source, row.source, row.time, row.count, 0);
        let kept = match (&self.place, self.keeps_records) {
            (Some((place, line)), false) => Kept::In(Arc::clone(place), *line),
            (None, false) => Kept::Nowhere,
            (_, true) => Kept::Here(record),
        };
        let profile = self.profiles.number(&self.catalog, &facts).map_err(|source| self.failed(source))?;
        let path = self.store.day(day);
        let Some(file) = self.days.get_mut(&day) else {
            return Ok(Taken::Expired);
        };
        let stored = insert::session(file, row, &Numbers { id, sensor, source: &source, facts: &facts, profile }, kept);
        let id = stored.map_err(|source| Error::Sqlite { path, source })?;
        Ok(Taken::Stored(day, id))
    }

    /// Says where the next record is in its log. Without a place, and with `keeps_records`, it is not noted.
    pub fn at(&mut self, place: Option<(Arc<str>, i64)>) {
        self.place = place;
    }

    fn fact(&mut self, kind: Kind, text: &str, n: u64, seen: &Appearance<'_>) -> Result<i64> {
        self.facts
            .number(&self.catalog, kind, &FactValue::Text(text), n, seen, || (None, None))
            .map_err(|source| Error::Sqlite { path: self.store.catalog(), source })
    }

    pub(super) fn keep_rules(&mut self, meaning: &Enrichment) -> Result<()> {
        for tag in &meaning.tags {
            let kept = self.rules.keep(&self.catalog, self.store.salt, tag);
            kept.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    pub(super) fn labelled(
        &mut self,
        kind: Kind,
        text: &str,
        label: Option<String>,
        n: u64,
        seen: &Appearance<'_>,
    ) -> Result<i64> {
        let label = || (None, label.map(|label| super::facts::cut(&label).to_owned()));
        self.facts
            .number(&self.catalog, kind, &FactValue::Text(text), n, seen, label)
            .map_err(|source| Error::Sqlite { path: self.store.catalog(), source })
    }

    /// Counts the facts of a session. Returns their numbers.
    fn count_facts(&mut self, row: &Row, seen: &Appearance<'_>) -> Result<Vec<(Kind, i64)>> {
        let mut facts = Vec::with_capacity(row.facts.len() + 6);
        let n = row.count;
        facts.push((Kind::Destination, self.fact(Kind::Destination, &row.destination.to_string(), n, seen)?));
        facts.push((Kind::CloseReason, self.fact(Kind::CloseReason, &row.close_reason, n, seen)?));
        for (kind, text) in [(Kind::Limit, &row.limit), (Kind::Protocol, &row.protocol)] {
            if let Some(text) = text {
                facts.push((kind, self.fact(kind, text, n, seen)?));
            }
        }
        let mut group = None;
        if let Some(own) = &row.group {
            let label = || (None, Some(super::facts::cut(&own.template).to_owned()));
            let value = FactValue::Text(&own.hash);
            let number = self.facts.number(&self.catalog, Kind::Group, &value, n, seen, label);
            group = Some(number.map_err(|source| self.failed(source))?);
            facts.extend(group.map(|group| (Kind::Group, group)));
        }
        for (kind, text) in &row.facts {
            facts.push((*kind, self.labelled(*kind, text, meaning::label(*kind, &row.meaning), n, seen)?));
        }
        for mark in meaning::marks(&row.meaning) {
            facts.push((mark.kind, self.labelled(mark.kind, &mark.value, mark.label, n, seen)?));
        }
        self.keep_rules(&row.meaning)?;
        if let Some(sha256) = &row.sha256 {
            facts.push((Kind::Payload, self.payload(sha256, group, &row.payload, n, seen)?));
        }
        if let Some(campaign) = campaign(&facts) {
            facts.push((Kind::Campaign, self.fact(Kind::Campaign, &campaign, n, seen)?));
        }
        let protocol = row.protocol.as_deref().unwrap_or_default();
        for credential in &row.credentials {
            let text = key::credential(protocol, credential);
            facts.push((Kind::Credential, self.fact(Kind::Credential, &text, n, seen)?));
        }
        let port = insert::port_key(row);
        let text = if row.is_udp { format!("{}/udp", row.port) } else { row.port.to_string() };
        self.fact(Kind::Port, &text, n, seen)?;
        facts.push((Kind::Port, port));
        Ok(facts)
    }

    /// Counts a payload, and keeps the begin of a new one for search.
    fn payload(
        &mut self,
        sha256: &[u8; 32],
        group: Option<i64>,
        bytes: &[u8],
        n: u64,
        seen: &Appearance<'_>,
    ) -> Result<i64> {
        let mut is_new = false;
        let make = || {
            is_new = true;
            (group, None)
        };
        let number = self.facts.number(&self.catalog, Kind::Payload, &FactValue::Hash(sha256), n, seen, make);
        let number = number.map_err(|source| self.failed(source))?;
        if is_new {
            let head = bytes.get(..SEARCHED_BYTES).unwrap_or(bytes);
            self.catalog
                .prepare_cached("INSERT OR REPLACE INTO payloads (id, head) VALUES (?, ?)")
                .and_then(|mut statement| statement.execute((number, head)))
                .map_err(|source| self.failed(source))?;
        }
        Ok(number)
    }

    /// Takes a scan.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn scan(&mut self, log: i64, line: u64, row: &ScanRow) -> Result<Taken> {
        let source = key::address(row.source);
        let id = key::of_line(row.time, line);
        let seen = Appearance {
            time: row.time,
            source: &source,
            session: id,
            port: row.ports.first().map_or(0, |ports| ports.0),
            class: Class::of(&row.meaning),
        };
        let sensor = self.fact(Kind::Sensor, &row.sensor, 0, &seen)?;
        let run = self.runs.take(&self.catalog, sensor, row.run.as_deref(), row.seq, row.last);
        if run.map_err(|source| self.failed(source))? == Seen::Duplicate {
            return Ok(Taken::Duplicate);
        }
        let day = row.time.day();
        let Some(file) = self.day(day)? else {
            return Ok(Taken::Expired);
        };
        let is_known = file.has_absorbed(log, line).map_err(|source| Error::Sqlite { path: "day".into(), source })?;
        self.sources.count(&source, row.source, row.time, 0, row.count);
        let mut optional = |kind, text: &Option<String>| match text {
            Some(text) => self.fact(kind, text, row.count, &seen).map(Some),
            None => Ok(None),
        };
        let (tool, syn) = (optional(Kind::Tool, &row.tools)?, optional(Kind::Syn, &row.syn)?);
        let mut facts = [tool, syn, None, None, None];
        for (place, (kind, text)) in facts.iter_mut().skip(2).zip(meaning::places(&row.meaning)) {
            // Facts count connections, and this is none.
            if let Some(text) = text {
                *place = Some(self.labelled(kind, &text, meaning::label(kind, &row.meaning), 0, &seen)?);
            }
        }
        if is_known {
            return Ok(Taken::Stored(day, id));
        }
        let path = self.store.day(day);
        let Some(file) = self.days.get_mut(&day) else {
            return Ok(Taken::Expired);
        };
        insert::scan(file, id, row, sensor, source, facts).map_err(|source| Error::Sqlite { path, source })?;
        Ok(Taken::Stored(day, id))
    }

    /// Commits what was taken since the last time, together with where the logs go on.
    ///
    /// # Errors
    /// The store cannot be written; nothing is lost, the lines have to be read again from the last position.
    pub fn commit(&mut self, logs: &[&LogState]) -> Result<()> {
        self.commit_days()?;
        self.begin()?;
        self.flush(logs).map_err(|source| self.failed(source))?;
        self.catalog.execute_batch("COMMIT").map_err(|source| self.failed(source))?;
        self.begin()
    }

    /// Commits rows. How often facts and sources came, and the position, follow with [`Writer::commit`]; until then the
    /// lines would be read again after a crash, and days pass over them.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn commit_rows(&mut self) -> Result<()> {
        self.commit_days()?;
        self.begin()
    }

    /// Commits new facts, and then rows with their numbers.
    pub(crate) fn commit_days(&mut self) -> Result<()> {
        self.catalog.execute_batch("COMMIT").map_err(|source| self.failed(source))?;
        for (day, file) in &mut self.days {
            file.commit().map_err(|source| Error::Sqlite { path: self.store.day(*day), source })?;
        }
        Ok(())
    }

    fn flush(&mut self, logs: &[&LogState]) -> rusqlite::Result<()> {
        self.facts.flush(&self.catalog)?;
        self.runs.flush(&self.catalog)?;
        self.sources.flush(&self.catalog)?;
        super::journal::flush(&self.catalog, logs)
    }

    /// Gives up what was taken since the last commit, after an error: days and catalog are as they were then.
    ///
    /// # Errors
    /// The catalog cannot be used.
    pub fn roll_back(&mut self) -> Result<()> {
        self.days.clear();
        self.facts.reset();
        self.profiles.reset();
        self.runs.reset();
        self.rules = Rules::default();
        self.sources.reset();
        if !self.catalog.is_autocommit() {
            self.catalog.execute_batch("ROLLBACK").map_err(|source| self.failed(source))?;
        }
        self.begin()
    }
}
