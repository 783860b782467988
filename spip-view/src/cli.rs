//! The command line: what the operator asked for.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use spip_enrich::Enricher;
use spip_enrich::export::Form;

use crate::config::{Config, Given, OneOrMany};
use crate::filter::{Filter, RangeText};
use crate::ingest::follow::{self, Input, Settings};
use crate::moment::{Day, Moment, parse_span};
use crate::report;
use crate::store::{Deadline, Keep, Store};

/// Status of the process for a mistake on the command line or in the configuration.
const USAGE: u8 = 2;

/// Time for a report over a large store.
const REPORT_TIME: Duration = Duration::from_secs(600);

/// Time for tagging a large store again.
const RETAG_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Serves web pages on a sensor's log: what arrived, from which sources, and what is new.
#[derive(Debug, Parser)]
#[command(
    name = "spip-view",
    version,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  spip-view --log /var/log/spip/spip.jsonl            follow the log; the page is at http://127.0.0.1:8765
  spip-view --read-once copied.jsonl old.jsonl.zst    look at copies
  spip-view report --log spip.jsonl --json            totals of a log, without a page
  spip-view report --since 24h --html report.html     report on the last day, as a page to mail
  spip-view indicators --format stix                  export URLs, hosts and hashes of payloads
  spip-view retag --geo DIR                           apply new data or rules to stored records

Status: 0 done, 1 failed, 2 wrong usage or configuration."
)]
struct Arguments {
    #[command(flatten)]
    options: Options,

    /// Read these files once and serve the page on them; nothing is followed.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "log")]
    read_once: Vec<PathBuf>,

