//! `cargo xtask setup`: what the other commands need, found or installed.
//!
//! Every command calls this first with its own [`Need`], so that a demo on a new machine does not pay for
//! the tools of the linter. Found things are not touched, so a second call only looks. What cannot be
//! installed (no rights, no network, another distribution) is listed as a whole, each with the command that
//! fixes it, rather than one after the other.

mod cargo_tool;
mod compiler;
#[cfg(test)]
mod fake;
mod linker;
mod packages;
mod peers;
mod python;
mod system;
mod toolchain;
mod zig;

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
pub(crate) use self::zig::Zig;
use crate::project::Project;
use crate::report;

/// Purposes of a setup.
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
    /// The build, and a linker for older C libraries and other architectures
    Package,
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

/// Builds the documentation as a book. A tool, so that its licence (MPL-2.0) concerns no program of this project.
const BOOK: (&str, Version) = ("mdbook", Version(0, 5, 4));

/// cargo-mutants is pinned: another version makes other mutants, and the list of accepted ones names those of this one.
const MUTANTS: (&str, Version) = ("cargo-mutants", Version(27, 1, 0));

/// Something that is not there and could not be installed.
#[derive(Debug)]
struct Missing {
    what: String,
    why: String,
    /// One command that fixes it, and that setup has not just tried.
    remedy: String,
}

/// Reason why setup cannot install something by one route.
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

impl From<Missing> for Vec<Missing> {
    fn from(missing: Missing) -> Self {
        vec![missing]
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    remedy: {}", self.what, self.why, self.remedy)
    }
}

/// Sets everything up, or what was asked for, and reports what it found.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let install = !options.check;
    // The tests need all that the build and the demo need.
    let needs = options.need.map_or(vec![Need::Test, Need::Lint, Need::Fuzz, Need::Package], |need| vec![need]);
    let mut missing = Vec::new();
    for need in needs {
        let outcome = match need {
            Need::Fuzz => look(project, need, install, |_, _| Ok(Vec::new())),
            Need::Lint => look(project, need, install, |machine, _| lint(machine, install).map(|deny| vec![deny])),
            _ => look(project, need, install, |machine, packages| {
                let Toolchain { compiler, linker } = toolchain::ready(machine, packages, install)?;
                let about = format!("rustc {} with LLVM {}: {}", compiler.version, compiler.llvm, compiler.candidate);
                report::step("Found", format!("{about}; bpf-linker {}", linker.version));
                Ok(vec![linker.program])
            }),
        };
        match outcome {
            Ok(tools) => tools.iter().for_each(|tool| report::step("Found", project.relative(tool))),
            Err(absent) => missing.extend(absent),
        }
    }
    let is_for_test = matches!(options.need, None | Some(Need::Test));
    for Peer { variable, program } in if is_for_test { peers(project, install) } else { Vec::new() } {
        match program {
            Ok(program) => report::step("Found", format!("{variable}={}", project.relative(&program))),
            Err(reason) => report::note(format!("tests that need {variable} will be skipped: {reason}")),
        }
    }
    if matches!(options.need, None | Some(Need::Package)) {
        match zig::ready(project, install) {
            Ok(_) => report::step("Found", "Zig, for packages"),
            Err(reason) => report::note(format!("packages will be for machines with this one's C library: {reason}")),
        }
    }
    if !missing.is_empty() {
        return Err(incomplete(missing));
    }
    report::step("Ready", "all that was asked for is here");
    Ok(())
}

/// Returns the compiler for the kernel, once all that a command needs is there.
pub(crate) fn toolchain(project: &Project, need: Need) -> Result<Toolchain> {
    look(project, need, true, |machine, packages| Ok(toolchain::ready(machine, packages, true)?)).map_err(incomplete)
}

/// Finds or installs what builds packages, or returns the reason why there is none.
pub(crate) fn zig(project: &Project) -> Result<Zig, String> {
    zig::ready(project, true)
}

/// Makes sure that the toolchain can compile for a target.
pub(crate) fn target(project: &Project, triple: &str) -> Result<()> {
    zig::standard_library(project, triple, true).map_err(|missing| incomplete(missing.into()))
}

/// Finds what tests start beside the agent, and with `install` installs what PyPI offers.
pub(crate) fn peers(project: &Project, install: bool) -> Vec<Peer> {
    peers::ready(project, install)
}

/// Returns cargo-deny, once all that the linter needs is there.
pub(crate) fn for_lint(project: &Project) -> Result<PathBuf> {
    look(project, Need::Lint, true, |machine, _| lint(machine, true)).map_err(incomplete)
}

