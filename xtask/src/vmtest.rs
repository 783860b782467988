//! `cargo xtask vmtest`: the agent and a core of the end-to-end tests under another kernel of Debian's: 6.1, or an older or a
//! newer one; with `--systemd`, the package and the operator's walk under the systemd of that machine.
//!
//! With `--target aarch64-unknown-linux-gnu` it is a machine of 64-bit ARM, with programs that were compiled for it here.
//!
//! An emulated machine boots that kernel with a minimal Debian, gets the release agent and the test programs on a second
//! disk, runs them and switches itself off; what it says on its serial line is the result. Emulation by software, so
//! that nothing of the host is needed but the packages: debootstrap fetches kernels, emulator and clients into the target
//! folder once. It is slow (a core takes about ten times as long), which is why it is no part of `test`.
//!
//! Where packages cannot be had (no debootstrap, no network, another architecture), it says which and skips,
//! with success, but for CI. What is to be expected of the kernels, and what they lack, is in docs/kernels.md.

mod arm;
mod machine;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use crate::architecture::{Architecture, Programs};
use crate::build::{self, portable};
use crate::debug_info;
use crate::package;
use crate::privilege::Root;
use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup::{self, Need};
use crate::test;
use crate::verdict::Verdict;
use crate::walk;

use machine::{Machine, Task};

/// Tests that run inside without a filter: those that touch the kernel, and one walk through everything else.
const CORE: [&str; 14] = [
    "start_and_stop",
    "capture",
    "origin",
    "origin_attack",
    "established",
    "syn_data",
    "rules",
    "steering",
    "steering_restart",
    "deafness",
    "scans",
    "sandbox",
    "doctor",
    "init",
];

/// Program of the machine after its start.
const GUEST: &str = include_str!("vmtest/guest.sh");

#[derive(Args)]
pub(crate) struct Options {
    /// Test programs to run, such as `origin` [default: those that touch the kernel]
    #[arg(conflicts_with = "systemd")]
    programs: Vec<String>,
    /// Only tests whose name contains this
    #[arg(long, default_value = "", hide_default_value = true, conflicts_with = "systemd")]
    filter: String,
    /// The kernel to boot [default: 6.1, on ARM 6.12]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(machine::kernels()))]
    kernel: Option<String>,
    /// The architecture of the machine
    #[arg(long, default_value = "x86_64-unknown-linux-gnu")]
    target: Architecture,
    /// Instead of the tests, the operator's walk with the package under the machine's systemd
    #[arg(long, conflicts_with = "target")]
    systemd: bool,
    /// Instead of the tests, the package on ARM: installed, started, upgraded, removed and purged
    #[arg(long, requires = "target", conflicts_with_all = ["programs", "filter", "systemd"])]
    package: bool,
    /// Use the programs that were built already
    #[arg(long)]
    no_build: bool,
    /// Memory of the machine, in MiB: a hundred thousand connections (`many`) need 6144
    #[arg(long, default_value_t = 3_072, value_parser = clap::value_parser!(u32).range(1_024..=65_536))]
    memory: u32,
    /// Minutes after which the machine is switched off; one test may take half of them
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    limit: u64,
}

/// Sets up, builds, boots and reads.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let strict = env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
    if Root::detect() != Root::Already {
        bail!("a file system for the machine is made by root: run it as root");
    }
    if let Some(reason) = machine::obstacle(project) {
        if strict {
            bail!("the other kernel was not tried and CI is set: {reason}");
        }
        report::note(format!("skipped: {reason}"));
        return Ok(());
    }
    let toolchain = setup::toolchain(project, Need::Test)?;
    let kernel = options.kernel.as_deref().unwrap_or(match options.target {
        Architecture::X86_64 => machine::KERNEL,
        Architecture::Aarch64 => arm::KERNEL,
    });
    let limit = Duration::from_secs(60 * options.limit);
    let said = match options.target {
        Architecture::X86_64 => {
            if options.package {
                bail!("on this architecture cargo xtask package --check does so, without an emulator");
            }
            if !options.no_build {
                build::build(project, &toolchain)?;
            }
            let folder = project.target.join("vm");
            let Some(machine) = found(Machine::ready(project, &folder), strict)? else {
                return Ok(());
            };
            let (task, staged) = if options.systemd {
                (Task::Walk, walk_disk(project)?)
            } else {
                (Task::Tests, test_disk(project, &Programs::native(project)?, options)?)
            };
            let disk = disk(&folder, &staged)?;
            machine.boot(kernel, options.memory, task, &disk, limit)?
        }
        Architecture::Aarch64 => {
            let programs = if options.no_build {
                Programs::portable(project, options.target)
            } else {
                portable::build(project, &toolchain, options.target)?
            };
            let folder = project.target.join("vm/arm64");
            let Some(machine) = found(arm::Machine::ready(project, &folder, kernel), strict)? else {
                return Ok(());
            };
            let (task, staged) = if options.package {
                (Task::Walk, package_disk(project, &programs)?)
            } else {
                (Task::Tests, test_disk(project, &programs, options)?)
            };
            machine.boot(options.memory, task, &staged, limit)?
        }
    };
    let verdict = Verdict::read(&said);
    let report = project.target.join("vm").join(format!("report-{}-{kernel}.txt", options.target.name()));
    fs::write(report, verdict.to_string())?;
    eprint!("\n{verdict}");
    verdict.check()
}

