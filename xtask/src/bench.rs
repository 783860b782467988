//! `cargo xtask bench`: the release agent beside a bare loop, measured in namespaces.
//!
//! The program that measures is part of the tests' package and built with optimisations, as it must keep up with what
//! it drives. This command builds both and starts it as root; what is measured, and how, is its business.

use anyhow::{Result, bail};
use clap::Args;

use crate::bench_view;
use crate::build;
use crate::fleet_test;
use crate::privilege::{self, Root};
use crate::process;
use crate::project::Project;
use crate::setup::{self, Need};

#[derive(Args)]
pub(crate) struct Options {
    /// Measurement and its options: `sessions`, `idle`, `tls`, `records`; `enrich`, `ship` and `view` need neither root
    /// nor an agent
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Sets up, builds and measures.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    if options.arguments.first().is_some_and(|what| what == "enrich") {
        let mut bench = project.cargo("bench");
        bench.args(["--locked", "--package", "spip-enrich", "--bench", "enrich"]).env_remove("CARGO_BUILD_TARGET");
        return process::run(&mut bench);
    }
    if options.arguments.first().is_some_and(|what| what == "ship") {
        // No agent and no namespaces: the shipper beside a server.
        return fleet_test::delivery(project, &["bench_ship", "--ignored", "--nocapture"], &[]);
    }
    if let Some(("view", rest)) = options.arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return bench_view::run(project, rest);
    }
    let root = Root::detect();
    if root == Root::No {
        bail!("benchmarks make network namespaces and need root: {}", privilege::REMEDY);
    }
    let toolchain = setup::toolchain(project, Need::Demo)?;
    build::build(project, &toolchain)?;
    process::run(
        project
            .cargo("build")
            .args(["--release", "--locked", "--package", "spip-tests", "--bin", "bench"])
            .env_remove("CARGO_BUILD_TARGET"),
    )?;
    let environment = [("SPIP_AGENT_BIN", project.agent().into()), ("PATH", process::full_path())];
    let Some(mut bench) = root.command(project.target.join("release/bench"), &environment) else {
        bail!("benchmarks need root: {}", privilege::REMEDY);
    };
    process::run(bench.args(&options.arguments))
}
