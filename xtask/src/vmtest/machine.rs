//! The machine: its kernels, its file system, and the emulator that runs it.
//!
//! One debootstrap brings all three, with kernels of other suites beside the one that belongs to it. The emulator is run from inside that root too, so that its version does not depend
//! on the host's packages, and nothing is installed on the host.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::debian;
use crate::interrupt;
use crate::process;
use crate::project::Project;
use crate::report;
use crate::walk;

/// The Debian that runs inside.
const SUITE: &str = "bookworm";
/// Beside what the walk needs: emulator, and what the tests call.
const PACKAGES: &str = "qemu-system-x86,openssl,openssh-client,python3,bpftool,kmod,ca-certificates";
/// Suites that have a kernel, oldest first, so that each is an upgrade.
const KERNELS: [(&str, &str); 3] = [("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "bookworm-backports")];
/// The kernel to boot where none is named.
pub(super) const KERNEL: &str = "6.1";
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";
/// Room for the root and what the tests write.
const IMAGE: &str = "4G";
/// All that is emulated, but for `cmpxchg16b`: under this emulator (7.2) Linux 6.12 dies of it while it boots.
const CPU: &str = "max,cx16=off";
/// Directory of the images in the root while the machine runs.
const INSIDE: &str = "machine";

/// Work of the machine after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// The script of the second disk is the first process.
    Tests,
    /// systemd is, and the walk of the second disk one of its services.
    Walk,
}

/// Returns the reason why there can be no machine here, before anything is built.
pub(super) fn obstacle(project: &Project) -> Option<String> {
    if std::env::consts::ARCH != "x86_64" {
        return Some(format!("the test programs are for {}, and the machine is an x86_64", std::env::consts::ARCH));
    }
    let missing = ["mke2fs", "unshare", "tar"].into_iter().find(|program| process::find(program).is_none());
    missing
        .map(|program| format!("{program} is not installed: apt-get install e2fsprogs util-linux tar"))
        .or_else(|| debian::obstacle(project))
}

/// Versions of the kernels that a machine can have.
pub(super) fn kernels() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|(version, _)| *version)
}

/// A machine that can be booted.
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    /// Finds it in `folder`, or makes it there.
    pub(super) fn ready(project: &Project, folder: &Path) -> Result<Self> {
        let root = folder.join("root");
        let packages = format!("{PACKAGES},{}", walk::PACKAGES);
        debian::root(project, &root, SUITE, &packages, install_kernels)
            .context("the kernels and the emulator cannot be had")?;
        if !root.join(INSIDE).join("image").exists() {
            image(&root)?;
        }
        Ok(Self { root })
    }

    /// Boots a kernel with `memory` MiB and a second disk, and returns what was said on the serial line until the machine is off.
    pub(super) fn boot(
        &self,
        kernel: &str,
        memory: u32,
        task: Task,
        disk: &Path,
        limit: Duration,
    ) -> Result<Vec<String>> {
        let names = fs::read_dir(self.root.join("boot"))?.flatten();
        let version = names
            .filter_map(|entry| entry.file_name().into_string().ok()?.strip_prefix("vmlinuz-").map(str::to_owned))
            .find(|name| name.starts_with(&format!("{kernel}.")))
            .with_context(|| format!("there is no kernel {kernel} in boot"))?;
        report::step("Booting", format!("Linux {version}"));
        interrupt::catch()?;
        fs::copy(disk, self.root.join(INSIDE).join("disk.tar"))?;
        let drive = |file: &str, more: &str| format!("file=/{INSIDE}/{file},format=raw,if=virtio{more}");
        let first = match task {
            Task::Tests => "tests",
            Task::Walk => "walk",
        };
        let mut command = Command::new("chroot");
        command
            .arg(&self.root)
            .args(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2"])
            .args(["-m", &memory.to_string()])
            .args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"])
            // What the tests write is thrown away.
            .args(["-drive", &drive("image", ",snapshot=on")])
            .args(["-drive", &drive("disk.tar", ",readonly=on")])
            .args(["-device", "virtio-rng-pci"])
            .args(["-kernel", &format!("/boot/vmlinuz-{version}")])
            .args(["-initrd", &format!("/boot/initrd.img-{version}")])
            .args([
                "-append",
                &format!("console=ttyS0 root=/dev/vda rw quiet panic=-1 init=/machine-init machine={first}"),
            ])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TMPDIR", "/tmp")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = command.spawn().context("cannot start the emulator")?;
        listen(Running(child), limit)
    }
}

