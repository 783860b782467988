//! `cargo xtask vmtest`: the agent and a core of the end-to-end tests under another kernel of Debian's: 6.1, or an older or a
//! newer one; with `--systemd`, the package and the operator's walk under the systemd of that machine.
//!
//! An emulated machine boots that kernel with a minimal Debian, gets the release agent and the test programs on a second
//! disk, runs them and switches itself off; what it says on its serial line is the result. Emulation by software, so
//! that nothing of the host is needed but the packages: debootstrap fetches kernels, emulator and clients into the target
//! folder once. It is slow (a core takes about ten times as long), which is why it is no part of `test`.
//!
//! Where packages cannot be had (no debootstrap, no network, another architecture), it says which and skips,
//! with success, but for CI. What is to be expected of the kernels, and what they lack, is in docs/kernels.md.

mod machine;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::architecture::Architecture;
use crate::build;
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
const CORE: [&str; 9] =
    ["start_and_stop", "capture", "origin", "rules", "steering", "scans", "sandbox", "doctor", "init"];

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
    /// The kernel to boot
    #[arg(long, default_value = "6.1", value_parser = clap::builder::PossibleValuesParser::new(machine::kernels()))]
    kernel: String,
    /// Instead of the tests, the operator's walk with the package under the machine's systemd
    #[arg(long)]
    systemd: bool,
    /// Memory of the machine, in MiB: a hundred thousand connections (`many`) need 6144
    #[arg(long, default_value_t = 3_072, value_parser = clap::value_parser!(u32).range(1_024..=65_536))]
    memory: u32,
    /// Minutes after which the machine is switched off; one test may take half of them
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..=600))]
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
    build::build(project, &toolchain)?;
    let folder = project.target.join("vm");
    let machine = match Machine::ready(project, &folder) {
        Ok(machine) => machine,
        // Without a network there is no kernel; that is no fault of what is tested.
        Err(error) if !strict => {
            report::note(format!("skipped: {error:#}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let (task, staged) =
        if options.systemd { (Task::Walk, walk_disk(project)?) } else { (Task::Tests, test_disk(project, options)?) };
    let disk = disk(&folder, &staged)?;
    let said = machine.boot(&options.kernel, options.memory, task, &disk, Duration::from_secs(60 * options.limit))?;
    let verdict = Verdict::read(&said);
    fs::write(folder.join(format!("report-{}.txt", options.kernel)), verdict.to_string())?;
    eprint!("\n{verdict}");
    verdict.check()
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

/// The agent, the test programs, and what they read.
fn test_disk(project: &Project, options: &Options) -> Result<PathBuf> {
    let staged = staged(project)?;
    fs::create_dir_all(staged.join("programs"))?;
    fs::create_dir_all(staged.join("tests"))?;
    let mut wanted: Vec<&str> = options.programs.iter().map(String::as_str).collect();
    if wanted.is_empty() {
        wanted.extend(CORE);
    }
    let which: Vec<&str> = wanted.iter().flat_map(|name| ["--test", name]).collect();
    for program in test::end_to_end_programs(project, &which)? {
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Cargo adds a hash behind a dash.
        let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
        let copy = staged.join("programs").join(name);
        fs::copy(&program, &copy)?;
        // Nine tenths of it are for a debugger, and the machine has them in memory.
        process::output(Command::new("strip").arg("--strip-debug").arg(&copy))?;
    }
    fs::copy(project.agent(), staged.join("spip-agent")).context("the release agent")?;
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
