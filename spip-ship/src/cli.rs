//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use log::LevelFilter;

use crate::config::Config;
use crate::{app, messages};

/// Status of the process for a mistake on the command line or in the configuration.
pub const USAGE: u8 = 2;

/// Delivers the log of a sensor to NATS JetStream, ClickHouse, Elasticsearch or an HTTP server, each record once.
#[derive(Debug, Parser)]
#[command(name = "spip-ship", version, disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  spip-ship --config ship.toml           follow the log and deliver; Ctrl-C or SIGTERM ends it, a restart goes on
  spip-ship --config ship.toml --once    deliver what is there, wait for the last acknowledgement, and end
  spip-ship --config ship.toml --check   is the file right?

Status: 0 done, 1 failed, 2 wrong usage or configuration.")]
struct Arguments {
    /// The configuration, a TOML file.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// Deliver what is there, wait for the last acknowledgement, and end.
    #[arg(long)]
    once: bool,

    /// With --once: give up after this time without progress.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "once")]
    timeout: u64,

    /// Check the configuration and exit.
    #[arg(long, conflicts_with = "once")]
    check: bool,

    /// Messages on standard error: error, warn, info, debug.
    #[arg(long, value_name = "LEVEL", default_value = "info", global = true)]
    log_level: LevelFilter,
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
    let Some(path) = &arguments.config else {
        log::error!("--config FILE is missing");
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
    let once = arguments.once.then(|| Duration::from_secs(arguments.timeout));
    match app::run(&config, once) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
