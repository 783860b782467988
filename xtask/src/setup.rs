//! `cargo xtask setup`: what the other commands need, found or installed.
//!
//! Every command calls this first with its own [`Need`], so that a demo on a new machine does not pay for
//! the tools of the linter. Found things are not touched, so a second call only looks. What cannot be
//! installed (no rights, no network, another distribution) is listed as a whole, each with the command that
//! mends it, rather than one after the other.

mod cargo_tool;
mod compiler;
#[cfg(test)]
mod fake;
mod linker;
mod packages;
mod peers;
mod system;
mod toolchain;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};

use self::compiler::Version;
pub(crate) use self::packages::HAS_OPENSSL;
use self::packages::Packages;
pub(crate) use self::peers::Peer;
use self::system::{Machine, System};
pub(crate) use self::toolchain::Toolchain;
use crate::project::Project;
use crate::report;

/// What something is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Need {
    /// The kernel object and the agent
    Build,
    /// The build, and namespaces with clients
    Demo,
    /// The demo, and the clients of the end-to-end tests
    Test,
    /// The demo, and a look at maps from outside
    Soak,
    /// Formatter, clippy and cargo-deny
    Lint,
    /// The build without the kernel object, and a compiler for C++
    Fuzz,
}

#[derive(Args)]
pub(crate) struct Options {
    /// Only what this command needs [default: all]
    #[arg(long = "for", value_name = "COMMAND")]
    need: Option<Need>,
    /// Say what is missing and install nothing
    #[arg(long)]
    check: bool,
}

/// cargo-deny is pinned: another version may judge the same dependencies differently.
const DENY: (&str, Version) = ("cargo-deny", Version(0, 20, 2));

/// Something that is not there and could not be installed.
#[derive(Debug)]
struct Missing {
    what: String,
    why: String,
    /// One command that fixes it, and that setup has not just tried.
    remedy: String,
}

/// Why setup cannot install something by one route.
#[derive(Clone, Debug)]
struct Obstacle {
    reason: String,
    /// The command by which a person can.
    remedy: Option<String>,
}

impl Obstacle {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: None }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    remedy: {}", self.what, self.why, self.remedy)
    }
}

/// Sets everything up, or what was asked for, and says what it found.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let needs = match options.need {
        Some(need) => vec![need],
        // The tests need all that the build and the demo need.
        None => vec![Need::Test, Need::Lint, Need::Fuzz],
    };
    let mut missing = Vec::new();
    for need in needs {
        let found = Found::look(project, need, !options.check);
        if let Some(toolchain) = &found.toolchain {
            let Toolchain { compiler, linker } = toolchain;
            report::step(
                "Found",
                format!("rustc {} with LLVM {}: {}", compiler.version, compiler.llvm, compiler.candidate),
            );
            report::step("Found", format!("bpf-linker {}: {}", linker.version, project.relative(&linker.program)));
        }
        if let Some(deny) = &found.deny {
            report::step("Found", format!("cargo-deny: {}", project.relative(deny)));
        }
        missing.extend(found.missing);
    }
    if matches!(options.need, None | Some(Need::Test)) {
        for Peer { variable, program } in peers(project, !options.check) {
            match program {
                Ok(program) => report::step("Found", format!("{variable}={}", project.relative(&program))),
                Err(reason) => report::note(format!("tests that need {variable} will be skipped: {reason}")),
            }
        }
    }
    complete(&missing)?;
    report::step("Ready", "all that was asked for is here");
    Ok(())
}

/// Returns the compiler for the kernel, once all that a command needs is there.
pub(crate) fn toolchain(project: &Project, need: Need) -> Result<Toolchain> {
    let found = Found::look(project, need, true);
    complete(&found.missing)?;
    found.toolchain.ok_or_else(|| anyhow!("the compiler for the kernel was not looked for"))
}

/// Finds what tests start beside the agent, and with `install` installs what PyPI offers.
pub(crate) fn peers(project: &Project, install: bool) -> Vec<Peer> {
    peers::ready(project, install)
}

