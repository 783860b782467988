//! An emulated machine of 64-bit ARM: a Raspberry Pi 4's processor with Debian's kernel.
//!
//! Nothing of that architecture runs on the host: debootstrap fetches the packages, and unpacking them is all that this
//! machine's clients need. Its whole file system is what the kernel unpacks into memory at boot, so that no disk, no driver
//! and no image of an installation stand between. The emulator runs in a root of this machine's architecture.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::machine::{self, Running, Task};
use crate::debian;
use crate::interrupt;
use crate::process;
use crate::project::Project;
use crate::report;

/// The emulator's Debian: later ones emulate ARM faster.
const EMULATOR_SUITE: &str = "trixie";
const EMULATOR_PACKAGES: &str = "qemu-system-arm,kmod,cpio";
/// The kernel, and what the tests call.
const PACKAGES: &str = "linux-image-arm64,iproute2,iptables,curl,nmap,netcat-openbsd,jq,procps,openssl,openssh-client,\
                        python3,bpftool,kmod,ca-certificates";
/// The suites whose kernels these are.
const KERNELS: [(&str, &str); 3] = [("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie")];
/// The kernel that small boards run today.
pub(super) const KERNEL: &str = "6.12";
/// A small board's; without pointer authentication, which costs an emulator half its time.
const CPU: &str = "cortex-a72";
/// Where the emulator's root has the machines.
const INSIDE: &str = "machine";

/// Completes what the packages' scripts would have: what dpkg knows, users, and names that are chosen among several programs.
const UNPACK: &str = r#"
cd "$1"
mkdir -p var/lib/dpkg/info var/lib/dpkg/updates
for package in var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --file -
    name=$(dpkg-deb --field "$package" Package)
    if [ "$(dpkg-deb --field "$package" Multi-Arch)" = same ]; then name=$name:arm64; fi
    dpkg-deb --fsys-tarfile "$package" | tar --list --file - | sed 's,^\.,,; s,^/$,/.,; s,\(.\)/$,\1,' >"var/lib/dpkg/info/$name.list"
    { dpkg-deb --field "$package"; printf 'Status: install ok installed\n\n'; } >>status
done
rm -rf var/cache/apt/archives proc usr/share/doc usr/share/man usr/share/locale usr/share/info
mkdir -p proc sys dev run tmp
mv status var/lib/dpkg/status
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
install -m 600 /dev/null etc/.pwd.lock
for name in iptables ip6tables iptables-save ip6tables-save iptables-restore ip6tables-restore; do
    ln -sf xtables-nft-multi "usr/sbin/$name"
