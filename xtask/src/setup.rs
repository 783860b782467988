//! `cargo xtask setup`: what the other commands need, found or installed.
//!
//! Every command calls this first with its own [`Need`], so that a demo on a new machine does not pay for
//! the tools of the linter. Found things are not touched, so a second call only looks. What cannot be
//! installed (no rights, no network, another distribution) is listed as a whole, each with the command that
//! mends it, rather than one after the other.

mod compiler;
mod deny;
mod linker;
mod packages;
mod peers;
mod toolchain;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};

pub(crate) use self::packages::{HAS_OPENSSL, apt_install};
pub(crate) use self::peers::Peer;
pub(crate) use self::toolchain::Toolchain;
use crate::privilege::Root;
use crate::process;
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

/// Something that is not there and could not be installed.
#[derive(Debug)]
struct Missing {
    what: String,
    why: String,
    /// The command that mends it.
    remedy: String,
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
        let found = Found::look(project, need, !options.check)?;
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

/// What the build needs; the compiler for the kernel among it.
pub(crate) fn for_build(project: &Project) -> Result<Toolchain> {
    toolchain_for(project, Need::Build)
}

/// What the demo needs.
pub(crate) fn for_demo(project: &Project) -> Result<Toolchain> {
    toolchain_for(project, Need::Demo)
}

/// What the soak needs.
pub(crate) fn for_soak(project: &Project) -> Result<Toolchain> {
    toolchain_for(project, Need::Soak)
}

/// What the tests need.
pub(crate) fn for_test(project: &Project) -> Result<Toolchain> {
    toolchain_for(project, Need::Test)
}

/// Finds what tests start beside the agent, and with `install` installs what PyPI offers.
pub(crate) fn peers(project: &Project, install: bool) -> Vec<Peer> {
    peers::ready(project, install)
}

/// What the linter needs: cargo-deny comes back.
pub(crate) fn for_lint(project: &Project) -> Result<PathBuf> {
    let found = Found::look(project, Need::Lint, true)?;
    complete(&found.missing)?;
    found.deny.ok_or_else(|| anyhow!("cargo-deny was not looked for"))
}

/// What fuzzing needs; without a compiler for C++ it goes on, and this says so.
pub(crate) fn for_fuzz(project: &Project) -> Result<()> {
    complete(&Found::look(project, Need::Fuzz, true)?.missing)
}

fn toolchain_for(project: &Project, need: Need) -> Result<Toolchain> {
    let found = Found::look(project, need, true)?;
    complete(&found.missing)?;
    found.toolchain.ok_or_else(|| anyhow!("the compiler for the kernel was not looked for"))
}

/// The result of one round.
struct Found {
    toolchain: Option<Toolchain>,
    deny: Option<PathBuf>,
    missing: Vec<Missing>,
}

impl Found {
    fn look(project: &Project, need: Need, install: bool) -> Result<Self> {
        let root = Root::detect();
        let mut missing = packages::ready(need, root, install)?;
        let mut toolchain = None;
        let mut deny = None;
        match need {
            Need::Lint => {
                missing.extend(components(project, install));
                match deny::ready(project, install)? {
                    Ok(program) => deny = Some(program),
                    Err(absent) => missing.push(absent),
                }
            }
            Need::Fuzz => {}
            Need::Build | Need::Demo | Need::Test | Need::Soak => match toolchain::ready(project, root, install)? {
                Ok(pair) => toolchain = Some(pair),
                Err(absent) => missing.push(absent),
            },
        }
        Ok(Self { toolchain, deny, missing })
    }
}

/// The formatter and clippy of the userspace toolchain, which a minimal rustup profile leaves out.
fn components(project: &Project, install: bool) -> Vec<Missing> {
    let absent = || {
        let mut absent = Vec::new();
        for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
            if !process::succeeds(project.cargo(command).arg("--version")) {
                absent.push(component);
            }
        }
        absent
    };
    let mut components = absent();
    if install && !components.is_empty() && process::find("rustup").is_some() {
        let mut add = Command::new("rustup");
        add.args(["component", "add"]).args(&components);
        match process::run_within(&mut add, toolchain::DOWNLOAD_LIMIT) {
            Ok(()) => components = absent(),
            Err(error) => report::note(format!("{error:#}")),
        }
    }
    if components.is_empty() {
        return Vec::new();
    }
    let names = components.join(" ");
    vec![Missing {
        what: components.join(", "),
        why: "the toolchain was installed without".to_owned(),
        remedy: format!("rustup component add {names}"),
    }]
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
