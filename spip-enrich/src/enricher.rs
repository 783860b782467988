//! Puts the look-ups together: opens the operator's files, works out what records mean, and takes up new files.
//!
//! Readers call [`Enricher::record`] for each record and [`Enricher::refresh`] now and then. Clones share their data; a
//! program with several threads gives each of them one, and refreshes in any of them. A file that is replaced by a
//! damaged one changes nothing but the log: what was read before stays in use.

mod files;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use spip_record::Entry;
use spip_record::enrichment::{Enrichment, Indicator, IndicatorKind, Source};

use crate::facts::Facts;
use crate::geo::{self, Database, Geo};
use crate::requests::{Request, split};
use crate::rules::{self, Report, Rules, Scratch};
use crate::scanners::{self, Scanners, claimed};
use crate::special::special;
use crate::{indicators, starter};
use files::Stamp;

/// Files to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A directory with MaxMind DB files (`*.mmdb`).
    pub geo: Option<PathBuf>,
    /// A directory with lists of scanners.
    pub scanners: Option<PathBuf>,
    /// Directories with rules (`*.rules`), or files.
    pub rules: Vec<PathBuf>,
    /// Uses the rules that come with the program.
    pub starter: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { geo: None, scanners: None, rules: Vec::new(), starter: true }
    }
}

/// Reasons why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot be listed.
    #[error("{option}: cannot list {}: {cause}", path.display())]
    List {
        /// The option that names it.
        option: &'static str,
        /// The directory.
        path: PathBuf,
        /// Error of the system.
        cause: std::io::Error,
    },
    /// A directory has none of the files that it is for.
    #[error("{option}: {} has no {wanted}", path.display())]
    Empty {
        /// The option that names it.
        option: &'static str,
        /// The directory.
        path: PathBuf,
        /// Expected contents.
        wanted: &'static str,
    },
    /// A database.
    #[error("geo: {0}")]
    Geo(#[from] geo::Error),
    /// A list of scanners.
    #[error("scanners: {0}")]
    Scanners(#[from] scanners::Error),
    /// A file of rules.
    #[error("rules: {0}")]
    Rules(#[from] rules::Error),
}

/// Result of a refresh.
#[derive(Debug)]
pub enum Change {
    /// New files are in use.
    Updated {
        /// `geo`, `scanners` or `rules`.
        part: &'static str,
        /// Summary of the data in use, for a log.
        summary: String,
    },
    /// New files cannot be used; the old ones stay.
    Refused(Error),
}

/// Contents of the files at one moment.
#[derive(Debug)]
struct Data {
    geo: Arc<Geo>,
    scanners: Arc<Scanners>,
    rules: Arc<Rules>,
    report: Arc<Report>,
}

/// The state of files when they were last looked at.
#[derive(Debug, Default)]
struct Stamps {
    geo: Vec<Stamp>,
    scanners: Vec<Stamp>,
    rules: Vec<Stamp>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    data: RwLock<Arc<Data>>,
    stamps: Mutex<Stamps>,
}

/// Works out what records mean.
#[derive(Debug)]
pub struct Enricher {
    shared: Arc<Shared>,
    scratch: Scratch,
}

impl Clone for Enricher {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), scratch: Scratch::default() }
    }
}

impl Enricher {
    /// Reads all files.
    ///
    /// # Errors
    /// A file cannot be read or is damaged, or a directory has none.
    pub fn open(config: Config) -> Result<Self, Error> {
        let mut stamps = Stamps::default();
        let mut geo = Geo::default();
        if let Some(directory) = &config.geo {
            stamps.geo = files::geo(directory)?;
            geo = open_geo(&stamps.geo, &[])?;
        }
        let mut scanners = Scanners::default();
        if let Some(directory) = &config.scanners {
            stamps.scanners = files::scanners(directory)?;
            scanners = open_scanners(&stamps.scanners)?;
        }
        stamps.rules = files::rules(&config.rules)?;
        let (rules, report) = open_rules(&stamps.rules, config.starter)?;
        let data =
            Data { geo: Arc::new(geo), scanners: Arc::new(scanners), rules: Arc::new(rules), report: Arc::new(report) };
        let shared = Shared { config, data: RwLock::new(Arc::new(data)), stamps: Mutex::new(stamps) };
        Ok(Self { shared: Arc::new(shared), scratch: Scratch::default() })
    }

    fn data(&self) -> Arc<Data> {
        Arc::clone(&self.shared.data.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what a record means.
    #[must_use]
    pub fn record(&mut self, entry: &Entry<'_>) -> Enrichment {
        self.facts(&Facts::of(entry))
    }

    /// Returns what a connection means.
    #[must_use]
    pub fn facts(&mut self, facts: &Facts<'_>) -> Enrichment {
        let data = self.data();
        let mut requests = split(facts.searched());
        if requests.is_empty()
            && let Some(http) = &facts.http
        {
            requests.push(Request::recorded(http, facts.searched()));
        }
        let found = data.rules.find(facts, &requests, &mut self.scratch);
        let attack = found.tags.iter().any(|tag| crate::export::is_attack(&tag.class));
        let mut source = source(&data, facts.source.ip());
        if source.scanner.is_none() {
            source.scanner = claimed(facts);
        }
        let mut indicators = indicators::find(facts.payload, attack);
        if let Some(hash) = facts.stored {
            let hash = Indicator { kind: IndicatorKind::Sha256, value: hex::encode(hash) };
            indicators.truncate(spip_record::enrichment::INDICATORS - 1);
            indicators.push(hash);
        }
        Enrichment {
            source,
            tags: found.tags.iter().map(|tag| tag.as_ref().clone()).collect(),
            tags_incomplete: found.incomplete,
            indicators,
        }
    }

    /// Returns what is known of an address.
    #[must_use]
    pub fn source(&self, address: IpAddr) -> Source {
        source(&self.data(), address)
    }

    /// Returns what became of the rules.
    #[must_use]
    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.data().report)
    }