    /// Check the configuration, print it and exit.
    #[arg(long)]
    check: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Options {
    /// Log to follow, from its beginning; a directory stands for the logs in it, - for standard input.
    #[arg(long, value_name = "PATH", global = true, num_args = 1..)]
    log: Vec<PathBuf>,

    /// The configuration, a TOML file; options win over its keys.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// Directory of the store.
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,

    /// Address of the page: ADDRESS:PORT, or the path of a unix socket.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// File with the secret that browsers must send; required unless the address is loopback or a socket.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Number of days with records that the store keeps.
    #[arg(long, value_name = "DAYS", global = true)]
    keep_days: Option<u32>,

    /// Upper bound of the store in bytes.
    #[arg(long, value_name = "BYTES", global = true)]
    keep_bytes: Option<u64>,

    /// Keep copies of records in the store, or read them from the log again.
    #[arg(long, value_parser = ["store", "log"], global = true)]
    records: Option<String>,

    /// Further host name of the page, such as a proxy's.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,

    /// Confine the process with Landlock and seccomp.
    #[arg(long, value_parser = ["auto", "off"])]
    sandbox: Option<String>,

    /// A directory with data on addresses: MaxMind DB files (*.mmdb) or tables of networks (*.csv).
    #[arg(long, value_name = "DIR", global = true)]
    geo: Option<PathBuf>,

    /// A directory with lists of known scanners (`name, CIDR` or one CIDR a line, a file a project).
    #[arg(long, value_name = "DIR", global = true)]
    scanners: Option<PathBuf>,

    /// A directory with rules in Suricata's language (*.rules), or a file; may be given several times.
    #[arg(long, value_name = "DIR", global = true)]
    rules: Vec<PathBuf>,

    /// Leave out the rules that come with the program.
    #[arg(long, global = true)]
    no_starter_rules: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read copied logs into the store and exit.
    ///
    /// Skips what an earlier start has read of a file of the same path.
    Load {
        /// The files, compressed or not; - is standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Apply new rules and data to the stored records.
    ///
    /// Stop spip-view before.
    Retag,
    /// Export URLs, hosts and hashes that payloads name, and sources of attacks.
    ///
    /// A source is exported only when a rule calls its session an attack and the client completed a TCP handshake. Sources of
    /// half-open scans and of UDP are never exported: they can be forged.
    Indicators {
        /// The form: a STIX 2.1 bundle, or one value a line.
        #[arg(long, default_value = "stix", value_parser = Form::ALL.map(Form::name))]
        format: String,
        /// The span up to now: 24h, 7d.
        #[arg(long, value_name = "SPAN", conflicts_with = "day")]
        since: Option<String>,
        /// A day in UTC: 2026-01-31, today, yesterday.
        #[arg(long, value_name = "DAY")]
        day: Option<String>,
    },
    /// Print a report on a log or the store.
    ///
    /// With --log and no store the logs are read into a temporary one. Without --since and --day the report is about
    /// everything.
    Report {
        /// The span up to now: 24h, 7d.
        #[arg(long, value_name = "SPAN", conflicts_with = "day")]
        since: Option<String>,
        /// A day in UTC: 2026-01-31, today, yesterday.
        #[arg(long, value_name = "DAY")]
        day: Option<String>,
        /// Write a self-contained page to this file; - is standard output.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "json"])]
        html: Option<PathBuf>,
        /// Print text for a terminal; the default.
        #[arg(long, conflicts_with = "json")]
        text: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Returns the definition of the command line, for man pages and completions.
#[must_use]
pub fn definition() -> clap::Command {
    Arguments::command()
}

/// Carries out a command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // Help and version end here too, with success.
        Err(answer) => answer.exit(),
    };
    let given = arguments.options.given();
    let config = match given {
        Ok(given) => given,
        Err(error) => return refuse(&format!("{error}")),
    };
    let outcome = match arguments.command {
        Some(Command::Report { since, day, html, json, .. }) => match range(since.as_deref(), day.as_deref()) {
            Ok(filter) => write_report(&config, &filter, html.as_deref(), json),
            Err(error) => return refuse(&error),
        },
        Some(Command::Load { files }) => load(&config, files),
        Some(Command::Retag) => retag(&config),
        Some(Command::Indicators { format, since, day }) => match range(since.as_deref(), day.as_deref()) {
            Ok(filter) => indicators(&config, &filter, &format),
            Err(error) => return refuse(&error),
        },
        None if arguments.check => {
            println!("{config:#?}");
            Ok(())
        }
        None if arguments.read_once.is_empty() && config.logs.is_empty() => {
            return refuse("no log: name one with --log PATH, or `log = \"PATH\"` in the file of --config");
        }
        None => crate::web::run(&config, &arguments.read_once),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spip-view: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(config: &Config, files: Vec<PathBuf>) -> anyhow::Result<()> {
    let store = Store::open_or_renew(&config.state_dir, config.keep)?;
    let stop = Arc::new(AtomicBool::new(false));
    let settings = Settings::of(config)?;
    let outcome = follow::run(&store, &Input::Once(files), &settings, &stop, &mut |_| {})?;
    println!(
        "spip-view: stored {} records of {} lines; {} were stored already, {} are no records",
        outcome.records, outcome.lines, outcome.duplicates, outcome.foreign
    );
    anyhow::ensure!(outcome.lost_files == 0, "{} files could not be read completely", outcome.lost_files);
    Ok(())
}

fn existing(config: &Config) -> anyhow::Result<Store> {
    anyhow::ensure!(
        Store::exists(&config.state_dir),
        "no store in {}: name it with --state-dir, or a log with --log",
        config.state_dir.display()
    );
    Ok(Store::open(&config.state_dir, config.keep)?)
}

fn retag(config: &Config) -> anyhow::Result<()> {
    let store = existing(config)?;
    let enricher = Enricher::open(config.enrich.clone())?;
    eprintln!("spip-view: with {}", enricher.summary());
    let reader = store.reader(Deadline::within(RETAG_TIME))?;
    let sum = crate::retag::run(&store, &reader, &enricher, &mut |day, done, number, days| {
        eprintln!("spip-view: {day}: {} sessions, day {number} of {days}", done.sessions);
    })?;
    println!("spip-view: {} sessions tagged again; the records of {} could not be read", sum.sessions, sum.unread);
    Ok(())
}

fn indicators(config: &Config, filter: &Filter, format: &str) -> anyhow::Result<()> {
    let store = existing(config)?;
    let form = Form::of(format).with_context(|| format!("--format {format}: {}", Form::NAMES))?;
    let found = crate::data::indicators::collect(&store.reader(Deadline::within(REPORT_TIME))?, filter)?;
    std::io::stdout().write_all(&found.written(form)).context("cannot write to standard output")
}

fn refuse(error: &str) -> ExitCode {
    eprintln!("spip-view: {error}");
    ExitCode::from(USAGE)
}

impl Options {
    fn given(self) -> Result<Config, crate::config::ConfigError> {
        let file = match &self.config {
            Some(path) => Given::read(path)?,
            None => Given::default(),
        };
        let line = Given {
            log: OneOrMany::Many(self.log),
            state_dir: self.state_dir,
            listen: self.listen,
            token_file: self.token_file,
            keep_days: self.keep_days,
            keep_bytes: self.keep_bytes,
            records: self.records,
            hosts: self.hosts,
            sandbox: self.sandbox,
            geo: self.geo,
            scanners: self.scanners,
            rules: OneOrMany::Many(self.rules),
            starter_rules: self.no_starter_rules.then_some(false),
        };
        line.over(file).check()
    }
}

fn range(since: Option<&str>, day: Option<&str>) -> Result<Filter, String> {
    let now = Moment::now();
    let mut filter = Filter::last_day(now);
    match (since, day) {
        (Some(text), _) => {
            let span = parse_span(text).ok_or_else(|| format!("--since {text}: a span such as 24h or 7d"))?;
            filter.from = Moment(now.0.saturating_sub(span));
        }
        (None, Some(text)) => {
            let day = match text {
                "today" => Some(now.day()),
                "yesterday" => Some(Day(now.day().0 - 1)),
                text => Day::parse(text),
            };
            let day = day.ok_or_else(|| format!("--day {text}: a day such as 2026-01-31, today or yesterday"))?;
            (filter.from, filter.to, filter.range) = (day.start(), day.end(), RangeText::Between);
        }
        (None, None) => filter.all(),
    }
    Ok(filter)
}

fn write_report(config: &Config, filter: &Filter, html: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let has_store = Store::exists(&config.state_dir);
    let is_named = config.logs.is_empty() || has_store && std::env::args_os().any(|argument| is_state_dir(&argument));
    let (store, scratch) = if is_named {
        (existing(config)?, None)
    } else {
        let scratch = Scratch::new()?;
        // Nothing is dropped while logs are read once.
        let store = Store::open(&scratch.0, Keep { days: u32::MAX, bytes: u64::MAX })?;
        let stop = Arc::new(AtomicBool::new(false));
        let settings = Settings { keeps_records: false, ..Settings::of(config)? };
        let outcome = follow::run(&store, &Input::All(config.logs.clone()), &settings, &stop, &mut |_| {})?;
        if outcome.lost_files > 0 || outcome.foreign > 0 {
            eprintln!(
                "spip-view: {} lines of {} are no record of this format, {} files could not be read",
                outcome.foreign, outcome.lines, outcome.lost_files
            );
        }
        anyhow::ensure!(outcome.lines > 0 || outcome.lost_files == 0, "none of the logs could be read");
        (store, Some(scratch))
    };
    let report = report::report(&store.reader(Deadline::within(REPORT_TIME))?, filter)?;
    drop(scratch);
    match html {
        Some(path) => {
            let page = report::html::page(&report).into_string();
            if path == Path::new("-") {
                std::io::stdout().write_all(page.as_bytes()).context("cannot write to standard output")?;
            } else {
                std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        None if json => println!("{}", serde_json::to_string_pretty(&report)?),
        None => print!("{}", report::text::text(&report)),
    }
    Ok(())
}

fn is_state_dir(argument: &OsString) -> bool {
    argument.to_str().is_some_and(|argument| argument == "--state-dir" || argument.starts_with("--state-dir="))
}

/// A directory that vanishes with the value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> anyhow::Result<Self> {
        // Only its maker may enter: it holds what clients sent.
        use std::os::unix::fs::DirBuilderExt as _;
        for attempt in 0..100 {
            let path = std::env::temp_dir().join(format!("spip-view-{}-{attempt}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot create {}", path.display())),
            }
        }
        anyhow::bail!("cannot create a directory in {}", std::env::temp_dir().display())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
