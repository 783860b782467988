//! The file systems of the kernel side: where cgroups are, and where maps are pinned.

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{Finding, Subject, Topic};
use crate::config::EbpfMode;
use crate::ebpf;

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    vec![cgroup(subject), bpffs(subject)]
}

fn cgroup(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new("ebpf.cgroup", "connections are seen being established below a cgroup of version 2");
    let mode = subject.config.map_or(EbpfMode::Auto, |config| config.ebpf.mode);
    if mode == EbpfMode::Off {
        return topic.skipped("ebpf = \"off\"");
    }
    match ebpf::cgroup_directory(subject.config.and_then(|config| config.ebpf.cgroup_path.as_deref())) {
        Ok(path) => topic.ok(path.display().to_string()),
        Err(reason) => {
            let remedy = "mkdir -p /sys/fs/cgroup/unified; mount -t cgroup2 none /sys/fs/cgroup/unified";
            if mode == EbpfMode::Required { topic.failure(reason, remedy) } else { topic.warning(reason, remedy) }
        }
    }
}

fn bpffs(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new("ebpf.bpffs", "maps are pinned there: bpftool finds them by name, and they outlive a crash");
    let config = match subject.config(&topic) {
        Ok(config) => config,
        Err(finding) => return *finding,
    };
    if config.ebpf.mode == EbpfMode::Off {
        return topic.skipped("ebpf = \"off\"");
    }
    let pins = &config.ebpf.pin_path;
    let existing = pins.ancestors().find(|ancestor| ancestor.exists());
    let kind = existing.and_then(|existing| statfs(existing).ok()).map(|kind| kind.filesystem_type());
    match kind {
        Some(BPF_FS_MAGIC) => topic.ok(pins.display().to_string()),
        None if !super::is_root() => topic.skipped(format!("{} is out of sight: run as root", pins.display())),
        _ => topic.warning(
            format!("{} is not on a bpffs: maps are not pinned", pins.display()),
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}
