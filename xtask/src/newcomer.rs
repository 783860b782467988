//! `cargo xtask newcomer`: the README's two commands on a fresh machine, with a verdict for each.
//!
//! The machine is a minimal Debian in a folder: a C compiler, git, package lists that are months old, and Rust. Rust is
//! rustup with its minimal profile, or with `--distribution` the distribution's own rustc and cargo without the sources
//! of core. The last commit of this checkout is cloned into it, and the commands run as root in mount and process
//! namespaces that end with them. Nothing but the toolchain and the trusted certificates comes from this machine: what
//! the commands need beyond that, they have to install themselves, from package registries.
//!
//! It takes an hour or so, most of it for the tests, and is no part of `.ci/run`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::geteuid;

use crate::debian::{self, Overlay};
use crate::process;
use crate::project::Project;
use crate::report;

/// The Debian that is made. Its main archive offers a rustc that is too old, its security archive a current one.
const SUITE: &str = "bookworm";
/// A C compiler, and what brings the project there. Nothing of what the commands need.
const PACKAGES: &str = "gcc,libc6-dev,ca-certificates,git";
/// All archives of an ordinary installation. The lists in the root know the first alone.
const SOURCES: &str = "\
deb MIRROR/debian SUITE main
deb MIRROR/debian SUITE-updates main
deb MIRROR/debian-security SUITE-security main
";
/// Puts aside the lists of the main archive, as an image that was made months ago has them.
const AGE_LISTS: &str = "find /var/lib/apt/lists -exec touch --date='90 days ago' {} +";
/// The distribution's compiler comes from current lists; afterwards they are as old as before.
const DISTRIBUTION: &str = "cp -a /var/lib/apt/lists /var/lib/apt/lists.old
apt-get --quiet update
apt-get --quiet install --yes --no-install-recommends rustc-web cargo-web
rm -rf /var/lib/apt/lists
mv /var/lib/apt/lists.old /var/lib/apt/lists
apt-get clean";
/// Components that `rustup toolchain install --profile minimal` leaves out.
const NOT_MINIMAL: [&str; 4] = ["rust-src", "clippy", "rustfmt", "rust-docs"];
/// The proxies that rustup makes for every profile.
const PROXIES: [&str; 7] = ["cargo", "cargo-clippy", "cargo-fmt", "clippy-driver", "rustc", "rustdoc", "rustfmt"];
/// Runs a command in a root, with this machine's devices and kernel file systems.
const INSIDE: &str = include_str!("newcomer/inside.sh");
/// All tests on a slow machine with others on it.
const LIMIT: Duration = Duration::from_secs(3 * 60 * 60);

#[derive(Args)]
pub(crate) struct Options {
    /// Use the distribution's compiler, without rustup
    #[arg(long)]
    distribution: bool,
    /// Run one of the two commands only; or `setup`, which installs what every command needs
    #[arg(long, value_name = "COMMAND")]
    only: Option<Step>,
}

/// A command of the project.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    Setup,
    Demo,
    Test,
}

/// Makes the machine where there is none, and runs the commands on a copy of it that is thrown away.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    if !geteuid().is_root() {
        bail!("a machine in a folder is made by root: run it as root");
    }
    let folder = project.target.join("newcomer");
    let kind = if options.distribution { "distribution" } else { "rustup" };
    let base = folder.join(kind);
    debian::root(project, &base, SUITE, PACKAGES, |root| finish(root, options.distribution))?;
    let overlay = Overlay::make(&base, &folder, kind)?;
    clone(project, &overlay.root)?;
    let mut failed = Vec::new();
    let mut verdicts = String::new();
    for (step, name) in [(Step::Setup, "setup"), (Step::Demo, "demo"), (Step::Test, "test")] {
        if options.only.map_or(step != Step::Setup, |only| only == step) {
            let log = folder.join(format!("{kind}-{name}.log"));
            let (passed, verdict) = verdict(project, &overlay.root, name, &log)?;
            verdicts.push_str(&format!("{kind:>14}: cargo xtask {name}: {verdict}\n"));
            if !passed {
                failed.push(name);
            }
        }
    }
    eprint!("\n{verdicts}");
    if !failed.is_empty() {
        bail!("on a fresh machine with {kind}: {} failed", failed.join(", "));
    }
    Ok(())
}

/// Makes a Debian that has Rust, and package lists from before its archives went on.
fn finish(root: &Path, distribution: bool) -> Result<()> {
    let listed = fs::read_to_string(root.join("etc/apt/sources.list"))?;
    let mirror = listed.split_whitespace().nth(1).context("debootstrap named no mirror")?;
    let base = mirror.trim_end_matches('/').trim_end_matches("/debian").to_owned();
    // Those of the machine's administrator: the way to the registries may lead through a proxy that has one of them.
    let certificates = Path::new("/usr/local/share/ca-certificates");
    if certificates.exists() {
        let into = root.join("usr/local/share");
        process::output(Command::new("cp").arg("-a").args([certificates, &into]))?;
        debian::within(root, &["update-ca-certificates"])?;
    }
    debian::within(root, &["apt-get", "--quiet", "update"])?;
    let sources = SOURCES.replace("MIRROR", &base).replace("SUITE", SUITE);
    fs::write(root.join("etc/apt/sources.list"), sources)?;
    if distribution {
        debian::within(root, &["sh", "-euc", DISTRIBUTION])?;
    } else {
        rustup(root)?;
    }
    debian::within(root, &["sh", "-euc", AGE_LISTS])
}

