//! `cargo xtask vmtest`: the agent and a core of the end-to-end tests under another kernel, Debian's 6.1.
//!
//! An emulated machine boots that kernel with a minimal Debian, gets the release agent and the test programs on a second
//! disk, runs them and switches itself off; what it says on its serial line is the result. Emulation by software, so
//! that nothing of the host is needed but the packages: debootstrap fetches kernel, emulator and clients into the target
//! folder once. It is slow (a core takes about ten times as long), which is why it is no part of `test`.
//!
//! Where packages cannot be had (no root, no debootstrap, no network, another architecture), it says which and skips,
//! with success, but for CI. What is to be expected of the kernel, and what it lacks, is in docs/kernels.md.

mod machine;
mod verdict;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build;
use crate::privilege::Root;
use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup;
use crate::test;

use machine::Machine;
use verdict::Verdict;

/// What is run inside without a filter: what touches the kernel, and one walk through everything else.
const CORE: [&str; 9] =
    ["start_and_stop", "capture", "origin", "rules", "steering", "scans", "sandbox", "doctor", "init"];

/// What the machine does when it is up.
const GUEST: &str = include_str!("vmtest/guest.sh");

#[derive(Args)]
pub(crate) struct Options {
    /// Test programs to run, such as `origin` [default: those that touch the kernel]
    programs: Vec<String>,
    /// Minutes after which the machine is switched off
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u64).range(1..=600))]
    limit: u64,
}

/// Sets up, builds, boots and reads.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let strict = env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
    if let Some(reason) = machine::obstacle() {
        if strict {
            bail!("the other kernel was not tried and CI is set: {reason}");
        }
        report::note(format!("skipped: {reason}"));
        return Ok(());
    }
    if Root::detect() != Root::Already {
        bail!("a file system for the machine is made by root: run it as root");
    }
    let toolchain = setup::for_test(project)?;
    build::build(project, &toolchain)?;
    let folder = project.target.join("vm");
    let machine = match Machine::ready(&folder) {
        Ok(machine) => machine,
        // Without a network there is no kernel; that is no fault of what is tested.
        Err(error) if !strict => {
            report::note(format!("skipped: {error:#}"));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let disk = disk(project, &options.programs)?;
    let limit = Duration::from_secs(60 * options.limit);
    let said = machine.boot(&disk, limit)?;
    let verdict = Verdict::read(&said);
    fs::write(folder.join("report.txt"), verdict.to_string())?;
    eprint!("\n{verdict}");
    verdict.check()
}

/// The second disk: an archive of the agent, the test programs, and what they read.
fn disk(project: &Project, wanted: &[String]) -> Result<PathBuf> {
    let staged = project.target.join("vm/staged");
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    fs::create_dir_all(staged.join("programs"))?;
    fs::create_dir_all(staged.join("tests"))?;
    let wanted: Vec<&str> = if wanted.is_empty() { CORE.to_vec() } else { wanted.iter().map(String::as_str).collect() };
    let which: Vec<&str> = wanted.iter().flat_map(|name| ["--test", name]).collect();
    for program in test::end_to_end_programs(project, &which)? {
        let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Cargo adds a hash behind a dash.
        let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
        fs::copy(&program, staged.join("programs").join(name))?;
    }
    fs::copy(project.agent(), staged.join("spip-agent")).context("the release agent")?;
    fs::write(staged.join("guest.sh"), GUEST)?;
    process::output(Command::new("cp").arg("-a").arg(project.root.join("docs")).arg(&staged))?;
    let disk = project.target.join("vm/disk.tar");
    process::output(
        Command::new("tar").arg("--create").arg("--file").arg(&disk).arg("--directory").arg(&staged).arg("."),
    )?;
    // A disk has whole sectors; tar ends with enough zeroes for more to be harmless.
    let length = fs::metadata(&disk)?.len();
    fs::OpenOptions::new().write(true).open(&disk)?.set_len(length.next_multiple_of(1 << 20))?;
    Ok(disk)
}
