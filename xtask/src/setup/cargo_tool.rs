//! Tools that cargo builds into the target folder, in pinned versions: bpf-linker, cargo-deny, mdbook and
//! cargo-mutants.
//!
//! They are built without optimisation: they wait for LLVM, for files or for a compiler, and a build that takes half the time is what a
//! newcomer notices.

use std::path::PathBuf;

use super::Missing;
use super::compiler::Version;
use super::system::System;

/// The profile of these builds, as options of `cargo install`.
const PROFILE: [&str; 3] = ["--debug", "--config", "profile.dev.debug=false"];

/// Features of mdbook: without its web server, which half of its dependencies are for.
const BOOK_FEATURES: [&str; 3] = ["--no-default-features", "--features", "search"];

/// Returns where this checkout's own build of a tool is, or would be.
pub(super) fn built(system: &dyn System, tool: &str) -> PathBuf {
    system.tools().join("bin").join(tool)
}

/// Returns every build of a tool that starts, with its version; this checkout's own first.
pub(super) fn all(system: &dyn System, tool: &str) -> Vec<(Version, PathBuf)> {
    let programs = std::iter::once(built(system, tool)).chain(system.find(tool));
    programs.filter_map(|program| Some((version(system, &program)?, program))).collect()
}

/// Returns the version that a tool states as `name 1.2.3` or `name v1.2.3`; `None` when it does not start. A subcommand of
/// cargo may know `--version` behind its name alone, as cargo passes it.
fn version(system: &dyn System, program: &std::path::Path) -> Option<Version> {
    let path = program.to_string_lossy();
    let subcommand = program.file_name()?.to_str()?.strip_prefix("cargo-");
    let said =
        system.ask(&[&path, "--version"]).ok().or_else(|| system.ask(&[&path, subcommand?, "--version"]).ok())?;
    Version::parse(said.split_whitespace().nth(1)?.trim_start_matches('v'))
}

/// Builds a tool, with cargo's output on the terminal, or returns why it is missing.
pub(super) fn install(system: &dyn System, tool: &str, pinned: Version) -> Result<PathBuf, Missing> {
    let command = command(system, tool, pinned);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let outcome = system.change(&words).and_then(|()| {
        let program = built(system, tool);
        version(system, &program).map(|_| program).ok_or_else(|| "it was built and does not start".to_owned())
    });
    outcome.map_err(|why| {
        // The command that has just failed is no remedy.
        let remedy = format!("cargo binstall {tool}@{pinned}");
        Missing { what: format!("{tool} {pinned}"), why, remedy }
    })
}

/// Reports a tool as missing that could be built.
pub(super) fn missing(system: &dyn System, tool: &str, pinned: Version) -> Missing {
    let remedy = command(system, tool, pinned).join(" ");
    Missing { what: format!("{tool} {pinned}"), why: "not found".to_owned(), remedy }
}

fn command(system: &dyn System, tool: &str, version: Version) -> Vec<String> {
    let (version, root) = (version.to_string(), system.tools().display().to_string());
    let install = ["cargo", "install", tool, "--version", &version, "--locked", "--force", "--root", &root];
    let features: &[&str] = if tool == "mdbook" { &BOOK_FEATURES } else { &[] };
    install.iter().chain(&PROFILE).chain(features).map(|word| (*word).to_owned()).collect()
}
