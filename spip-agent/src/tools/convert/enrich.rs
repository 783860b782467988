//! `--enrich`: adds what records mean to what they say, and collects indicators for exports.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use spip_enrich::export::{Export, Form, List};
use spip_enrich::{Config, Enricher};
use spip_record::Entry;

use super::output::Output;
use super::{Error, Target};

/// Directories of the data for `--enrich`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Options {
    /// Add to each record what it means: its source's network, the scanner, exploits by name, indicators.
    #[arg(long)]
    pub enrich: bool,

    /// With --enrich: a directory with MaxMind DB files (*.mmdb) or tables of networks (*.csv).
    #[arg(long, value_name = "DIR", requires = "enrich")]
    pub geo: Option<PathBuf>,

    /// With --enrich: a directory with lists of known scanners (`name, CIDR` or one CIDR a line, a file a project).
    #[arg(long, value_name = "DIR", requires = "enrich")]
    pub scanners: Option<PathBuf>,

    /// With --enrich: a directory with rules in Suricata's language (*.rules), or a file; may be given several times. What
    /// is taken and what is skipped is reported on standard error.
    #[arg(long, value_name = "DIR", requires = "enrich")]
    pub rules: Vec<PathBuf>,

    /// With --enrich: leave out the rules that come with the program.
    #[arg(long, requires = "enrich")]
    pub no_starter_rules: bool,
}

/// Additions to records, and indicators collected from them.
#[derive(Debug)]
pub(super) struct Enrichment {
    enricher: Option<Enricher>,
    export: Option<(Form, Export)>,
    author: Option<String>,
}

impl Enrichment {
    /// Opens the data that the options name. An export collects what records already have, and with `--enrich` more.
    pub(super) fn open(to: Target, options: &Options) -> Result<Self, Error> {
        let Options { enrich, geo, scanners, rules, no_starter_rules } = options.clone();
        let enricher = if enrich {
            let is_reported = !rules.is_empty();
            let enricher = Enricher::open(Config { geo, scanners, rules, starter: !no_starter_rules })?;
            if is_reported {
                // A closed standard error is no reason to stop.
                let _ = writeln!(io::stderr(), "{}", enricher.report());
            }
            Some(enricher)
        } else {
            None
        };
        let export = match to {
            Target::Stix => Some(Form::Stix),
            Target::Urls => Some(Form::List(List::Urls)),
            Target::Hosts => Some(Form::List(List::Hosts)),
            Target::Hashes => Some(Form::List(List::Hashes)),
            Target::Sources => Some(Form::List(List::Sources)),
            Target::Flat | Target::Ecs | Target::Eve | Target::Zeek => None,
        };
        Ok(Self { enricher, export: export.map(|form| (form, Export::default())), author: None })
    }

    /// Adds what `entry` means to it, in the place of what was added before.
    pub(super) fn add(&mut self, entry: &mut Entry<'_>) {
        if let Some(enricher) = &mut self.enricher {
            let enrichment = enricher.record(entry);
            entry.enrichment = (!enrichment.is_empty()).then(|| Box::new(enrichment));
        }
        if let (Some((_, export)), Some(enrichment)) = (&mut self.export, &entry.enrichment) {
            // An entry is an accepted connection, so its source completed a handshake.
            export.add(entry.source.ip(), true, entry.accepted_us, enrichment);
            self.author.get_or_insert_with(|| entry.name.clone().into_owned());
        }
    }

    /// Writes what was collected. Returns how many indicators found no room.
    pub(super) fn finish(&mut self, output: &mut Output) -> Result<u64, Error> {
        let Some((form, export)) = &self.export else { return Ok(0) };
        let mut sink = Sink { output, failed: None };
        let written = export.write(*form, self.author.as_deref().unwrap_or("spip"), &mut sink);
        match (written, sink.failed) {
            (_, Some(error)) => Err(error),
            _ => Ok(export.counts().1),
        }
    }
}

/// The output as a writer; keeps the error that names it.
struct Sink<'a> {
    output: &'a mut Output,
    failed: Option<Error>,
}

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.output.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("the output takes no more"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
