//! `cargo xtask build`: the kernel side, then the release agent that embeds it.
//!
//! The demo gets a debug agent: the release build's optimisation takes minutes, which a newcomer would wait for, and
//! makes no difference to eight visits. What is deployed and what is tested is the release agent.

pub(crate) mod portable;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::architecture::Architecture;
use crate::build_ebpf;
use crate::debug_info;
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
    )?;
    debug_info::split(&project.agent(), Architecture::own()?)
}

/// The libraries of the debug agent, which compile while setup and the kernel side go on.
pub(crate) struct Libraries(Child);

impl Libraries {
    /// Starts to compile them. What fails here, fails again, and with a message, in [`Libraries::agent`].
    pub(crate) fn compile(project: &Project) -> Result<Self> {
        let mut cargo = debug(project);
        // An object that is not there stops the agent's build script, and --keep-going compiles all that does not
        // depend on it.
        cargo.args(["--keep-going", "--quiet"]).env("SPIP_EBPF_OBJECT", project.ebpf_folder().join("not-yet"));
        let child = cargo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.context("cannot start cargo")?))
    }

    /// Builds the kernel side and the debug agent, and returns the agent.
    pub(crate) fn agent(mut self, project: &Project, toolchain: &Toolchain) -> Result<PathBuf> {
        build_ebpf::build(project, toolchain)?;
        if self.0.try_wait()?.is_none() {
            report::step("Compiling", "the agent's libraries");
        }
        self.0.wait()?;
        process::run(&mut debug(project))?;
        Ok(project.target.join("debug/spip-agent"))
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        // Fails where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn debug(project: &Project) -> Command {
    let mut cargo = project.cargo("build");
    cargo.args(["--locked", "--package", "spip-agent"]).env_remove("CARGO_BUILD_TARGET");
    cargo
}
