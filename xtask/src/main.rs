//! `cargo xtask`: the one front door to building, showing and checking spip.
//!
//! Each command is a file of its own with one `run` function; this one only reads the command line. A
//! command asks `setup` for what it needs before it starts, so that no order has to be known, and CI
//! calls the same commands as people do. Built with few dependencies on purpose: on a machine where
//! nothing was compiled before, this program is what a newcomer waits for first.

mod architecture;
mod bench;
mod bench_view;
mod build;
mod build_ebpf;
mod debian;
mod debug_info;
mod demo;
mod docs;
mod fleet_test;
mod fuzz;
mod geo;
mod interrupt;
mod lines;
mod lint;
mod markdown;
mod mutants;
mod network;
mod newcomer;
mod package;
mod privilege;
mod process;
mod project;
mod report;
mod run;
mod screenshots;
mod setup;
mod soak;
mod test;
mod verdict;
mod vmtest;
mod walk;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::project::Project;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, shows and checks spip")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install what the other commands need
    Setup(setup::Options),
    /// Compile the kernel side into target/ebpf/spip
    BuildEbpf,
    /// Compile the kernel side and the release agent
    Build,
    /// Build, then run the agent with the arguments after `--`
    Run(run::Options),
    /// Show the sensor at work, in two network namespaces that are removed afterwards
    Demo(demo::Options),
    /// Run the unit tests, then the end-to-end tests in network namespaces
    Test(test::Options),
    /// Measure the agent against a bare accept loop
    Bench(bench::Options),
    /// Fuzz every reader of hostile bytes
    Fuzz(fuzz::Options),
    /// Count lines of code, comments and tests by wing and crate
    Lines,
    /// Put small faults in, one at a time, and see whether a test notices
    Mutants(mutants::Options),
    /// Run mixed load for MINUTES and check that nothing grew
    Soak(soak::Options),
    /// Run sensors, a cluster and a hub under random failures, and check what was stored
    FleetTest(fleet_test::Options),
    /// Run the agent and a core of the tests under another kernel, in an emulated machine
    Vmtest(vmtest::Options),
    /// Try the README's two commands on a fresh machine in a folder
    Newcomer(newcomer::Options),
    /// Make a Debian package and an archive
    Package(package::Options),
    /// Make the pictures of the documentation anew, in a headless browser
    Screenshots(screenshots::Options),
    /// Fetch data about addresses and package it with its attribution
    Geo(geo::Options),
    /// Build the documentation as a book with search, and check its links
    Docs,
    /// Check formatting, clippy, licences, dependencies and links
    Lint,
}

fn main() -> ExitCode {
    let task = Cli::parse().task;
    match run(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    // Located by those that need it: the demo's part that runs as root knows nothing of the project.
    let project = Project::locate;
    match task {
        Task::Setup(options) => setup::run(&project()?, options),
        Task::BuildEbpf => build_ebpf::run(&project()?),
        Task::Build => build::run(&project()?),
        Task::Run(options) => run::run(&project()?, options),
        Task::Demo(options) => demo::run(options),
        Task::Test(options) => test::run(&project()?, options),
        Task::Bench(options) => bench::run(&project()?, options),
        Task::Fuzz(options) => fuzz::run(&project()?, options),
        Task::Lines => lines::run(&project()?),
        Task::Mutants(options) => mutants::run(&project()?, options),
        Task::Soak(options) => soak::run(&project()?, options),
        Task::FleetTest(options) => fleet_test::run(&project()?, options),
        Task::Vmtest(options) => vmtest::run(&project()?, options),
        Task::Newcomer(options) => newcomer::run(&project()?, options),
        Task::Screenshots(options) => screenshots::run(&project()?, options),
        Task::Geo(options) => geo::run(&project()?, options),
        Task::Package(options) => package::run(&project()?, options),
        Task::Docs => docs::run(&project()?),
        Task::Lint => lint::run(&project()?),
    }
}