    /// Returns a line on what is in use, for a log.
    #[must_use]
    pub fn summary(&self) -> String {
        let data = self.data();
        format!("{}, {}, {}", geo_summary(&data.geo), scanners_summary(&data.scanners), rules_summary(&data.report))
    }

    /// Looks whether files are new, and takes them up: all records that come later see them. Costs a look at each
    /// file's state where none is new.
    pub fn refresh(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut stamps = self.shared.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let config = &self.shared.config;
        if let Some(directory) = &config.geo {
            let old = Arc::clone(&self.data().geo);
            let found = renew(files::geo(directory), &mut stamps.geo, |stamps| open_geo(stamps, old.databases()));
            self.take(found, &mut changes, "geo", geo_summary, |data, geo| data.geo = Arc::new(geo));
        }
        if let Some(directory) = &config.scanners {
            let found = renew(files::scanners(directory), &mut stamps.scanners, open_scanners);
            self.take(found, &mut changes, "scanners", scanners_summary, |data, lists| data.scanners = Arc::new(lists));
        }
        let found = renew(files::rules(&config.rules), &mut stamps.rules, |stamps| open_rules(stamps, config.starter));
        self.take(
            found,
            &mut changes,
            "rules",
            |(_, report)| rules_summary(report),
            |data, (rules, report)| {
                data.rules = Arc::new(rules);
                data.report = Arc::new(report);
            },
        );
        changes
    }

    /// Puts new data in the place of the old.
    fn take<T>(
        &self,
        found: Option<Result<T, Error>>,
        changes: &mut Vec<Change>,
        part: &'static str,
        summary: impl Fn(&T) -> String,
        replace: impl FnOnce(&mut Data, T),
    ) {
        match found {
            None => {}
            Some(Err(error)) => changes.push(Change::Refused(error)),
            Some(Ok(new)) => {
                changes.push(Change::Updated { part, summary: summary(&new) });
                let mut current = self.shared.data.write().unwrap_or_else(PoisonError::into_inner);
                let mut data = Data {
                    geo: Arc::clone(&current.geo),
                    scanners: Arc::clone(&current.scanners),
                    rules: Arc::clone(&current.rules),
                    report: Arc::clone(&current.report),
                };
                replace(&mut data, new);
                *current = Arc::new(data);
            }
        }
    }
}

/// Opens what is new, and remembers its state also where that fails: the same damaged file is not read again and again.
fn renew<T>(
    found: Result<Vec<Stamp>, Error>,
    known: &mut Vec<Stamp>,
    open: impl FnOnce(&[Stamp]) -> Result<T, Error>,
) -> Option<Result<T, Error>> {
    match found {
        Ok(stamps) if stamps == *known => None,
        Ok(stamps) => {
            let opened = open(&stamps);
            *known = stamps;
            Some(opened)
        }
        // Reported once: no file has the state of no files.
        Err(_) if known.is_empty() => None,
        Err(error) => {
            known.clear();
            Some(Err(error))
        }
    }
}

fn source(data: &Data, address: IpAddr) -> Source {
    let place = data.geo.find(address);
    Source {
        country: place.country,
        city: place.city,
        asn: place.asn,
        network: place.network,
        special: special(address).map(Into::into),
        scanner: data.scanners.listed(address),
    }
}

fn open_geo(stamps: &[Stamp], known: &[Arc<Database>]) -> Result<Geo, Error> {
    let mut databases = Vec::new();
    for stamp in stamps {
        match Database::open(&stamp.path) {
            Ok(database) => databases.push(Arc::new(database)),
            Err(error) => {
                // One damaged file does not take the others with it, once the program is running.
                let Some(old) = known.iter().find(|old| old.path() == stamp.path) else { return Err(error.into()) };
                log::error!("geo: {error}; its former contents stay in use");
                databases.push(Arc::clone(old));
            }
        }
    }
    Ok(Geo::new(databases))
}

fn open_scanners(stamps: &[Stamp]) -> Result<Scanners, Error> {
    let mut builder = scanners::Builder::default();
    for stamp in stamps {
        builder.file(&stamp.path)?;
    }
    Ok(builder.build())
}

fn open_rules(stamps: &[Stamp], starter: bool) -> Result<(Rules, Report), Error> {
    let mut builder = rules::Builder::default();
    if starter {
        builder.text(starter::NAME, starter::RULES)?;
    }
    for stamp in stamps {
        builder.file(&stamp.path)?;
    }
    Ok(builder.build()?)
}

fn geo_summary(geo: &Geo) -> String {
    format!("{} geo files", geo.databases().len())
}

fn scanners_summary(scanners: &Scanners) -> String {
    format!("{} scanner ranges", scanners.len())
}

fn rules_summary(report: &Report) -> String {
    format!("{} rules ({} skipped)", report.taken, report.skipped_count())
}

#[cfg(test)]
mod tests;
