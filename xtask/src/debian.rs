//! A minimal Debian or Ubuntu in a folder, made by debootstrap once, and commands that run inside.
//!
//! `complete` beside what Debian has is written last: a folder without it is what an interrupted call left, and is made
//! anew. A folder whose packages are no longer those that are wanted is made anew too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup;

/// Up to half a gigabyte is downloaded and unpacked.
const LIMIT: Duration = Duration::from_secs(1_800);

/// Releases of Ubuntu, which debootstrap knows too. Their packages are signed by keys of their own.
const UBUNTU: [&str; 3] = ["focal", "jammy", "noble"];
const UBUNTU_KEYS: &str = "/usr/share/keyrings/ubuntu-archive-keyring.gpg";

/// Returns why a suite cannot be had on this machine, as far as that is known before its packages are fetched.
pub(crate) fn suite_obstacle(suite: &str) -> Option<String> {
    let lacks_keys = UBUNTU.contains(&suite) && !Path::new(UBUNTU_KEYS).exists();
    lacks_keys
        .then(|| format!("{UBUNTU_KEYS} is not there, with which Ubuntu's packages are verified (ubuntu-keyring)"))
}

/// Makes debootstrap available where setup can, or returns why there is none.
pub(crate) fn obstacle(project: &Project) -> Option<String> {
    if process::find("debootstrap").is_some() {
        return None;
    }
    let reason = setup::package(project, "debootstrap").err();
    reason.map(|reason| format!("debootstrap is not installed: {reason}"))
}

/// Makes `folder` a Debian of this suite with these packages, and finishes it by `more`; or finds that it is one.
pub(crate) fn root(
    project: &Project,
    folder: &Path,
    suite: &str,
    packages: &str,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mark = folder.join("complete");
    if fs::read_to_string(&mark).is_ok_and(|made| made == packages) {
        return Ok(());
    }
    if let Some(reason) = obstacle(project) {
        bail!(reason);
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let mut command = Command::new("debootstrap");
    if UBUNTU.contains(&suite) {
        command.args(["--components=main,universe", &format!("--keyring={UBUNTU_KEYS}")]);
    }
    command
        .args(["--variant=minbase", &format!("--include={packages}"), suite])
        .arg(folder)
        .env("PATH", process::full_path());
    process::run_within(&mut command, LIMIT)?;
    more(folder)?;
    fs::write(mark, packages)?;
    Ok(())
}

/// Fetches packages of a suite with what they depend on, for an architecture that need not be this machine's, into a folder:
/// what a root consists of is unpacked there, the rest lies in `var/cache/apt/archives`. Nothing is configured.
pub(crate) fn fetch(folder: &Path, architecture: &str, suite: &str, packages: &str) -> Result<()> {
    let mut command = Command::new("debootstrap");
    command
        .args(["--foreign", "--variant=minbase"])
        .args([format!("--arch={architecture}"), format!("--include={packages}"), suite.to_owned()])
        .arg(folder)
        .env("PATH", process::full_path());
    process::run_within(&mut command, LIMIT)
}

/// Runs a command in a root, in mount and process namespaces that end with it.
pub(crate) fn within(root: &Path, command: &[&str]) -> Result<()> {
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"])
        .arg(format!("--mount-proc={}", root.join("proc").display()))
        .arg("chroot")
        .arg(root)
        .args(command);
    environment(&mut inside);
    process::run_within(&mut inside, LIMIT)
}

/// Sets the environment of a program in such a root.
pub(crate) fn environment(command: &mut Command) {
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8");
}

/// A root that is thrown away, over one that stays.
pub(crate) struct Overlay {
    pub(crate) root: PathBuf,
    folder: PathBuf,
}

impl Overlay {
    pub(crate) fn make(base: &Path, folder: &Path, name: &str) -> Result<Self> {
        let folder = folder.join(format!("{name}-{}", std::process::id()));
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