/// Copies rustup and its active toolchain, and removes what a minimal profile does not have.
fn rustup(root: &Path) -> Result<()> {
    let rustup = process::find("rustup").context("there is no rustup whose toolchain could be copied")?;
    let active = process::output(Command::new(&rustup).args(["show", "active-toolchain"]))?;
    let name = active.split_whitespace().next().context("rustup has no active toolchain")?;
    let sysroot = process::output(Command::new(&rustup).args(["run", name, "rustc", "--print", "sysroot"]))?;
    let (programs, home) = (root.join("root/.cargo/bin"), root.join("root/.rustup"));
    fs::create_dir_all(&programs)?;
    fs::create_dir_all(home.join("toolchains"))?;
    fs::copy(fs::canonicalize(&rustup)?, programs.join("rustup"))?;
    for proxy in PROXIES {
        std::os::unix::fs::symlink("rustup", programs.join(proxy))?;
    }
    let toolchain = home.join("toolchains").join(name);
    process::output(Command::new("cp").arg("-a").args([Path::new(sysroot.trim()), &toolchain]))?;
    let settings = format!("version = \"12\"\ndefault_toolchain = \"{name}\"\nprofile = \"minimal\"\n[overrides]\n");
    fs::write(home.join("settings.toml"), settings)?;
    let installed = fs::read_to_string(toolchain.join("lib/rustlib/components"))?;
    for component in NOT_MINIMAL.iter().filter(|name| installed.lines().any(|line| line.starts_with(**name))) {
        let remove = ["/root/.cargo/bin/rustup", "component", "remove", component];
        debian::within(root, &[&["env", "HOME=/root"], &remove[..]].concat())?;
    }
    Ok(())
}

/// Clones the last commit into the root, as a newcomer would.
fn clone(project: &Project, root: &Path) -> Result<()> {
    let into = root.join("root/spip");
    process::run(
        Command::new("git")
            .args(["clone", "--quiet", "--no-hardlinks", "--depth", "1"])
            .arg(format!("file://{}", project.root.display()))
            .arg(into),
    )
}

/// Runs one of the commands, and returns whether it passed and what there is to say about it.
fn verdict(project: &Project, root: &Path, name: &str, log: &Path) -> Result<(bool, String)> {
    report::step("Trying", format!("cargo xtask {name}; its output is in {}", project.relative(log)));
    let output = fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let script: PathBuf = root.with_extension("inside.sh");
    fs::write(&script, INSIDE)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-eu"]);
    command.arg(&script).arg(root).args(["cargo", "xtask", name]);
    debian::environment(&mut command);
    command.stdout(output.try_clone()?).stderr(output);
    let (began, before) = (Instant::now(), processor_seconds()?);
    let outcome = process::run_within(&mut command, LIMIT);
    let (seconds, processor) = (began.elapsed().as_secs(), processor_seconds()? - before);
    let said = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    let time = format!("{} min {} s, {processor} s of processor", seconds / 60, seconds % 60);
    Ok(match outcome {
        Ok(()) => (true, format!("passed in {time}{}", summary(&said))),
        Err(_) => {
            let last: Vec<&str> = said.lines().rev().take(30).collect();
            for line in last.iter().rev() {
                eprintln!("    {line}");
            }
            (false, format!("failed after {time}{}", summary(&said)))
        }
    })
}

/// Returns the lines of the tests' summary.
fn summary(said: &str) -> String {
    let is_summary =
        |line: &&str| line.starts_with("  ") && (line.contains(" passed, ") || line.contains(": skipped, "));
    said.lines().filter(is_summary).map(|line| format!("\n{:>16}{}", "", line.trim())).collect()
}

/// Returns the seconds that processes which have ended took of the processors.
fn processor_seconds() -> Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(usage.user_time().tv_sec() + usage.system_time().tv_sec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_the_tests_is_part_of_the_verdict() {
        let said = "test result: ok. 3 passed; 0 failed\n        unit tests: 3 passed, 0 failed\n  \
                    SPIP_CHROMIUM: skipped, tests that need it: chromium is not installed\n";
        let summary = summary(said);
        assert_eq!(summary.lines().count(), 3, "{summary}");
        assert!(summary.contains("unit tests: 3 passed, 0 failed") && summary.contains("SPIP_CHROMIUM: skipped"));
    }
}