/// Makes mdbook available, and returns its path.
pub(crate) fn for_docs(project: &Project) -> Result<PathBuf> {
    pinned_tool(&Machine::new(project), BOOK, true).map_err(|missing| incomplete(vec![missing]))
}

/// Returns the pinned cargo-mutants, which no other command needs.
pub(crate) fn for_mutants(project: &Project) -> Result<PathBuf> {
    pinned_tool(&Machine::new(project), MUTANTS, true).map_err(|missing| incomplete(vec![missing]))
}

/// Makes available what fuzzing needs. Without a compiler for C++ it goes on, and a note names what is left out.
pub(crate) fn for_fuzz(project: &Project) -> Result<()> {
    look(project, Need::Fuzz, true, |_, _| Ok(())).map_err(incomplete)
}

/// Looks for the programs that a command needs and for what `find` adds, so that the error names all that is missing.
fn look<T>(
    project: &Project,
    need: Need,
    install: bool,
    find: impl FnOnce(&Machine<'_>, &Packages<'_>) -> Result<T, Vec<Missing>>,
) -> Result<T, Vec<Missing>> {
    let machine = Machine::new(project);
    let packages = Packages::new(&machine);
    match (packages.ready(need, install), find(&machine, &packages)) {
        (None, found) => found,
        (Some(programs), found) => Err(std::iter::once(programs).chain(found.err().unwrap_or_default()).collect()),
    }
}

/// Installs one package for a command that goes on without it, or returns why it is not there.
pub(crate) fn package(project: &Project, package: &str) -> Result<(), String> {
    let machine = Machine::new(project);
    Packages::new(&machine).install_one(package).map_err(|obstacle| obstacle.reason)
}

/// Returns the pinned cargo-deny, once the toolchain has the formatter and clippy, which a minimal profile lacks.
fn lint(system: &dyn System, install: bool) -> Result<PathBuf, Vec<Missing>> {
    let lacks = |task: &str| system.ask(&["cargo", task, "--version"]).is_err();
    let add = "rustup component add rustfmt clippy";
    let mut why = "the toolchain was installed without".to_owned();
    if install && system.has("rustup") && (lacks("fmt") || lacks("clippy")) {
        let outcome = system.change(&add.split(' ').collect::<Vec<_>>());
        let reason = outcome.err().unwrap_or_else(|| "it was run, and they still do not start".to_owned());
        why = format!("`{add}`: {reason}");
    }
    // The command that has just been run is no remedy.
    let update = "rustup toolchain install stable --component rustfmt --component clippy";
    let remedy = if why.starts_with('`') { update } else { add }.to_owned();
    let what = "rustfmt and clippy".to_owned();
    let components = (lacks("fmt") || lacks("clippy")).then_some(Missing { what, why, remedy });
    let deny = pinned_tool(system, DENY, install);
    match components {
        None => Ok(deny?),
        Some(components) => Err(std::iter::once(components).chain(deny.err()).collect()),
    }
}

/// Returns a tool of exactly this version, after building it where that is asked for.
fn pinned_tool(system: &dyn System, (tool, pinned): (&str, Version), install: bool) -> Result<PathBuf, Missing> {
    let found = cargo_tool::all(system, tool).into_iter().find(|(version, _)| *version == pinned);
    match found {
        Some((_, program)) => Ok(program),
        None if install => cargo_tool::install(system, tool, pinned),
        None => Err(cargo_tool::missing(system, tool, pinned)),
    }
}

/// Makes the whole list of what is missing an error.
fn incomplete(missing: Vec<Missing>) -> anyhow::Error {
    let list: String = missing.iter().map(|absent| format!("\n  {absent}")).collect();
    anyhow!("setup is incomplete:{list}")
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
        let error = incomplete(missing.into()).to_string();
        assert!(error.contains("install ip\n"), "{error}");
        assert!(error.contains("install bpf-linker"), "{error}");
    }

    #[test]
    fn components_that_were_added_in_vain_have_a_remedy_that_was_not_tried() {
        // This rustup has nothing but compilers.
        let machine = fake::Fake::default().with_rustup(Vec::new());
        let missing = lint(&machine, true).expect_err("cargo fmt does not start");
        assert_eq!(machine.changed(3)[0], "rustup component add");
        assert!(missing[0].why.starts_with("`rustup component add rustfmt clippy`: "), "{}", missing[0]);
        assert!(missing[0].remedy.starts_with("rustup toolchain install stable"), "{}", missing[0]);
        // Nothing was run, so the first command is the remedy.
        let missing = lint(&machine, false).expect_err("cargo fmt does not start");
        assert_eq!(missing[0].remedy, "rustup component add rustfmt clippy");
    }
}
