//! `cargo xtask build`: the kernel side, then the release agent that embeds it.

use anyhow::Result;

use crate::build_ebpf;
use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup::{self, Need, Toolchain};

/// Sets up and builds.
pub(crate) fn run(project: &Project) -> Result<()> {
    let toolchain = setup::toolchain(project, Need::Build)?;
    build(project, &toolchain)?;
    report::step("Built", project.relative(&project.agent()));
    Ok(())
}

/// Builds with a toolchain that is known to be there.
pub(crate) fn build(project: &Project, toolchain: &Toolchain) -> Result<()> {
    build_ebpf::build(project, toolchain)?;
    // The target folder by name: `build.target` of a caller's configuration would put the agent elsewhere.
    process::run(
        project
            .cargo("build")
            .args(["--release", "--locked", "--package", "spip-agent"])
            .env_remove("CARGO_BUILD_TARGET"),
    )
}
