//! The machine: its kernel, its file system, and the emulator that runs it.
//!
//! One debootstrap brings all three. The emulator is run from inside that root too, so that its version does not depend
//! on the host's packages, and nothing is installed on the host.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt;
use crate::process;
use crate::report;

/// The Debian whose kernel is 6.1.
const SUITE: &str = "bookworm";
/// Kernel, emulator, and what the tests call.
const PACKAGES: &str = "linux-image-cloud-amd64,qemu-system-x86,iproute2,iptables,curl,nmap,openssl,netcat-openbsd,\
                        openssh-client,python3,bpftool,jq,procps,kmod";
/// 300 MB are downloaded.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1_800);
/// Room for the root and what the tests write.
const IMAGE: &str = "3G";
const MEMORY: &str = "3072";
/// Where the root has the images while the machine runs.
const INSIDE: &str = "machine";

/// Why there can be no machine here, known before anything is built.
pub(super) fn obstacle() -> Option<String> {
    if std::env::consts::ARCH != "x86_64" {
        return Some(format!("the test programs are for {}, and the machine is an x86_64", std::env::consts::ARCH));
    }
    let missing =
        ["debootstrap", "mke2fs", "chroot", "tar"].into_iter().find(|program| process::find(program).is_none());
    missing.map(|program| format!("{program} is not installed: apt-get install debootstrap e2fsprogs"))
}

/// A machine that can be booted.
pub(super) struct Machine {
    root: PathBuf,
    kernel: String,
    initrd: String,
}

impl Machine {
    /// Finds it in `folder`, or makes it there.
    pub(super) fn ready(folder: &Path) -> Result<Self> {
        let root = folder.join("root");
        if !root.join("complete").exists() {
            if root.exists() {
                fs::remove_dir_all(&root)?;
            }
            fs::create_dir_all(&root)?;
            let mut command = Command::new("debootstrap");
            command
                .args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
                .arg(&root)
                .env("PATH", process::full_path());
            process::run_within(&mut command, DOWNLOAD_LIMIT).context("the kernel and the emulator cannot be had")?;
            fs::write(root.join("complete"), "")?;
        }
        if !root.join(INSIDE).join("image").exists() {
            image(&root)?;
        }
        let boot = |prefix: &str| {
            let names = fs::read_dir(root.join("boot")).into_iter().flatten().flatten();
            let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort();
            names
                .into_iter()
                .rfind(|name| name.starts_with(prefix))
                .with_context(|| format!("there is no {prefix} in boot"))
        };
        Ok(Self { kernel: boot("vmlinuz-")?, initrd: boot("initrd.img-")?, root })
    }

    /// Boots with a second disk, and returns what was said on the serial line until the machine is off.
    pub(super) fn boot(&self, disk: &Path, limit: Duration) -> Result<Vec<String>> {
        report::step("Booting", &self.kernel);
        interrupt::catch()?;
        fs::copy(disk, self.root.join(INSIDE).join("disk.tar"))?;
        let drive = |file: &str, more: &str| format!("file=/{INSIDE}/{file},format=raw,if=virtio{more}");
        let mut command = Command::new("chroot");
        command
            .arg(&self.root)
            .args(["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY])
            .args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"])
            // What the tests write is thrown away.
            .args(["-drive", &drive("image", ",snapshot=on")])
            .args(["-drive", &drive("disk.tar", ",readonly=on")])
            .args(["-device", "virtio-rng-pci"])
            .args(["-kernel", &format!("/boot/{}", self.kernel)])
            .args(["-initrd", &format!("/boot/{}", self.initrd)])
            .args(["-append", "console=ttyS0 root=/dev/vda rw quiet panic=-1 init=/machine-init"])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TMPDIR", "/tmp")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = command.spawn().context("cannot start the emulator")?;
        listen(Running(child), limit)
    }
}

/// The emulator; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Shows and keeps what the machine says.
fn listen(mut running: Running, limit: Duration) -> Result<Vec<String>> {
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
            Err(RecvTimeoutError::Timeout) => bail!("the machine was not done after {} s", limit.as_secs()),
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

/// The file system that the machine boots from, made of the root as debootstrap left it.
fn image(root: &Path) -> Result<()> {
    // The first process: mounts what the tests need, and leaves the rest to the second disk.
    let init = "#!/bin/sh\n\
        export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8\n\
        mount -t proc proc /proc 2>/dev/null; mount -t sysfs sys /sys 2>/dev/null; mount -t devtmpfs dev /dev 2>/dev/null\n\
        mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /run; mkdir -p /dev/pts; mount -t devpts pts /dev/pts\n\
        mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf\n\
        ip link set lo up; hostname machine; ulimit -n 20000\n\
        mkdir /run/spip-disk; tar -xf /dev/vdb -C /run/spip-disk\n\
        sh /run/spip-disk/guest.sh\n\
        sync; echo o >/proc/sysrq-trigger; sleep 60\n";
    fs::write(root.join("machine-init"), init)?;
    process::output(Command::new("chmod").arg("755").arg(root.join("machine-init")))?;
    let inside = root.join(INSIDE);
    fs::create_dir_all(&inside)?;
    let image = inside.join("image");
    let partial = root.with_extension("image");
    process::run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(root).arg(&partial).arg(IMAGE))?;
    fs::rename(&partial, &image)?;
    Ok(())
}
