//! The package and the archive on machines of their own: installed, started, upgraded, removed and purged, and nothing
//! left.
//!
//! The machine is a minimal Debian that debootstrap makes once, with an overlay on top that is thrown away, in
//! namespaces of its own: the machine that checks is not touched. Twice: without a running systemd, where an
//! administrator starts the agent by hand, and with one, where the operator's walk is gone. Shell scripts do the steps, as
//! an administrator would; what they print is shown, and a first failure is the failure of the check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::debian::{self, Overlay};
use crate::process;
use crate::project::Project;
use crate::report;
use crate::verdict::Verdict;
use crate::walk::{self, Group};

use super::Made;

/// The Debian in which it is tried.
const SUITE: &str = "stable";
/// The distributions in which it is tried with `--roots`: the oldest that packages are for, and those since.
const ROOTS: [(&str, &str); 4] =
    [("Debian 11", "bullseye"), ("Ubuntu 20.04", "focal"), ("Debian 12", "bookworm"), ("Debian 13", "trixie")];
/// Packages of the programs that the steps by hand call.
const HAND_PACKAGES: &str = "iproute2,iptables,curl,jq,procps";
/// All steps by hand take seconds.
const CHECK_LIMIT: Duration = Duration::from_secs(300);

/// The steps by hand, in the root. `$1` is the package, `$2` the same of a later version, `$3` the archive.
const STEPS: &str = include_str!("check.sh");

/// Makes the root where there is none, and does the steps in it.
pub(super) fn run(project: &Project, made: &Made) -> Result<()> {
    if !geteuid().is_root() {
        bail!("the check makes a root of its own and has to be root");
    }
    let Some(deb) = &made.deb else {
        bail!("dpkg-deb is not installed, so there is no package to check");
    };
    let folder = project.target.join("package");
    let base = folder.join(format!("debian-{SUITE}"));
    debian::root(project, &base, SUITE, walk::PACKAGES, |_| Ok(()))?;
    let later = later(deb, &folder)?;
    by_hand(&Overlay::make(&base, &folder, "hand")?, deb, &later, &made.archive)?;
    report::step("Checked", "without systemd: installed, started by hand, upgraded, removed, purged; unpacked");
    let overlay = Overlay::make(&base, &folder, "walk")?;
    walk::stage(&overlay.root.join("walk"), deb, &later, "/walk/said", 300)?;
    let verdict = Verdict::read(&walk::in_container(&overlay.root)?);
    eprint!("\n{verdict}");
    verdict.check()?;
    report::step("Checked", "with systemd: the operator's walk, from the installation to the purge");
    Ok(())
}

/// Takes the steps by hand in a root of each distribution that can be had.
pub(super) fn roots(project: &Project, made: &Made) -> Result<()> {
    if !geteuid().is_root() {
        bail!("the check makes roots of its own and has to be root");
    }
    let Some(deb) = &made.deb else {
        bail!("dpkg-deb is not installed, so there is no package to check");
    };
    let folder = project.target.join("package");
    let later = later(deb, &folder)?;
    for (name, suite) in ROOTS {
        if let Some(reason) = debian::suite_obstacle(suite) {
            report::note(format!("{name} was not tried: {reason}"));
            continue;
        }
        let base = folder.join(format!("root-{suite}"));
        debian::root(project, &base, suite, HAND_PACKAGES, |_| Ok(())).with_context(|| format!("no root of {name}"))?;
        by_hand(&Overlay::make(&base, &folder, suite)?, deb, &later, &made.archive)
            .with_context(|| format!("in a root of {name}"))?;
        report::step(
            "Checked",
            format!("{name}: installed, started, a connection recorded, upgraded, removed, purged"),
        );
    }
    Ok(())
}

/// Without a service manager.
fn by_hand(overlay: &Overlay, deb: &Path, later: &Path, archive: &Path) -> Result<()> {
    stage(&overlay.root.join("walk"), deb, later, archive)?;
    let group = Group::make()?;
    let mut command = group.command();
    command
        .arg(format!("--mount-proc={}", overlay.root.join("proc").display()))
        .arg("chroot")
        .arg(&overlay.root)
        .args(["sh", "-eu", "/walk/check.sh", "/walk/first.deb", "/walk/later.deb", "/walk/archive.tar.gz"]);
    process::run_within(&mut command, CHECK_LIMIT)
}

/// Puts what the steps by hand need into a folder that will be `/walk`.
pub(crate) fn stage(inside: &Path, deb: &Path, later: &Path, archive: &Path) -> Result<()> {
    fs::create_dir_all(inside)?;
    fs::copy(deb, inside.join("first.deb"))?;
    fs::copy(later, inside.join("later.deb"))?;
    fs::copy(archive, inside.join("archive.tar.gz"))?;
    fs::write(inside.join("check.sh"), STEPS)?;
    Ok(())
}

/// The same package with a later version.
pub(crate) fn later(deb: &Path, folder: &Path) -> Result<PathBuf> {
    let unpacked = folder.join("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    process::output(Command::new("dpkg-deb").arg("--raw-extract").args([deb, &unpacked]))?;
    let control = unpacked.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let lines = text.lines().map(|line| match line.strip_prefix("Version: ") {
        Some(version) => format!("Version: {version}+later\n"),
        None => format!("{line}\n"),
    });
    fs::write(&control, lines.collect::<String>())?;
    let later = folder.join("later.deb");
    process::output(
        Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).args([&unpacked, &later]),
    )?;
    Ok(later)
}
