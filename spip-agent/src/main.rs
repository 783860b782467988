//! The program: hands the command line to what carries it out, and the outcome to the shell.
//!
//! Status 0 is success, 1 a failure, 2 a mistake on the command line or in the configuration.

use std::process::ExitCode;

use spip_agent::process::stderr;
use spip_agent::start::app::{self, Options};
use spip_agent::start::config_check;
use spip_agent::tools::cli::{self, Command};
use spip_agent::tools::commands;
use spip_agent::tools::doctor;
use spip_agent::tools::init;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        // Help and version end here too, with success.
        Err(answer) => answer.exit(),
    };
    match command {
        Command::Check { config } => commands::check(&config),
        Command::Convert(request) => commands::convert(&request),
        Command::Rules { action, config, options } => commands::rules(action, config.as_deref(), options),
        Command::Doctor { config, options } => doctor::run(config.as_deref(), options),
        Command::Init { options } => init::run(&options),
        Command::Status { config, json } => commands::status(config.as_deref(), json),
        Command::Run { config, ebpf_log } => {
            let loaded = match commands::load(&config) {
                Ok(loaded) => loaded,
                Err(status) => return status,
            };
            let options = Options { ebpf_log: ebpf_log.to_level(), path: config };
            match app::run(&loaded, options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if config_check::is_mistake(&error) => commands::refuse(&error),
                Err(error) => {
                    stderr::emergency(&format!("{error:#}"));
                    ExitCode::FAILURE
                }
            }
        }
    }
}
