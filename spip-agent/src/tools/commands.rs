//! The commands that end without an agent: each prints what was asked for on standard output, why it did not on standard
//! error, and returns the status of the process.

use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Loaded};
use crate::observe::status;
use crate::start::config_check;
use crate::tools::USAGE;
use crate::tools::convert;
use crate::tools::rules;

/// Loads the configuration of a command; warnings and errors go to standard error.
///
/// # Errors
/// The status with which the process is to end, after the reason was printed.
pub fn load(path: &Path) -> Result<Loaded, ExitCode> {
    match Config::load(path) {
        Ok(loaded) => Ok(loaded),
        Err(error) => Err(refuse(&error)),
    }
}

/// Names mistakes in a configuration; the status that they end with.
pub fn refuse(error: &impl fmt::Display) -> ExitCode {
    // Without the name of the program: editors follow lines that begin with file and line.
    let _ = io::stderr().write_all(format!("{error}\n").as_bytes());
    ExitCode::from(USAGE)
}

/// `--check`: prints the effective configuration, a file that loads to the same.
#[must_use]
pub fn check(path: &Path) -> ExitCode {
    let Loaded { config, warnings, spans } = match load(path) {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    for warning in warnings {
        complain(&format!("warning: {warning}"));
    }
    if let Err(error) = config_check::check(&config, &spans) {
        return refuse(&error);
    }
    match io::stdout().write_all(config.to_toml().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// `rules`: what it does is on standard output, why it did not on standard error.
#[must_use]
pub fn rules(action: rules::Action, path: Option<&Path>, options: rules::Options) -> ExitCode {
    // Removing must work with a file that is broken or gone.
    let config = match path.filter(|_| action != rules::Action::Remove).map(load).transpose() {
        Ok(loaded) => loaded.map(|loaded| loaded.config),
        Err(status) => return status,
    };
    match rules::run(action, config.as_ref(), options) {
        Ok(rules::Outcome::Done) => ExitCode::SUCCESS,
        Ok(rules::Outcome::Declined) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.exit_status())
        }
    }
}

/// `status`: what is known is on standard output, as a table or as JSON.
#[must_use]
pub fn status(path: Option<&Path>, json: bool) -> ExitCode {
    // Without a file, what holds without one: the address is not asked for.
    let least = || Config::from_str("ip = \"::\"\nport = 1", Path::new("")).map_err(|_| ExitCode::from(USAGE));
    let config = match path.map_or_else(least, load) {
        Ok(loaded) => loaded.config,
        Err(status) => return status,
    };
    let asked = match &config.status_socket {
        Some(socket) => status::ask(socket),
        None => Err("the agent is not asked: status_socket = \"off\"".to_owned()),
    };
    let report = asked.unwrap_or_else(|reason| status::from_pins(&config.ebpf.pin_path, reason));
    let text = match json {
        true => serde_json::to_string_pretty(&report).map(|text| text + "\n").unwrap_or_default(),
        false => status::page(&report),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) if report.agent.is_some() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// `convert`: records go to standard output or a file, everything else to standard error.
#[must_use]
pub fn convert(request: &convert::Request) -> ExitCode {
    match convert::run(request) {
        Ok(outcome) if outcome.is_complete() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Each line of a message with the name of the program; a closed standard error is no reason to die.
fn complain(message: &str) {
    let mut text = String::new();
    for line in message.lines() {
        text.push_str("spip-agent: ");
        text.push_str(line);
        text.push('\n');
    }
    let _ = io::stderr().write_all(text.as_bytes());
}