/// What the linter needs: cargo-deny comes back.
pub(crate) fn for_lint(project: &Project) -> Result<PathBuf> {
    let found = Found::look(project, Need::Lint, true);
    complete(&found.missing)?;
    found.deny.ok_or_else(|| anyhow!("cargo-deny was not looked for"))
}

/// What fuzzing needs; without a compiler for C++ it goes on, and this says so.
pub(crate) fn for_fuzz(project: &Project) -> Result<()> {
    complete(&Found::look(project, Need::Fuzz, true).missing)
}

/// The result of one round.
struct Found {
    toolchain: Option<Toolchain>,
    deny: Option<PathBuf>,
    missing: Vec<Missing>,
}

impl Found {
    fn look(project: &Project, need: Need, install: bool) -> Self {
        let machine = Machine::new(project);
        let packages = Packages::new(&machine);
        let mut found =
            Self { toolchain: None, deny: None, missing: packages.ready(need, install).into_iter().collect() };
        match need {
            Need::Lint => {
                found.missing.extend(components(&machine, install));
                match deny(&machine, install) {
                    Ok(program) => found.deny = Some(program),
                    Err(absent) => found.missing.push(absent),
                }
            }
            Need::Fuzz => {}
            Need::Build | Need::Demo | Need::Test | Need::Soak => {
                match toolchain::ready(&machine, &packages, install) {
                    Ok(pair) => found.toolchain = Some(pair),
                    Err(absent) => found.missing.push(absent),
                }
            }
        }
        found
    }
}

/// Installs one package for a command that goes on without it, or returns why it is not there.
pub(crate) fn package(project: &Project, package: &str) -> Result<(), String> {
    let machine = Machine::new(project);
    Packages::new(&machine).install_one(package).map_err(|obstacle| obstacle.reason)
}

/// Returns the formatter and clippy if the userspace toolchain lacks them: a minimal rustup profile does.
fn components(system: &dyn System, install: bool) -> Option<Missing> {
    let absent = || {
        let all = [("fmt", "rustfmt"), ("clippy", "clippy")].into_iter();
        let absent = all.filter(|(command, _)| system.ask(&["cargo", command, "--version"]).is_err());
        absent.map(|(_, component)| component).collect::<Vec<_>>()
    };
    let mut missing = absent();
    let add = |missing: &[&'static str]| [&["rustup", "component", "add"], missing].concat();
    let mut why = "the toolchain was installed without".to_owned();
    let mut remedy = add(&missing).join(" ");
    if install && !missing.is_empty() && system.has("rustup") {
        match system.change(&add(&missing)) {
            Ok(()) => missing = absent(),
            Err(reason) => {
                why = format!("`{remedy}`: {reason}");
                // With both of them, and by another download than the one that has failed.
                remedy = "rustup update --force stable".to_owned();
            }
        }
    }
    (!missing.is_empty()).then(|| Missing { what: missing.join(", "), why, remedy })
}

/// Returns the pinned cargo-deny, which is built where it is nowhere.
fn deny(system: &dyn System, install: bool) -> Result<PathBuf, Missing> {
    let (tool, pinned) = DENY;
    if let Some((_, program)) = cargo_tool::all(system, tool).into_iter().find(|(version, _)| *version == pinned) {
        return Ok(program);
    }
    if !install {
        return Err(cargo_tool::missing(system, tool, pinned));
    }
    report::step("Building", "cargo-deny; takes some minutes, once");
    cargo_tool::install(system, tool, pinned)
}

/// Ends the command with the whole list when something is missing.
fn complete(missing: &[Missing]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let list: String = missing.iter().map(|absent| format!("\n  {absent}")).collect();
    Err(anyhow!("setup is incomplete:{list}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_what_is_missing_names_every_remedy() {
        let missing = ["ip", "bpf-linker"].map(|what| Missing {
            what: what.to_owned(),
            why: "not found".to_owned(),
            remedy: format!("install {what}"),
        });
        let error = complete(&missing).expect_err("two are missing").to_string();
        assert!(error.contains("install ip\n"), "{error}");
        assert!(error.contains("install bpf-linker"), "{error}");
    }

    #[test]
    fn nothing_missing_is_no_error() {
        complete(&[]).expect("nothing is missing");
    }
}
