//! `cargo xtask fleet-test`: sensors, a cluster and a hub under load while everything fails at random, and what was stored.
//!
//! The test is that of `cargo xtask test`, where it is short; here it is as long as is asked for, with several seeds. As root
//! each sensor, each server of the cluster and the hub has a network namespace, and the network fails, too; as another
//! user all of them are on loopback.

use anyhow::{Result, bail};
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup;

#[derive(Args)]
pub(crate) struct Options {
    /// Records in each run
    #[arg(long, default_value_t = 1_000_000)]
    lines: u64,
    /// The seed of the first run; each further run has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs
    #[arg(long, default_value_t = 1)]
    runs: u64,
}

/// Sets up, builds and runs.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    for run in 0..options.runs {
        let seed = options.seed.wrapping_add(run);
        report::step("Running", format!("{} records with seed {seed}", options.lines));
        delivery(
            project,
            &["fleet_under_faults", "--nocapture"],
            &[("SPIP_FLEET_LINES", options.lines.to_string()), ("SPIP_FLEET_SEED", seed.to_string())],
        )?;
    }
    Ok(())
}

/// Runs a test of `spip-ship` beside real servers, optimised, with `arguments` and `environment`.
pub(crate) fn delivery(project: &Project, arguments: &[&str], environment: &[(&str, String)]) -> Result<()> {
    let mut cargo = project.cargo("test");
    cargo.args(["--release", "--locked", "--package", "spip-ship", "--test", "delivery", "--"]).args(arguments);
    for peer in setup::peers(project, true) {
        match peer.program {
            Ok(program) => {
                cargo.env(peer.variable, program);
            }
            Err(reason) if ["SPIP_NATS_SERVER", "SPIP_CHDB_PYTHON"].contains(&peer.variable) => {
                bail!("{} is needed: {reason}", peer.variable);
            }
            Err(_) => {}
        }
    }
    cargo.envs(environment.iter().map(|(name, value)| (name, value)));
    process::run(&mut cargo)
}
