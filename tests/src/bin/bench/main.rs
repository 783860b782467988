//! Benchmarks of the agent beside a baseline, in namespaces, in one run. Started by `cargo xtask bench`.
//!
//! Numbers are compared as ratios of medians over alternating rounds: whatever else the machine does meets both.

mod floor;
mod idle;
mod load;
mod packets;
mod process;
mod records;
mod sessions;
mod tls;

use std::process::ExitCode;

const USAGE: &str = "usage: bench sessions [--steering sk_lookup [--warm N]] [--sessions N] [--rounds N] | \
     idle [--connections N] | records [--rounds N] | tls [--handshakes N] [--rounds N] [--idle N] | \
     floor PORT LOG | tls-floor PORT CHAIN KEY";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sessions", "--steering", "sk_lookup", options @ ..] => sessions::compare_steering(
            option(options, "--sessions").unwrap_or(60_000),
            option(options, "--warm").unwrap_or(100_000),
            option(options, "--rounds").unwrap_or(3),
        ),
        ["sessions", options @ ..] if !options.contains(&"--steering") => {
            sessions::run(option(options, "--sessions").unwrap_or(60_000), option(options, "--rounds").unwrap_or(3))
        }
        ["idle", options @ ..] => idle::run(option(options, "--connections").unwrap_or(18_000)),
        ["tls", options @ ..] => tls::run(
            option(options, "--handshakes").unwrap_or(10_000),
            option(options, "--rounds").unwrap_or(3),
            option(options, "--idle").unwrap_or(8_000),
        ),
        ["tls-floor", port, chain, key] => {
            tls::floor(port.parse().expect("a port"), chain.as_ref(), key.as_ref());
        }
        ["records", options @ ..] => records::run(option(options, "--rounds").unwrap_or(15)),
        ["floor", port, log] => floor::run(port.parse().expect("a port"), log.as_ref()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn option(options: &[&str], name: &str) -> Option<usize> {
    let at = options.iter().position(|word| *word == name)?;
    options.get(at + 1).map(|value| value.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {value}")))
}
