//! cargo-deny, pinned: another version may judge the same dependencies differently.

use anyhow::Result;

use super::Missing;
use super::compiler::Version;
use super::linker::{install_command, install_remedy, version};
use crate::process;
use crate::project::Project;
use crate::report;

const TOOL: &str = "cargo-deny";

const PINNED: Version = Version(0, 20, 2);

/// The pinned cargo-deny, from the target folder or PATH, built into the former where it is nowhere.
pub(crate) fn ready(project: &Project, install: bool) -> Result<Result<std::path::PathBuf, Missing>> {
    let built = project.tools().join("bin").join(TOOL);
    let found =
        std::iter::once(built.clone()).chain(process::find_all(TOOL)).find(|program| version(program) == Some(PINNED));
    if let Some(program) = found {
        return Ok(Ok(program));
    }
    let missing =
        |why: String| Missing { what: format!("{TOOL} {PINNED}"), why, remedy: install_remedy(project, TOOL, PINNED) };
    if !install {
        return Ok(Err(missing("not found".to_owned())));
    }
    report::step("Building", "cargo-deny; takes some minutes, once");
    Ok(process::run(&mut install_command(project, TOOL, PINNED))
        .map(|()| built)
        .map_err(|error| missing(format!("{error:#}"))))
}
