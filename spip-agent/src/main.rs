//! The program.
use std::process::ExitCode;
fn main() -> ExitCode {
    let path = std::env::args().nth(2).expect("config");
    let loaded = spip_agent::config::Config::load(path.as_ref()).expect("config");
    match spip_agent::app::run(&loaded.config, &loaded.warnings, Default::default()) { Ok(()) => ExitCode::SUCCESS, Err(e) => { eprintln!("{e:#}"); ExitCode::FAILURE } }
}
