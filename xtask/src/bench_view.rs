//! `cargo xtask bench view`: how fast spip-view takes a log and answers, and how large its store is.

use anyhow::Result;

use crate::process;
use crate::project::Project;

/// Builds spip-view and the program that measures it, and starts that. Needs no root.
pub(crate) fn run(project: &Project, arguments: &[String]) -> Result<()> {
    for package in
        [["--package", "spip-view", "--bin", "spip-view"], ["--package", "spip-tests", "--bin", "view_bench"]]
    {
        process::run(
            project.cargo("build").args(["--release", "--locked"]).args(package).env_remove("CARGO_BUILD_TARGET"),
        )?;
    }
    let release = project.target.join("release");
    process::run(std::process::Command::new(release.join("view_bench")).arg(release.join("spip-view")).args(arguments))
}