done
ln -sf mawk usr/bin/awk
ln -sf nc.openbsd usr/bin/nc
ln -sf blas/libblas.so.3 usr/lib/aarch64-linux-gnu/libblas.so.3
# Drivers are most of the modules, and this machine has none of the devices but virtual cables.
modules=$(echo usr/lib/modules/* lib/modules/*)
for folder in $modules; do
    [ -d "$folder/kernel/drivers" ] || continue
    find "$folder/kernel/drivers" -name '*.ko*' ! -path '*/drivers/net/veth.ko*' ! -path '*/drivers/net/dummy.ko*' -delete
    rm -rf "$folder/kernel/sound"
done
"#;

/// The first process: mounts what the tests need, and runs them; or takes the steps with the package, which mount themselves.
const INIT: &str = "#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc; mount -t devtmpfs dev /dev; mkdir -p /dev/pts; mount -t devpts pts /dev/pts
exec </dev/console >/dev/console 2>&1
# It has no clock.
date --set @\"$(sed 's/.*machine_time=\\([0-9]*\\).*/\\1/' /proc/cmdline)\" >/dev/null
hostname machine; ulimit -n 20000
if [ -d /walk ]; then
    echo; echo \"== kernel $(uname -r)\"; echo '== begin package'
    TENTHS=1800 sh -eu /walk/check.sh /walk/first.deb /walk/later.deb /walk/archive.tar.gz
    echo \"== end package $?\"; echo '== done'
    sync; echo o >/proc/sysrq-trigger; sleep 60
fi
mount -t sysfs sys /sys; mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf
ip link set lo up
mkdir /run/spip-disk; mount --bind /disk /run/spip-disk
sh /run/spip-disk/guest.sh
sync; echo o >/proc/sysrq-trigger; sleep 60
";

/// A machine that can be booted.
pub(super) struct Machine {
    emulator: PathBuf,
    kernel: String,
}

impl Machine {
    /// Finds it in `folder`, or makes it there.
    pub(super) fn ready(project: &Project, folder: &Path, kernel: &str) -> Result<Self> {
        let suite = KERNELS.iter().find(|(version, _)| *version == kernel).map(|(_, suite)| *suite);
        let suite = suite.with_context(|| format!("no kernel {kernel} is known for ARM"))?;
        let emulator = folder.join("emulator");
        debian::root(project, &emulator, EMULATOR_SUITE, EMULATOR_PACKAGES, |_| Ok(()))
            .context("the emulator cannot be had")?;
        let machine = Self { emulator, kernel: kernel.to_owned() };
        if !machine.path("cpio").exists() {
            machine.make(suite)?;
        }
        Ok(machine)
    }

    /// Returns the path of a part of the machine, with the emulator's root in front.
    fn path(&self, ending: &str) -> PathBuf {
        self.emulator.join(self.inside(ending))
    }

    /// Returns the path of a part of the machine inside the emulator's root.
    fn inside(&self, ending: &str) -> String {
        format!("{INSIDE}/{}.{ending}", self.kernel)
    }

    /// Makes the file system and the kernel. The archive is renamed into place last.
    fn make(&self, suite: &str) -> Result<()> {
        let root = self.path("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        debian::fetch(&root, "arm64", suite, PACKAGES).context("the kernel cannot be had")?;
        process::output(Command::new("sh").args(["-euc", UNPACK, "unpack"]).arg(&root))?;
        fs::write(root.join("machine-init"), INIT)?;
        process::output(Command::new("chmod").arg("755").arg(root.join("machine-init")))?;
        let kernel = fs::read_dir(root.join("boot"))?
            .flatten()
            .find_map(|entry| entry.file_name().into_string().ok()?.strip_prefix("vmlinuz-").map(str::to_owned))
            .context("the packages bring no kernel")?;
        fs::rename(root.join(format!("boot/vmlinuz-{kernel}")), self.path("vmlinuz"))?;
        debian::within(&self.emulator, &["depmod", "--basedir", &format!("/{}", self.inside("root")), &kernel])?;
        self.archive("root", "partial")?;
        fs::rename(self.path("partial"), self.path("cpio"))?;
        fs::remove_dir_all(&root)?;
        Ok(())
    }

    /// Makes an archive, as the kernel unpacks it, of a folder of the machine.
    fn archive(&self, folder: &str, archive: &str) -> Result<()> {
        let pack = format!(
            "cd /{} && find . -print0 | cpio --null --create --quiet --format=newc >/{}",
            self.inside(folder),
            self.inside(archive)
        );
        debian::within(&self.emulator, &["sh", "-euc", &pack])
    }

    /// Boots with `memory` MiB and a folder that is `/disk` or `/walk` there, and returns what was said on the serial line
    /// until the machine is off.
    pub(super) fn boot(&self, memory: u32, task: Task, staged: &Path, limit: Duration) -> Result<Vec<String>> {
        let folder = self.path("staged");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        process::output(Command::new("cp").arg("-a").arg(staged).arg(folder.join(match task {
            Task::Tests => "disk",
            Task::Walk => "walk",
        })))?;
        self.archive("staged", "more")?;
        fs::remove_dir_all(&folder)?;
        // One archive behind the other: the kernel unpacks both.
        let all = ["cpio", "more"].map(|part| format!("/{}", self.inside(part))).join(" ");
        debian::within(&self.emulator, &["sh", "-euc", &format!("cat {all} >/{}", self.inside("initrd"))])?;
        report::step("Booting", format!("Linux {} on {CPU}", self.kernel));
        interrupt::catch()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let mut command = Command::new("chroot");
        command
            .arg(&self.emulator)
            .args(["qemu-system-aarch64", "-M", "virt", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2"])
            .args(["-m", &memory.to_string()])
            .args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"])
            .args(["-kernel", &format!("/{}", self.inside("vmlinuz"))])
            .args(["-initrd", &format!("/{}", self.inside("initrd"))])
            .args(["-append", &format!("console=ttyAMA0 quiet panic=-1 rdinit=/machine-init machine_time={now}")])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TMPDIR", "/tmp")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = command.spawn().context("cannot start the emulator")?;
        let said = machine::listen(Running(child), limit);
        fs::remove_file(self.path("initrd"))?;
        let said = said?;
        if said.is_empty() {
            bail!("the machine said nothing");
        }
        Ok(said)
    }
}