/// The emulator; killed when dropped.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Shows and keeps what the machine says.
pub(super) fn listen(mut running: Running, limit: Duration) -> Result<Vec<String>> {
    let serial = running.0.stdout.take().context("the emulator has no output")?;
    let (sender, lines) = channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + limit;
    let mut said = Vec::new();
    loop {
        interrupt::check()?;
        match lines.recv_timeout(interrupt::TICK) {
            Ok(line) => {
                println!("{line}");
                said.push(line);
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
            // What it has said until then is a verdict too.
            Err(RecvTimeoutError::Timeout) => {
                report::note(format!("the machine was not done after {} s", limit.as_secs()));
                return Ok(said);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let _ = reader.join();
    let status = running.0.wait()?;
    if !status.success() {
        bail!("the emulator ended with {status}");
    }
    Ok(said)
}

/// Returns the archive that this machine itself gets Debian's packages from.
fn archive() -> Result<String> {
    let format = "$(REPO_URI) $(COMPONENT)";
    let list =
        process::output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let mut archives = list.lines().filter_map(|line| line.strip_suffix(" main"));
    let archive = archives.find(|archive| !archive.contains("security"));
    archive.map(str::to_owned).context("apt knows no archive of Debian's packages: see its sources.list")
}

/// One kernel of each suite; those of the others stay when the next is installed.
fn install_kernels(root: &Path) -> Result<()> {
    let archive = archive()?;
    let sources: String = KERNELS.iter().map(|(_, suite)| format!("deb {archive} {suite} main\n")).collect();
    fs::write(root.join("etc/apt/sources.list"), sources)?;
    debian::within(root, &["apt-get", "update"])?;
    for (_, suite) in KERNELS {
        let kernel = format!("{KERNEL_PACKAGE}/{suite}");
        debian::within(root, &["apt-get", "install", "--yes", "--no-install-recommends", &kernel])?;
    }
    Ok(())
}

/// The first process: takes the second disk, mounts what the tests need, or leaves that to systemd.
const INIT: &str = "#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc 2>/dev/null; mount -t sysfs sys /sys 2>/dev/null; mount -t devtmpfs dev /dev 2>/dev/null
if grep -q machine=walk /proc/cmdline; then
    mkdir /walk
    tar -xf /dev/vdb -C /walk
    cp /walk/walk.service /etc/systemd/system
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -s /etc/systemd/system/walk.service /etc/systemd/system/multi-user.target.wants
    ln -s /dev/null /etc/systemd/system/serial-getty@ttyS0.service
    exec /lib/systemd/systemd --show-status=no
fi
mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /run; mkdir -p /dev/pts; mount -t devpts pts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf
ip link set lo up; hostname machine; ulimit -n 20000
mkdir /run/spip-disk; tar -xf /dev/vdb -C /run/spip-disk
sh /run/spip-disk/guest.sh
sync; echo o >/proc/sysrq-trigger; sleep 60
";

/// The file system that the machine boots from, made of the root as debootstrap left it.
fn image(root: &Path) -> Result<()> {
    fs::write(root.join("machine-init"), INIT)?;
    process::output(Command::new("chmod").arg("755").arg(root.join("machine-init")))?;
    let inside = root.join(INSIDE);
    fs::create_dir_all(&inside)?;
    let image = inside.join("image");
    let partial = root.with_extension("image");
    process::run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(root).arg(&partial).arg(IMAGE))?;
    fs::rename(&partial, &image)?;
    Ok(())
}