/// Returns the machine. Without a network there is none, which is no fault of what is tested: then a note says so.
fn found<T>(machine: Result<T>, strict: bool) -> Result<Option<T>> {
    match machine {
        Err(error) if !strict => {
            report::note(format!("skipped: {error:#}"));
            Ok(None)
        }
        machine => machine.map(Some),
    }
}

/// A folder for what will be on the second disk.
fn staged(project: &Project) -> Result<PathBuf> {
    let staged = project.target.join("vm/staged");
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    fs::create_dir_all(&staged)?;
    Ok(staged)
}

/// The package, a later version of it, and the walk. The machine is slow: it is waited for longer than elsewhere.
fn walk_disk(project: &Project) -> Result<PathBuf> {
    let staged = staged(project)?;
    let programs = package::build(project, Architecture::own()?)?;
    let Some(deb) = package::make(project, &programs)?.deb else {
        bail!("dpkg-deb is not installed, so there is no package to walk with");
    };
    let later = package::later(&deb, &project.target.join("vm"))?;
    walk::stage(&staged, &deb, &later, "/dev/ttyS0", 1_800)?;
    Ok(staged)
}

/// The package, a later version of it, the archive, and the steps by hand.
fn package_disk(project: &Project, programs: &Programs) -> Result<PathBuf> {
    let staged = staged(project)?;
    let made = package::make(project, programs)?;
    let Some(deb) = &made.deb else {
        bail!("dpkg-deb is not installed, so there is no package to try");
    };
    let later = package::later(deb, &project.target.join("vm"))?;
    package::stage(&staged, deb, &later, &made.archive)?;
    Ok(staged)
}

/// The agent, the test programs, and what they read.
fn test_disk(project: &Project, programs: &Programs, options: &Options) -> Result<PathBuf> {
    let staged = staged(project)?;
    fs::create_dir_all(staged.join("programs"))?;
    fs::create_dir_all(staged.join("tests"))?;
    let mut wanted: Vec<&str> = options.programs.iter().map(String::as_str).collect();
    if wanted.is_empty() {
        wanted.extend(CORE);
    }
    let which: Vec<&str> = wanted.iter().flat_map(|name| ["--test", name]).collect();
    let cargo = match programs.architecture {
        Architecture::X86_64 => project.cargo("test"),
        other => {
            let zig = setup::zig(project).map_err(|reason| anyhow!("the tests cannot be compiled: {reason}"))?;
            portable::cargo(project, &zig, "test", other)?
        }
    };
    for program in test::end_to_end_programs(cargo, &which)? {
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Cargo adds a hash behind a dash.
        let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
        // Nine tenths of it are for a debugger, and the machine has them in memory.
        debug_info::leave_out(&program, &staged.join("programs").join(name), programs.architecture)?;
    }
    fs::copy(programs.path("spip-agent"), staged.join("spip-agent")).context("the release agent")?;
    fs::write(staged.join("guest.sh"), GUEST)?;
    fs::write(staged.join("filter"), &options.filter)?;
    fs::write(staged.join("test-limit"), (60 * options.limit / 2).to_string())?;
    process::output(Command::new("cp").arg("-a").arg(project.root.join("docs")).arg(&staged))?;
    Ok(staged)
}

/// The second disk: an archive of a folder.
fn disk(folder: &Path, staged: &Path) -> Result<PathBuf> {
    let disk = folder.join("disk.tar");
    process::output(
        Command::new("tar").arg("--create").arg("--file").arg(&disk).arg("--directory").arg(staged).arg("."),
    )?;
    // A disk has whole sectors; tar ends with enough zeroes for more to be harmless.
    let length = fs::metadata(&disk)?.len();
    fs::OpenOptions::new().write(true).open(&disk)?.set_len(length.next_multiple_of(1 << 20))?;
    Ok(disk)
}
