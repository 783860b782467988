//! The operator's walk (docs/walk.md) under a real systemd: the same steps in a container of this machine's kernel
//! (`package --check`) and in an emulated machine with another one (`vmtest --systemd`).
//!
//! A container, because no service manager need run here: a script boots the systemd of a root as the first process of
//! namespaces that end with it. Neither the machine's network nor its cgroups are touched.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::debian;
use crate::interrupt;
use crate::report;

/// The steps.
const STEPS: &str = include_str!("walk/walk.sh");
/// The unit that takes them.
const UNIT: &str = include_str!("walk/walk.service");
/// Script that boots a root.
const CONTAINER: &str = include_str!("walk/container.sh");
/// Beyond a minimal Debian: systemd, what the package recommends, clients, and what reads records.
pub(crate) const PACKAGES: &str = "systemd-sysv,iproute2,iptables,curl,nmap,netcat-openbsd,jq,procps";
/// All steps take a minute or two.
const LIMIT: Duration = Duration::from_secs(600);

/// Puts what the walk needs into a folder that will be `/walk`: its output goes to `output`, `tenths` of a second are
/// waited for what has to become true.
pub(crate) fn stage(folder: &Path, first: &Path, later: &Path, output: &str, tenths: u32) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::copy(first, folder.join("first.deb"))?;
    fs::copy(later, folder.join("later.deb"))?;
    fs::write(folder.join("walk.sh"), STEPS)?;
    let unit = UNIT.replace("@OUTPUT@", output).replace("@TENTHS@", &tenths.to_string());
    fs::write(folder.join("walk.service"), unit)?;
    Ok(())
}

/// Boots a root in which `/walk` was staged, and returns what the steps said.
pub(crate) fn in_container(root: &Path) -> Result<Vec<String>> {
    interrupt::catch()?;
    let said = root.join("walk/said");
    File::create(&said)?;
    let units = root.join("etc/systemd/system");
    fs::copy(root.join("walk/walk.service"), units.join("walk.service"))?;
    let wanted = units.join("multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    std::os::unix::fs::symlink("/etc/systemd/system/walk.service", wanted.join("walk.service"))?;
    let script = root.with_extension("boot.sh");
    fs::write(&script, CONTAINER)?;
    let group = Group::make()?;
    let mut command = group.command();
    command.args(["sh", "-eu"]).arg(&script).arg(root).stdin(Stdio::null());
    report::step("Booting", format!("the systemd of {}", root.display()));
    let running = Running(command.spawn().context("cannot start unshare")?);
    listen(running, &said)
}

/// The container; gone when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // unshare takes its child along, and with the first process all of them go.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Shows and keeps what is written to a file until the container is off.
fn listen(mut running: Running, file: &Path) -> Result<Vec<String>> {
    let mut reader = File::open(file)?;
    let end = Instant::now() + LIMIT;
    let (mut text, mut shown) = (String::new(), 0);
    loop {
        interrupt::check()?;
        // Looked at before the last look at the file.
        let is_off = running.0.try_wait()?.is_some();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        text.push_str(&String::from_utf8_lossy(&bytes));
        while let Some(length) = text[shown..].find('\n') {
            println!("{}", &text[shown..shown + length]);
            shown += length + 1;
        }
        if is_off {
            return Ok(text.lines().map(str::to_owned).collect());
        }
        if Instant::now() >= end {
            bail!("the walk was not done after {} s", LIMIT.as_secs());
        }
        std::thread::sleep(interrupt::TICK);
    }
}

/// A cgroup of version 2, removed with all below it when dropped.
pub(crate) struct Group {
    path: PathBuf,
}

impl Group {
    pub(crate) fn make() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mounted = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let mounted = mounted.and_then(|line| line.split(' ').nth(4)).context("cgroup v2 is mounted nowhere")?;
        let path = Path::new(mounted).join(format!("spip-walk-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// A command that runs in namespaces of its own, of all kinds but users, and takes them along when it ends. Its
    /// arguments are still missing.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command
            // Into the cgroup first: the namespace begins where its first process is.
            .args(["-euc", "echo $$ >\"$0/cgroup.procs\"; exec \"$@\""])
            .arg(&self.path)
            .args(["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--fork", "--kill-child"])
            .args(["--propagation", "private"]);
        debian::environment(&mut command);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Processes that were killed leave their cgroup a moment later.
        let end = Instant::now() + Duration::from_secs(5);
        while remove(&self.path).is_err() && Instant::now() < end {
            std::thread::sleep(interrupt::TICK);
        }
        if self.path.exists() {
            report::note(format!("the cgroup {} stays", self.path.display()));
        }
    }
}

/// Removes a cgroup and those below.
fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
