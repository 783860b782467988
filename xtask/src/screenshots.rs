//! `cargo xtask screenshots`: the pictures of the documentation, made anew from a sample log by a headless browser.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::setup;

/// Directory of the pictures in the checkout.
const FOLDER: &str = "docs/pictures";

#[derive(Args)]
pub(crate) struct Options {
    /// Directory for the pictures
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// A dark and a narrow picture of each page as well, to look at
    #[arg(long)]
    all: bool,
}

/// Builds spip-view and the program that drives the browser, and starts that.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let browser = setup::peers(project, false).into_iter().filter(|peer| peer.variable.starts_with("SPIP_CHROM"));
    let mut command = project.cargo("run");
    for peer in browser {
        match peer.program {
            Ok(program) => command.env(peer.variable, program),
            Err(reason) => bail!("pictures need a browser, and {reason}: `cargo xtask setup --for test` installs it"),
        };
    }
    process::run(project.cargo("build").args(["--locked", "--package", "spip-view"]).env_remove("CARGO_BUILD_TARGET"))?;
    command.args(["--locked", "--package", "spip-view", "--example", "screenshots", "--"]);
    command.arg(project.target.join("debug/spip-view"));
    command.arg(options.out.clone().unwrap_or_else(|| project.root.join(FOLDER)));
    if options.all {
        command.arg("--all");
    }
    process::run(command.env_remove("CARGO_BUILD_TARGET"))
}
