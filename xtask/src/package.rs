//! `cargo xtask package`: a Debian package and an archive, made of the same folder.
//!
//! The programs start on machines with an old C library ([`NEWEST_GLIBC`]), and with `--target` on another architecture.
//!
//! The folder holds the agent with its eBPF programs inside, `spip-view` and `spip-ship`, the systemd files of
//! `dist/systemd`, man pages, completions and the agent's commented default configuration, all three made from the
//! programs' own definitions, examples of the other two's, the documentation, and the licences of everything that is
//! linked in. Nothing of it is started by the installation. `dpkg-deb` alone builds the package: it is on every Debian, and a tool on
//! top of it would only describe the same files once more. Packages of the same build are the same to the byte: times are
//! those of the last commit, owners are root, orders are sorted.
//!
//! `--check` installs, starts, upgrades, removes and purges the package in roots of its own, without systemd and with it
//! (the operator's walk, docs/walk.md), and compares what is left. `--roots` does so without systemd in roots of the oldest
//! distributions that the package is for. Both refuse programs that need a newer C library.

mod archive;
mod check;
mod deb;
mod needs;
mod tree;

pub(crate) use check::{later, stage};
pub(crate) use needs::NEWEST_GLIBC;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::architecture::{Architecture, Programs};
use crate::build::portable;
use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup::{self, Need};
use needs::Needs;

/// The programs of the package, named as their crates are.
pub(crate) const PROGRAMS: [&str; 3] = ["spip-agent", "spip-view", "spip-ship"];

#[derive(Args)]
pub(crate) struct Options {
    /// Package for this architecture [default: this machine's]
    #[arg(long)]
    target: Option<Architecture>,
    /// Also install, start, upgrade and purge the package in roots of its own (root, network, debootstrap)
    #[arg(long)]
    check: bool,
    /// Also install and start the package in roots of older distributions (root, network, debootstrap)
    #[arg(long)]
    roots: bool,
    /// Package what was built already
    #[arg(long)]
    no_build: bool,
}

/// Name and date of the packages.
pub(crate) struct Release {
    pub(crate) version: String,
    /// Seconds since 1970: the last commit.
    pub(crate) time: u64,
}

/// Builds, packages, and says where the packages are.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let architecture = options.target.map_or_else(Architecture::own, Ok)?;
    let (name, triple) = (architecture.name(), architecture.triple());
    if (options.check || options.roots) && !architecture.is_own() {
        bail!("the check starts the programs, which are for {name}: cargo xtask vmtest --package --target {triple}");
    }
    let programs = if options.no_build { built(project, architecture)? } else { build(project, architecture)? };
    let made = make(project, &programs)?;
    for package in made.iter() {
        let size = fs::metadata(package)?.len();
        report::step("Packaged", format!("{} ({} kB)", project.relative(package), size / 1_000));
    }
    if options.check || options.roots {
        made.needs.check()?;
    }
    if options.check {
        check::run(project, &made)?;
    }
    if options.roots {
        check::roots(project, &made)?;
    }
    Ok(())
}

/// Builds the programs of a package.
pub(crate) fn build(project: &Project, architecture: Architecture) -> Result<Programs> {
    let toolchain = setup::toolchain(project, Need::Package)?;
    portable::build(project, &toolchain, architecture)
}

/// Finds programs that were built already: those for an older C library first.
fn built(project: &Project, architecture: Architecture) -> Result<Programs> {
    let portable = Programs::portable(project, architecture);
    if portable.path(PROGRAMS[0]).exists() || !architecture.is_own() {
        return Ok(portable);
    }
    Programs::native(project)
}

/// The packages that were built.
pub(crate) struct Made {
    pub(crate) deb: Option<PathBuf>,
    pub(crate) archive: PathBuf,
    /// The same two with the debug information.
    debug: Vec<PathBuf>,
    needs: Needs,
}

impl Made {
    fn iter(&self) -> impl Iterator<Item = &PathBuf> {
        self.deb.iter().chain([&self.archive]).chain(&self.debug)
    }
}

/// Returns where packages are. Those for another machine have a folder of their own, so that `spip-agent_*.deb` is one file.
fn folder(project: &Project, architecture: Architecture) -> PathBuf {
    let folder = project.target.join("package");
    if architecture.is_own() { folder } else { folder.join(architecture.triple()) }
}

/// Packages the programs that were built.
pub(crate) fn make(project: &Project, programs: &Programs) -> Result<Made> {
    let release = Release::of(project)?;
    let architecture = programs.architecture;
    let folder = folder(project, architecture);
    let root = folder.join("root");
    tree::make(project, programs, &root)?;
    let needs = Needs::of(&root, architecture)?;
    report::step("Needs", format!("glibc {} or later", needs.glibc()));
    if let Err(error) = needs.check() {
        // Without Zig that is what this machine can make; `--check` refuses it.
        report::note(format!("{error:#}"));
    }
    let debug_root = folder.join("debug-root");
    let has_debug = tree::debug(project, programs, &debug_root)?;
    let mut debug = Vec::new();
    let deb = if process::find("dpkg-deb").is_some() {
        if has_debug {
            debug.push(deb::build_debug(project, &release, architecture, &debug_root, &folder)?);
        }
        Some(deb::build(project, &release, architecture, &needs, &root, &folder)?)
    } else {
        report::note("dpkg-deb is not installed, so there is an archive and no Debian package");
        None
    };
    let archive = archive::build(&release, architecture, "spip-agent", &root, &folder)?;
    if has_debug {
        debug.push(archive::build(&release, architecture, "spip-agent-debug", &debug_root, &folder)?);
    }
    Ok(Made { deb, archive, debug, needs })
}

impl Release {
    fn of(project: &Project) -> Result<Self> {
        let metadata = process::output(project.cargo("metadata").args(["--no-deps", "--format-version", "1"]))?;
        let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
        let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
        let agent = packages.iter().find(|package| package["name"] == "spip-agent");
        let version = agent.and_then(|agent| agent["version"].as_str()).context("spip-agent has no version")?;
        Ok(Self { version: version.to_owned(), time: last_commit(&project.root) })
    }
}

/// Returns the time of the last commit; 2026-01-01 outside of a repository, as of an archive of the sources.
fn last_commit(root: &Path) -> u64 {
    let named = std::env::var("SOURCE_DATE_EPOCH").ok();
    let time = named
        .or_else(|| process::output(Command::new("git").arg("-C").arg(root).args(["log", "-1", "--format=%ct"])).ok());
    time.and_then(|time| time.trim().parse().ok()).unwrap_or(1_767_225_600)
}
