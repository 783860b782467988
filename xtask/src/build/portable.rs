//! Release programs for other machines than this one: with an older C library, or of another architecture.

use anyhow::{Context, Result};

use crate::architecture::{Architecture, Programs};
use crate::build_ebpf;
use crate::debug_info;
use crate::package::{NEWEST_GLIBC, PROGRAMS};
use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup::{self, Toolchain, Zig};

/// Builds the programs of the package. Without Zig, those for this architecture are built natively, and start where the C
/// library is no older than this machine's.
pub(crate) fn build(project: &Project, toolchain: &Toolchain, architecture: Architecture) -> Result<Programs> {
    let zig = match setup::zig(project) {
        Ok(zig) => zig,
        Err(reason) if architecture.is_own() => {
            report::note(format!("built for machines with this one's C library: {reason}"));
            build_ebpf::build(project, toolchain)?;
            let programs = Programs::native(project)?;
            // The target folder by name, as for the agent alone.
            one_by_one(&programs, || {
                let mut cargo = project.cargo("build");
                cargo.env_remove("CARGO_BUILD_TARGET");
                Ok(cargo)
            })?;
            return Ok(programs);
        }
        Err(reason) => anyhow::bail!("programs for {} cannot be built: {reason}", architecture.name()),
    };
    build_ebpf::build(project, toolchain)?;
    let programs = Programs::portable(project, architecture);
    one_by_one(&programs, || cargo(project, &zig, "build", architecture))?;
    Ok(programs)
}

/// Builds each program by itself. Built together, all would get the features that any of them wants of a library: with
/// tokio's signal handling, which `spip-view` uses, the agent makes a socket pair that its sandbox forbids.
fn one_by_one(programs: &Programs, cargo: impl Fn() -> Result<std::process::Command>) -> Result<()> {
    for name in PROGRAMS {
        process::run(cargo()?.args(["--release", "--locked", "--package", name]))?;
        debug_info::split(&programs.path(name), programs.architecture)
            .with_context(|| format!("{name} keeps its debug information"))?;
    }
    Ok(())
}

/// Returns cargo for an architecture, with the oldest C library that packages are for.
pub(crate) fn cargo(
    project: &Project,
    zig: &Zig,
    command: &str,
    architecture: Architecture,
) -> Result<std::process::Command> {
    setup::target(project, architecture.triple())?;
    Ok(zig.cargo(project, command, architecture.triple(), &NEWEST_GLIBC.to_string()))
}
