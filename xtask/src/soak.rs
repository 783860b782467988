//! `cargo xtask soak MINUTES`: mixed load for as long as is wanted, and what has grown by then.
//!
//! The program that makes the load and keeps the account is part of the tests' package; this command builds it and the
//! release agent and starts it as root. An hour is the measure for a release; a few minutes show that it works.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::build;
use crate::privilege::{self, Root};
use crate::process;
use crate::project::Project;
use crate::setup::{self, Need};

#[derive(Args)]
pub(crate) struct Options {
    /// Duration of the load; fractions are minutes too
    #[arg(value_parser = minutes)]
    minutes: f64,
    /// Connections a second, beside sixty slow ones at a time
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
    /// Way in which connections come to the agent: `redirect` or `sk_lookup`
    #[arg(long, default_value = "redirect", value_parser = ["redirect", "sk_lookup"])]
    steering: String,
    /// Writes a picture and a table of it, `soak.svg` and `soak.md`, into this directory
    #[arg(long)]
    report: Option<PathBuf>,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "no number of minutes".to_owned())?;
    if (0.5..=10_080.0).contains(&minutes) { Ok(minutes) } else { Err("from half a minute to a week".to_owned()) }
}

/// Sets up, builds and soaks.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let root = Root::detect();
    if root == Root::No {
        bail!("the load comes from network namespaces and needs root: {}", privilege::REMEDY);
    }
    let toolchain = setup::toolchain(project, Need::Soak)?;
    build::build(project, &toolchain)?;
    process::run(
        project
            .cargo("build")
            .args(["--release", "--locked", "--package", "spip-tests", "--bin", "soak"])
            .env_remove("CARGO_BUILD_TARGET"),
    )?;
    let environment = [("SPIP_AGENT_BIN", project.agent().into()), ("PATH", process::full_path())];
    let Some(mut soak) = root.command(project.target.join("release/soak"), &environment) else {
        bail!("the load needs root: {}", privilege::REMEDY);
    };
    soak.arg(options.minutes.to_string()).arg("--rate").arg(options.rate.to_string());
    soak.arg("--steering").arg(&options.steering);
    if let Some(directory) = &options.report {
        soak.arg("--report").arg(directory);
    }
    process::run(&mut soak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_bounded() {
        assert_eq!(minutes("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "x"] {
            assert!(minutes(text).is_err(), "{text}");
        }
    }
}
