//! `cargo xtask package`: a Debian package and an archive, made of the same folder.
//!
//! The folder holds the agent with its eBPF programs inside, the systemd files of `dist/systemd`, man pages, completions
//! and the commented default configuration, all three made from the program's own definitions, the documentation, and
//! the licences of everything that is linked in. `dpkg-deb` alone builds the package: it is on every Debian, and a tool on
//! top of it would only describe the same files once more. Packages of the same build are the same to the byte: times are
//! those of the last commit, owners are root, orders are sorted.
//!
//! `--check` installs, starts, upgrades, removes and purges the package in roots of its own, without systemd and with it
//! (the operator's walk, docs/walk.md), and compares what is left.

mod archive;
mod check;
mod deb;
mod tree;

pub(crate) use check::later;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::build;
use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup::{self, Need};

#[derive(Args)]
pub(crate) struct Options {
    /// Also install, start, upgrade and purge the package in roots of its own (root, network, debootstrap)
    #[arg(long)]
    check: bool,
    /// Package what was built already
    #[arg(long)]
    no_build: bool,
}

/// What packages are called and when they were made.
pub(crate) struct Release {
    pub(crate) version: String,
    /// Seconds since 1970: the last commit.
    pub(crate) time: u64,
}

/// Builds, packages, and says where the packages are.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    if !options.no_build {
        let toolchain = setup::toolchain(project, Need::Build)?;
        build::build(project, &toolchain)?;
    }
    let made = make(project)?;
    for package in made.iter() {
        let size = fs::metadata(package)?.len();
        report::step("Packaged", format!("{} ({} kB)", project.relative(package), size / 1_000));
    }
    if options.check {
        check::run(project, &made)?;
    }
    Ok(())
}

/// What was made.
pub(crate) struct Made {
    pub(crate) deb: Option<PathBuf>,
    archive: PathBuf,
    /// The same two with the debug information.
    debug: Vec<PathBuf>,
}

impl Made {
    fn iter(&self) -> impl Iterator<Item = &PathBuf> {
        self.deb.iter().chain([&self.archive]).chain(&self.debug)
    }
}

/// Packages the agent that was built.
pub(crate) fn make(project: &Project) -> Result<Made> {
    let release = Release::of(project)?;
    let folder = project.target.join("package");
    let root = folder.join("root");
    tree::make(project, &root)?;
    let debug_root = folder.join("debug-root");
    let has_debug = tree::debug(project, &debug_root)?;
    let mut debug = Vec::new();
    let deb = if process::find("dpkg-deb").is_some() {
        if has_debug {
            debug.push(deb::build_debug(project, &release, &debug_root, &folder)?);
        }
        Some(deb::build(project, &release, &root, &folder)?)
    } else {
        report::note("dpkg-deb is not installed, so there is an archive and no Debian package");
        None
    };
    let archive = archive::build(&release, "spip-agent", &root, &folder)?;
    if has_debug {
        debug.push(archive::build(&release, "spip-agent-debug", &debug_root, &folder)?);
    }
    Ok(Made { deb, archive, debug })
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

/// When the last commit was made; 2026-01-01 outside of a repository, as of an archive of the sources.
fn last_commit(root: &Path) -> u64 {
    let named = std::env::var("SOURCE_DATE_EPOCH").ok();
    let time = named
        .or_else(|| process::output(Command::new("git").arg("-C").arg(root).args(["log", "-1", "--format=%ct"])).ok());
    time.and_then(|time| time.trim().parse().ok()).unwrap_or(1_767_225_600)
}
