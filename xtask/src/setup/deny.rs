//! cargo-deny, pinned: another version may judge the same dependencies differently.

use anyhow::Result;

use super::Missing;
use super::compiler::Version;
use super::linker::version;
use crate::process;
use crate::project::Project;
use crate::report;

const PINNED: Version = Version(0, 20, 2);

/// The pinned cargo-deny, from the target folder or PATH, built into the former where it is nowhere.
pub(crate) fn ready(project: &Project, install: bool) -> Result<Result<std::path::PathBuf, Missing>> {
    let built = project.tools().join("bin/cargo-deny");
    let found = std::iter::once(built.clone())
        .chain(process::find_all("cargo-deny"))
        .find(|program| version(program) == Some(PINNED));
    if let Some(program) = found {
        return Ok(Ok(program));
    }
    let mut command = project.cargo("install");
    command
        .args(["cargo-deny", "--version", &PINNED.to_string(), "--locked"])
        .args(["--force", "--root"])
        .arg(project.tools())
        .env_remove("RUSTFLAGS");
    let missing = |why: String| Missing { what: format!("cargo-deny {PINNED}"), why, remedy: process::shown(&command) };
    if !install {
        return Ok(Err(missing("not found".to_owned())));
    }
    let absent = missing(String::new());
    report::step("Building", "cargo-deny; takes some minutes, once");
    Ok(match process::run(&mut command) {
        Ok(()) => Ok(built),
        Err(error) => Err(Missing { why: format!("{error:#}"), ..absent }),
    })
}
