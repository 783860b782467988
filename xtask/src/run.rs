//! `cargo xtask run`: builds, then becomes the agent.
//!
//! This process is replaced by the agent (or by sudo, which forwards signals), so that Ctrl-C, SIGTERM and
//! the exit status are the agent's own.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::build;
use crate::privilege::Root;
use crate::project::Project;
use crate::report;
use crate::setup::{self, Need};

#[derive(Args)]
pub(crate) struct Options {
    /// Arguments of the agent, such as `--config FILE`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Sets up, builds and runs.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let toolchain = setup::toolchain(project, Need::Build)?;
    build::build(project, &toolchain)?;
    let agent = project.agent();
    let mut command = Root::detect().command(&agent, &[]).unwrap_or_else(|| {
        report::note("neither root nor sudo: the agent does without what it may not do, and says so");
        Command::new(&agent)
    });
    command.args(&options.arguments);
    report::step("Running", crate::process::shown(&command));
    Err(command.exec()).with_context(|| format!("cannot start {}", agent.display()))
}
