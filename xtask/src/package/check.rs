//! The package on a machine of its own: installed, started by hand, upgraded, removed and purged, and nothing left.
//!
//! The machine is a minimal Debian that debootstrap makes once, with an overlay on top that is thrown away, in mount,
//! network and process namespaces of its own: the machine that checks is not touched. A shell script does the
//! steps, as an administrator would; what it prints is shown, and its first failure is the failure of the check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::process;
use crate::project::Project;
use crate::report;

/// The Debian in which it is tried.
const SUITE: &str = "stable";
/// Beyond the minimal one: what the package recommends, and clients.
const PACKAGES: &str = "iproute2,iptables,curl,nmap";
/// Making the root downloads a hundred megabytes.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(900);
/// All steps take seconds.
const CHECK_LIMIT: Duration = Duration::from_secs(300);

/// The steps, in the root. `$1` is the package, `$2` the same of a later version.
const STEPS: &str = include_str!("check.sh");

/// Makes the root where there is none, and does the steps in it.
pub(super) fn run(project: &Project, deb: &Path) -> Result<()> {
    if !geteuid().is_root() {
        bail!("the check makes a root of its own and has to be root");
    }
    let base = base(project)?;
    let folder = Overlay::folder(project);
    fs::create_dir_all(&folder)?;
    let later = later(deb, &folder)?;
    let overlay = Overlay::make(&base, folder)?;
    let inside = overlay.root.join("tmp");
    fs::copy(deb, inside.join("first.deb"))?;
    fs::copy(&later, inside.join("later.deb"))?;
    fs::write(inside.join("check.sh"), STEPS)?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation", "private"])
        .arg(format!("--mount-proc={}", overlay.root.join("proc").display()))
        .arg("chroot")
        .arg(&overlay.root)
        .args(["sh", "-eu", "/tmp/check.sh", "/tmp/first.deb", "/tmp/later.deb"])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8");
    process::run_within(&mut command, CHECK_LIMIT)?;
    report::step("Checked", "installed, started, upgraded, removed and purged; nothing is left");
    Ok(())
}

/// A minimal Debian, made once.
pub(crate) fn base(project: &Project) -> Result<PathBuf> {
    let base = project.target.join("package").join(format!("debian-{SUITE}"));
    if base.join("etc/debian_version").exists() && base.join("complete").exists() {
        return Ok(base);
    }
    if process::find("debootstrap").is_none() {
        bail!("debootstrap is not installed: apt-get install debootstrap");
    }
    if base.exists() {
        fs::remove_dir_all(&base)?;
    }
    fs::create_dir_all(&base)?;
    let mut command = Command::new("debootstrap");
    command
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
        .arg(&base)
        .env("PATH", process::full_path());
    process::run_within(&mut command, DOWNLOAD_LIMIT)?;
    fs::write(base.join("complete"), "")?;
    Ok(base)
}

/// The same package with a later version.
fn later(deb: &Path, folder: &Path) -> Result<PathBuf> {
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

/// A root that is thrown away, over one that stays.
struct Overlay {
    root: PathBuf,
    folder: PathBuf,
}

impl Overlay {
    fn folder(project: &Project) -> PathBuf {
        project.target.join("package").join(format!("check-{}", std::process::id()))
    }

    fn make(base: &Path, folder: PathBuf) -> Result<Self> {
        let (upper, work, root) = (folder.join("upper"), folder.join("work"), folder.join("root"));
        for part in [&upper, &work, &root] {
            fs::create_dir_all(part)?;
        }
        let overlay = Self { root: root.clone(), folder };
        let options = format!("lowerdir={},upperdir={},workdir={}", base.display(), upper.display(), work.display());
        process::output(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&root))
            .context("an overlay cannot be mounted")?;
        Ok(overlay)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let unmounted = process::succeeds(Command::new("umount").arg("--recursive").arg(&self.root));
        if unmounted && let Err(error) = fs::remove_dir_all(&self.folder) {
            report::note(format!("{} stays: {error}", self.folder.display()));
        }
    }
}
