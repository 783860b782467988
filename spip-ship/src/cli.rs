//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};
use jiff::Timestamp;
use log::LevelFilter;

use crate::config::{Config, Sink};
use crate::{app, hub, join, messages, replay, status, verify};

/// Status of the process for a mistake on the command line or in the configuration.
pub const USAGE: u8 = 2;

/// Delivers the log of a sensor to NATS JetStream, ClickHouse, Elasticsearch, an HTTP server or files, each record once.
#[derive(Debug, Parser)]
#[command(name = "spip-ship", version, disable_help_subcommand = true)]
#[command(after_help = "\
Examples:
  spip-ship --config ship.toml           follow the log and deliver until Ctrl-C or SIGTERM; a restart resumes
  spip-ship --config ship.toml --once    deliver the log, wait for the last acknowledgement, and exit
  spip-ship --config ship.toml --check   check the configuration
  spip-ship hub init --host hub.example --sensor s1    set up a hub and write a join file for s1
  spip-ship join s1.join                 on the sensor: write configuration, key and certificate authority
  spip-ship --config ship.toml status    print what each sink has delivered, and what is left
  spip-ship --config ship.toml verify    check that the engine has every logged record once

Status: 0 done, 1 failed, 2 wrong usage or configuration.")]
struct Arguments {
    /// The configuration, a TOML file; default /etc/spip/ship.toml.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// Deliver the log, wait for the last acknowledgement, and exit.
    #[arg(long)]
    once: bool,

    /// With --once: give up after this many seconds without progress.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "once")]
    timeout: u64,

    /// Check the configuration and exit.
    #[arg(long, conflicts_with = "once")]
    check: bool,

    /// Level of the messages on standard error: error, warn, info, debug.
    #[arg(long, value_name = "LEVEL", default_value = "info", global = true)]
    log_level: LevelFilter,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare an engine with the log: report missing and duplicate records per sensor and run.
    ///
    /// Needs permission to read from the engine. Status: 0 when it has every record once, 1 otherwise.
    Verify {
        /// Name of the sink; required if there are several.
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send records again that an engine lost.
    ///
    /// Sends the records of the log that the engine does not have. A server that cannot be queried gets all records since the
    /// given time. May run beside the shipper.
    Replay {
        /// Begin of the records: 2026-01-31T12:00:00Z, or 36h or 7d before now.
        #[arg(long, value_name = "TIME", value_parser = replay::since)]
        since: Timestamp,
        /// Name of the sink; required if there are several.
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
    },
    /// Set up a hub and manage the credentials of its sensors.
    #[command(subcommand)]
    Hub(hub::Command),
    /// Make this sensor a member of a hub.
    Join(join::Options),
    /// Print what each sink has delivered, and what is left.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Path at which `join` and packages install the configuration.
pub const INSTALLED: &str = "/etc/spip/ship.toml";

fn installed() -> Option<PathBuf> {
    let path = PathBuf::from(INSTALLED);
    path.exists().then_some(path)
}

/// Returns the definition of the command line, for man pages and completions.
#[must_use]
pub fn definition() -> clap::Command {
    Arguments::command()
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    messages::show(arguments.log_level);
    run(arguments)
}

fn run(arguments: Arguments) -> ExitCode {
    // These need no configuration: they write it.
    let done = match &arguments.command {
        Some(Command::Hub(command)) => Some(hub::run(command)),
        Some(Command::Join(options)) => Some(join::run(options)),
        _ => None,
    };
    match done {
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(message)) => {
            log::error!("{message}");
            return ExitCode::FAILURE;
        }
        None => {}
    }
    let Some(path) = &arguments.config.or_else(installed) else {
        log::error!("no configuration: name one with --config FILE, or write {INSTALLED}");
        return ExitCode::from(USAGE);
    };
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            log::error!("{}", with_cause(&error));
            return ExitCode::from(USAGE);
        }
    };
    if arguments.check {
        println!("{}: {} sinks, nothing wrong", path.display(), config.sinks.len());
        return ExitCode::SUCCESS;
    }
    match arguments.command {
        Some(Command::Verify { sink, json }) => return verify(&config, sink.as_deref(), json),
        Some(Command::Replay { since, sink }) => return replay(&config, sink.as_deref(), since),
        Some(Command::Status { json }) => {
            return if status::run(&config, json) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Some(Command::Hub(_) | Command::Join(_)) | None => {}
    }
    let once = arguments.once.then(|| Duration::from_secs(arguments.timeout));
    match app::run(config, path, once) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Finds the sink that a command is for.
fn chosen<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Sink, ExitCode> {
    let names = || config.sinks.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.sinks.as_slice()) {
        (Some(name), sinks) => sinks.iter().find(|sink| sink.name == name).ok_or_else(|| {
            log::error!("there is no sink {name:?}: {}", names());
            ExitCode::from(USAGE)
        }),
        (None, [only]) => Ok(only),
        (None, _) => {
            log::error!("--sink NAME is needed: {}", names());
            Err(ExitCode::from(USAGE))
        }
    }
}

fn verify(config: &Config, sink: Option<&str>, json: bool) -> ExitCode {
    let sink = match chosen(config, sink) {
        Ok(sink) => sink,
        Err(code) => return code,
    };
    let verified = app::runtime()
        .map_err(|error| error.to_string())
        .and_then(|runtime| verify::run(config, sink, runtime.handle(), json).map_err(|failure| failure.to_string()));
    match verified {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            log::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn replay(config: &Config, sink: Option<&str>, since: Timestamp) -> ExitCode {
    let sink = match chosen(config, sink) {
        Ok(sink) => sink,
        Err(code) => return code,
    };
    let sent = app::runtime().map_err(|error| error.to_string()).and_then(|runtime| {
        let mut destination = app::destination(config, sink, runtime.handle());
        replay::run(config, sink, destination.as_mut(), runtime.handle(), since).map_err(|failure| failure.to_string())
    });
    match sent {
        Ok(count) => {
            println!("{}: sent {count} records again", sink.name);
            ExitCode::SUCCESS
        }
        Err(message) => {
            log::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
